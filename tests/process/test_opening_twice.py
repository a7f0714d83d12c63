"""An array that is opened again has the pages that are there, while nothing has changed."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import zarr

import lazyarr
from tests.process.running import run_program
from tests.programs import opening_again, scripts
from tests.programs import opening_twice as programs
from tests.stores import images, settle, write_zarr

DATA = images((64, 16, 64))
OTHER = DATA[::-1] + 1


def objects(url):
    """Return the files of a store."""
    return [path for path in Path(url).rglob("*") if path.is_file()]


def is_shared(*arrays):
    """Return whether arrays have the same pages."""
    return len({array._region.number for array in arrays}) == 1


def write_plain(path):
    return write_zarr(path, DATA, chunks=(4, 16, 64))


def write_sharded(path):
    return write_zarr(path, DATA, chunks=(4, 16, 64), shards=(16, 16, 64))


def write_tiles(path):
    return write_zarr(path, DATA, chunks=(16, 8, 32))


def write_version_2(path):
    return write_zarr(path, DATA, chunks=(4, 16, 64), zarr_format=2)


def write_ours(path):
    lazyarr.save(path, DATA, chunks=(4, 16, 64), shards=(32, 16, 64))
    return str(path)


WRITERS = [write_plain, write_sharded, write_tiles, write_version_2, write_ours]


@pytest.fixture(params=WRITERS)
def url(request, tmp_path):
    """A store that was not changed just now."""
    url = request.param(tmp_path / "x.zarr")
    settle(*objects(url))
    return url


@pytest.mark.parametrize("n_read", [0, 5, 64])
def test_the_second_opening_has_the_pages_of_the_first(url, n_read):
    """Nothing is read again, in whatever way the store is written, and however it is named."""
    x = lazyarr.open(url)
    np.testing.assert_array_equal(x[:n_read].copy(), DATA[:n_read])
    before = lazyarr.stats()["units_loaded"]
    opened = [lazyarr.open(url), lazyarr.open(f"file://{url}"), lazyarr.open(Path(url))]
    assert is_shared(x, *opened)
    for y in opened:
        np.testing.assert_array_equal(y[:n_read].copy(), DATA[:n_read])
        assert y.residency().resident_units == x.residency().resident_units
    assert lazyarr.stats()["units_loaded"] == before
    np.testing.assert_array_equal(np.asarray(opened[0]), DATA)


def test_each_array_of_a_group_has_its_own(tmp_path):
    """Arrays with the same metadata at different places are not one."""
    lazyarr.save(tmp_path / "x.zarr", {"a": DATA, "b": OTHER})
    settle(*objects(tmp_path / "x.zarr"))
    first, second = lazyarr.open(tmp_path / "x.zarr"), lazyarr.open(tmp_path / "x.zarr")
    for name, data in (("a", DATA), ("b", OTHER)):
        np.testing.assert_array_equal(np.asarray(first[name]), data)
        np.testing.assert_array_equal(np.asarray(second[name]), data)
        assert is_shared(first[name], second[name])
    assert not is_shared(first["a"], first["b"])


def test_private_memory_is_nobody_elses(url):
    """Mode c and memory="private" are what they say."""
    x = lazyarr.open(url)
    mine = [lazyarr.open(url, mode="c"), lazyarr.open(url, mode="c")]
    alone = lazyarr.open(url, memory="private")
    assert len({array._region.number for array in (x, *mine, alone)}) == 4
    mine[0][3] = 7
    for array in (x, mine[1], alone):
        np.testing.assert_array_equal(np.asarray(array), DATA)


def test_the_pages_stay_until_the_last_is_dropped(url):
    """Arrays of one opening are valid after those of another are gone."""
    x = lazyarr.open(url)
    region = x._region
    y, z = lazyarr.open(url), lazyarr.open(url)
    del x, y
    while region.n_users > 1:
        os.sched_yield()
    np.testing.assert_array_equal(np.asarray(z), DATA)
    del z
    while region.n_users:
        os.sched_yield()


# --- a store that has changed -----------------------------------------------------------------


def overwrite(url):
    lazyarr.save(url, OTHER, chunks=(4, 16, 64), overwrite=True)


def overwrite_with_zarr(url):
    kind = zarr.open_array(url)
    options = {"chunks": kind.chunks, "shards": kind.shards}
    write_zarr(url, OTHER, zarr_format=kind.metadata.zarr_format, **options)


def write_elements(url):
    zarr.open_array(url, mode="r+")[...] = OTHER


def change_in_place(url):
    """Bytes of the same number in the same files, at the same time as far as can be set."""
    other = Path(url).parent / "other.zarr"
    shutil.copytree(url, other)
    write_elements(other)
    for path in objects(other):
        old = Path(url) / path.relative_to(other)
        status = old.stat()
        with old.open("r+b") as file:
            file.write(path.read_bytes())
            file.truncate()
        os.utime(old, ns=(status.st_atime_ns, status.st_mtime_ns))


def rename_files(url):
    other = Path(url).parent / "other.zarr"
    shutil.copytree(url, other)
    write_elements(other)
    for path in objects(other):
        os.replace(path, Path(url) / path.relative_to(other))


def rename_directories(url):
    other = Path(url).parent / "other.zarr"
    shutil.copytree(url, other)
    write_elements(other)
    os.rename(url, f"{url}.old")
    os.rename(other, url)


CHANGES = [
    overwrite,
    overwrite_with_zarr,
    write_elements,
    change_in_place,
    rename_files,
    rename_directories,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_store_that_was_rewritten_is_read_anew(url, change):
    """The new opening has the new bytes and nothing else, and does not disturb the old one."""
    x = lazyarr.open(url)
    np.testing.assert_array_equal(np.asarray(x), DATA)
    change(url)
    y = lazyarr.open(url)
    assert not is_shared(x, y)
    np.testing.assert_array_equal(np.asarray(y), OTHER)
    np.testing.assert_array_equal(np.asarray(x), DATA)
    settle(*objects(url))
    z = lazyarr.open(url)
    np.testing.assert_array_equal(np.asarray(z), OTHER)


@pytest.mark.parametrize("change", CHANGES)
def test_a_store_of_which_little_was_read(url, change):
    """One changed object that was read is enough; a shard's index is one too."""
    x = lazyarr.open(url)
    assert (x[33] == DATA[33]).all()
    change(url)
    y = lazyarr.open(url)
    np.testing.assert_array_equal(np.asarray(y), OTHER)


