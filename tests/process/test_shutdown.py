"""Threads and processes of lazyarr's end when nothing needs them, or when they are told to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from tests.engines import ARRAYS
from tests.process.running import run_program
from tests.programs import shutdown as programs
from tests.stores import images, write_zarr

DATA = images()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return write_zarr(tmp_path_factory.mktemp("shutdown") / "x.zarr", DATA, chunks=(4, 32, 128))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    path = tmp_path_factory.mktemp("shutdown") / "x.npy"
    np.save(path, DATA)
    return path


def run(program: Callable[..., object], *arguments: object) -> None:
    """Run a program that says nothing and ends well."""
    ended = run_program(program, *arguments)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", ""), ended.stderr


@pytest.mark.parametrize("engine", ARRAYS)
def test_nothing_is_left(url, copy, engine):
    """No thread and no process, as often as one likes; what is opened after that is right."""
    run(programs.nothing_is_left, url, copy, engine)


def test_arrays_that_are_referenced(url, copy):
    """They are named in an error, and go on as they are; views count."""
    run(programs.arrays_that_are_referenced, url, copy, "userfaultfd")


def test_datasets_that_are_closed(tmp_path, copy):
    """They hold nothing, those that are open hold the arrays that they have given."""
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    write_zarr(tmp_path / "x", DATA, chunks=(4, 32, 128))
    run(programs.datasets_that_are_closed, tmp_path, copy, "userfaultfd")


def test_a_pager_that_others_use(url, copy):
    """It goes on for a child that has arrays when the parent shuts down."""
    run(programs.a_pager_that_others_use, url, copy, "userfaultfd")


@pytest.mark.parametrize("engine", ARRAYS)
def test_the_thread_ends_when_nothing_is_open(url, copy, engine):
    """Soon after the last array; while there is one it stays, and it comes again."""
    run(programs.the_thread_ends_when_nothing_is_open, url, copy, engine)


# A string, for that is what the call takes that makes such an interpreter.
SUBINTERPRETER = """
import sys, warnings
warnings.simplefilter("ignore")  # NumPy's, of what it does not support
sys.path[:] = {path!r}
import lazyarr, threading
lazyarr.configure(engine={engine!r})
x = lazyarr.open({url!r})
x.prefetch(slice(30, 40), wait=False)
print(x[5, 0, 1], x.sum(), [t.name for t in threading.enumerate()])
{end}
"""


@pytest.mark.parametrize("end", ["", "del x", "sys.kept = x"])
@pytest.mark.parametrize("engine", ARRAYS)
def test_a_legacy_subinterpreter_ends(url, engine, end):
    """It would abort the process if a thread were left: none is ever started there."""
    inner = SUBINTERPRETER.format(path=sys.path, engine=engine, url=url, end=end)
    # NumPy is for one interpreter of a process, the first that imports it: not `run_program`.
    ended = subprocess.run(
        [sys.executable, "-c", f"import _testcapi as c; assert c.run_in_subinterp({inner!r}) == 0"],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    expected = f"{DATA[5, 0, 1]} {DATA.sum()} ['MainThread']\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, expected, "")
