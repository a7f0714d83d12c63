"""Programs of tests/process/test_readahead.py."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback

import numpy as np

import lazyarr
from tests.programs.support import (
    run_threads,
    settled,
)


class Reader:
    """An array, what is in it, and how often things have happened since it was asked last."""

    def __init__(self, url, copy, mode="r"):
        self.x, self.data = lazyarr.open(url, mode=mode), np.load(copy)
        self.raw = np.asarray(self.x)
        self._before = {}

    def counted(self, *names):
        now = lazyarr.stats()
        found = [now[name] - self._before.get(name, 0) for name in names]
        self._before = now
        return found

    def read(self, rows):
        for row in rows:
            assert (self.raw[row] == self.data[row]).all(), row


def reader_in_order_waits_for_few_units(url, copy, mode, rows):
    reader = Reader(url, copy, mode)
    n_units = len(eval(rows))
    for row in eval(rows):
        reader.read([row])
        settled()  # a reader that takes longer for a row than a load does
    faults, loaded, ahead, errors = reader.counted(
        "faults", "units_loaded", "units_ahead", "errors"
    )
    assert (n_units <= loaded <= n_units + 2) and errors == 0, (loaded, errors)
    assert ahead > n_units - 14, ahead
    assert faults < 0.8 * n_units, faults


def several_threads_and_processes_each_in_order(url, copy):
    reader = Reader(url, copy)
    lazyarr.configure(memory_limit="1 MiB", threads=2)

    def part(k):
        reader.read(
            range(128 * k, 128 * k + 128) if k % 2 else range(128 * k + 127, 128 * k - 1, -1)
        )

    for _ in range(3):
        children = []
        for k in range(2):
            pid = os.fork()
            if pid == 0:
                try:
                    part(k)
                    os._exit(0)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
            children.append(pid)
        threads = [threading.Thread(target=part, args=(k,)) for k in (2, 3)]
        run_threads(threads)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
    reader.read(range(512))
    reader.read(range(511, -1, -1))
    reader.read([7, 8, 9, 300, 301, 302, 100])
    resident, errors = reader.counted("resident_bytes", "errors")
    assert resident <= 1 << 20 and errors == 0, (resident, errors)


def evicting_while_readers_run(url, copy):
    reader = Reader(url, copy)
    x, data, stop = reader.x, reader.data, []

    def disturb():
        chance = np.random.default_rng(1)
        while not stop:
            first = int(chance.integers(512))
            x[first : first + int(chance.integers(1, 200))].evict()

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(5):
            for row in range(512):
                assert (np.asarray(x[row]) == data[row]).all(), row
            reader.read(range(511, -1, -1))
    finally:
        stop.append(1)
        thread.join()


def advice_and_setting_are_followed(url, copy):
    reader = Reader(url, copy)
    x = reader.x
    x.advise("random")
    reader.read(range(128))
    print(*reader.counted("units_ahead"))
    x[128:256].advise("sequential")
    reader.read([128])
    print(reader.counted("units_ahead")[0] > 4)
    x[::-1].advise("normal")
    with lazyarr.configure(readahead=0):
        reader.read(range(256, 384))
        print(*reader.counted("units_ahead"))
    reader.read(range(384, 512))
    print(reader.counted("units_ahead")[0] > 8)
    try:
        x.advise("backwards")
    except ValueError as error:
        print(error)
    x[:0].advise("random")


def sparse_arrays_are_read_ahead(url, copy):
    reader = Reader(url, copy)
    reader.read(range(512))
    print(reader.counted("units_ahead")[0] > 40)


def what_stalls_for_nobody_holds_up_nobody(url):
    lazyarr.configure(connections=4)
    x = lazyarr.open(url)
    x.advise("sequential")
    raw = np.asarray(x)
    begin = time.monotonic()
    print(int(raw[0, 0, 1]), int(raw[200, 0, 1]), int(raw[400, 0, 1]), int(x[216, 0, 1]))
    assert lazyarr.stats()["units_ahead"] > 10
    assert time.monotonic() - begin < 40
    sys.stdout.flush()
    os._exit(0)


def what_cannot_be_read_ahead_is_no_error_until_it_is_touched(url, copy):
    reader = Reader(url, copy)
    reader.read(range(72))
    try:
        reader.x[72]
    except lazyarr.ChunkError as error:
        print(error.chunk)
    reader.read(range(80, 512))
    print(reader.counted("units_ahead")[0] > 40)


def over_a_network_as_much_is_on_its_way_as_its_latency_asks_for(url):
    lazyarr.configure(readahead="1 MiB")
    x = lazyarr.open(url)
    raw = np.asarray(x)
    for row in range(0, 256, 8):
        raw[row, 0, 0]
    settled()
    print(int(x.residency().map[32:].sum()))
