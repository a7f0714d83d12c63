"""What is forced to the disk, and in which order: seen in the calls that a writer makes."""

from __future__ import annotations

import errno
import os
import threading

import numpy as np
import pytest

import lazyarr
from lazyarr.writer import open_writer

DATA = np.arange(400, dtype="i4").reshape(20, 20)
GRID = {"chunks": (2, 20), "shards": None}


class Disk:
    """What has been forced to the disk, by real calls of this process that are looked at."""

    def __init__(self, monkeypatch):
        self.synced = {}
        self.n_syncs = 0
        self.before_rename = []
        self.before_unlink = []
        self._fsync = os.fsync
        self._lock = threading.Lock()
        for name in ("rename", "replace", "unlink"):
            monkeypatch.setattr(os, name, self._looking(getattr(os, name), name))
        monkeypatch.setattr(os, "fsync", self.fsync)

    def _looking(self, call, name):
        looks = self.before_unlink if name == "unlink" else self.before_rename

        def look_and_call(*names, **options):
            for look in looks:
                look(*names, **options)
            return call(*names, **options)

        return look_and_call

    def fsync(self, fd):
        # Looked at before the call, which forces at least this; of two threads that force one
        # directory, the one that saw less may come here last.
        status = os.fstat(fd)
        self._fsync(fd)
        forced = (status.st_mtime_ns, status.st_size)
        with self._lock:
            self.n_syncs += 1
            before = self.synced.get((status.st_dev, status.st_ino), forced)
            self.synced[status.st_dev, status.st_ino] = max(before, forced)

    def missing(self, *roots):
        """Return what would not outlast a power failure: changed since it was last forced."""
        paths = [*roots, *(path for root in roots for path in root.rglob("*"))]
        return [path for path in paths if not self.has(path)]

    def has(self, path):
        status = path.stat()
        is_forced = self.synced.get((status.st_dev, status.st_ino))
        return is_forced == (status.st_mtime_ns, status.st_size)


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def save(path, **options):
    lazyarr.save(path, {"g/x": DATA, "y": DATA[:3]}, **GRID, **options)


def test_all_of_a_new_store_is_on_the_disk_before_it_is_seen(tmp_path, disk):
    """Every file and directory, before the rename."""
    (tmp_path / "a").mkdir()
    looks = []

    def look(source, target, **_):
        if target == "s":
            (staged,) = (tmp_path / "a").glob(".s.partial-*/store")
            looks.append((len(list(staged.rglob("c/*/0"))), disk.missing(staged)))

    disk.before_rename.append(look)
    save(tmp_path / "a/s")
    assert looks == [(12, [])]
    assert disk.missing(tmp_path / "a/s") == []


def test_directories_above_a_new_store_are_on_the_disk(tmp_path, disk):
    """Those that were made for it, before the directory beside the store is removed."""
    above = tmp_path / "a/b/c"
    before_removal = {}
    disk.before_unlink.append(lambda name, **_: before_removal.update({name: disk.has(above)}))
    save(above / "s")
    assert all(disk.has(tmp_path / name) for name in (".", "a", "a/b"))
    assert before_removal["lock"]


def test_old_store_is_removed_after_the_new_one_has_its_name(tmp_path, disk):
    """A power failure in between must not leave neither."""
    directory = tmp_path / "in"
    save(directory / "s")
    old = (directory / "s").stat().st_ino
    is_forced = []

    def look(*_, **__):
        if (directory / "s").stat().st_ino != old:
            is_forced.append(disk.has(directory))

    disk.before_unlink.append(look)
    save(directory / "s", overwrite=True)
    assert is_forced[0]
    assert disk.missing(directory / "s") == []


def test_rows_are_on_the_disk_before_the_document_counts_them(tmp_path, disk):
    """Chunks and the directories that name them; at the end the document too."""
    save(tmp_path / "s")
    looks = []

    def look(source, target, **_):
        if target == "zarr.json":
            array = tmp_path / "s/g/x"
            chunks = [array, *(array / "c").rglob("*"), array / "c"]
            looks.append([p for p in chunks if p != array and not disk.has(p)])

    disk.before_rename.append(look)
    with open_writer(tmp_path / "s") as writer:
        writer["g/x"].append(DATA)
    assert looks == [[]]
    assert len(list((tmp_path / "s/g/x/c").iterdir())) == 20
    assert disk.missing(tmp_path / "s") == []


def test_new_groups_in_a_store_are_on_the_disk(tmp_path, disk):
    """With all directories that were made for them."""
    save(tmp_path / "s")
    with open_writer(tmp_path / "s") as writer:
        writer.create_array("new/deep/z", shape=(4,), dtype="u1")[:] = 3
    assert disk.missing(tmp_path / "s") == []


def test_nothing_is_forced_where_that_is_not_wanted(tmp_path, disk):
    """For what can be made again: ``durable=False``."""
    save(tmp_path / "s", durable=False)
    with lazyarr.create(tmp_path / "t", durable=False) as writer:
        writer.create_array("x", shape=(4,), dtype="u1")[:] = 3
    with open_writer(tmp_path / "s", durable=False) as writer:
        writer["g/x"].append(DATA)
    assert disk.n_syncs == 0


def test_disk_that_fails_is_an_error_and_leaves_no_store(tmp_path, monkeypatch):
    """What could not be forced to the disk is not published."""
    real = os.fsync

    def fail(fd):
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(lazyarr.StoreError, match="Input/output error"):
        save(tmp_path / "s")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_file_systems_that_force_no_directories_are_written_to(tmp_path, monkeypatch, number):
    """Some network file systems refuse it; files are forced all the same."""
    real, files = os.fsync, []

    def refuse(fd):
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            raise OSError(number, os.strerror(number))
        files.append(fd)
        real(fd)

    monkeypatch.setattr(os, "fsync", refuse)
    save(tmp_path / "s")
    with open_writer(tmp_path / "s") as writer:
        writer["y"].append(DATA)
    assert len(files) > 20
    assert len(lazyarr.open(tmp_path / "s")["y"]) == 23
