"""Programs of tests/process/test_traces.py."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import warnings

import numpy as np

import lazyarr
from tests.programs.support import exit_code, in_child, settled, wait_until

N_ROWS = 48
ORDER = random.Random(7).sample(range(N_ROWS), N_ROWS)


def expected(row):
    """Return the row of the store that these programs read."""
    return (np.arange(32 << 10, dtype="u4") * 2654435761 + row).astype("u2")


class Reader:
    """Reads rows, a chunk each; counts those that were not there when they were come to."""

    def __init__(self, url, mode="r"):
        self.ds = lazyarr.open(url, mode=mode)
        self.x = self.ds["x"]
        self.x.advise("random")
        self.raw = np.asarray(self.x)
        self.n_waits = 0

    def replay(self, trace):
        self.ds.replay(trace)
        assert wait_until(lambda: self.x.residency().resident_units)

    def read(self, rows):
        for row in rows:
            settled()  # whoever computes for longer than a load takes
            self.n_waits += not self.x[row : row + 1].residency().resident_units
            assert (self.raw[row] == expected(row)).all(), row
        settled()


def waits_of_a_random_order(url, trace):
    with lazyarr.record(trace):
        reader = Reader(url)
        reader.read(ORDER)
    counted = lazyarr.stats()
    print(reader.n_waits, counted["units_loaded"])


def waits_of_a_replay(url, trace, mode="r", limit="1 GiB"):
    lazyarr.configure(memory_limit=limit)
    reader = Reader(url, mode)
    reader.replay(trace)
    reader.read(ORDER)
    counted = lazyarr.stats()
    assert counted["errors"] == counted["ahead_evicted"] == 0, counted
    print(reader.n_waits, counted["units_loaded"])


def workers_take_turns(url, trace):
    """Read the order in forked children, several rows each, by raw memory and by picks."""
    reader = Reader(url)
    if os.path.exists(trace):
        reader.replay(trace)

    def part(rows):
        reader.n_waits = 0
        reader.read(rows[::2])
        for row in rows[1::2]:
            settled()
            reader.n_waits += not reader.x[row : row + 1].residency().resident_units
            assert (np.asarray(reader.x[row]) == expected(row)).all(), row
        os._exit(100 + reader.n_waits)

    def run():
        n_waits = 0
        for start in range(0, N_ROWS - 16, 16):
            n_waits += in_child(lambda start=start: part(ORDER[start : start + 16])) - 100
        return n_waits

    if os.path.exists(trace):
        print(run())
    else:
        with lazyarr.record(trace):
            print(run())
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found = pool.map(_sums, [(reader.x, row) for row in ORDER[-16:]])
        assert found == [int(expected(row).sum()) for row in ORDER[-16:]]


def _sums(job):
    x, row = job
    return int(x[row].sum())


def a_child_ends_the_block_too(url, trace):
    reader = Reader(url)
    with lazyarr.record(trace):
        pid = os.fork()
        reader.read([ORDER[0] if pid else ORDER[1]])
        if pid:
            assert exit_code(pid) == 0
            assert not os.path.exists(trace)
    if not pid:
        os._exit(0)  # its exit would wait for the thread of faulthandler, which was not forked


def the_worker_dies_while_it_records(url, trace):
    reader = Reader(url)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        with lazyarr.record(trace):
            reader.read(ORDER[:5])
            os.kill(lazyarr.stats()["pid"], signal.SIGKILL)
            reader.read(ORDER[5:10])
    print([str(each.message).rpartition("; ")[2] for each in given], os.path.exists(trace))
    with lazyarr.record(trace):
        reader.read(ORDER[10:20])
    print(os.path.exists(trace))


def all_is_killed_while_it_records(url, trace):
    from tests.process.running import family

    reader = Reader(url)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        with lazyarr.record(trace):
            reader.read(ORDER[:5])
            worker = lazyarr.stats()["pid"]
            name = "LAZYARR_TEST_MARK"
            supervisor, _ = family(f"{name}={os.environ[name]}", worker)
            os.kill(supervisor, signal.SIGKILL)
            os.kill(worker, signal.SIGKILL)
    print([str(each.message).rpartition("; ")[2] for each in given], os.path.exists(trace))
    sys.stdout.flush()
    os._exit(0)


def the_worker_dies_while_it_replays(url, trace):
    reader = Reader(url)
    reader.replay(trace)
    reader.read(ORDER[:10])
    os.kill(lazyarr.stats()["pid"], signal.SIGKILL)
    for place in range(10, 30):
        assert (reader.raw[ORDER[place]] == expected(ORDER[place])).all()
    print(lazyarr.stats()["units_ahead"])
    reader.replay(trace)
    reader.n_waits = 0
    reader.read(ORDER[30:])
    print(reader.n_waits)
