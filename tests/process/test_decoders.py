"""On machines of many cores processes beside the worker decode; they may die like it."""

from __future__ import annotations

import os
import resource
import signal
import time
from contextlib import suppress

import numpy as np
import pytest
import zarr
from zarr.codecs import GzipCodec

import lazyarr
from lazyarr.pager.lifecycle.supervisor import DEADLY
from tests.process.running import (
    children,
    decoders,
    end_program,
    ended_by,
    pagers,
    run_program,
    start_program,
    stop,
    wait_until,
)
from tests.process.test_supervisor import REASON, opens
from tests.programs import decoders as programs

SHAPE = (96, 256, 512)
DATA = np.random.default_rng(7).integers(0, 64, SHAPE, dtype="u1")
_SLOW_NBYTES = 64 << 20
_SETTLED_SECONDS = 0.05


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    path = tmp_path_factory.mktemp("decoders") / "x.zarr"
    lazyarr.save(path, DATA, chunks=(4, *SHAPE[1:]), shards=(32, *SHAPE[1:]))
    return path


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    path = tmp_path_factory.mktemp("decoders") / "x.npy"
    np.save(path, DATA)
    return path


def test_every_way_of_reading_gives_what_is_stored(url, copy):
    """Asked for, picked, touched, scanned, by several threads, in a child, in mode "c"."""
    ended = run_program(programs.every_way_of_reading_gives_what_is_stored, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_none_is_started_where_one_process_is_enough(url):
    """Nor before anything is read."""
    ended = run_program(programs.none_is_started_where_one_process_is_enough, url)
    assert (ended.returncode, ended.stdout) == (0, "0 0\n"), ended.stderr


def test_there_are_no_more_than_the_threads_need(url):
    """Four threads to each."""
    ended = run_program(programs.there_are_no_more_than_the_threads_need, url)
    assert (ended.returncode, ended.stdout) == (0, "3\n"), ended.stderr


def test_the_limit_holds(url, copy):
    """What is on its way elsewhere counts, and so does the memory it is decoded in."""
    ended = run_program(programs.the_limit_holds, url, copy)
    assert (ended.returncode, ended.stdout) == (0, "True\n"), ended.stderr


def test_damage_is_an_error_with_everything_in_it(tmp_path):
    """As it is when the worker decodes; and what is mended is read."""
    path = tmp_path / "x.zarr"
    lazyarr.save(path, DATA, chunks=(4, *SHAPE[1:]), shards=SHAPE)
    ended = run_program(programs.damage_is_an_error_with_everything_in_it, path)
    assert (ended.returncode, ended.stdout) == (0, "(0, 0, 0) True\n256\n"), ended.stderr


def test_one_that_is_killed_is_replaced_with_its_worker(url, copy):
    """All reads are right, whoever dies."""
    process, mark = start_program(
        programs.one_that_is_killed_is_replaced_with_its_worker, url, copy
    )
    try:
        for _ in range(8):
            # The first of them is certainly at work, and the others may be about to, or
            # have been ended by the supervisor meanwhile.
            for pid in sorted(decoders(int(process.stdout.readline()))):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.stdin.write("\n")
            process.stdin.flush()
        stdout, stderr = process.communicate(timeout=60)
    finally:
        end_program(process)
    assert (stdout, process.returncode) == ("[]\n", 0), stderr
    lines = [line for line in stderr.splitlines() if "was to decode" not in line]
    line = "lazyarr: a process that decodes for the pager died of SIGKILL; another takes over"
    assert lines == [line] * 8
    assert wait_until(lambda: not pagers(mark))


def test_without_descriptors_to_spare_the_worker_loads(url, copy):
    """A job whose descriptors do not come is not lost."""
    process, mark = start_program(programs.without_descriptors_to_spare_the_worker_loads, url, copy)
    try:
        for pid in decoders(int(process.stdout.readline())):
            n_open = len(os.listdir(f"/proc/{pid}/fd"))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (n_open, n_open))
        stdout, stderr = process.communicate("\n", timeout=60)
    finally:
        end_program(process)
    assert (stdout, stderr, process.returncode) == ("0\n", "", 0)
    assert wait_until(lambda: not pagers(mark))


