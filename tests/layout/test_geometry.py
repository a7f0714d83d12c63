"""Geometry against brute force over small arrays, and at the ends of its range."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lazyarr.layout.geometry import Geometry
from lazyarr.units import Span

TERABYTE = 1 << 40


@st.composite
def geometries(draw) -> Geometry:
    """Arrays of at most some hundred elements, in chunks that may be larger than they are."""
    shape = tuple(draw(st.lists(st.integers(0, 6), max_size=4)))
    chunk_shape = tuple(draw(st.integers(1, 8)) for _ in shape)
    page_nbytes = draw(st.sampled_from((4, 16, 64)))
    group_nbytes = draw(st.sampled_from((0, 1, page_nbytes, 4 * page_nbytes)))
    return Geometry(shape, chunk_shape, draw(st.integers(1, 5)), page_nbytes, group_nbytes)


def grid(geometry: Geometry) -> dict[tuple[int, ...], np.ndarray]:
    """Return every chunk, padded with -1, of the array whose elements count themselves."""
    array = np.arange(math.prod(geometry.shape)).reshape(geometry.shape)
    chunks = {}
    counts = (range(-(-n // c)) for n, c in zip(geometry.shape, geometry.chunk_shape, strict=True))
    for place in itertools.product(*counts):
        box = tuple(
            slice(p * c, (p + 1) * c) for p, c in zip(place, geometry.chunk_shape, strict=True)
        )
        inside = array[box]
        padding = [(0, c - n) for c, n in zip(geometry.chunk_shape, inside.shape, strict=True)]
        chunks[place] = np.pad(inside, padding, constant_values=-1) if padding else inside
    return chunks


def elements(geometry: Geometry, unit: int) -> range:
    """Return the elements of a unit, checked to be whole ones."""
    span = geometry.unit_bytes(unit)
    assert span.start % geometry.itemsize == span.stop % geometry.itemsize == 0
    return range(span.start // geometry.itemsize, span.stop // geometry.itemsize)


@given(geometries())
@settings(max_examples=100)
def test_units_follow_one_another_and_fill_the_array(geometry):
    """Every byte belongs to exactly one unit, in order."""
    stop = 0
    for unit in range(geometry.n_units):
        span = geometry.unit_bytes(unit)
        assert (span.start, span.size > 0) == (stop, True)
        assert span.size <= geometry.unit_nbytes
        assert {geometry.unit_at(offset) for offset in range(*span)} == {unit}
        stop = span.stop
    assert stop == geometry.nbytes == math.prod(geometry.shape) * geometry.itemsize


@given(geometries())
@settings(max_examples=100)
def test_unit_is_what_its_chunks_put_together_give(geometry):
    """The pieces of a unit tile its box with the right elements, and no chunk is in two units."""
    chunks = grid(geometry)
    seen = []
    for unit in range(geometry.n_units):
        _, extent = geometry.unit_box(unit)
        built = np.full(extent, -2)
        for piece in geometry.pieces(unit):
            seen.append(piece.chunk)
            box = tuple(slice(a, b) for a, b in zip(piece.start, piece.stop, strict=True))
            size = tuple(slice(b - a) for a, b in zip(piece.start, piece.stop, strict=True))
            built[box] = chunks[piece.chunk][size]
        assert built.ravel().tolist() == list(elements(geometry, unit))
    assert sorted(seen) == sorted(chunks) if geometry.nbytes else not seen


@given(geometries())
@settings(max_examples=100)
def test_contiguous_unit_is_how_its_one_chunk_begins(geometry):
    """A decoded chunk can then be used in place."""
    chunks = grid(geometry)
    for unit in range(geometry.n_units):
        first = geometry.first_chunk(unit)
        assert next(geometry.pieces(unit)).chunk == first
        if geometry.is_one_chunk:
            wanted = list(elements(geometry, unit))
            assert len(list(geometry.pieces(unit))) == 1
            assert chunks[first].ravel()[: len(wanted)].tolist() == wanted


@given(geometries())
@settings(max_examples=100)
def test_full_unit_can_not_be_divided(geometry):
    """Inside of it there is no place where one chunk ends before another begins.

    Unless it has less than a page otherwise.
    """
    ends = []
    for chunk in grid(geometry).values():
        inside = chunk[chunk >= 0]
        if inside.size:
            ends.append((int(inside.min()), int(inside.max()) + 1))
    for unit in range(geometry.n_units):
        if geometry.unit_bytes(unit).size == geometry.unit_nbytes and not geometry.is_grouped:
            inner = elements(geometry, unit)[1:]
            assert all(any(start < cut < stop for start, stop in ends) for cut in inner)


@given(geometries())
@example(Geometry((1, 1, 4), (1, 2, 1), 1, 4, group_nbytes=1))
@settings(max_examples=100)
def test_chunks_of_a_flat_unit_follow_one_another(geometry):
    """Decoded one after the other, they are the unit; each unit has no more than is said."""
    chunks = grid(geometry)
    for unit in range(geometry.n_units):
        pieces = [piece.chunk for piece in geometry.pieces(unit)]
        assert len(pieces) == math.prod(geometry.chunk_counts(unit)) <= geometry.unit_chunks
        if geometry.is_flat:
            wanted = list(elements(geometry, unit))
            decoded = [element for chunk in pieces for element in chunks[chunk].ravel().tolist()]
            assert decoded[: len(wanted)] == wanted


@given(geometries())
@settings(max_examples=100)
def test_units_of_a_group_are_no_less_than_a_page(geometry):
    """But for the last of a run, and of the array; so there are never many more than pages."""
    if geometry.group_nbytes:
        n_short = 0
        for unit in range(geometry.n_units):
            n_short += geometry.unit_bytes(unit).size < geometry.page_nbytes
        assert n_short <= (geometry.n_units + 1) // 2 or geometry.n_units == 1
        assert geometry.n_units <= 2 * geometry.n_pages + 1


@given(geometries())
@settings(max_examples=100)
def test_every_page_is_a_body_page_of_one_unit_or_an_edge_page_of_several(geometry):
    """A unit's pages are its body and its edges, and padding belongs to the last unit."""
    owners: dict[int, list[tuple[str, int]]] = {page: [] for page in range(geometry.n_pages)}
    for unit in range(geometry.n_units):
        edges, body = geometry.edge_pages(unit), range(*geometry.body_pages(unit))
        assert len(edges) <= 2
        touched = geometry.pages_of_bytes(geometry.unit_bytes(unit))
        assert sorted([*edges, *body]) == list(range(*touched))
        for kind, pages in (("edge", edges), ("body", body)):
            for page in pages:
                owners[page].append((kind, unit))
    for page, found in owners.items():
        span = geometry.page_bytes(page)
        units = sorted({geometry.unit_at(offset) for offset in range(*span)})
        assert list(range(*geometry.units_of_page(page))) == units
        assert found == [("edge" if len(units) > 1 else "body", unit) for unit in units]


