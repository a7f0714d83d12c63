from __future__ import annotations

import numpy as np
import pytest

from lazyarr.codecs import DamagedChunkError
from lazyarr.committing.coder import ChunkCoder
from lazyarr.committing.objects import StoredObject
from lazyarr.errors import ChunkError
from lazyarr.formats.zarr import parse_node
from lazyarr.layout import ShardLevel
from lazyarr.store import open_store
from lazyarr.units import Span
from lazyarr.writer.grid import array_grid
from lazyarr.writer.options import plan_array
from lazyarr.writer.place import StorePlace
from lazyarr.writer.stored import StoredArray
from tests.writer.stores import new_url


def test_damaged_index_is_an_error():
    """An object that is too short for its index is not taken for an empty one."""
    with pytest.raises(DamagedChunkError):
        StoredObject(b"abc", ShardLevel((4,)))


@pytest.fixture
def stored():
    """Return an array's place, its coder, and what reads it."""
    document = plan_array("x", shape=(10, 3), dtype=np.dtype("i2"), chunks=(4, 3), fill_value=7)
    metadata = parse_node(document, path="x")
    place = StorePlace(open_store(new_url(), writable=True))
    coder = ChunkCoder(metadata.layout(), metadata.dtype.to_numpy())
    level = metadata.layout().levels[0]
    pieces = list(array_grid(metadata, (10, 3)).pieces((Span(0, 10), Span(0, 3))))
    return place, coder, StoredArray("x", place, coder=coder, level=level), pieces


def test_missing_object_is_none(stored):
    """Not an empty one."""
    _, _, array, _ = stored
    assert array.read("x/c/0/0") is None


def test_damage_names_the_chunk_and_its_object(stored):
    """A damaged index, or chunk, is a ChunkError with store, array, chunk and key."""
    place, coder, array, pieces = stored
    place.put("x/c/0/0", [b"short"])
    with pytest.raises(ChunkError, match="shard of 'x'") as caught:
        array.read("x/c/0/0")
    assert (caught.value.array, caught.value.key) == ("x", "x/c/0/0")
    chunk = bytearray(coder.encode(np.arange(12, dtype="i2").reshape(4, 3)))
    chunk[-1] ^= 1
    with pytest.raises(ChunkError, match="crc32c") as caught:
        array.decode("x/c/0/0", pieces[1], chunk, valid=(Span(0, 10), Span(0, 3)))
    assert (caught.value.chunk, caught.value.url) == ((1, 0), place.url)


@pytest.mark.parametrize("n_valid", [0, 4, 5, 8, 10])
def test_what_was_never_given_a_value_is_fill(stored, n_valid):
    """Elements of a stored chunk outside of the array as it is are those of a dead writer."""
    _, coder, array, pieces = stored
    chunk = coder.encode(np.ones((4, 3), "i2"))
    found = array.decode("k", pieces[1], chunk, valid=(Span(0, n_valid), Span(0, 3)))
    expected = np.full((4, 3), 7)
    expected[: max(0, n_valid - 4)] = 1
    assert np.array_equal(found, expected)
