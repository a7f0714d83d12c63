"""Mode "r+" where something fails: the pager dies, the disk is full, a store is read-only."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import zarr

import lazyarr
from tests.process.running import run_program
from tests.process.test_rights import AS_NOBODY, needs_root
from tests.programs import writable as programs
from tests.stores import images, write_zarr

DATA = images()

_KILLED = "lazyarr: the pager was killed; touching what is not loaded gives SIGBUS from now on\n"


@pytest.fixture
def copy(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, DATA)
    return path


@pytest.mark.parametrize(
    "how",
    [
        *("flush", "rescue", "rescue of a view", "close", "dropped", "exit", "child"),
        *("some flushed", "rescue of what append has returned"),
    ],
)
@pytest.mark.parametrize("layout", ["rows", "shards"])
def test_the_pager_is_killed(tmp_path, copy, how, layout):
    """Supervisor and worker are gone: the process writes back by itself what is in memory."""
    url = str(tmp_path / "x.zarr")
    shards = (8, 32, 128) if layout == "shards" else None
    write_zarr(url, DATA, "x", chunks=(2, 32, 128), shards=shards)
    ended = run_program(programs.the_pager_is_killed, url, copy, how)
    assert (ended.returncode, ended.stderr) == (0, _KILLED), ended.stderr
    if how == "exit":
        expected = DATA.copy()
        expected[::3] = np.arange(0, len(DATA), 3)[:, None, None]
        np.testing.assert_array_equal(zarr.open(url, mode="r")["x"][...], expected)


SMALL_DISK = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=6m none "$0" && exec "$@"')


@needs_root
@pytest.mark.parametrize(
    "program", [programs.no_room_on_the_disk, programs.no_room_in_memory_nor_on_the_disk]
)
def test_the_disk_is_full(tmp_path, program):
    """An exception says so; what was written stays in memory until there is room."""
    ended = run_program(program, tmp_path, wrapper=(*SMALL_DISK, str(tmp_path)))
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert "No space left on device" in ended.stdout


@needs_root
def test_the_end_is_loud(tmp_path):
    """What cannot be written at the end is said once, and the process has failed."""
    ended = run_program(programs.the_end_is_loud, tmp_path, wrapper=(*SMALL_DISK, str(tmp_path)))
    assert ended.returncode == 120
    assert ended.stderr.count("\n") == ended.stderr.count("could not be written back") == 1


@needs_root
def test_the_end_of_a_child_does_not_make_that_of_its_parent_silent(tmp_path):
    """The pager says what is lost: of those that could not flush only one has said so."""
    program = programs.a_child_ends_and_its_parent_is_killed
    ended = run_program(program, tmp_path, wrapper=(*SMALL_DISK, str(tmp_path)))
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert ended.stderr.count("could not be written back") == 1
    assert ended.stderr.count("is lost") == 1


def test_chunks_that_cannot_be_read(tmp_path):
    """They cannot be changed either, and nothing is changed then."""
    url = write_zarr(tmp_path / "x.zarr", DATA, chunks=(4, 32, 128))
    chunk = tmp_path / "x.zarr/c/2/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-7])
    ended = run_program(programs.chunks_that_cannot_be_read, url)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_interrupted(tmp_path, copy):
    """By Ctrl-C in a flush: what was written is in memory or in the store."""
    url = write_zarr(tmp_path / "x.zarr", DATA, chunks=(4, 32, 128))
    ended = run_program(programs.interrupted, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert int(ended.stdout) > 3


@needs_root
def test_a_store_that_is_read_only(tmp_path):
    """Is refused when it is opened."""
    url = write_zarr(tmp_path / "x.zarr", DATA, chunks=(4, 32, 128))
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        os.chmod(parent, 0o755)
    ended = run_program(programs.refuses_to_open, url, wrapper=AS_NOBODY)
    assert ended.returncode == 0, ended.stderr
    assert "may not write" in ended.stdout
    assert lazyarr.open(url)[3].any()


@needs_root
def test_without_rights(tmp_path, copy):
    """With user-mode-only rights threads write as they do with all of them."""
    url = write_zarr(tmp_path / "x.zarr", DATA, chunks=(4, 32, 128))
    for directory, _, files in os.walk(tmp_path):
        os.chmod(directory, 0o777)
        for name in files:
            os.chmod(os.path.join(directory, name), 0o666)
    for parent in (tmp_path.parent, tmp_path.parent.parent, tmp_path.parent.parent.parent):
        os.chmod(parent, 0o755)
    ended = run_program(programs.writes, url, copy, wrapper=AS_NOBODY)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_another_file_has_the_number(tmp_path, copy):
    """Of a program that has closed all descriptors no file is taken for the memory."""
    url = write_zarr(tmp_path / "x.zarr", DATA, chunks=(4, 32, 128))
    ended = run_program(programs.another_file_has_the_number, url, copy)
    assert (ended.returncode, ended.stdout) == (0, "PagerError\n"), ended.stderr


@pytest.mark.parametrize("when", ["asked", "dirty", "dirty, and evicted then"])
def test_a_unit_is_written_back_between_the_look_and_the_assignment(tmp_path, copy, when):
    """And the store takes nothing more then: an assignment is done or raises, without SIGBUS."""
    url = write_zarr(tmp_path / "x.zarr", DATA, chunks=(1, 32, 128))
    ended = run_program(programs.written_back_before_it_is_assigned_to, url, copy, when)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "StoreError\n" * 2
