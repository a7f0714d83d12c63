"""Traces are recorded and replayed by real processes, from files and over a slow network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lazyarr
from lazyarr.client.trace_file import read_trace
from lazyarr.testing import Behaviour
from tests.process.running import run_program
from tests.programs import traces as programs
from tests.programs.traces import N_ROWS, ORDER, expected


def save(path):
    """Write rows of 64 KiB, a chunk each."""
    data = np.stack([expected(row) for row in range(N_ROWS)])
    lazyarr.save(path, {"x": data}, chunks={"x": 1}, shards=None, level=1)
    return path


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """Return a store."""
    return save(tmp_path_factory.mktemp("traces") / "x.zarr")


@pytest.fixture(scope="module")
def trace(url):
    """Return the trace of a run that reads all rows in a random order."""
    path = url.parent / "x.trace"
    assert run(programs.waits_of_a_random_order, url, path) == [str(N_ROWS)] * 2
    return path


def run(program, *arguments):
    """Return what a program has printed."""
    ended = run_program(program, *arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.split()


def test_over_a_network_with_latency_few_chunks_are_waited_for(http_server):
    """Of a random order with 20 ms to each chunk; without a trace all are."""
    save(Path(http_server.directory) / "x.zarr")
    http_server.behave(Behaviour(delay_seconds=0.02))
    url, trace = f"{http_server.url}/x.zarr", Path(http_server.directory) / "t"
    assert run(programs.waits_of_a_random_order, url, trace) == [str(N_ROWS)] * 2
    assert run(programs.waits_of_a_replay, url, trace) == ["0", str(N_ROWS)]


def test_with_a_memory_limit_of_a_tenth_nothing_is_loaded_twice(url, trace):
    """Less is loaded ahead, and none of it goes before it is read."""
    n_waits, n_loaded = map(int, run(programs.waits_of_a_replay, url, trace, "r", "640 KiB"))
    assert n_loaded == N_ROWS
    assert n_waits < N_ROWS / 3


def test_private_memory_waits_for_one_chunk_of_a_batch(url, trace):
    """Nobody hears of a reader there that has not to wait."""
    n_waits, n_loaded = map(int, run(programs.waits_of_a_replay, url, trace, "c"))
    assert n_loaded == N_ROWS
    assert n_waits < N_ROWS / 3


def test_workers_share_a_recording_and_a_replay(url, tmp_path):
    """Forked ones and one that was spawned; what they share is one order."""
    path = tmp_path / "t"
    assert run(programs.workers_take_turns, url, path) == [str(N_ROWS - 16)]
    found = read_trace(path)
    rows = [row for _, span in found.ranges() for row in range(span.start >> 16, span.stop >> 16)]
    taken = [ORDER[k : k + 16] for k in range(0, N_ROWS - 16, 16)]
    assert rows == [row for part in taken for row in (*part[::2], *part[1::2])] + ORDER[-16:]
    assert int(*run(programs.workers_take_turns, url, path)) < 5


def test_a_child_that_ends_the_block_writes_nothing(url, tmp_path):
    """The recording is its parent's, and has what the child has touched."""
    run(programs.a_child_ends_the_block_too, url, tmp_path / "t")
    trace = read_trace(tmp_path / "t")
    assert sum(span.size >> 16 for _, span in trace.ranges()) == 2


@pytest.mark.parametrize(
    "program", [programs.the_worker_dies_while_it_records, programs.all_is_killed_while_it_records]
)
def test_what_a_pager_has_noted_goes_with_it(url, tmp_path, program):
    """A warning says so, and nothing is written; what is recorded next is whole."""
    ended = run_program(program, url, tmp_path / "t")
    said = "['record another run'] False\n"
    assert (ended.returncode, ended.stdout.removesuffix("True\n")) == (0, said), ended.stderr
    assert (tmp_path / "t").exists() == ("True" in ended.stdout)


def test_a_worker_that_dies_takes_the_order_along(url, trace):
    """What is read is right, and nothing is loaded ahead until it is replayed again."""
    ended = run_program(programs.the_worker_dies_while_it_replays, url, trace)
    assert (ended.returncode, ended.stdout.split()[0]) == (0, "0"), ended.stderr
    assert int(ended.stdout.split()[1]) < 5
