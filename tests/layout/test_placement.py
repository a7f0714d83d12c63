"""Where chunks are stored: tables and runs.  Keys and shards are tested in `test_layout`."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.layout import Layout
from lazyarr.layout.pipeline import Pipeline
from lazyarr.layout.placement import ChunkTable, OneRun, is_run
from lazyarr.reading.locator import Locator, ObjectRange


def layout_with(placement, shape, chunk_shape, itemsize=1):
    """Return the layout of a C-order array whose chunks are stored as they are."""
    grid_shape = tuple(-(-n // c) for n, c in zip(shape, chunk_shape, strict=True))
    chunk_nbytes = int(np.prod(chunk_shape, dtype=int)) * itemsize
    axes = tuple(range(len(shape)))
    pipeline, fill = Pipeline(chunk_nbytes, ()), bytes(itemsize)
    return Layout(shape, axes, chunk_shape, grid_shape, itemsize, fill, pipeline, placement, ("",))


def run_of(shape, chunk_shape, itemsize=1, start=0, key=""):
    ones = (1,) * len(shape)
    return OneRun(ones, (), (), key, start, shape, chunk_shape, itemsize)


@st.composite
def runs(draw):
    """Return a shape and the shape of chunks that are runs of it."""
    shape = draw(st.lists(st.integers(1, 5), max_size=4))
    axis = draw(st.integers(0, len(shape)))
    chunk = [1 if k < axis else n for k, n in enumerate(shape)]
    if axis < len(shape):
        chunk[axis] = draw(st.integers(1, shape[axis] + 1))
    return tuple(shape), tuple(chunk)


@given(runs(), st.integers(0, 9), st.integers(1, 4))
def test_the_chunks_of_a_run_are_its_bytes(drawn, start, itemsize):
    """Each byte of the run is in the chunk in which NumPy has it, and in no other one."""
    shape, chunk_shape = drawn
    assert is_run(shape, chunk_shape)
    layout = layout_with(run_of(shape, chunk_shape, itemsize, start), shape, chunk_shape, itemsize)
    places = np.arange(np.prod(shape, dtype=int) * itemsize).reshape(*shape, itemsize) + start
    seen = []
    for chunk in itertools.product(*map(range, layout.grid_shape)):
        sides = zip(chunk, chunk_shape, strict=True)
        expected = places[tuple(slice(c * n, (c + 1) * n) for c, n in sides)].ravel().tolist()
        address = layout.locate(chunk)
        assert address.stop is not None
        assert list(range(address.start, address.stop)) == expected
        assert layout.unpadded_nbytes(chunk) == len(expected)
        seen += expected
    assert sorted(seen) == places.ravel().tolist()


@pytest.mark.parametrize(
    ("shape", "chunk_shape"), [((4, 4), (2, 2)), ((4, 4), (4, 2)), ((2, 3, 4), (1, 2, 3))]
)
def test_tiles_are_no_runs(shape, chunk_shape):
    """Their elements do not lie one after the other."""
    assert not is_run(shape, chunk_shape)


def test_a_chunk_of_a_run_has_no_padding():
    """At the edge it is decoded to the beginning of its memory; the rest stays."""
    layout = layout_with(run_of((5,), (3,), 2), (5,), (3,), 2)
    out = bytearray(b"\xaa" * 6)
    layout.decode_chunk((1,), b"abcd", memoryview(out))
    assert out == b"abcd\xaa\xaa"
    layout.decode_chunk((0,), b"abcdef", memoryview(out))
    assert out == b"abcdef"


def test_a_table_says_where_chunks_are():
    """A locator finds them in their objects, below the array's path, or finds them missing."""
    table = ChunkTable(
        (1, 1), (), (), (2, 2), ("a", "b/c"), ((0, 10, 14), (1, 0, 4), None, (0, 4, 8))
    )
    locator = Locator(layout_with(table, (4, 4), (2, 2)), "x")
    found = [locator.find(chunk) for chunk in itertools.product(range(2), repeat=2)]
    assert found == [
        ObjectRange("x/a", 10, 14),
        ObjectRange("x/b/c", 0, 4),
        None,
        ObjectRange("x/a", 4, 8),
    ]
    assert locator.foresee((0, 0)) is None


def test_the_run_of_an_array_is_in_the_object_with_its_path():
    """An empty key names the object that has the array's own path."""
    locator = Locator(layout_with(run_of((6,), (2,), start=128), (6,), (2,)), "d/x.npy")
    assert locator.find((1,)) == ObjectRange("d/x.npy", 130, 132)
    assert locator.key((0,)) == "d/x.npy"
    assert locator.witnesses == ("d/x.npy",)