@given(geometries(), st.integers(-5, 400), st.integers(0, 400))
@settings(max_examples=100)
def test_units_to_load_fill_every_page_of_a_range(geometry, start, size):
    """A range of bytes needs the units of its pages, which are more than its own."""
    span = Span(start, start + size) & Span(0, geometry.nbytes)
    pages = {offset // geometry.page_nbytes for offset in range(*span)}
    own = {geometry.unit_at(offset) for offset in range(*span)}
    assert set(range(*geometry.units_of_bytes(Span(start, start + size)))) == own
    assert set(range(*geometry.pages_of_bytes(span))) == pages
    needed = {unit for page in pages for unit in range(*geometry.units_of_page(page))}
    assert set(range(*geometry.units_to_load(span))) == needed


def test_scalar_is_one_unit_of_one_page():
    """A 0-d array has one chunk with no coordinates."""
    geometry = Geometry((), (), 8, 4096)
    assert (geometry.n_units, geometry.n_pages, geometry.unit_bytes(0)) == (1, 1, Span(0, 8))
    assert geometry.is_one_chunk
    assert [tuple(piece) for piece in geometry.pieces(0)] == [((), (), ())]
    assert (geometry.body_pages(0), geometry.edge_pages(0)) == (Span(0, 1), ())


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0), (3, 0, 2)])
def test_array_of_no_length_has_no_units_and_no_pages(shape):
    """Nothing can be asked of it, and nothing is."""
    geometry = Geometry(shape, (2,) * len(shape), 4, 4096)
    assert (geometry.nbytes, geometry.n_units, geometry.n_pages) == (0, 0, 0)
    assert geometry.units_of_bytes(Span(0, 100)).size == 0
    assert geometry.units_to_load(Span(0, 0)).size == 0


