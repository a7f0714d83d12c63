from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.codecs import DamagedChunkError
from lazyarr.codecs.checksum import crc32c
from lazyarr.layout import ShardLevel

EMPTY = 2**64 - 1
LEVELS = [
    ShardLevel((2, 3), location, little_endian=little, checksum=checksum)
    for location in ("start", "end")
    for little in (True, False)
    for checksum in (True, False)
]

entries = st.lists(
    st.none() | st.tuples(st.integers(0, 2**40), st.integers(0, 2**20)), min_size=6, max_size=6
)


@given(st.sampled_from(LEVELS), entries)
def test_what_is_built_is_parsed(level, entries):
    """An index comes back entry for entry, in every spelling."""
    stored = level.build_index(entries)
    assert len(stored) == level.index_nbytes
    index = level.parse_index(stored, object_nbytes=None)
    assert [index.entry(i) for i in range(len(index))] == entries
    assert index.n_stored == sum(entry is not None for entry in entries)


def test_bytes_are_as_specified():
    """Pairs of little-endian uint64, all ones where empty, and a crc32c."""
    stored = ShardLevel((2,)).build_index([(1, 2), None])
    assert stored[:-4] == bytes([1, *[0] * 7, 2, *[0] * 7]) + b"\xff" * 16
    assert stored[-4:] == crc32c(stored[:-4]).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("offset", "nbytes"),
    [
        (0, 101),
        (101, 0),
        (50, 51),
        (EMPTY, 1),
        (1, EMPTY),
        (EMPTY, 0),
        (0, EMPTY),
        (2**63, 2**63),
        (2**64 - 50, 50),
        (EMPTY, EMPTY - 1),
    ],
)
@pytest.mark.parametrize("object_nbytes", [100, None])
def test_chunks_outside_of_the_shard_are_refused(offset, nbytes, object_nbytes):
    """Offset and size that leave the shard, or overflow, are damage; with its size or without."""
    level = ShardLevel((3,), checksum=False)
    stored = level.build_index([None, (offset, nbytes), (0, 10)])
    if object_nbytes is None and offset + nbytes < 2**63:
        assert level.parse_index(stored, object_nbytes=None).entry(1) == (offset, nbytes)
        return
    with pytest.raises(DamagedChunkError, match="places inner chunk 1 at offset"):
        level.parse_index(stored, object_nbytes=object_nbytes)


def test_chunks_up_to_the_end_are_fine():
    """A chunk may end where the shard ends, and be empty there."""
    level = ShardLevel((2,))
    stored = level.build_index([(60, 40), (100, 0)])
    assert level.parse_index(stored, object_nbytes=100).entry(0) == (60, 40)


def test_wrong_lengths_and_checksums_are_refused():
    """An index that is cut, too long or changed is damage, and says what was expected."""
    level = ShardLevel((2,))
    stored = level.build_index([(0, 10), None])
    for wrong in (b"", stored[:-1], stored + b"\0"):
        with pytest.raises(DamagedChunkError, match="expected 36"):
            level.parse_index(wrong, object_nbytes=100)
    with pytest.raises(DamagedChunkError, match=r"crc32c of the shard index expected \w{8}, found"):
        level.parse_index(b"\1" + stored[1:], object_nbytes=100)


@given(st.sampled_from(LEVELS), st.binary(min_size=96, max_size=96))
def test_arbitrary_indexes_stay_inside(level, pairs):
    """Whatever an index says, no entry that is given leaves the shard."""
    stored = pairs + (crc32c(pairs).to_bytes(4, "little") if level.checksum else b"")
    try:
        index = level.parse_index(stored, object_nbytes=1000)
    except DamagedChunkError:
        return
    for i in range(6):
        entry = index.entry(i)
        assert entry is None or 0 <= entry[0] <= entry[0] + entry[1] <= 1000


def test_where_the_index_is():
    """It is at one end of the shard, and the shard must be long enough."""
    assert ShardLevel((2,), "start").index_range(100) == (0, 36)
    assert ShardLevel((2,), "end").index_range(100) == (64, 100)
    assert ShardLevel((2,), "end").index_range(36) == (0, 36)
    with pytest.raises(DamagedChunkError, match="shard index has 36 bytes"):
        ShardLevel((2,)).index_range(35)


def test_memory_is_compact():
    """A million entries take sixteen bytes each, and no objects stay."""
    level = ShardLevel((1000, 1000), checksum=False)
    stored = bytes(16 * 10**6)
    tracemalloc.start()
    index = level.parse_index(stored, object_nbytes=10)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert index.nbytes == len(stored)
    assert kept < 1.2 * len(stored)


def test_wrong_use_is_an_error():
    """Entries that do not exist can be neither read nor written."""
    level = ShardLevel((2,))
    index = level.parse_index(level.build_index([None, None]), object_nbytes=0)
    for i in (-1, 2):
        with pytest.raises(IndexError, match="of a shard of 2"):
            index.entry(i)
    with pytest.raises(ValueError, match="1 entries for a shard of 2"):
        level.build_index([None])
    assert repr(index) == "<ShardIndex of 2 chunks, 0 stored>"
