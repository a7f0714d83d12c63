"""Mode "r+": what is written to memory, in whatever way, is what zarr-python reads afterwards."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import zarr

import lazyarr
from tests.process.running import (
    end_program,
    family,
    pagers,
    run_program,
    start_program,
    wait_until,
)
from tests.programs import writable as programs
from tests.stores import images, write_zarr

DATA = images()

LAYOUTS = {
    "rows": {"chunks": (4, 32, 128)},
    "tiles": {"chunks": (4, 16, 100)},
    "shards": {"chunks": (2, 32, 128), "shards": (16, 32, 128)},
    "odd": {"chunks": (3, 32, 128)},  # units that share no page, and a last one that is shorter
    "small": {"chunks": (1, 5, 7)},
    "version 2": {"chunks": (4, 32, 128), "zarr_format": 2},
    "big endian": {"chunks": (4, 32, 128), "zarr_format": 2, "dtype": ">u2"},
}


@pytest.fixture
def copy(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, DATA)
    return path


def make(tmp_path, layout="rows"):
    options = dict(LAYOUTS[layout])
    data = DATA.astype(options.pop("dtype", DATA.dtype))
    return write_zarr(tmp_path / "x.zarr", data, **options)


@pytest.fixture
def url(tmp_path):
    return make(tmp_path)


def run_right(program, *arguments, **options):
    """Run a program that must end well; return what it has said."""
    ended = run_program(program, *arguments, **options)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    return ended.stdout


_REPLACED = "lazyarr: the pager's worker died of SIGKILL; another takes over"


def stored(url):
    return np.asarray(zarr.open_array(url, mode="r")[...])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_written_is_flushed(tmp_path, copy, layout):
    """By assignment, by operators and past lazyarr; a unit that was flushed is protected again."""
    run_right(programs.writes, make(tmp_path, layout), copy)


@pytest.mark.parametrize("layout", ["rows", "tiles", "shards"])
def test_every_way_to_write(tmp_path, copy, layout):
    """NumPy's functions, numba and memset, with flushes and evictions in between."""
    run_right(programs.writes_in_every_way, make(tmp_path, layout), copy)


@pytest.mark.parametrize(
    "program",
    [
        programs.several_threads,
        programs.one_unit_by_many_threads,
        programs.forked_writers,
        programs.spawned_writers,
        programs.two_openings_are_one,
        programs.reopened_at_once,
        programs.pickles_find_the_same_pages,
    ],
)
def test_several_at_once(url, copy, program):
    """Threads, forked and spawned processes and several openings write to the same memory."""
    run_right(program, url, copy)


@pytest.mark.parametrize("layout", ["rows", "shards"])
def test_far_beyond_the_limit(tmp_path, copy, layout):
    """More is written than there is room for: it is written back meanwhile."""
    run_right(programs.far_beyond_the_limit, make(tmp_path, layout), copy, "256 KiB")


@pytest.mark.parametrize("how", ["dropped", "_exit", "kill", "sys.exit", "closed", "child"])
def test_nobody_flushes(url, copy, how):
    """Whatever becomes of the array and its process, the pager writes back what was written."""
    ended = run_program(programs.leaves_it_to_the_pager, url, copy, how)
    assert ended.returncode == (-signal.SIGKILL if how == "kill" else 0), ended.stderr
    assert ended.stderr == ""
    expected = np.load(copy)
    expected[7], expected[60] = 3, 4
    if how == "child":
        expected[8] = 6
    np.testing.assert_array_equal(stored(url), expected)


def test_workers_die_between_writes(url, copy):
    """What was written is there for the next worker, and is written back by it."""
    ended = run_program(programs.workers_die_between_writes, url, copy, 3)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.splitlines() == [_REPLACED] * 12


def test_workers_die_during_writes(url, copy):
    """At random moments, also while units are written back."""
    ended = run_program(programs.workers_die_during_writes, url, copy, 4)
    assert ended.returncode == 0, ended.stderr
    assert set(ended.stderr.splitlines()) == {_REPLACED}
    n_turns, n_killed = map(int, ended.stdout.split())
    assert min(n_turns, 10 * n_killed) > 15, ended.stdout


@pytest.mark.parametrize("also", ["alone", "worker", "supervisor", "sentinel"])
def test_a_client_is_killed(tmp_path, also):
    """Each write that it had made is in the store in the end, whoever dies with it."""
    url = make(tmp_path, "shards" if also == "worker" else "rows")
    for turn in range(2):
        expected = stored(url)
        process, mark = start_program(programs.writes_until_it_is_killed, url)
        try:
            assert process.stdout is not None
            worker = int(process.stdout.readline())
            supervisor, sentinel = family(mark, worker)
            victim = {"worker": worker, "supervisor": supervisor, "sentinel": sentinel}.get(also)
            said = [process.stdout.readline() for _ in range(90 + 77 * turn)]
            process.kill()
            if victim is not None:
                os.kill(victim, signal.SIGKILL)
            said += process.stdout.read().splitlines()
        finally:
            end_program(process)
        assert wait_until(lambda mark=mark: not pagers(mark))
        for line in said:
            row, value = map(int, line.split())
            expected[row] = value
        found = stored(url)
        # The last write may have been made, or be half made, before it could be told of.
        differs = np.flatnonzero((found != expected).any(axis=(1, 2)))
        assert len(differs) <= 1, differs


@pytest.mark.parametrize("shards", [None, (16, 4096)])
def test_over_a_network(s3_server, s3_bucket, shards):
    """Nobody can claim such a store; its objects are written if they are what they were."""
    options, data = s3_server.storage_options, images((64, 4096))
    url = f"s3://{s3_bucket.removeprefix('s3://')}/x.zarr"
    lazyarr.save(url, {"x": data}, chunks=(4, 4096), shards=shards, storage_options=options)
    with lazyarr.open(url, "r+", storage_options=options) as ds:
        ds["x"][5] = data[5] = 1
        np.asarray(ds["x"])[60:] = data[60:] = 7
        assert ds.flush().units == 2
        ds["x"][6] = data[6] = 2
    found = lazyarr.open(url, storage_options=options)["x"]
    np.testing.assert_array_equal(found[:], data)


def test_a_store_that_was_closed_can_be_written_anew(url):
    """The pager has let go of the claim by then, or does so at once."""
    for turn in range(3):
        lazyarr.save(url, {"x": DATA}, overwrite=True)
        with lazyarr.open(url, "r+") as ds:
            ds["x"][turn] = 1
    np.testing.assert_array_equal(zarr.open(url, mode="r")["x"][2], np.ones_like(DATA[2]))