def test_one_that_is_stopped_is_replaced(url, copy):
    """After `stop_timeout`, as a worker is."""
    process, mark = start_program(programs.one_that_is_stopped_is_replaced, url, copy)
    try:
        stop(*decoders(int(process.stdout.readline())))
        stdout, stderr = process.communicate("\n", timeout=60)
    finally:
        end_program(process)
    assert (stdout, process.returncode) == ("1\n", 0), stderr
    assert wait_until(lambda: not pagers(mark))


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """Chunks of one shard that take half a second to decode."""
    path = tmp_path_factory.mktemp("decoders") / "slow.zarr"
    data = np.random.default_rng(0).integers(0, 16, (2, _SLOW_NBYTES), dtype="u1")
    array = zarr.create_array(
        os.fspath(path),
        shape=data.shape,
        shards=data.shape,
        chunks=(1, _SLOW_NBYTES),
        dtype="u1",
        compressors=GzipCodec(level=1),
    )
    array[:] = data
    return path, int(data[1, 5])


def wait_for_opener(find, path):
    """Return a process that has a file open, and still has a moment later.

    One that has just opened it may not have written down yet which unit it is at; its death
    would not count.
    """
    openers = []

    def look():
        found = [p for p in find() if opens(p, path)]
        time.sleep(_SETTLED_SECONDS)
        openers.extend(p for p in found if opens(p, path))
        return openers

    assert wait_until(look, 30)
    return openers[0]


@pytest.mark.parametrize("way", ["request", "touch"])
def test_a_unit_that_kills_them_is_given_up(slow, way):
    """Whether a decoder crashes at it or the worker."""
    path, expected = slow
    process, mark = start_program(programs.a_unit_that_kills_them_is_given_up, path, way)
    try:
        worker = int(process.stdout.readline())
        shard, first = path / "c/0/0", decoders(worker)
        os.kill(wait_for_opener(lambda: first, shard), signal.SIGSEGV)
        killed = {worker, *first}
        for _ in range(DEADLY - 1):
            pid = wait_for_opener(lambda: set(pagers(mark)) - killed, shard)
            os.kill(pid, signal.SIGSEGV)
            killed.add(pid)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        end_program(process)
    if way == "request":
        assert stdout == f"ChunkError (1, 0) {REASON}\n{expected}\n", stderr
    else:
        assert (stdout, process.returncode) == ("", -signal.SIGBUS)
        assert REASON in stderr


def test_none_outlives_the_pager(url):
    """When supervisor and worker are killed the decoders end too, and who waits dies loudly."""
    process, mark = start_program(programs.none_outlives_the_pager, url)
    try:
        worker = int(process.stdout.readline())
        (supervisor,) = [p for p in pagers(mark) if worker in children(p)]
        assert len(decoders(worker)) >= 1
        stop(supervisor)
        for pid in (supervisor, worker):
            os.kill(pid, signal.SIGKILL)
        process.communicate("\n", timeout=30)
    finally:
        end_program(process)
    assert process.returncode == -signal.SIGBUS
    assert wait_until(lambda: not pagers(mark))


def test_without_a_supervisor_they_work_on(url, copy):
    """Its death alone takes nothing away but who would replace them."""
    process, mark = start_program(programs.without_a_supervisor_they_work_on, url, copy)
    try:
        worker = int(process.stdout.readline())
        (supervisor,) = [p for p in pagers(mark) if worker in children(p)]
        os.kill(supervisor, signal.SIGKILL)
        stdout, stderr = process.communicate("\n", timeout=30)
    finally:
        end_program(process)
    assert (stdout, process.returncode) == ("True\n", 0), stderr
    assert wait_until(lambda: not pagers(mark))


def test_a_client_that_is_killed_leaves_nothing(url):
    """While its chunks are decoded elsewhere."""
    process, mark = start_program(programs.a_client_that_is_killed_leaves_nothing, url)
    process.stdout.readline()
    process.kill()
    process.communicate(timeout=10)
    assert wait_until(lambda: not pagers(mark))
    assert process.returncode == -signal.SIGKILL


def test_a_child_that_is_forked_shares_them(url, copy):
    """Parent and child read at once, and the child after the parent's end."""
    ended = run_program(programs.a_child_that_is_forked_shares_them, url, copy)
    assert (ended_by(ended), ended.stdout) == ("0", "0\n"), ended.stderr
