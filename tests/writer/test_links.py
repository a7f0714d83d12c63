"""What others plant beside a store, or in it, leads a writer nowhere."""

from __future__ import annotations

import os
import shutil
import stat

import numpy as np
import pytest

import lazyarr
from lazyarr.errors import StoreError
from lazyarr.kernel import exchange_paths
from lazyarr.writer import open_writer
from lazyarr.writer.staging import StagedDirectory
from tests.writer.stores import partials, read_tree, same

DATA = np.arange(60, dtype="i4").reshape(12, 5)
STRANGER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="files of other users are made by root")


@pytest.fixture
def precious(tmp_path):
    """Return a directory elsewhere that looks like what writers clear away, and must stay."""
    directory = tmp_path / "elsewhere"
    for name in ("old/zarr.json", "store/zarr.json", "c/0", "file", "deep/c/0"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(b"precious")
    before = snapshot(directory)
    yield directory
    assert snapshot(directory) == before


def snapshot(directory):
    return {
        path.relative_to(directory): path.lstat().st_mode if path.is_dir() else path.read_bytes()
        for path in directory.rglob("*")
    }


@pytest.fixture
def shared(tmp_path):
    """Return a directory that everybody may write to."""
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o1777)
    return directory


def plant_link(shared, precious):
    (shared / ".x.partial-0").symlink_to(precious)


def plant_links_inside(shared, precious):
    directory = shared / ".x.partial-0"
    directory.mkdir()
    for name in ("old", "store", "lock"):
        (directory / name).symlink_to(precious)


def plant_link_to_a_file_as_lock(shared, precious):
    directory = shared / ".x.partial-0"
    directory.mkdir()
    (directory / "lock").symlink_to(precious / "file")
    (directory / "old").mkdir()


def plant_hard_link_as_lock(shared, precious):
    directory = shared / ".x.partial-0"
    directory.mkdir()
    (directory / "lock").hardlink_to(precious / "file")


def plant_fifo_as_lock(shared, precious):
    directory = shared / ".x.partial-0"
    directory.mkdir()
    os.mkfifo(directory / "lock")


def plant_file(shared, precious):
    (shared / ".x.partial-0").hardlink_to(precious / "file")


PLANTS = [
    plant_link,
    plant_links_inside,
    plant_link_to_a_file_as_lock,
    plant_hard_link_as_lock,
    plant_fifo_as_lock,
    plant_file,
]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_planted_beside_a_store_is_not_followed(shared, precious, plant, overwrite):
    """Nothing is moved, locked or removed elsewhere, and the store is written all the same."""
    if overwrite:
        lazyarr.save(shared / "x", DATA[:3])
    plant(shared, precious)
    lazyarr.save(shared / "x", DATA, overwrite=overwrite)
    assert same(read_tree(shared / "x")[""], DATA)


@as_root
def test_directory_of_another_user_is_not_taken_for_a_leftover(shared):
    """Its ``old`` could be anything: it is neither put in the store's place nor removed."""
    theirs = shared / ".x.partial-0"
    (theirs / "old").mkdir(parents=True)
    (theirs / "old/zarr.json").write_bytes(b"theirs")
    for path in (theirs, theirs / "old", theirs / "old/zarr.json"):
        os.chown(path, STRANGER, STRANGER)
    lazyarr.save(shared / "x", DATA)
    assert same(read_tree(shared / "x")[""], DATA)
    assert (theirs / "old/zarr.json").read_bytes() == b"theirs"


@as_root
@pytest.mark.parametrize("overwrite", [False, True])
def test_link_of_another_user_in_the_place_of_a_store_is_refused(shared, precious, overwrite):
    """In a directory that others may write to, it would choose what is replaced."""
    (shared / "x").symlink_to(precious)
    os.chown(shared / "x", STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(StoreError, match="a link that another user put there"):
        lazyarr.save(shared / "x", DATA, overwrite=overwrite)
    assert partials(shared) == partials(precious.parent) == []


def test_names_can_not_be_guessed_and_nobody_may_look_in(shared):
    """Twelve random bytes each, and a mode for this user alone; the store's is the usual one."""
    names = set()
    for _ in range(3):
        place = StagedDirectory(str(shared / "x"), overwrite=False)
        (directory,) = (path for path in shared.glob(".x.partial-*") if path.is_dir())
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        names.add(directory.name)
        place.close()
    assert len(names) == 3
    assert all(len(name.removeprefix(".x.partial-")) == 24 for name in names)


def test_what_takes_the_place_of_a_staged_store_is_not_read(shared):
    """Somebody who may rename in the directory above cannot give a writer other objects."""
    place = StagedDirectory(str(shared / "x"), overwrite=False)
    place.put("a", [b"mine"])
    (name,) = (path.name for path in shared.glob(".x.partial-*") if path.is_dir())
    (shared / name).rename(shared / "away")
    (shared / name / "store").mkdir(parents=True)
    (shared / name / "store/a").write_bytes(b"theirs")
    with pytest.raises(StoreError, match="replaced, moved or removed"):
        place.read("a")
    place.put("b", [b"mine"])
    assert (shared / "away/store/b").read_bytes() == b"mine"
    assert not (shared / name / "store/b").exists()
    place.close()


def test_what_comes_in_place_of_the_old_store_is_given_back(shared, precious):
    """Between the last look and the exchange: it is not what was to be replaced."""
    lazyarr.save(shared / "x", DATA)
    place = StagedDirectory(str(shared / "x"), overwrite=True)
    place.put("zarr.json", [b"{}"])

    def swap_and_exchange(*names, **fds):
        if (shared / "x/zarr.json").read_bytes() != b"mine" and not (shared / "gone").exists():
            (shared / "x").rename(shared / "gone")
            (shared / "x").mkdir()
            (shared / "x/zarr.json").write_bytes(b"mine")
        exchange_paths(*names, **fds)

    with pytest.raises(FileExistsError):
        place.publish(exchange=swap_and_exchange)
    place.abort()
    assert (shared / "x/zarr.json").read_bytes() == b"mine"
    assert same(read_tree(shared / "gone")[""], DATA)


@pytest.mark.parametrize("name", ["x", "x/y", "g/x", "deep/c"])
def test_array_is_not_made_behind_a_link_in_a_store(tmp_path, precious, name):
    """What lies where the link leads is not cleared away for it."""
    lazyarr.save(tmp_path / "s", {"a": DATA, "g/b": DATA})
    link = tmp_path / "s" / name.split("/")[0]
    shutil.rmtree(link, ignore_errors=True)
    link.symlink_to(precious)
    with open_writer(tmp_path / "s") as writer, pytest.raises(StoreError, match="symbolic link"):
        writer.create_array(name, shape=DATA.shape, dtype=DATA.dtype)
    assert same(read_tree(tmp_path / "s")["a"], DATA)


def test_rows_are_not_appended_behind_a_link(tmp_path):
    """The array that the link leads to stays as it is; opened there, it takes them."""
    lazyarr.save(tmp_path / "elsewhere", DATA)
    lazyarr.save(tmp_path / "s", {"a": DATA})
    (tmp_path / "s/x").symlink_to(tmp_path / "elsewhere")
    before = snapshot(tmp_path / "elsewhere")
    writer = open_writer(tmp_path / "s")
    writer["x"].append(DATA)
    with pytest.raises(StoreError, match="write to what it leads to"):
        writer.close()
    assert snapshot(tmp_path / "elsewhere") == before
    with open_writer(tmp_path / "elsewhere") as writer:
        writer[""].append(DATA)
    assert len(read_tree(tmp_path / "elsewhere")[""]) == 2 * len(DATA)
