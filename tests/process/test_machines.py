"""Processes on a machine from which nobody can come to the sender's pager have one together."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

import lazyarr
from tests.process.running import run_program
from tests.process.test_rights import needs_root
from tests.programs import machines as programs
from tests.stores import images, write_zarr

pytestmark = needs_root

DATA = images((40, 32, 64), np.int32)
TOTAL, N_UNITS = int(DATA.sum(dtype="i8")), 10
ELSEWHERE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


@pytest.fixture
def place(http_server):
    """The directory of an array that is served over HTTP."""
    write_zarr(Path(http_server.directory) / "d.zarr", DATA, name="x", chunks=(4, 32, 64))
    return Path(http_server.directory) / "d.zarr" / "x"


@pytest.fixture
def send(http_server, place, tmp_path):
    """Write a reference that no other process has got, and return where it lies."""
    arrays = []

    def write():
        arrays.append(lazyarr.open(f"{http_server.url}/d.zarr")["x"])
        arrays[-1][0].sum()  # so the next one is opened anew
        path = tmp_path / f"sent-{len(arrays)}"
        path.write_bytes(pickle.dumps(arrays[-1]))
        return path

    return write


def run(program, *arguments):
    """Run a program on a machine of its own."""
    ended = run_program(program, TOTAL, N_UNITS, *arguments, wrapper=ELSEWHERE)
    assert (ended.returncode, ended.stdout) == (0, "right\n"), ended.stderr


def test_all_at_once(send):
    """One pager and one region, and each chunk is loaded once, whoever is first."""
    run(programs.all_at_once, *(send() for _ in range(5)))


def test_one_is_killed_while_all_come(send):
    """Also the one that starts the pager, at any moment: the others wait for nobody for long."""
    run(programs.one_is_killed_while_all_come, *(send() for _ in range(3)))


def test_the_first_is_killed(send, place):
    """The second reads on, also in the pager's next worker, and who comes then joins it."""
    run(programs.the_first_is_killed, send(), place / "c" / "3" / "0" / "0")


def test_who_was_not_invited(send):
    """It sees the name of the pager's socket, and the sender's secret is not the one."""
    run(programs.who_was_not_invited, send())


def test_nobody_lets_in(send):
    """Where the name is taken and no pager answers, each has a pager of its own in time."""
    run(programs.nobody_lets_in, send())


def test_who_has_a_pager_stays_with_it(send, tmp_path):
    """It has one region for one reference there, too."""
    other = write_zarr(tmp_path / "o.zarr", DATA, name="x", chunks=(4, 32, 64))
    run(programs.who_has_a_pager_stays_with_it, send(), f"{other}/x")
