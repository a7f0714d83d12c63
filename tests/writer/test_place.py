from __future__ import annotations

import pytest

from lazyarr.errors import FormatError, NodeNotFoundError
from lazyarr.store import open_store
from lazyarr.writer.place import ExistingStore, NewPrefix
from tests.writer.stores import DyingStore, new_url


@pytest.fixture
def store():
    return open_store(new_url(), writable=True)


def names(store):
    return store.list_names("")


def test_new_prefix_leaves_what_was_put(store):
    """After publishing there is nothing but the store."""
    place = NewPrefix(store, overwrite=False)
    place.put("x/c/0", [b"ab", b"c"])
    place.put("zarr.json", [b"{}"])
    place.publish()
    assert names(store) == ("x", "zarr.json")
    assert store.read("x/c/0") == b"abc"


@pytest.mark.parametrize("key", ["zarr.json", ".zgroup", "x/zarr.json", "letter.txt"])
def test_new_prefix_refuses_what_is_there(store, key):
    """A store, or anything else, is not touched without being told so; the error says which."""
    store.write(key, b"1")
    is_store = "/" not in key and not key.endswith(".txt")
    with pytest.raises(FileExistsError, match="overwrite=True" if is_store else "is no store"):
        NewPrefix(store, overwrite=False)
    assert store.read(key) == b"1"


def test_new_prefix_replaces_a_store_only(store):
    """Objects that are no store are not replaced even when told so: a bucket may hold more."""
    store.write("letter.txt", b"1")
    with pytest.raises(FileExistsError):
        NewPrefix(store, overwrite=True)
    assert store.read("letter.txt") == b"1"


def test_old_store_goes_first(store):
    """From the first moment, nothing of the old store is left to be mixed with the new one."""
    for key in (".zgroup", ".zmetadata", "old/.zarray", "old/0.0"):
        store.write(key, b"1")
    NewPrefix(store, overwrite=True)
    assert not any(store.exists_any(key) for key in ("old", ".zgroup", ".zmetadata"))


def test_documents_of_the_old_store_go_before_its_data(store):
    """A writer that dies while it deletes leaves no store that lost chunks."""
    keys = ("zarr.json", "x/zarr.json", "x/c/0", "y/c/0")
    for n_changes in range(8):
        for key in keys:
            store.write(key, b"1")
        try:
            NewPrefix(DyingStore(store, n_changes), overwrite=True)
        except OSError:
            left = [store.read(key) is not None for key in keys]
            assert left == [True] * 4 or not left[0]
        NewPrefix(store, overwrite=True).abort()
        assert names(store) == ()


def test_leftovers_of_a_dead_writer_are_taken_away(store):
    """The next writer needs no permission to replace what never was a store."""
    dead = NewPrefix(store, overwrite=False)
    dead.put("x/c/0", [b"1"])
    dead.put("x/zarr.json", [b"1"])
    place = NewPrefix(store, overwrite=False)
    assert not store.exists_any("x")
    place.put("zarr.json", [b"{}"])
    place.publish()
    assert names(store) == ("zarr.json",)


def test_abort_leaves_nothing(store):
    """What was put is deleted, the marker too."""
    place = NewPrefix(store, overwrite=False)
    place.put("x/c/0", [b"1"])
    place.abort()
    assert names(store) == ()


def test_existing_store_must_exist(store):
    """Nothing, or something that is no store, cannot be appended to."""
    with pytest.raises(NodeNotFoundError, match=r"lazyarr\.create"):
        ExistingStore(store)
    store.write("x", b"1")
    with pytest.raises(NodeNotFoundError):
        ExistingStore(store)


@pytest.mark.parametrize("key", [".zgroup", ".zarray"])
def test_existing_store_of_version_2_is_refused(store, key):
    """Only version 3 is written; the error says what helps."""
    store.write(key, b"{}")
    with pytest.raises(FormatError, match="lazyarr convert"):
        ExistingStore(store)


def test_existing_store_keeps_everything_on_abort(store):
    """There is nothing to take away."""
    store.write("zarr.json", b"{}")
    place = ExistingStore(store)
    place.put("x", [b"a", b"b"])
    place.abort()
    assert store.read("x") == b"ab"
