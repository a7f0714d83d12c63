from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.formats.zarr import (
    CHUNK_NBYTES,
    SHARD_NBYTES,
    array_document,
    default_chunks,
    default_shards,
    parse_data_type,
)

shapes = st.lists(st.integers(0, 10**6) | st.integers(0, 20), max_size=5).map(tuple)
UINT8 = parse_data_type("uint8")
itemsizes = st.sampled_from([1, 2, 3, 4, 8, 16, 1000])


@pytest.mark.parametrize(
    ("shape", "itemsize", "chunks", "shards"),
    [
        ((8192, 128, 128, 3), 1, (11, 128, 128, 3), (1364, 128, 128, 3)),
        ((2048, 384, 384), 2, (2, 384, 384), (226, 384, 384)),
        ((60000, 28, 28), 1, (768, 28, 28), (60000 // 768 * 768 + 768, 28, 28)),
        ((1000, 4096, 4096), 2, (1, 64, 4096), (2, 4096, 4096)),
        ((10**8,), 8, (65536,), (8388608,)),
        ((10,), 8, (10,), None),
        ((), 8, (), None),
        ((0, 100), 4, (1280, 100), (167680, 100)),
        ((5, 0), 4, (5, 1), None),
        ((1, 3, 10**6), 1, (1, 1, 500_000), (1, 3, 1_000_000)),
    ],
)
def test_examples(shape, itemsize, chunks, shards):
    """Rows stay whole where they fit; large rows fall into equal pieces."""
    assert default_chunks(shape, itemsize) == chunks
    assert default_shards(shape, chunks, itemsize) == shards


@given(shapes, itemsizes)
def test_chunks_are_contiguous_and_of_fair_size(shape, itemsize):
    """Ones, then some rows, then whole axes; near half a mebibyte where there is enough."""
    chunks = default_chunks(shape, itemsize)
    assert len(chunks) == len(shape)
    divided = [
        axis for axis, (n, c) in enumerate(zip(shape, chunks, strict=True)) if c != max(1, n)
    ]
    last = divided[-1] if divided else 0
    assert all(length == 1 for length in chunks[:last])
    nbytes = math.prod(chunks) * itemsize
    assert nbytes <= 2 * max(CHUNK_NBYTES, itemsize)
    if math.prod(chunks) < math.prod(shape):
        assert nbytes >= CHUNK_NBYTES // 3


@given(shapes, itemsizes)
def test_chunks_are_whole_pages_where_rows_allow(shape, itemsize):
    """Where a few rows make whole pages, a chunk that does not hold everything is whole pages."""
    chunks = default_chunks(shape, itemsize)
    nbytes = math.prod(chunks) * itemsize
    row_nbytes = math.prod(shape[1:]) * itemsize
    if (
        len(shape)
        and shape[0] > chunks[0]
        and 0 < row_nbytes <= CHUNK_NBYTES // 2
        and math.gcd(row_nbytes, 4096) >= 64
    ):
        assert chunks[0] > 1
        aligned = 4096 // math.gcd(row_nbytes, 4096)
        if aligned * row_nbytes <= CHUNK_NBYTES:
            assert nbytes % 4096 == 0


@given(shapes, itemsizes, st.data())
def test_shards_hold_whole_chunks(shape, itemsize, data):
    """Shards of any chunks are multiples of them, no larger than they should be, and valid."""
    chunks = default_chunks(shape, itemsize)
    if data.draw(st.booleans()):
        chunks = tuple(data.draw(st.integers(1, max(1, n))) for n in shape)
    shards = default_shards(shape, chunks, itemsize)
    if shards is None:
        return
    assert all(s % c == 0 for s, c in zip(shards, chunks, strict=True))
    assert math.prod(shards) * itemsize <= max(SHARD_NBYTES, math.prod(chunks) * itemsize)
    if math.prod(max(1, n) for n in shape) <= 2**60:
        array_document(shape=shape, dtype=UINT8, chunks=chunks, shards=shards)


def test_other_pages():
    """Pages of another size are what chunks are made of there."""
    chunks = default_chunks((10**6, 128), 4, page_nbytes=65536)
    assert chunks[0] * 512 % 65536 == 0
