from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.formats.zarr import parse_node
from lazyarr.units import Span
from lazyarr.writer.boxes import meet, slices_in, whole
from lazyarr.writer.grid import array_grid
from lazyarr.writer.options import plan_array


@st.composite
def grids(draw):
    """Draw a grid, with shards or without, as far as the array or further."""
    ndim = draw(st.integers(0, 3))
    shape = tuple(draw(st.integers(1, 12)) for _ in range(ndim))
    chunks = tuple(draw(st.integers(1, 5)) for _ in shape)
    shards = tuple(c * draw(st.integers(1, 3)) for c in chunks)
    shards = draw(st.sampled_from([shards, None]))
    document = plan_array("x", shape=shape, dtype=np.dtype("u1"), chunks=chunks, shards=shards)
    extent = tuple(n + draw(st.integers(0, 4)) for n in shape)
    return array_grid(parse_node(document, path="g/x"), extent)


@given(grids())
def test_every_element_goes_to_one_chunk_of_one_object(grid):
    """Objects, chunks in them and pieces of those tile the extent; no two have one address."""
    seen = np.zeros(tuple(span.stop for span in grid.extent), int)
    addresses = set()
    n_objects = [-(-s.stop // n) for s, n in zip(grid.extent, grid.object_shape, strict=True)]
    for place in np.ndindex(*n_objects):
        inside = grid.inside(place)
        pieces = list(grid.pieces(inside))
        assert len(pieces) == grid.n_chunks(place)
        for piece in pieces:
            assert piece.is_whole
            assert piece.has_last_row
            assert piece.inside == meet(piece.cell, grid.extent)
            seen[slices_in(piece.box, grid.extent)] += 1
            addresses.add((grid.key(place), piece.entry))
            chunk = tuple(piece.chunk[axis] for axis in grid.layout.axes)
            key, entries, *_ = grid.layout.locate(chunk)
            assert (f"g/x/{key}", entries or (0,)) == (grid.key(place), (piece.entry,))
    assert (seen == 1).all()
    assert len(addresses) == np.prod(grid.layout.grid_shape, dtype=int)


def test_pieces_of_a_part():
    """A box that cuts chunks has pieces that are not whole, and may lack the last row."""
    document = plan_array("x", shape=(10,), dtype=np.dtype("u1"), chunks=(4,), shards=(12,))
    grid = array_grid(parse_node(document, path=""), (10,))
    assert grid.key((0,)) == "c/0"
    first, second, third = grid.pieces((Span(1, 10),))
    assert (first.box, first.is_whole, first.has_last_row) == ((Span(1, 4),), False, True)
    assert (second.box, second.is_whole, second.has_last_row) == ((Span(4, 8),), True, True)
    assert (third.inside, third.is_whole) == ((Span(8, 10),), True)
    (only,) = grid.pieces((Span(4, 7),))
    assert (only.entry, only.is_whole, only.has_last_row) == (1, False, False)
    assert whole((10,)) == grid.extent
