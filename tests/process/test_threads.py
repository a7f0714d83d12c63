"""Threads: many of them, arrays that end while others fault, interpreters that end too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lazyarr.testing import Behaviour
from tests.process.running import pagers, run_program, start_program, wait_until
from tests.process.stored import write_arrays
from tests.programs import threads as programs
from tests.stores import images, write_zarr

DATA = images()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return write_zarr(tmp_path_factory.mktemp("threads") / "x.zarr", DATA, chunks=(4, 32, 128))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    path = tmp_path_factory.mktemp("threads") / "x.npy"
    np.save(path, DATA)
    return path


def test_64_threads_on_the_same_array(url, copy):
    """They touch, ask, prefetch and evict the same units, and read right."""
    ended = run_program(programs.threads_on_the_same_array, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_64_threads_on_arrays_of_their_own(tmp_path):
    """They open, read, pickle, close, fail to open and go, all at the same time."""
    arrays = write_arrays(tmp_path / "s.zarr")
    np.savez(tmp_path / "copies.npz", **{name: array.data for name, array in arrays.items()})
    ended = run_program(
        programs.threads_on_arrays_of_their_own, tmp_path / "s.zarr", tmp_path / "copies.npz"
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_arrays_end_while_others_fault(url, copy):
    """Collected in cycles, at any moment, in whatever thread: what others read is right."""
    ended = run_program(programs.arrays_end_while_others_fault, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_arrays_of_a_closed_dataset_stay_valid(tmp_path):
    """Closing lets go of what nobody has; closed twice, and by several threads, too."""
    arrays = write_arrays(tmp_path / "s.zarr")
    np.save(tmp_path / "copy.npy", arrays["tiles"].data)
    ended = run_program(
        programs.arrays_of_a_closed_dataset_stay_valid, tmp_path / "s.zarr", tmp_path / "copy.npy"
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "True\n", "")


@pytest.mark.parametrize("ending", programs.ENDINGS)
def test_the_interpreter_ends_while_threads_wait(http_server, ending):
    """With daemon threads in faults and in requests that nobody will answer."""
    write_zarr(Path(http_server.directory) / "x.zarr", DATA, chunks=(4, 32, 128))
    http_server.behave(Behaviour(delay_seconds=60), path="/c/9/")
    process, mark = start_program(
        programs.the_interpreter_ends_while_threads_wait, f"{http_server.url}/x.zarr", ending
    )
    tasks = Path(f"/proc/{process.pid}/task")

    def waits(where):
        return sum(where in (task / "wchan").read_text() for task in tasks.iterdir())

    try:
        assert process.stdout.readline() == "ready\n"
        assert wait_until(lambda: waits("userfault") and waits("wait_for_more_packets") == 2)
        _, stderr = process.communicate("go\n", timeout=30)
    finally:
        process.kill()
    assert (process.returncode, stderr) == (3 if ending else 0, "")
    assert wait_until(lambda: not pagers(mark)), pagers(mark)
