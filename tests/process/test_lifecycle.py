"""Processes begin and end in every way, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest

import lazyarr
from lazyarr.testing import Behaviour
from tests.engines import ARRAYS
from tests.process.running import (
    end_program,
    ended_by,
    pagers,
    run_program,
    start_program,
    wait_until,
)
from tests.programs import lifecycle as programs
from tests.programs import pool, scripts
from tests.stores import images, write_zarr

DATA = images()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return write_zarr(tmp_path_factory.mktemp("life") / "x.zarr", DATA, chunks=(4, 32, 128))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    path = tmp_path_factory.mktemp("life") / "x.npy"
    np.save(path, DATA)
    return path


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("", "0"),
        ("sys.exit(3)", "3"),
        ("os._exit(4)", "4"),
        ("raise ValueError", "1"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "SIGTERM"),
        ("os.abort()", "SIGABRT"),
        ("os.execv('/bin/true', ['true'])", "0"),
    ],
)
def test_the_pager_ends_with_its_client(url, ending, code):
    """However a client ends, its pager ends; run_program checks that."""
    ended = run_program(programs.the_pager_ends_with_its_client, url, ending)
    assert ended_by(ended) == code
    assert ended.stdout == f"{DATA[5, 0, 1]} {DATA[50, 0, 1]}\n"


@pytest.mark.parametrize("_", range(4))  # half of them die where it is not
def test_exec_is_survived_however_long_it_takes(tmp_path, _):
    """The pager hears of it by one descriptor while others, the lifeline too, are still open."""
    lazyarr.save(tmp_path / "g.zarr", {"x": DATA})
    ended = run_program(programs.exec_is_survived_however_long_it_takes, tmp_path / "g.zarr")
    assert ended_by(ended) == "0"


@pytest.mark.parametrize("way", ["requests", "faults"])
def test_the_pager_does_not_wait_for_what_nobody_wants_any_more(http_server, way):
    """A client that ends while a store stalls leaves nothing either; run_program checks that."""
    write_zarr(Path(http_server.directory) / "x.zarr", DATA, chunks=(4, 32, 128))
    http_server.behave(Behaviour(delay_seconds=20), path="/x.zarr/c/9/0/0")
    ended = run_program(
        programs.the_pager_does_not_wait_for_what_nobody_wants_any_more,
        f"{http_server.url}/x.zarr",
        way,
    )
    assert (ended_by(ended), ended.stdout) == ("SIGKILL", f"{DATA[5, 0, 1]}\n")


def test_exec_into_something_that_lives_on(url):
    """A client that becomes another program is no client any more."""
    process, mark = start_program(programs.exec_into_something_that_lives_on, url)
    try:
        assert process.stdout.readline() == f"{DATA[5, 0, 1]}\n"
        assert wait_until(lambda: not pagers(mark))
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def test_a_child_outlives_its_parent(url, copy):
    """A forked child goes on reading after its parent has ended."""
    ended = run_program(programs.a_child_outlives_its_parent, url, copy)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "read all\n", "")


@pytest.mark.parametrize("engine", ARRAYS)
@pytest.mark.parametrize(
    "way", ["atexit.register(use)", "threading.Thread(target=lambda: (ended(), use())).start()"]
)
def test_arrays_are_opened_and_read_while_the_interpreter_ends(url, copy, engine, way):
    """Python 3.12 and later start no threads then; arrays do without."""
    ended = run_program(
        programs.arrays_are_opened_and_read_while_the_interpreter_ends, url, copy, engine, way
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "read\n", "")


def test_arrays_that_outlive_what_is_in_modules(url):
    """Python empties the modules that somebody still has, as numba does, the newest first."""
    ended = run_program(programs.arrays_that_outlive_what_is_in_modules, url)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_what_is_done_after_lazyarrs_own_end(url):
    """What is open can be read; nothing more can be opened, which the error says."""
    ended = run_program(programs.what_is_done_after_lazyarrs_own_end, url)
    first, message = ended.stdout.splitlines()
    assert (ended.returncode, ended.stderr) == (0, "")
    assert first == f"{DATA[5, 0, 1]} {DATA[50, 0, 1]} {{}}"
    assert message.startswith("cannot open an array: the interpreter is ending")


def test_the_pager_is_nobodys_child(url):
    """os.wait() of the user's does not see the pager, nor is a zombie left."""
    ended = run_program(programs.the_pager_is_nobodys_child, url)
    assert (ended.stdout, ended.stderr) == ("no children\n", "")


def test_a_store_that_cannot_be_opened_leaves_nothing(tmp_path):
    """A pager that was started for nothing ends with its client too."""
    ended = run_program(
        programs.a_store_that_cannot_be_opened_leaves_nothing, tmp_path / "nothing.zarr"
    )
    assert ended.stdout == "cannot open file\n"
    assert ended.stderr == ""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_pools(url, copy, method):
    """Workers of every start method read right, from inherited and from pickled arrays."""
    program = scripts.run if method == "fork" else scripts.start
    ended = run_program(program, pool.__file__, url, copy, method)
    assert (ended.returncode, ended.stdout) == (0, "LazyArray\n"), ended.stderr


def test_fork_while_threads_fault(url, copy):
    """Children forked while the parent's threads wait in faults read right."""
    ended = run_program(programs.fork_while_threads_fault, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_interrupting_a_request(url):
    """Ctrl-C during a request raises KeyboardInterrupt, and everything goes on working."""
    process, _ = start_program(programs.interrupting_a_request, url)
    pager = int(process.stdout.readline())
    try:
        assert wait_until(lambda: in_system_call(process.pid, "wait_for_more_packets"))
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=20)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pager, signal.SIGCONT)
        end_program(process)
    said = " ".join(str(DATA[i, 0, 1]) for i in (5, 44, 20))
    assert (stdout, stderr, process.returncode) == (f"{said}\n", "", 0)


def in_system_call(pid: int, name: str) -> bool:
    """Return whether the main thread of a process waits in a kernel function of that name."""
    with open(f"/proc/{pid}/wchan") as file:
        return name in file.read()
