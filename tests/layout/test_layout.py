from __future__ import annotations

import itertools
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazyarr.formats.zarr import parse_data_type
from lazyarr.formats.zarr.codec_chain import CodecChain, Sharding, parse_codecs
from lazyarr.formats.zarr.layouts import build_layout
from lazyarr.layout import KeyEncoding, ShardLevel


def layout_of(shape, chunk_shape, chain, fill=b"\0"):
    return build_layout(
        shape=shape, chunk_shape=chunk_shape, chain=chain, key_encoding=KeyEncoding(), fill=fill
    )


def test_without_shards():
    """Every chunk is an object, and the last along an axis is padded."""
    layout = layout_of((10, 7), (4, 3), CodecChain((0, 1)), b"\0\0")
    assert layout.grid_shape == (3, 3)
    assert layout.chunk_nbytes == 24
    assert layout.nbytes == 140
    assert layout.chunks_per_object == (1, 1)
    assert layout.locate((2, 1)) == ("c/2/1", (), 0, None)


def test_transposed():
    """Shapes and chunks are in the order of memory, keys in that of the array."""
    layout = layout_of((10, 7, 5), (4, 3, 5), CodecChain((2, 0, 1)))
    assert layout.axes == (2, 0, 1)
    assert layout.shape == (5, 10, 7)
    assert layout.chunk_shape == (5, 4, 3)
    assert layout.grid_shape == (1, 3, 3)
    assert layout.locate((0, 2, 1)).key == "c/2/1/0"


def test_no_axes():
    """An array of one element is one chunk."""
    layout = layout_of((), (), CodecChain(()))
    assert (layout.grid_shape, layout.chunk_nbytes, layout.locate(())) == (
        (),
        1,
        ("c", (), 0, None),
    )


def test_axes_of_no_length():
    """Without elements there are no chunks."""
    layout = layout_of((0, 5), (2, 5), CodecChain((0, 1)))
    assert layout.grid_shape == (0, 1)
    with pytest.raises(IndexError, match="of a grid of shape"):
        layout.locate((0, 0))


@pytest.mark.parametrize("chunk", [(), (0,), (0, 0, 0), (3, 0), (-1, 0), (0, 3)])
def test_chunks_that_are_not_there(chunk):
    """A chunk outside of the grid has no address."""
    with pytest.raises(IndexError, match="of a grid of shape"):
        layout_of((10, 7), (4, 3), CodecChain((0, 1))).locate(chunk)


@pytest.mark.parametrize(
    ("fill", "is_zero"), [(b"\0\0", True), (b"\0\1", False), (np.float32(-0.0).tobytes(), False)]
)
def test_fill_of_zero_bits(fill, is_zero):
    """Only zero bits are zero: -0.0 is not."""
    assert layout_of((4,), (2,), CodecChain((0,)), fill).fill_is_zero is is_zero


@st.composite
def chains(draw):
    """Return a shape, the shape of its chunks, and a chain with shards up to three deep."""
    ndim = draw(st.integers(1, 3))
    depth = draw(st.integers(0, 3))
    orders = [tuple(draw(st.permutations(range(ndim)))) for _ in range(depth + 1)]
    ratios = [[draw(st.integers(1, 3)) for _ in range(ndim)] for _ in range(depth)]
    smallest = [draw(st.integers(1, 3)) for _ in range(ndim)]
    # From the inside out, each level along the axes that it is stored in.
    inner = CodecChain(orders[-1])
    chunk = [0] * ndim
    for k, axis in enumerate(orders[-1]):
        chunk[axis] = smallest[k]
    for order, ratio in zip(orders[-2::-1], ratios, strict=True):
        inner = CodecChain(order, (), Sharding(tuple(chunk), ShardLevel(tuple(ratio)), inner))
        stored = [c * r for c, r in zip(chunk, ratio, strict=True)]
        chunk = [0] * ndim
        for k, axis in enumerate(order):
            chunk[axis] = stored[k]
    shape = tuple(draw(st.integers(0, 2 * length + 1)) for length in chunk)
    return shape, tuple(chunk), inner


def model_places(shape, chunk_shape, chain):
    """Return, for each element of an array, its key, its entries and its place in its chunk.

    Follows the specification step by step, with an array of coordinates that
    goes through the codecs as the elements do.
    """
    places = {}
    for corner in itertools.product(
        *(range(-(-n // c)) for n, c in zip(shape, chunk_shape, strict=True))
    ):
        index = np.indices(chunk_shape).reshape(len(shape), *chunk_shape)
        index = np.moveaxis(index, 0, -1) + np.array(corner) * np.array(chunk_shape)
        encode(places, index, chain, "/".join(("c", *map(str, corner))), ())
    return {
        element: place
        for element, place in places.items()
        if all(i < n for i, n in zip(element, shape, strict=True))
    }


def encode(places, index, chain, key, entries):
    stored = index.transpose(*chain.order, len(chain.order))
    if chain.sharding is None:
        for at, element in enumerate(stored.reshape(-1, len(chain.order))):
            places[tuple(map(int, element))] = (key, entries, at)
        return
    lengths = chain.sharding.chunk_shape
    counts = [n // c for n, c in zip(stored.shape, lengths, strict=False)]
    for entry, corner in enumerate(itertools.product(*map(range, counts))):
        cut = tuple(slice(i * c, (i + 1) * c) for i, c in zip(corner, lengths, strict=True))
        encode(places, stored[cut], chain.sharding.inner, key, (*entries, entry))


@settings(max_examples=60)
@given(chains())
def test_every_element_is_where_the_specification_says(drawn):
    """Key, entries and place in the chunk agree with a model, for every element."""
    shape, chunk_shape, chain = drawn
    layout = layout_of(shape, chunk_shape, chain)
    found = {}
    for chunk in itertools.product(*map(range, layout.grid_shape)):
        key, entries, *_ = layout.locate(chunk)
        for at in range(math.prod(layout.chunk_shape)):
            inside = np.unravel_index(at, layout.chunk_shape)
            memory = [
                int(i) + c * n for i, c, n in zip(inside, chunk, layout.chunk_shape, strict=True)
            ]
            logical = [0] * len(shape)
            for axis, i in zip(layout.axes, memory, strict=True):
                logical[axis] = i
            if all(i < n for i, n in zip(logical, shape, strict=True)):
                found[tuple(logical)] = (key, entries, at)
    assert found == model_places(shape, chunk_shape, chain)
    assert len(layout.levels) == len(layout.places)


def test_survives_pickling():
    """A layout goes to another process whole."""
    codecs = [{"name": "bytes"}, {"name": "zstd"}, {"name": "crc32c"}]
    chain, _ = parse_codecs(codecs, chunk_shape=(4,), dtype=parse_data_type("uint8"))
    layout = layout_of((10,), (4,), chain)
    copy = pickle.loads(pickle.dumps(layout))
    assert copy == layout
    out = bytearray(4)
    copy.decode(layout.encode(b"abcd"), memoryview(out))
    assert out == b"abcd"