def test_one_byte_fills_a_page_with_its_padding():
    """The rest of the page is the unit's too: no other will ever come."""
    geometry = Geometry((1,), (1000,), 1, 4096)
    assert (geometry.n_units, geometry.unit_bytes(0)) == (1, Span(0, 1))
    assert (geometry.body_pages(0), geometry.edge_pages(0)) == (Span(0, 1), ())


@given(st.integers(0, TERABYTE - 1))
def test_terabyte_costs_no_more_than_a_byte(offset):
    """Units are arithmetic, so that their number does not matter."""
    geometry = Geometry((1 << 20, 1 << 19), (1, (1 << 18) + 1), 2, 4096)
    assert geometry.nbytes == TERABYTE
    unit = geometry.unit_at(offset)
    assert offset in geometry.unit_bytes(unit)
    assert unit in geometry.units_of_page(offset // 4096)
    assert geometry.unit_at(TERABYTE - 1) == geometry.n_units - 1
    assert len(list(geometry.pieces(unit))) == 1


def test_tiles_of_zarr_python_close_into_rows():
    """Its automatic chunks of an image stack: one unit takes every tile of a run of images."""
    geometry = Geometry((8192, 128, 128, 3), (2048, 32, 32, 1), 1, 4096)
    assert (geometry.n_units, geometry.unit_nbytes) == (4, 2048 * 128 * 128 * 3)
    assert not geometry.is_one_chunk
    assert sum(1 for _ in geometry.pieces(0)) == 4 * 4 * 3


@pytest.mark.parametrize(
    ("shape", "chunks", "itemsize", "unit_nbytes", "unit_chunks"),
    [
        ((1_000_000,), (1,), 1, 4096, 4096),  # a page
        ((1_000_000,), (1,), 3, 3 * 4096, 4096),  # as many as end with a page
        ((100_000,), (64,), 4, 64 * 256, 64),  # many small ones
        ((100_000,), (1023,), 4, 17 * 4092, 17),  # they would end with a page too late
        ((100_000,), (1024,), 4, 4096, 1),  # a page is a unit, as ever
        ((1000, 10, 10), (1, 1, 5), 1, 4100, 820),  # whole images
        ((3,), (1,), 1, 3, 3),  # all there is
    ],
)
def test_chunks_that_are_less_than_a_page_are_a_unit_together(
    shape, chunks, itemsize, unit_nbytes, unit_chunks
):
    """Whole pages where that is soon so; no more chunks than that, and 64."""
    geometry = Geometry(shape, chunks, itemsize, 4096, group_nbytes=1 << 16)
    assert (geometry.unit_nbytes, geometry.unit_chunks) == (unit_nbytes, unit_chunks)


def test_rank_of_chunks_must_be_that_of_the_array():
    """A mistake is found before memory is reserved for it."""
    with pytest.raises(ValueError, match="zip"):
        Geometry((4, 4), (4,), 1, 4096)
