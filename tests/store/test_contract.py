"""What holds for every store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from lazyarr.errors import StoreError
from lazyarr.store import open_reference, open_store, store_reference
from lazyarr.store.base import ChangedError, NoObjectError
from tests.process.running import command_of
from tests.programs.local_stores import opens_a_reference
from tests.store.forked import succeeds_in_child
from tests.store.places import KINDS, OBJECTS, make_store

CHUNK = "images/c/0/0"
SIZE = len(OBJECTS[CHUNK])

METHODS = {
    "read": lambda store, key: store.read(key),
    "read_range": lambda store, key: store.read_range(key, 0, 1),
    "read_empty_range": lambda store, key: store.read_range(key, 0, 0),
    "read_suffix": lambda store, key: store.read_suffix(key, 1),
    "read_empty_suffix": lambda store, key: store.read_suffix(key, 0),
    "size": lambda store, key: store.size(key),
}
WRITING_METHODS = {
    "write": lambda store, key: store.write(key, b"new"),
    "delete": lambda store, key: store.delete(key),
    "delete_prefix": lambda store, key: store.delete_prefix(key),
}


def test_read_gives_whole_objects(store):
    """Objects are read as they were written, also an empty one and one with an odd name."""
    assert {key: store.read(key) for key in OBJECTS} == OBJECTS


@pytest.mark.parametrize("method", METHODS)
def test_missing_objects_are_none(store, method):
    """What the store says is not there is None, for every way to read."""
    for key in ("absent", "images/c/9/9", "absent/c/0", "zarr.json/zarr.json"):
        assert METHODS[method](store, key) is None


def test_read_range_gives_exactly_the_range(store):
    """A range has the object's bytes and length."""
    for start, stop in ((0, SIZE), (0, 1), (100, 300), (SIZE - 1, SIZE), (7, 7), (SIZE, SIZE)):
        found = store.read_range(CHUNK, start, stop)
        assert isinstance(found, memoryview)
        assert bytes(found) == OBJECTS[CHUNK][start:stop]


def test_read_range_fills_the_given_buffer(store):
    """With `into`, the bytes are there, the result is its beginning, and the rest is untouched."""
    buffer = bytearray(b"." * 40)
    found = store.read_range(CHUNK, 10, 42, into=memoryview(buffer))
    assert buffer == OBJECTS[CHUNK][10:42] + b"." * 8
    found[0] = 255
    assert buffer[0] == 255
    assert len(found) == 32


def test_a_range_past_the_end_raises_for_good(store):
    """A range that the object does not have is an error that names it, and not a transient one."""
    for start, stop in ((0, SIZE + 1), (SIZE - 1, SIZE + 9), (SIZE, SIZE + 1)):
        with pytest.raises(StoreError, match=CHUNK) as caught:
            store.read_range(CHUNK, start, stop)
        assert caught.value.key == CHUNK
        assert not caught.value.transient


def test_an_impossible_range_is_a_value_error(store):
    """A negative or reversed range, or a buffer too short for it, is the caller's mistake."""
    for start, stop in ((-1, 5), (5, 4)):
        with pytest.raises(ValueError, match="range"):
            store.read_range(CHUNK, start, stop)
    with pytest.raises(ValueError, match="buffer of 3 bytes"):
        store.read_range(CHUNK, 0, 4, into=memoryview(bytearray(3)))


def test_read_suffix_gives_the_end_and_the_size(store):
    """A suffix longer than the object is the object; of an empty one, or of no bytes, empty."""
    for nbytes in (1, 36, SIZE, SIZE + 100):
        assert store.read_suffix(CHUNK, nbytes) == (OBJECTS[CHUNK][-nbytes:], SIZE)
    assert store.read_suffix("images/empty", 16) == (b"", 0)
    assert store.read_suffix(CHUNK, 0) == (b"", SIZE)


def test_size_is_in_bytes(store):
    """The size is that of the object."""
    assert {key: store.size(key) for key in OBJECTS} == {k: len(v) for k, v in OBJECTS.items()}


