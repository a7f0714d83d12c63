"""The short way of a source gives what the long way gives, or nothing."""

from __future__ import annotations

import os

import pytest

from lazyarr.errors import ChunkError
from lazyarr.reading.workspace import Workspace
from lazyarr.store import RetryingStore, RetryPolicy
from tests.reading.arrays import BARE, CHECKED, KINDS, Stored, load, store_array

QUICK = {
    "compressed": {"shape": (40, 6), "chunks": (2, 6), "shards": (8, 6), **CHECKED},
    "not compressed": {"shape": (41, 6), "chunks": (2, 6), "shards": (8, 6), **BARE},
    "index at the start": KINDS["index at the start"],
    "rows of rows": {"shape": (12, 5, 4), "chunks": (1, 5, 4), "shards": (4, 5, 4), **CHECKED},
}


@pytest.fixture(autouse=True)
def page_cache_can_tell(tmp_path):
    """The short way needs a file system that says whether a read would wait."""
    (tmp_path / "probe").write_bytes(b"x")
    with open(tmp_path / "probe", "rb") as file:
        try:
            os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT)
        except OSError as error:
            pytest.skip(f"the file system of {tmp_path} cannot tell: {error}")


@pytest.fixture
def workspace():
    """The buffers of one thread."""
    made = Workspace()
    yield made
    made.close()


def source_of(stored: Stored):
    """Return a source as the pager makes it."""
    policy = RetryPolicy(timeout_seconds=1, retries=0)
    return stored.source(lambda: RetryingStore(stored.open(), policy))


@pytest.mark.parametrize("kind", QUICK)
def test_both_ways_give_the_same_bytes(tmp_path, workspace, kind):
    """From the second unit of a shard on, whatever the buffers held before."""
    stored = store_array(tmp_path / "store", **QUICK[kind])
    source = source_of(stored)
    n_quick = 0
    for unit in range(stored.geometry.n_units):
        workspace.unit.view[:256] = b"x" * 256
        if source.load_quickly(unit, workspace, may_wait=False) is not None:
            n_quick += 1
            nbytes = stored.geometry.unit_bytes(unit).size
            assert bytes(workspace.unit.view[:nbytes]) == stored.unit(unit)
        else:
            assert load(source, stored, unit, workspace) == stored.unit(unit)
    assert n_quick == stored.geometry.n_units - len(stored.objects())
    source.close()


@pytest.mark.parametrize("kind", QUICK)
def test_who_may_wait_opens_the_shard(tmp_path, workspace, kind):
    """The first unit of a shard is read after its index."""
    stored = store_array(tmp_path / "store", **QUICK[kind])
    source = source_of(stored)
    for unit in reversed(range(stored.geometry.n_units)):
        assert source.load_quickly(unit, workspace, may_wait=True)
        nbytes = stored.geometry.unit_bytes(unit).size
        assert bytes(workspace.unit.view[:nbytes]) == stored.unit(unit)
    source.close()


def test_a_shard_that_can_not_be_opened_takes_the_long_way(tmp_path, workspace):
    """It tells why, and finds it when it is there again."""
    stored = store_array(tmp_path / "store", **QUICK["compressed"])
    shard = stored.objects()[0]
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    source = source_of(stored)
    assert source.load_quickly(0, workspace, may_wait=True) is None
    with pytest.raises(ChunkError, match="crc32c"):
        source.load(0, workspace)
    shard.write_bytes(data)
    assert source.load_quickly(0, workspace, may_wait=True)
    source.close()


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"shards", "index at the start"}))
def test_other_arrays_have_no_short_way(tmp_path, workspace, kind):
    """Units of several chunks, shards with several units in a row, objects of one chunk."""
    stored = store_array(tmp_path / "store", **KINDS[kind])
    source = source_of(stored)
    for _ in range(2):
        assert source.load_quickly(0, workspace, may_wait=False) is None
        source.load(0, workspace)
    source.close()


@pytest.mark.parametrize(("fill", "found"), [(7, None), (0, False)])
def test_missing_chunks_are_zeros_or_take_the_long_way(tmp_path, workspace, fill, found):
    """It knows what other fill values are; also where all of the shard is missing."""
    stored = store_array(tmp_path / "store", missing=12, fill=fill, **QUICK["compressed"])
    source = source_of(stored)
    for unit in range(8):
        assert load(source, stored, unit, workspace) == stored.unit(unit)
    for _ in range(2):
        quick = [source.load_quickly(unit, workspace, may_wait=False) for unit in range(8)]
        assert quick == [found] * 6 + [True] * 2
    source.close()


def test_damaged_chunk_takes_the_long_way(tmp_path, workspace):
    """It reads once more, and then tells."""
    stored = store_array(tmp_path / "store", **QUICK["compressed"])
    shard = stored.objects()[0]
    data = bytearray(shard.read_bytes())
    data[0] ^= 1
    shard.write_bytes(data)
    source = source_of(stored)
    source.load(1, workspace)
    assert source.load_quickly(0, workspace, may_wait=False) is None
    assert source.load_quickly(2, workspace, may_wait=False)
    with pytest.raises(ChunkError):
        source.load(0, workspace)
    source.close()


def test_object_that_was_cut_short_takes_the_long_way(tmp_path, workspace):
    """Fewer bytes than the index says are not taken for a chunk."""
    stored = store_array(tmp_path / "store", **QUICK["not compressed"])
    shard = stored.objects()[0]
    source = source_of(stored)
    source.load(0, workspace)
    os.truncate(shard, 48)
    assert source.load_quickly(0, workspace, may_wait=False)
    assert not source.load_quickly(1, workspace, may_wait=False)
    source.close()


def test_workspace_that_is_too_small_grows(tmp_path, workspace):
    """It would hold a part of the unit."""
    stored = store_array(
        tmp_path / "store",
        shape=(400_000,),
        chunks=(100_000,),
        shards=(400_000,),
        dtype="u1",
        **BARE,
    )
    source = source_of(stored)
    source.load(0, workspace)
    assert source.load_quickly(1, workspace, may_wait=False)
    other = Workspace()
    assert source.load_quickly(2, other, may_wait=False)
    assert bytes(other.unit.view[:100_000]) == stored.unit(2)
    other.close()
    source.close()


def test_only_so_many_shards_stay_open(tmp_path, workspace):
    """Their descriptors are given back, some when others take their place, the rest at the end."""
    stored = store_array(
        tmp_path / "store", shape=(160,), chunks=(2,), shards=(4,), dtype="u1", **CHECKED
    )
    before = len(os.listdir("/proc/self/fd"))
    source = source_of(stored)
    for _ in range(2):
        for unit in range(80):
            if not source.load_quickly(unit, workspace, may_wait=False):
                source.load(unit, workspace)
            assert bytes(workspace.unit.view[:2]) == stored.unit(unit)
    # The store keeps some open, the source some more.
    assert len(os.listdir("/proc/self/fd")) - before <= 100
    source.close()
    assert len(os.listdir("/proc/self/fd")) == before
