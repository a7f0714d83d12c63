"""Entries in a directory that several processes share."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lazyarr.store.cache import DiskCache, StoreCache, place_of
from tests.process.running import command_of
from tests.programs.local_stores import puts_into_a_cache

NAMES = [f"{number:02x}{'0' * 62}" for number in range(40)]


@pytest.fixture
def disk(tmp_path):
    return DiskCache(str(tmp_path / "cache"), 10_000, complain=pytest.fail)


def age(disk, name, seconds):
    """Have an entry been used last so long ago."""
    then = time.time() - seconds
    os.utime(disk._path(name), (then, then))


def size(disk):
    found = (os.path.join(p, n) for p, _, names in os.walk(disk.directory) for n in names)
    return sum(os.stat(path).st_size for path in found)


def test_entries_come_back_with_their_version(disk):
    """Until they are dropped; an empty one too."""
    assert disk.get(NAMES[0]) is None
    for data in (b"some bytes", b"", memoryview(b"others")):
        assert disk.put(NAMES[0], data, '"v\xe9"')
        assert disk.get(NAMES[0]) == (data, '"v\xe9"')
    disk.drop(NAMES[0])
    disk.drop(NAMES[0])
    assert disk.get(NAMES[0]) is None


def test_the_least_recently_used_go_first(disk):
    """To read an entry is to use it."""
    for place, name in enumerate(NAMES[:9]):
        assert disk.put(name, bytes(1000), "v")
        age(disk, name, 1000 - place)
    assert disk.get(NAMES[0]) is not None
    assert disk.put(NAMES[9], bytes(1000), "v")
    kept = [place for place in range(10) if disk.get(NAMES[place]) is not None]
    assert kept == [0, *range(10 - len(kept) + 1, 10)]
    assert 5 < len(kept) < 10


def test_what_other_processes_write_counts(disk):
    """Each keeps to the limit, and to what all of them have written, within a part of it."""
    writers = [
        subprocess.Popen(
            [sys.executable, *command_of(puts_into_a_cache, disk.directory, *NAMES[start::2])]
        )
        for start in (0, 1)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert size(disk) <= 10_000 * (1 + 2 / 16) + 600


def test_threads_that_write_at_once_keep_to_the_limit(disk):
    """What each of them is about to write counts for the others."""
    with ThreadPoolExecutor(16) as pool:
        for _ in range(5):
            kept = list(pool.map(lambda name: disk.put(name, os.urandom(900), "v"), NAMES))
            assert any(kept)
            assert 0 < size(disk) <= 10_000


def test_what_is_larger_than_the_limit_is_not_kept(disk):
    """Nor does anything go for it."""
    assert disk.put(NAMES[0], bytes(100), "v")
    assert not disk.put(NAMES[1], bytes(10_000), "v")
    assert disk.get(NAMES[0]) is not None


def test_what_a_dead_writer_has_left_is_removed(disk):
    """After an hour; what is being written now stays."""
    disk.put(NAMES[0], b"1", "v")
    parent = os.path.dirname(disk._path(NAMES[0]))
    for name, seconds in (("new-1-a", 4000), ("new-2-b", 10)):
        with open(os.path.join(parent, name), "wb") as file:
            file.write(bytes(100))
        os.utime(file.name, (time.time() - seconds,) * 2)
    DiskCache(disk.directory, 10_000, complain=pytest.fail).put(NAMES[1], b"1", "v")
    assert "new-1-a" not in os.listdir(parent)
    assert "new-2-b" in os.listdir(parent)


@pytest.mark.parametrize("place", [0, 9, 13, 17, 30, -1])
def test_a_changed_byte_makes_it_no_entry(disk, place):
    """Wherever it is."""
    disk.put(NAMES[0], b"some bytes", '"version"')
    path = disk._path(NAMES[0])
    with open(path, "rb") as file:
        content = bytearray(file.read())
    content[place] ^= 1
    with open(path, "wb") as file:
        file.write(content)
    assert disk.get(NAMES[0]) is None


def test_a_directory_that_can_not_be_made_keeps_nothing(tmp_path):
    """What was fetched is there all the same; it is said once why."""
    (tmp_path / "file").write_bytes(b"")
    said = []
    disk = DiskCache(str(tmp_path / "file" / "cache"), 10_000, complain=said.append)
    for _ in range(2):
        assert not disk.put(NAMES[0], b"1", "v")
    assert disk.get(NAMES[0]) is None
    (line,) = said
    assert f"cache_dir {str(tmp_path / 'file' / 'cache')!r}" in line
    assert "Not a directory" in line


def test_a_directory_that_others_may_write_to_keeps_nothing(tmp_path):
    """What lies there would be believed."""
    tmp_path.chmod(0o777)
    said = []
    disk = DiskCache(str(tmp_path), 10_000, complain=said.append)
    assert not disk.put(NAMES[0], b"1", "v")
    assert not list(tmp_path.iterdir())
    (line,) = said
    assert "drwxrwxrwx" in line
    assert "nobody else can write to" in line


def test_parts_are_those_of_the_version_that_the_object_has(disk):
    """Of an object whose version nobody has told there are none."""
    cache = StoreCache(disk, "place")
    cache.keep("a", 0, 5, b"12345", '"1"')
    assert cache.recall("a", 0, 5) is None
    cache.note("a", '"1"')
    cache.keep("a", 0, 5, b"12345", '"1"')
    cache.keep("a", 5, 6, b"6", '"2"')
    assert cache.recall("a", 0, 5) == (b"12345", '"1"')
    assert cache.recall("a", 5, 6) is None
    assert cache.recall("a", 0, 6) is None
    assert StoreCache(disk, "elsewhere").recall("a", 0, 5) is None
    cache.note("a", '"2"')
    assert cache.recall("a", 0, 5) is None
    cache.note("a", None)
    assert not cache.is_known("a")


def test_whole_objects_are_of_the_version_that_they_had(disk):
    """The server is asked whether they still have it."""
    cache = StoreCache(disk, "place")
    cache.keep("a", 0, None, b"1", None)
    assert cache.recall("a", 0, None) is None
    cache.keep("a", 0, None, b"1", '"1"')
    cache.keep("a", 0, None, b"2", '"2"')
    assert StoreCache(disk, "place").recall("a", 0, None) == (b"2", '"2"')
    cache.drop("a", 0, None)
    assert cache.recall("a", 0, None) is None


def test_places_differ_by_url_and_endpoint_and_not_by_secrets():
    """New credentials find what old ones have fetched."""
    place = place_of("s3://b/x", {"key": "1", "secret": "2", "endpoint_url": "http://a"})
    assert place == place_of("s3://b/x", {"token": "3", "endpoint_url": "http://a"})
    assert place != place_of("s3://b/x", {"client_kwargs": {"endpoint_url": "http://b"}})
    assert place != place_of("s3://b/y", {"endpoint_url": "http://a"})
    assert place_of("https://me:secret@h/x", {}) == place_of("https://h/x", {"headers": {}})