def test_list_names_gives_direct_children(store):
    """Objects and directories directly below a prefix are listed, sorted, by name alone."""
    assert store.list_names("") == ("a name%20with +&=", "images", "zarr.json")
    assert store.list_names("images") == ("c", "empty", "zarr.json")
    assert store.list_names("images/c") == ("0",)


def test_listing_what_is_not_there(store):
    """A prefix with nothing below it has no names; a server that cannot tell raises."""
    if "http" in store.url:
        with pytest.raises(StoreError, match="lists"):
            store.list_names("absent")
    else:
        assert store.list_names("absent") == ()


@pytest.mark.parametrize("method", METHODS)
def test_keys_do_not_leave_the_store(store, method):
    """A key that is absolute, climbs, or is not normalised is refused by name."""
    for key in ("", "/etc/passwd", "../zarr.json", "images/../../x", "a//b", "a/", ".", "a\0b"):
        with pytest.raises(StoreError, match="cannot use key") as caught:
            METHODS[method](store, key)
        assert caught.value.key == key
        assert not caught.value.transient


def test_threads_share_a_store(store):
    """Eight threads read ranges of all objects, each getting its own bytes."""
    keys = [key for key in OBJECTS if OBJECTS[key]]

    def read(number):
        key = keys[number % len(keys)]
        start = number % len(OBJECTS[key])
        return bytes(store.read_range(key, start, len(OBJECTS[key]))) == OBJECTS[key][start:]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(64)))


def test_a_forked_child_reads_too(store):
    """Child and parent both read after a fork, in whatever order."""
    assert store.read(CHUNK) == OBJECTS[CHUNK]
    assert store.read_range(CHUNK, 0, 9) == OBJECTS[CHUNK][:9]

    def read_everything():
        store.read_range(CHUNK, 5, 900)
        return {key: store.read(key) for key in OBJECTS} == OBJECTS

    assert succeeds_in_child(read_everything)
    assert read_everything()


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("latency", "faulty")])
def test_another_process_opens_the_same_store(kind, request):
    """A reference that went through JSON, with its descriptors, opens in a new interpreter."""
    store = make_store(kind, request)
    description, descriptors = store_reference(store)
    answer = subprocess.run(
        [sys.executable, *command_of(opens_a_reference)],
        input=json.dumps([description, descriptors, CHUNK]).encode(),
        pass_fds=descriptors,
        capture_output=True,
        check=True,
        timeout=60,
    )
    for fd in descriptors:
        os.close(fd)
    assert answer.stdout == OBJECTS[CHUNK][3:700]


def test_repr_names_kind_and_place(store):
    """The repr shows what it is and where."""
    assert type(store).__name__ in repr(store)
    assert "place" in repr(store) or "store" in repr(store) or "http" in repr(store)


def test_written_objects_are_seen_at_once(writable_store):
    """Reads, ranges, suffixes, sizes and listings after a write see the new object."""
    for data in (b"first", b"the second one", memoryview(b"3")):
        assert writable_store.read_range(CHUNK, 0, 1) is not None
        writable_store.write(CHUNK, data)
        writable_store.write("new/below", data)
        assert writable_store.read(CHUNK) == data
        assert writable_store.read_range(CHUNK, 0, len(data)) == data
        assert writable_store.read_suffix(CHUNK, 2) == (bytes(data)[-2:], len(data))
        assert writable_store.size("new/below") == len(data)
        assert "new" in writable_store.list_names("")


def test_deleted_objects_are_gone(writable_store):
    """A deleted object is missing; its neighbours stay; deleting it again is no error."""
    assert writable_store.read_range(CHUNK, 0, 1) is not None
    writable_store.delete(CHUNK)
    writable_store.delete(CHUNK)
    writable_store.delete("absent/altogether")
    assert writable_store.read_range(CHUNK, 0, 1) is None
    assert writable_store.read("images/c/0/1") == b"x"


