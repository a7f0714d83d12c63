"""Processes of the pager are killed, and the user gets data, an exception or a loud death."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr

from lazyarr.pager.lifecycle.supervisor import DEADLY
from tests.process.running import (
    end_program,
    ended_by,
    family,
    pagers,
    run_program,
    start_program,
    stop,
    wait_until,
)
from tests.programs import supervisor as programs
from tests.stores import images, write_zarr

DATA = images()
_SLOW_NBYTES = 24 << 20
REASON = "the process that decoded it died, repeatedly"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return write_zarr(tmp_path_factory.mktemp("kills") / "x.zarr", DATA, chunks=(4, 32, 128))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    path = tmp_path_factory.mktemp("kills") / "x.npy"
    np.save(path, DATA)
    return path


def test_a_worker_that_dies_is_replaced(url, copy):
    """Workers die under threads that touch, ask, evict, open and fork: all reads are right."""
    ended = run_program(programs.a_worker_that_dies_is_replaced, url, copy)
    assert (ended.returncode, ended.stdout) == (0, "30\n"), ended.stderr
    lines = ended.stderr.splitlines()
    assert lines == ["lazyarr: the pager's worker died of SIGKILL; another takes over"] * 30


@pytest.mark.parametrize("says", ["environment", "configure"])
def test_how_long_a_worker_may_be_stopped_is_a_setting(url, copy, says):
    """It holds from the start or from then on, and for the workers that come after, too."""
    ended = run_program(programs.how_long_a_worker_may_be_stopped_is_a_setting, url, copy, says)
    assert ended.returncode == 0, ended.stderr


def test_settings_outlive_a_worker(url):
    """What was configured holds for the worker that takes over."""
    ended = run_program(programs.settings_outlive_a_worker, url)
    assert (ended.returncode, ended.stdout) == (0, f"{3 << 20} 1\n"), ended.stderr


def test_settings_of_several_processes_outlive_a_worker(url):
    """What was configured last holds, also where others have come with other settings since."""
    ended = run_program(programs.settings_of_several_processes_outlive_a_worker, url)
    assert (ended.returncode, ended.stdout) == (0, f"{3 << 20} 2\n"), ended.stderr


def test_a_child_that_comes_late_changes_no_setting(url):
    """It was forked before the parent configured, and speaks after that."""
    ended = run_program(programs.a_child_that_comes_late_changes_no_setting, url)
    assert (ended.returncode, ended.stdout) == (0, f"0 {3 << 20}\n"), ended.stderr


def test_a_worker_that_is_stopped_is_replaced(url, copy):
    """A worker that does not answer for ten seconds is killed, and another takes over."""
    ended = run_program(programs.a_worker_that_is_stopped_is_replaced, url, copy)
    assert (ended.returncode, ended.stdout) == (0, "1\n"), ended.stderr


def test_a_client_that_ends_while_there_is_no_worker(url):
    """The worker that takes over finds nobody, and the pager ends."""
    process, mark = start_program(programs.a_client_that_ends_while_there_is_no_worker, url)
    try:
        worker = int(process.stdout.readline())
        supervisor, _ = family(mark, worker)
        os.kill(supervisor, signal.SIGSTOP)
        os.kill(worker, signal.SIGKILL)
        process.kill()
        process.wait()
        os.kill(supervisor, signal.SIGCONT)
        assert wait_until(lambda: not pagers(mark))
    finally:
        with process:
            end_program(process)


def test_a_worker_dies_before_a_child_has_come(url, copy):
    """What the child will have is kept for it, though the parent has let go meanwhile."""
    ended = run_program(programs.a_worker_dies_before_a_child_has_come, url, copy)
    assert (ended.returncode, ended.stdout) == (0, "0\n"), ended.stderr


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """Two chunks, of which the second takes seconds to decode."""
    path = tmp_path_factory.mktemp("kills") / "slow.zarr"
    random = np.random.default_rng(0).integers(0, 256, _SLOW_NBYTES, dtype="u1")
    array = zarr.create_array(
        os.fspath(path),
        shape=(2, _SLOW_NBYTES),
        chunks=(1, _SLOW_NBYTES),
        dtype="u1",
        compressors=numcodecs.BZ2(1),
        zarr_format=2,
        fill_value=7,
    )
    array[1] = random
    return path, int(random[5])


def opens(pid: int, path: Path) -> bool:
    """Return whether a process has a file open: it reads it, or decodes what it has read."""
    try:
        places = [os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False
    return os.fspath(path) in places


@pytest.mark.parametrize("way", ["request", "touch"])
def test_a_unit_that_kills_workers_is_given_up(slow, way):
    """A unit that three workers have crashed at is an error or SIGBUS, not a loop."""
    path, expected = slow
    process, mark = start_program(programs.a_unit_that_kills_workers_is_given_up, path, way)
    try:
        supervisor, sentinel = family(mark, int(process.stdout.readline()))
        killed: set[int] = set()

        def workers() -> set[int]:
            return set(pagers(mark)) - {supervisor, sentinel} - killed

        for _ in range(DEADLY):
            assert wait_until(lambda: any(opens(pid, path / "1.0") for pid in workers()), 30)
            (worker,) = workers()
            os.kill(worker, signal.SIGSEGV)
            killed.add(worker)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        end_program(process)
    if way == "request":
        assert stdout == f"ChunkError (1, 0) {REASON}\n{expected}\n"
    else:
        assert (stdout, process.returncode) == ("", -signal.SIGBUS)
        assert REASON in stderr


def test_all_is_killed_while_a_request_waits(url):
    """A request gets PagerError, and the next open starts a new pager."""
    process, mark = start_program(programs.all_is_killed_while_a_request_waits, url)
    try:
        worker = int(process.stdout.readline())
        supervisor, _ = family(mark, worker)
        stop(supervisor, worker)
        process.stdin.write("go\n")
        process.stdin.flush()
        waiting = Path(f"/proc/{process.pid}/wchan")
        assert wait_until(lambda: "wait_for_more_packets" in waiting.read_text())
        for pid in (supervisor, worker):
            os.kill(pid, signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=20)
    finally:
        end_program(process)
    assert stdout == f"PagerError\n{DATA[5, 0, 1]} {DATA[40, 0, 1]}\n", stderr
    assert process.returncode == 0
    assert wait_until(lambda: not pagers(mark))


def test_all_is_killed_while_nobody_waits(url):
    """What is in memory can be read on; touching what is not is SIGBUS."""
    process, mark = start_program(programs.all_is_killed_while_nobody_waits, url)
    try:
        worker = int(process.stdout.readline())
        supervisor, _ = family(mark, worker)
        for pid in (supervisor, worker):
            os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: len(pagers(mark)) == 1)
        stdout, stderr = process.communicate("go\n", timeout=20)
    finally:
        end_program(process)
    assert stdout == f"{DATA[5, 0, 1]}\n"
    assert process.returncode == -signal.SIGBUS
    assert "Fatal Python error: Bus error" in stderr


def test_settings_hold_for_the_next_pager(url):
    """They can be changed though the pager was killed, and nobody knows that yet."""
    process, mark = start_program(programs.settings_hold_for_the_next_pager, url)
    try:
        worker = int(process.stdout.readline())
        supervisor, _ = family(mark, worker)
        for pid in (supervisor, worker):
            os.kill(pid, signal.SIGKILL)
        stdout, stderr = process.communicate("go\n", timeout=60)
    finally:
        end_program(process)
    assert (process.returncode, stdout) == (0, "True\n"), stderr


def test_a_pager_that_cannot_start_is_an_error(url, tmp_path):
    """Where the pager's processes die as soon as they are up, asking is an error and not a hang."""
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\nimport os, sys; os.write(3, sys.implementation.cache_tag.encode())\n"
    )
    python.chmod(0o755)
    ended = run_program(programs.a_pager_that_cannot_start_is_an_error, url, python)
    # It is seen when it opens or asks; or else the lifeline ends first.
    found = (ended_by(ended), ended.stdout)
    assert found in [("0", "PagerError\n"), ("SIGBUS", "")], ended.stderr
