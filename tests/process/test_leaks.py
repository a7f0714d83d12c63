"""Doing a thing many times takes no more than doing it once.

Counted are descriptors, mappings, threads and memory, of the client, of its pager,
and of the memory objects that they share.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.process.running import run_program
from tests.process.stored import LAYOUTS, write_arrays
from tests.programs import leaks as programs
from tests.stores import images, write_zarr

DATA = images()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return write_zarr(tmp_path_factory.mktemp("leaks") / "x.zarr", DATA, chunks=(4, 32, 128))


def run(program: Callable[..., object], *arguments: object) -> None:
    ended = run_program(program, *arguments, seconds=120)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stderr


def test_opening_touching_and_dropping(url):
    """A thousand arrays, in either mode, touched raw and by request."""
    run(programs.opening_touching_and_dropping, url)


def test_opening_and_closing_datasets(tmp_path):
    """Three hundred arrays of datasets of all layouts."""
    write_arrays(tmp_path / "s.zarr")
    run(
        programs.opening_and_closing_datasets,
        tmp_path / "s.zarr",
        len(LAYOUTS),
    )


def test_reading_what_is_damaged(url, tmp_path):
    """Four hundred errors, of requests for one unit and for many."""
    damaged = write_zarr(tmp_path / "x.zarr", DATA, chunks=(4, 32, 128))
    chunk = Path(damaged) / "c/3/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-7])
    run(programs.reading_what_is_damaged, damaged)


def test_reading_from_where_nobody_answers(http_server):
    """Arrays of a server that refuses, and stores that are not there."""
    directory = Path(http_server.directory)
    write_zarr(directory / "x.zarr", DATA[:8], chunks=(4, 32, 128))
    for chunk in directory.glob("x.zarr/c/*/0/0"):
        chunk.unlink()
        chunk.mkdir()
    run(programs.reading_from_where_nobody_answers, http_server.url)


def test_forking(url, tmp_path):
    """A hundred children that read, some that write, some that are killed."""
    np.save(tmp_path / "x.npy", DATA)
    run(programs.forking, url, tmp_path / "x.npy")


def test_pagers_that_are_killed(tmp_path):
    """Each is replaced; nothing of it is mapped any more, and so no descriptor of it is kept."""
    url = write_zarr(tmp_path / "x.zarr", DATA, chunks=(4, 32, 128))
    ended = run_program(programs.pagers_that_are_killed, url)
    assert ended.returncode == 0, ended.stderr
    assert {line.partition(";")[0] for line in ended.stderr.splitlines()} == {
        "lazyarr: the pager was killed"
    }