def test_what_delete_leaves_is_an_error(writable_store):
    """Where it returns, the object is missing to readers; what is there under other keys stays."""
    for key in (f"{CHUNK}/below", "images/c", "images", "zarr.json/zarr.json", "absent"):
        try:
            writable_store.delete(key)
        except NoObjectError:
            with pytest.raises(NoObjectError):
                writable_store.read(key)
        else:
            assert writable_store.read(key) is None
    assert {key: writable_store.read(key) for key in OBJECTS} == OBJECTS


def test_delete_prefix_takes_all_below_and_nothing_beside(writable_store):
    """What only begins with the same letters stays."""
    writable_store.write("images2/c/0", b"stays")
    writable_store.read_range(CHUNK, 0, 1)
    writable_store.delete_prefix("images")
    writable_store.delete_prefix("images")
    writable_store.delete_prefix("absent")
    assert writable_store.read_range(CHUNK, 0, 1) is None
    assert not writable_store.exists_any("images")
    assert writable_store.read("images2/c/0") == b"stays"
    assert "images" not in writable_store.list_names("")


def test_delete_prefix_of_the_root_leaves_a_usable_store(writable_store):
    """Everything goes, and the store can be written again."""
    writable_store.delete_prefix("")
    assert writable_store.list_names("") == ()
    assert not writable_store.exists_any("")
    writable_store.write("again", b"1")
    assert writable_store.read("again") == b"1"


def test_exists_any_finds_objects_at_any_depth(writable_store):
    """An object, or one anywhere below, counts; a name that only begins alike does not."""
    for prefix in ("", "images", "images/c", CHUNK):
        assert writable_store.exists_any(prefix)
    for prefix in ("imag", "images/c/0/00", "absent"):
        assert not writable_store.exists_any(prefix)


@pytest.mark.parametrize("method", WRITING_METHODS)
def test_writing_does_not_leave_the_store(writable_store, method):
    """What changes something refuses the same keys."""
    for key in ("../out", "/tmp/out", "a//b", "a/.."):
        with pytest.raises(StoreError, match="cannot use key"):
            WRITING_METHODS[method](writable_store, key)


@pytest.mark.parametrize("method", WRITING_METHODS)
def test_a_store_for_reading_is_not_changed(store, method):
    """Stores that were not opened for writing refuse to, and keep their objects."""
    if getattr(getattr(store, "inner", store), "writable", False):
        store = make_reading(store)
    if hasattr(store, "write"):
        with pytest.raises(StoreError, match="reading") as caught:
            WRITING_METHODS[method](store, CHUNK)
        assert not caught.value.transient
    assert store.read(CHUNK) == OBJECTS[CHUNK]


def make_reading(store):
    """Return the same place, opened for reading."""
    while hasattr(store, "inner"):
        store = store.inner
    if store.url.startswith("memory"):
        return open_store(store.url)
    description, _ = store_reference(store)
    return open_reference({**description, "writable": False})


def test_a_version_is_another_once_the_object_is(writable_store):
    """Also when it has the same bytes as before; and none where there is no object."""
    assert writable_store.version("v/0") is None
    assert writable_store.read_version("v/0") is None
    seen = []
    for data in (b"1", b"2", b"22"):
        writable_store.write("v/0", data)
        found = writable_store.read_version("v/0")
        assert found == (data, writable_store.version("v/0"))
        seen.append(found[1])
    assert len(set(seen)) == 3


def test_what_is_expected_is_written_over(writable_store):
    """Version by version, from no object on."""
    version = None
    for data in (b"1", b"22", b"333"):
        written = writable_store.write("v/0", data, expected=version)
        version = writable_store.version("v/0")
        assert written in (None, version)
        assert writable_store.read("v/0") == data


def test_what_is_not_expected_stays(writable_store):
    """Another version, none, and one where none was expected."""
    writable_store.write("v/0", b"1")
    old = writable_store.version("v/0")
    writable_store.write("v/0", b"another's")
    for key, expected in (("v/0", old), ("v/0", None), ("v/1", old)):
        with pytest.raises(ChangedError, match="another writer") as caught:
            writable_store.write(key, b"mine", expected=expected)
        assert (caught.value.transient, caught.value.key) == (False, key)
    assert writable_store.read("v/0") == b"another's"
    assert writable_store.read("v/1") is None
