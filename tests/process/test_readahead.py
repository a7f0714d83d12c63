"""Raw scans are read ahead, and what is read is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lazyarr
from lazyarr.testing import Behaviour
from tests.process.running import run_program
from tests.programs import readahead as programs
from tests.stores import images, write_zarr

DATA = images((512, 32, 128))  # 4 MiB in 64 units, too large for the short way


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Return a store of which no unit is small enough to be brought while others wait."""
    return write_zarr(tmp_path_factory.mktemp("ahead") / "x.zarr", DATA, chunks=(8, 32, 128))


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """Return the same numbers in a file."""
    path = tmp_path_factory.mktemp("ahead") / "x.npy"
    np.save(path, DATA)
    return path


FORWARD, BACKWARD = "range(0, 512, 8)", "range(511, 0, -8)"
STRIDED = "range(0, 512, 24)"


@pytest.mark.parametrize("mode", ["r", "c"])
@pytest.mark.parametrize("rows", [FORWARD, BACKWARD, STRIDED])
def test_reader_in_order_waits_for_few_units(url, copy, rows, mode):
    """Each unit is loaded once; without readahead each is a fault."""
    ended = run_program(
        programs.reader_in_order_waits_for_few_units,
        url,
        copy,
        mode,
        rows,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_several_threads_and_processes_each_in_order(url, copy):
    """Each reads its own part, while the memory has room for a quarter of all."""
    ended = run_program(programs.several_threads_and_processes_each_in_order, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_evicting_while_readers_run(url, copy):
    """Units that are read ahead, marked or on their way may go at any moment."""
    ended = run_program(programs.evicting_while_readers_run, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_advice_and_setting_are_followed(url, copy):
    """Random and a window of 0: nothing is read ahead; sequential: from the first touch on."""
    ended = run_program(programs.advice_and_setting_are_followed, url, copy)
    assert (ended.returncode, ended.stderr) == (0, "")
    said = "advice='backwards' is not one of normal, sequential, random"
    assert ended.stdout.splitlines() == ["0", "True", "0", "True", said]


def test_sparse_arrays_are_read_ahead(tmp_path):
    """Chunks that are not stored are zeros, also where they are marked."""
    data = np.zeros((512, 32, 128), np.uint16)
    data[::100] = 7
    url = write_zarr(tmp_path / "x.zarr", data, chunks=(8, 32, 128))
    np.save(tmp_path / "x.npy", data)
    ended = run_program(
        programs.sparse_arrays_are_read_ahead,
        url,
        tmp_path / "x.npy",
    )
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "True\n")


@pytest.mark.parametrize("shards", [None, (8, 32, 128)])
def test_what_stalls_for_nobody_holds_up_nobody(http_server, shards):
    """Over a network, what is read ahead leaves a connection free, and what is waited for goes on.

    Chunks 1 and 10 to 19 stall; one that is queued behind these is touched, and so is one far
    away.
    """
    path = Path(http_server.directory) / "x.zarr"
    write_zarr(path, DATA, chunks=(8, 32, 128), shards=shards)
    http_server.behave(Behaviour(delay_seconds=60), path="/x.zarr/c/1")
    ended = run_program(
        programs.what_stalls_for_nobody_holds_up_nobody, f"{http_server.url}/x.zarr"
    )
    expected = [DATA[row, 0, 1] for row in (0, 200, 400, 216)]
    assert ended.stdout.split() == [str(n) for n in expected], ended.stderr


def test_what_cannot_be_read_ahead_is_no_error_until_it_is_touched(tmp_path):
    """A damaged chunk behind the reader's window is nobody's; touching it is."""
    lazyarr.save(tmp_path / "x.zarr", DATA, chunks=(8, 32, 128), shards=(8, 32, 128))
    damaged = tmp_path / "x.zarr" / "c" / "9" / "0" / "0"
    damaged.write_bytes(b"\0" * 100)
    np.save(tmp_path / "x.npy", DATA)
    ended = run_program(
        programs.what_cannot_be_read_ahead_is_no_error_until_it_is_touched,
        tmp_path / "x.zarr",
        tmp_path / "x.npy",
    )
    assert (ended.returncode, ended.stdout) == (0, "(9, 0, 0)\nTrue\n"), ended.stderr


def test_over_a_network_as_much_is_on_its_way_as_its_latency_asks_for(http_server):
    """Four units are what is read ahead from files then; sixteen the most."""
    path = Path(http_server.directory) / "x.zarr"
    write_zarr(path, DATA, chunks=(8, 32, 128))
    http_server.behave(Behaviour(delay_seconds=0.1))
    ended = run_program(
        programs.over_a_network_as_much_is_on_its_way_as_its_latency_asks_for,
        f"{http_server.url}/x.zarr",
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert 8 < int(ended.stdout) <= 2 * 16
