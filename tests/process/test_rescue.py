"""Mode "r+" without a pager: several processes have an array, and each can write it back."""

from __future__ import annotations

import signal

import numpy as np
import pytest
import zarr

from tests.process.running import run_program, wait_until
from tests.programs import rescue as programs
from tests.stores import images, write_zarr

DATA = images()
CHUNKS = (2, 32, 128)
SHARDS = (8, 32, 128)
LAYOUTS = pytest.mark.parametrize("shards", [None, SHARDS], ids=["rows", "shards"])

_KILLED = "lazyarr: the pager was killed; touching what is not loaded gives SIGBUS from now on\n"


@pytest.fixture
def copy(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, DATA)
    return path


def _write(tmp_path, shards=None):
    return write_zarr(tmp_path / "x.zarr", DATA, chunks=CHUNKS, shards=shards)


def _require_success(ended):
    assert (ended.returncode, ended.stderr) == (0, _KILLED), ended.stderr


@LAYOUTS
def test_an_older_copy_is_not_put_last(tmp_path, copy, shards):
    """Two processes write back at once, and one has copied before the other wrote anew."""
    url = _write(tmp_path, shards)
    _require_success(run_program(programs.an_older_copy_is_not_put_last, url, copy))


@pytest.mark.parametrize("how", ["killed", "flushes"])
@LAYOUTS
def test_a_child_writes_after_its_parent_has_rescued(tmp_path, copy, shards, how):
    """Nobody can forbid it that, so it is written back, by whoever is left."""
    url = _write(tmp_path, shards)
    program = programs.a_child_writes_after_its_parent_has_rescued
    _require_success(run_program(program, url, copy, how))


@pytest.mark.parametrize("first", ["parent", "child"])
@LAYOUTS
def test_both_have_written(tmp_path, copy, shards, first):
    """Each of them writes back what both have written."""
    url = _write(tmp_path, shards)
    _require_success(run_program(programs.both_have_written, url, copy, first))


@pytest.mark.parametrize(
    "program", [programs.a_child_may_still_write_back, programs.a_child_that_came_too_late]
)
def test_opening_anew(tmp_path, copy, program):
    """Not while a child may write back what is older."""
    url = str(tmp_path / "x.zarr")
    write_zarr(url, DATA, "x", chunks=CHUNKS)
    _require_success(run_program(program, url, copy))


def test_only_an_attached_process_is_left(tmp_path, copy):
    """What it has from a pickle it writes back, and until then nobody else writes to the store."""
    url = _write(tmp_path)
    ended = run_program(programs.only_an_attached_process_is_left, url, copy)
    assert ended.returncode == 0, ended.stderr


def test_one_shard_is_damaged(tmp_path, copy):
    """The others are written all the same."""
    url = _write(tmp_path, SHARDS)
    ended = run_program(programs.one_shard_is_damaged, url, copy)
    _require_success(ended)
    assert "damaged" in ended.stdout


def test_pages_are_missing(tmp_path, copy):
    """An exception says so, the rest is written, and no zeros."""
    url = _write(tmp_path)
    ended = run_program(programs.pages_are_missing, url, copy)
    _require_success(ended)
    assert "not in memory any more" in ended.stdout


def test_everything_is_killed(tmp_path, copy):
    """Clients die of SIGBUS; the store has what was flushed, whole, and is not claimed."""
    url = _write(tmp_path)
    ended = run_program(programs.everything_is_killed, url, copy)
    assert ended.returncode == -signal.SIGBUS, ended.stderr
    child = int(ended.stdout)
    assert wait_until(lambda: not programs.lives(child))
    expected = DATA.copy()
    expected[::3] = 5
    np.testing.assert_array_equal(zarr.open_array(url, mode="r")[...], expected)
    np.save(copy, expected)
    assert run_program(programs.writes_anew, url, copy).returncode == 0


@pytest.mark.parametrize("held", ["array", "view", "plain", "memory"])
def test_what_is_opened_again_is_another_array(tmp_path, copy, held):
    """As the error says: open it again.  What the old one had is in the store before that."""
    url = _write(tmp_path)
    ended = run_program(programs.what_is_opened_again_is_another_array, url, copy, held)
    _require_success(ended)
    refused = ["ValueError"] if held == "array" else []
    assert ended.stdout.split() == ["NoObjectError", *refused]


def test_a_dataset_lets_go_of_what_nobody_fills(tmp_path, copy):
    """A dataset that was open before gives what another opening has found."""
    zarr.open_group(tmp_path, mode="a")
    url = _write(tmp_path)
    _require_success(run_program(programs.a_dataset_lets_go_of_what_nobody_fills, url, copy))
