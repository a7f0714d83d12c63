"""Other code closes all descriptors, as daemons do, and opens its own under the same numbers.

What lazyarr kept as a number is another file then: it is neither written to nor closed, nothing
waits for its answer, and what is opened after that is right.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.process.running import run_program
from tests.programs import closed_descriptors as programs
from tests.stores import images, write_zarr

DATA = images()

ENGINES = pytest.mark.parametrize("engine", ["userfaultfd", "copy"])


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    directory = tmp_path_factory.mktemp("closed") / "g.zarr"
    for name in "xy":
        write_zarr(directory / name, DATA, chunks=(4, 32, 128))
    (directory / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    return str(directory)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    path = tmp_path_factory.mktemp("closed") / "x.npy"
    np.save(path, DATA)
    return path


def run(program: Callable[..., object], *arguments: object) -> None:
    """Run a program that ends well and says that it is done."""
    ended = run_program(program, *arguments)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", ""), ended.stderr


@ENGINES
def test_in_the_same_process(url, copy, engine):
    """PagerError for what the pager has, data where there is none; other sockets get nothing."""
    run(programs.in_the_same_process, url, copy, engine)


@ENGINES
def test_a_double_fork(url, copy, engine):
    """The grandchild closes all that it has, and opens its own."""
    run(programs.a_double_fork, url, copy, engine)


@ENGINES
def test_python_daemon(url, copy, engine):
    """`daemon.DaemonContext`, which forks twice and closes everything."""
    run(programs.python_daemon, url, copy, engine)


def test_a_fork_after_that(url, copy):
    """Children of a process that has lost its descriptors get PagerError, and what they open."""
    run(programs.a_fork_after_that, url, copy, "userfaultfd")


def test_what_was_loaded_stays_and_touches_are_served(url, copy):
    """The pager has descriptors of its own: raw memory is filled as before."""
    run(programs.what_was_loaded_stays_and_touches_are_served, url, copy, "userfaultfd")


def test_a_pager_that_waits_to_be_used(url, copy):
    """What was started for an array that could not be opened is not known by its number alone."""
    ended = run_program(programs.a_pager_that_waits_to_be_used, url, copy)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", ""), ended.stderr
