"""Ctrl-C while a store stalls: at once in a request, when it is served in a fault.

`test_interrupting_a_request` in test_lifecycle.py does the same with a pager that stalls.
"""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from lazyarr.testing import Behaviour
from tests.process.running import ended_by, start_program, wait_until
from tests.programs import interrupts as programs
from tests.stores import images, write_zarr

DATA = images()
CHUNK = "/x.zarr/c/9/0/0"


@pytest.fixture
def stalling(http_server, tmp_path):
    """Give a function that starts a program whose chunk 9 stalls, and interrupts it."""
    write_zarr(Path(http_server.directory) / "x.zarr", DATA, chunks=(4, 32, 128))
    np.save(tmp_path / "x.npy", DATA)
    started = []

    def start(way, *, stalls_seconds, timeout_seconds):
        http_server.behave(Behaviour(delay_seconds=stalls_seconds), path=CHUNK)
        process, _ = start_program(
            programs.reads_what_stalls,
            f"{http_server.url}/x.zarr",
            tmp_path / "x.npy",
            way,
            timeout_seconds,
        )
        started.append(process)
        assert process.stdout.readline() == "ready\n", process.communicate()
        assert wait_until(lambda: any(r.path == CHUNK for r in http_server.requests()))
        process.send_signal(signal.SIGINT)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("way", ["request", "operation"])
def test_a_request_is_interrupted_at_once(stalling, http_server, way):
    """It does not wait for the store; everything else can be read, and that chunk later.

    So are operations on an array that is too large for one request.
    """
    process = stalling(way, stalls_seconds=60, timeout_seconds=8)
    assert float(process.stdout.readline()) < 6
    http_server.behave(Behaviour())
    stdout, stderr = process.communicate("go\n", timeout=80)
    assert (stdout, stderr, process.returncode) == ("right\n", "", 0)


def test_a_fault_is_interrupted_when_it_is_served(stalling):
    """The thread is in C code that waits for memory; the interrupt comes after its data."""
    process = stalling("touch", stalls_seconds=3, timeout_seconds=50)
    stdout, stderr = process.communicate("go\n", timeout=40)
    seconds, end = stdout.split()
    assert 2.5 < float(seconds) < 30
    assert (end, stderr, process.returncode) == ("right", "", 0)


def test_timeout_bounds_how_long_a_fault_is_not_interrupted(stalling):
    """A chunk that does not come in time ends the wait, by SIGBUS."""
    process = stalling("touch", stalls_seconds=60, timeout_seconds=2)
    stdout, stderr = process.communicate("go\n", timeout=30)
    assert (ended_by(process), stdout) == ("SIGBUS", "")
    assert "chunk (9, 0, 0)" in stderr