def test_a_chunk_that_was_missing_is_there(tmp_path):
    """Its fill value was read; then it was written.  And the other way round."""
    url = tmp_path / "x.zarr"
    store = zarr.create_array(url, shape=(64, 64), chunks=(4, 64), dtype="u2")
    store[:32] = 5
    settle(*objects(url))
    x = lazyarr.open(url)
    assert not x[40].any()
    assert x[3].all()
    store[40] = 7
    y = lazyarr.open(url)
    assert (y[40] == 7).all()
    assert not np.asarray(x)[40].any()
    (url / "c/0/0").unlink()
    assert not lazyarr.open(url)[3].any()


def test_rows_that_were_appended(tmp_path):
    """The array is longer, and what was the last shard is another."""
    lazyarr.save(tmp_path / "x.zarr", DATA[:30], chunks=(4, 16, 64), shards=(16, 16, 64))
    settle(*objects(tmp_path / "x.zarr"))
    x = lazyarr.open(tmp_path / "x.zarr")
    np.testing.assert_array_equal(np.asarray(x), DATA[:30])
    with lazyarr.writer.open_writer(tmp_path / "x.zarr") as writer:
        writer[""].append(DATA[30:])
    y = lazyarr.open(tmp_path / "x.zarr")
    np.testing.assert_array_equal(np.asarray(y), DATA)
    np.testing.assert_array_equal(np.asarray(x), DATA[:30])


def test_an_opening_while_a_writer_is_at_work(tmp_path):
    """Each opening sees what was complete when it began, or something newer."""
    url = tmp_path / "x.zarr"
    store = zarr.create_array(url, shape=(16, 64), chunks=(1, 64), dtype="u4")
    stop, written, wrong = threading.Event(), [0] * 16, []

    def write():
        for value in range(1, 80):
            for row in range(16):
                store[row] = value
                written[row] = value
            if wrong:
                break
        stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    kept = []
    while not stop.is_set():
        least = written.copy()
        x = lazyarr.open(url)
        found = np.asarray(x)[:, 5].tolist()
        wrong += [pair for pair in zip(found, least, strict=True) if pair[0] < pair[1]]
        kept = [*kept[-3:], x]
    writer.join()
    assert not wrong


# --- stores that cannot tell -------------------------------------------------------------------


def test_objects_in_memory_are_copied_at_each_opening():
    """A memory:// store is as it was when it was opened; so no two openings are one."""
    lazyarr.save("memory://twice", DATA)
    x = lazyarr.open("memory://twice")
    lazyarr.save("memory://twice", OTHER, overwrite=True)
    y = lazyarr.open("memory://twice")
    np.testing.assert_array_equal(np.asarray(x), DATA)
    np.testing.assert_array_equal(np.asarray(y), OTHER)


def test_a_remote_store_shares_until_it_is_read(http_server):
    """Nobody can tell cheaply whether objects there have changed; what was not read has not."""
    write_zarr(Path(http_server.directory) / "x.zarr", DATA, chunks=(4, 16, 64))
    x, y = (lazyarr.open(f"{http_server.url}/x.zarr") for _ in range(2))
    assert is_shared(x, y)
    np.testing.assert_array_equal(np.asarray(x), DATA)
    z = lazyarr.open(f"{http_server.url}/x.zarr")
    assert not is_shared(x, z)
    np.testing.assert_array_equal(np.asarray(z), DATA)


# --- other processes of the same pager ------------------------------------------------------------


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    url = write_plain(tmp_path_factory.mktemp("twice") / "x.zarr")
    settle(*objects(url))
    return url


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_that_opens_by_itself_shares(quiet, method):
    """A child that has come to the pager finds the pages of its parent by what they are of."""
    ended = run_program(scripts.start, opening_again.__file__, method, quiet)
    assert (ended.returncode, ended.stdout) == (0, "16\n"), ended.stderr


def test_a_parent_finds_what_its_child_has_opened(quiet):
    """It works in both directions, and through a worker that dies in between."""
    ended = run_program(programs.a_parent_finds_what_its_child_has_opened, quiet)
    assert (ended.returncode, ended.stdout) == (0, "16 3\n16 2\n"), ended.stderr


def test_threads_open_and_drop_one_array(quiet):
    """Openings and ends of many threads do not get in each other's way."""
    ended = run_program(programs.threads_open_and_drop_one_array, quiet)
    assert (ended.returncode, ended.stderr) == (0, "")
