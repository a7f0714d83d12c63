"""A store tells whether what was read of it is certainly what it still has."""

from __future__ import annotations

import os
import threading

import pytest

from lazyarr.kernel import Stamp
from lazyarr.store import open_store
from lazyarr.store.stamps import Stamps
from tests.stores import settle


@pytest.fixture
def directory(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"0123456789")
    settle(tmp_path / "a", tmp_path / "b")
    return tmp_path


@pytest.fixture
def store(directory):
    """A store of which objects have been read in every way, and one was missing."""
    store = open_store(directory)
    assert store.is_unchanged()
    assert store.read("a") == b"0123456789"
    assert bytes(store.read_range("b", 2, 4)) == b"23"
    assert store.read_suffix("b", 3) == (b"789", 10)
    assert store.size("c") is None
    assert store.read("d/e") is None
    assert store.is_unchanged()
    yield store
    store.close()


def replace(directory):
    (directory / "new").write_bytes(b"9876543210")
    os.replace(directory / "new", directory / "b")


def write_in_place(directory):
    with open(directory / "b", "r+b") as file:
        file.write(b"9")


def write_and_restore_the_time(directory):
    status = os.stat(directory / "b")
    write_in_place(directory)
    os.utime(directory / "b", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert os.stat(directory / "b").st_mtime_ns == status.st_mtime_ns


def copy_and_rename(directory):
    """The same bytes at the same time in another file: nobody knows, so it counts."""
    status = os.stat(directory / "b")
    (directory / "new").write_bytes(b"0123456789")
    os.utime(directory / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(directory / "new", directory / "b")


def add_below_what_was_missing(directory):
    (directory / "d").mkdir()
    (directory / "d/e").write_bytes(b"new")


def put_a_link_in_its_place(directory):
    (directory / "b").rename(directory / "elsewhere")
    (directory / "other").write_bytes(b"9876543210")
    (directory / "b").symlink_to("other")


CHANGES = [
    replace,
    write_in_place,
    write_and_restore_the_time,
    copy_and_rename,
    add_below_what_was_missing,
    put_a_link_in_its_place,
    lambda directory: (directory / "b").unlink(),
    lambda directory: (directory / "c").write_bytes(b""),
    lambda directory: os.truncate(directory / "a", 9),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_shows(store, directory, change):
    """Whatever is done to an object that was read, or that was missing."""
    change(directory)
    assert not store.is_unchanged()


def test_other_objects_do_not_matter(store, directory):
    """What was not read may change."""
    (directory / "other").write_bytes(b"x")
    (directory / "sub").mkdir()
    assert store.is_unchanged()


def test_bytes_of_two_versions_never_become_right(store, directory):
    """Once an object was read before and after a change, it stays so."""
    replace(directory)
    settle(directory / "b")
    assert store.read("b") == b"9876543210"
    assert not store.is_unchanged()
    os.replace(directory / "b", directory / "aside")
    (directory / "b").write_bytes(b"0123456789")
    assert not store.is_unchanged()


def test_a_file_that_was_changed_just_now_proves_nothing(tmp_path):
    """Its next change could bear the same time."""
    stamps = Stamps()
    file = tmp_path / "a"
    file.write_bytes(b"x")
    status = os.stat(file)
    stamps.note("a", status, status.st_ctime_ns)
    assert not stamps.are_current(lambda _: stamp_in(stamps))


def test_a_file_system_that_keeps_whole_seconds_needs_longer(tmp_path):
    """Where times come in steps, a second is nothing."""
    now = 1_700_000_000 * 10**9
    fields = [0o100644, 1, 1, 1, 0, 0, 10, now // 10**9, now // 10**9, now // 10**9]
    times = {"st_atime_ns": now, "st_mtime_ns": now, "st_ctime_ns": now}
    status = os.stat_result(fields, times)
    for seconds, expected in ((1, False), (3, True)):
        stamps = Stamps()
        stamps.note("a", status, now + seconds * 10**9)
        seen = Stamp(1, 1, 10, now, now, 0o100644)
        assert stamps.are_current(lambda _, seen=seen: seen) is expected


def test_more_objects_than_are_kept_prove_nothing(tmp_path):
    """Memory is bounded."""
    stamps = Stamps()
    for number in range(4096):
        stamps.note(str(number), None, 0)
    assert stamps.are_current(lambda _: None)
    stamps.note("one more", None, 0)
    assert not stamps.are_current(lambda _: None)


def test_asking_waits_for_who_has_opened_and_not_noted(directory):
    """A file that was opened before it was replaced is known when the answer is given."""
    stamps = Stamps()
    answered = []

    def ask():
        answered.append(stamps.are_current(lambda _: None))

    look = stamps.looking()
    with look:
        status = os.stat(directory / "a")
        asking = threading.Thread(target=ask)
        asking.start()
        while not stamps._n_asking:
            os.sched_yield()
        assert not answered
        look.note("a", status)
    asking.join()
    assert answered == [False]


def stamp_in(stamps):
    return next(iter(stamps._seen.values()), None)
