"""What is written to arrays comes into the store, whoever dies meanwhile.

zarr-python says what the stores hold in the end.
"""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import zarr

from tests.process.running import (
    end_program,
    ended_by,
    pagers,
    run_program,
    start_program,
    wait_until,
)
from tests.programs import write_back as programs
from tests.stores import images, write_zarr

# Chunks of 4800 bytes, so that units share pages; nothing checks what is read of these.
SMALL = images((60, 16, 150))
PLAIN = {"chunks": (1, 16, 150), "compressors": None, "filters": None}
SHARDED = {**PLAIN, "shards": (6, 16, 150)}
# Chunks of whole pages.
WHOLE = {"chunks": (2, 32, 128), "shards": (8, 32, 128)}
TAKES_OVER = "lazyarr: the pager's worker died of SIGKILL; another takes over"


@pytest.fixture
def make(tmp_path):
    """Return a function that makes a store, and a copy of its array in a file."""

    def make(data, **options):
        np.save(tmp_path / "x.npy", data)
        return write_zarr(tmp_path / "x.zarr", data, **options), tmp_path / "x.npy"

    return make


def assert_same(url, copy):
    found, expected = zarr.open_array(url, mode="r")[...], np.load(copy)
    different = np.flatnonzero((found != expected).reshape(len(found), -1).any(axis=1))
    assert not different.size, f"rows {different} are not what was written"


@pytest.mark.parametrize(
    ("data", "options", "limit"),
    [(SMALL, PLAIN, "256KiB"), (SMALL, SHARDED, "128KiB"), (images(), WHOLE, "256KiB")],
    ids=["chunks", "shards", "whole pages"],
)
def test_workers_die_while_arrays_are_written(make, data, options, limit):
    """Threads write, read, flush and evict: they read what they wrote, and the store has it."""
    url, copy = make(data, **options)
    ended = run_program(programs.workers_die_while_arrays_are_written, url, copy, limit)
    assert (ended.returncode, ended.stdout) == (0, "10 0 0\n"), ended.stderr
    assert set(ended.stderr.splitlines()) == {TAKES_OVER}
    assert_same(url, copy)


def test_a_worker_dies_while_it_writes_back(make):
    """A flush that was asked for ends all the same."""
    url, copy = make(images((200, 32, 64)), chunks=(1, 32, 64))
    ended = run_program(programs.a_worker_dies_while_it_writes_back, url, copy)
    assert (ended.returncode, ended.stdout) == (0, "3 0\n"), ended.stderr
    assert_same(url, copy)


def test_shards_are_replaced_by_s3(tmp_path, s3_server):
    """Chunks that nobody has written to are read right before, while and after that."""
    url, options = f"s3://{s3_server.make_bucket()}/a.zarr", s3_server.storage_options
    z = zarr.create_array(
        url, shape=SMALL.shape, dtype=SMALL.dtype, storage_options=options, **SHARDED
    )
    z[...] = SMALL
    copy = tmp_path / "x.npy"
    np.save(copy, SMALL)
    ended = run_program(programs.shards_are_replaced_by_s3, url, json.dumps(options), copy)
    assert (ended.returncode, ended.stdout) == (0, "0\n"), ended.stderr
    z = zarr.open_array(url, mode="r", storage_options=options)
    assert np.array_equal(z[...], np.load(copy))


def test_a_client_is_killed_that_has_written(make):
    """The pager ends when all is in the store, and not before."""
    url, copy = make(SMALL, **SHARDED)
    ended = run_program(programs.a_client_is_killed_that_has_written, url, copy)
    n_units, nbytes, n_written = map(int, ended.stdout.split())
    assert n_units >= 5
    assert nbytes == n_units * SMALL[0].nbytes
    assert n_written == 0
    assert (ended_by(ended), ended.stderr) == ("SIGKILL", "")
    assert_same(url, copy)


def test_a_client_is_killed_while_there_is_no_worker(make):
    """The next worker finds nobody, and memory that is dirty: it writes it back and ends."""
    url, copy = make(SMALL, **SHARDED)
    process, mark = start_program(programs.a_client_is_killed_while_there_is_no_worker, url, copy)
    try:
        supervisor = int(process.stdout.readline())
        process.wait(60)
        os.kill(supervisor, signal.SIGCONT)
        assert wait_until(lambda: not pagers(mark))
        assert process.stderr.read() == f"{TAKES_OVER}\n"
    finally:
        end_program(process)
    assert process.returncode == -signal.SIGKILL
    assert_same(url, copy)


def test_a_worker_dies_while_it_writes_for_a_client_that_is_gone(make):
    """The next one goes on with that."""
    url, copy = make(images((200, 32, 64)), chunks=(1, 32, 64))
    ended = run_program(programs.a_worker_dies_while_it_writes_for_a_client_that_is_gone, url, copy)
    assert ended_by(ended) == "SIGKILL"
    assert_same(url, copy)


def test_a_store_that_takes_nothing_for_a_while(make):
    """A flush fails, nothing is forgotten, and the next flush writes it."""
    url, copy = make(SMALL, **PLAIN)
    ended = run_program(programs.a_store_that_takes_nothing_for_a_while, url)
    lines = ended.stdout.splitlines()
    assert ended.returncode == 0, ended.stderr
    (error, n_dirty), (n_written, n_left) = (line.split() for line in lines)
    assert error.endswith("Error")
    assert n_dirty == n_written != "0"
    assert n_left == "0"
    expected = SMALL.copy()
    expected[3] = 7
    np.save(copy, expected)
    assert_same(url, copy)


def test_a_store_that_takes_nothing_any_more(make):
    """The pager says on stderr what is lost, and ends."""
    url, _ = make(SMALL, **PLAIN)
    ended = run_program(programs.a_store_that_takes_nothing_any_more, url)
    assert ended_by(ended) == "SIGKILL"
    (line,) = ended.stderr.splitlines()
    assert "is lost: cannot write" in line
    assert url in line


def test_a_region_stays_retired(make):
    """A worker that takes over lets nobody write to it; what is in memory can be read."""
    url, copy = make(SMALL, **PLAIN)
    ended = run_program(programs.a_region_stays_retired, url)
    assert (ended_by(ended), ended.stdout) == ("SIGBUS", "7\n"), ended.stderr
    assert "the array is read-only" in ended.stderr
    expected = SMALL.copy()
    expected[3] = 7
    np.save(copy, expected)
    assert_same(url, copy)


@pytest.mark.parametrize("how", ["touched", "killed"])
def test_a_page_is_taken_out_next_to_what_was_written(make, how):
    """What is written later next to it is noted: a page that two rows share is protected again."""
    url, copy = make(SMALL, **PLAIN)
    program = programs.a_page_is_taken_out_next_to_what_was_written
    ended = run_program(program, url, copy, how)
    assert (ended.returncode, ended.stdout) == (0, "4 0\n"), ended.stderr
    is_lost = "is not in memory any more" if how == "killed" else "is lost: a page of memory"
    assert "what was written to 1 units of" in ended.stderr
    assert is_lost in ended.stderr
    found, expected = zarr.open_array(url, mode="r")[...], np.load(copy)
    assert found[5, -1, -1] == 9
    assert np.array_equal(found[6:], expected[6:])
