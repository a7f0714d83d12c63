"""Snapshots of what lies in memory."""

from __future__ import annotations

import os

import pytest

from lazyarr.errors import StoreError
from lazyarr.store import open_reference, open_store, store_reference
from lazyarr.store.packed import PackedStore


@pytest.fixture
def memory(request):
    store = open_store(f"memory://{request.node.name}", writable=True)
    store.write("zarr.json", b"{}")
    store.write("a/zarr.json", b"[]")
    store.write("a/c/0", b"0" * 100)
    store.write("a/c/1", b"1" * 100)
    store.write("ab/c/0", b"2" * 100)
    return store


def test_a_prefix_is_packed_alone(memory):
    """Only what lies below the prefix is copied, under the same keys."""
    packed = open_reference(*store_reference(memory, prefix="a"))
    assert packed.list_names("") == ("a",)
    assert packed.read("a/c/1") == b"1" * 100
    assert packed.read("ab/c/0") is None
    packed.close()


def test_a_snapshot_does_not_change(memory):
    """What is written later is not seen."""
    packed = open_reference(*store_reference(memory))
    memory.write("a/c/0", b"new")
    assert packed.read("a/c/0") == b"0" * 100
    packed.close()


def test_a_range_does_not_reach_into_the_next_object(memory):
    """Objects lie side by side in the file; a range ends with its object."""
    packed = open_reference(*store_reference(memory))
    with pytest.raises(StoreError, match="the object has 100 bytes"):
        packed.read_range("a/c/0", 50, 101)
    packed.close()


def test_descriptors_are_owned(memory):
    """Closing the store closes its descriptor, and a reference of it has one of its own."""
    before = set(os.listdir("/proc/self/fd"))
    packed = open_reference(*store_reference(memory))
    again = open_reference(*store_reference(packed, prefix="a"))
    packed.close()
    assert again.read("a/c/0") == b"0" * 100
    again.close()
    assert set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(StoreError, match="closed"):
        packed.read("a/c/0")


def test_nothing_is_packed_from_an_empty_place():
    """A prefix with no objects gives a store with none."""
    packed = open_reference(*store_reference(open_store("memory://nothing-there")))
    assert packed.list_names("") == ()
    assert packed.read("a") is None
    packed.close()


@pytest.mark.parametrize("place", [[0], [0, -1], [True, 5], [0, 2**62], ["0", 5], [0.0, 1]])
def test_an_index_is_checked(memory, place):
    """Places that are not two sizes are refused."""
    description, (fd,) = store_reference(memory)
    with pytest.raises(StoreError, match="place of 'a'"):
        PackedStore(fd, {"a": place}, description["url"])
