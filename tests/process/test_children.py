"""Children of every kind read right, and leave nothing behind.

A child that C code forks behind Python's back dies of SIGSEGV instead of reading
zeros: `test_2_a_child_forked_behind_pythons_back_dies` in test_silent_zeros.py.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.process.running import run_program
from tests.programs import children as programs
from tests.stores import images, write_zarr

DATA = images()

METHODS = ("fork", "forkserver", "spawn")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return write_zarr(tmp_path_factory.mktemp("children") / "x.zarr", DATA, chunks=(4, 32, 128))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    path = tmp_path_factory.mktemp("children") / "x.npy"
    np.save(path, DATA)
    return path


@pytest.mark.parametrize(
    ("pool", "method"),
    [
        *(("multiprocessing", method) for method in METHODS),
        *(("concurrent.futures", method) for method in METHODS),
        ("joblib", "loky"),
        ("joblib", "multiprocessing"),
    ],
)
def test_workers_of_pools_read_right(url, copy, pool, method):
    """From arrays inherited and pickled, and so do their children, while the parent faults."""
    ended = run_program(programs.workers_of_pools_read_right, url, copy, pool, method)
    assert (ended.returncode, ended.stdout) == (0, "right\n"), ended.stderr


def test_generations(url, copy):
    """Five generations read right, each before and after its parent's touches."""
    ended = run_program(programs.generations, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_children_that_end_at_once(url, copy):
    """Nobody is told of children that are gone before the pager hears of them."""
    ended = run_program(programs.children_that_end_at_once, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_storm_of_children(url, copy):
    """A hundred children that begin at once all read right, in time, and nothing is left."""
    ended = run_program(programs.a_storm_of_children, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_subprocesses_are_not_slowed(url):
    """A program that is started costs nothing: no hook of ours runs, nobody joins the pager."""
    ended = run_program(programs.subprocesses_are_not_slowed, url)
    assert (ended.stdout, ended.stderr) == ("0 1\n1\n", "")
