"""Programs of tests/process/test_memory_limit.py."""

from __future__ import annotations

import os
import sys
import time
import traceback

import numpy as np

import lazyarr
from tests.programs.support import (
    read_all,
)


def scans(url, scan, first, n_children, limit, n_steps):
    first, n_children, limit, n_steps = map(int, (first, n_children, limit, n_steps))
    x = lazyarr.open(url)
    x[0]
    lazyarr.configure(memory_limit=limit, threads=2)
    raw = np.asarray(x)
    steps = np.arange(raw.shape[1], dtype=np.uint32) * np.uint32(2654435761)

    def check(i):
        assert (raw[i] == steps * np.uint32(2 * i + 1)).all(), i

    def in_order(seed):
        for i in range(len(raw)):
            check((i + seed * len(raw) // 4) % len(raw))

    def at_random(seed):
        for i in np.random.default_rng(seed).integers(0, len(raw), n_steps):
            check(int(i))

    def at_once(seed):
        # One call that never lets go of the GIL.
        last = raw.tobytes()[-raw.strides[0] :]
        assert last == (steps * np.uint32(2 * len(raw) - 1)).tobytes()

    scan = {"in order": in_order, "at random": at_random, "at once": at_once}[scan]
    check(first)
    stats = lazyarr.stats()
    # The first load has made the memory that one thread decodes in.
    print(stats["pid"], flush=True)
    sys.stdin.readline()
    children = []
    for seed in range(1, n_children + 1):
        pid = os.fork()
        if pid == 0:
            try:
                scan(seed)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        children.append(pid)
    print(*children, flush=True)
    scan(0)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * n_children
    print(lazyarr.stats(), flush=True)


def private_memory_counts_and_stays(url):
    lazyarr.configure(memory_limit="16 MiB", threads=2, readahead=0)
    x, y = lazyarr.open(url), lazyarr.open(url, mode="c")
    for first in range(0, 240, 40):
        read_all(x[first : first + 40])
    before = lazyarr.stats()
    for first in range(0, 240, 40):
        read_all(y[first : first + 40])
    # The last unit may be read before it is taken down that it has come.
    deadline = time.monotonic() + 10
    while lazyarr.stats()["units_loaded"] < 60 and time.monotonic() < deadline:
        pass
    after = lazyarr.stats()
    assert before["private_bytes"] == 0
    assert before["resident_bytes"] > 12 << 20, before["resident_bytes"]
    assert after["private_bytes"] == 15 << 20, after["private_bytes"]
    assert after["resident_bytes"] == 8 << 20, after["resident_bytes"]
    assert (y[0] == x[0]).all()
    del y
    deadline = time.monotonic() + 10
    while lazyarr.stats()["private_bytes"] and time.monotonic() < deadline:
        pass
    assert lazyarr.stats()["private_bytes"] == 0


def a_unit_larger_than_the_limit_is_refused_when_it_is_opened(url):
    lazyarr.configure(memory_limit=100_000)
    try:
        lazyarr.open(url)
    except lazyarr.FormatError as error:
        assert "524288 bytes" in str(error) and "limit is 100000 bytes" in str(error), error
        print("refused")
    lazyarr.configure(memory_limit=524288)
    x = lazyarr.open(url)
    assert [int(x[i, 0]) for i in (0, 9, 2559)] == [0, 0, 0]


def a_pager_holds_what_it_has_read(url, limit):
    if limit:
        lazyarr.configure(memory_limit=limit)
    x = lazyarr.open(url)
    x[:640].prefetch()
    print(lazyarr.stats()["pid"], flush=True)
    sys.stdin.readline()


def a_pager_without_a_limit_looks_around(url, held_mib):
    x = lazyarr.open(url)
    assert x[0, 1] == x[0, 1]
    half, held = lazyarr.config.memory_limit, int(held_mib) << 20
    while not half // 100 < lazyarr.stats()["memory_limit"] <= half - held:
        time.sleep(0.05)
    with lazyarr.configure(memory_limit="1 GiB"):
        stop = time.monotonic() + 5  # longer than it takes to look around
        while time.monotonic() < stop:
            assert lazyarr.stats()["memory_limit"] == 1 << 30
    while lazyarr.stats()["memory_limit"] > half - held:
        time.sleep(0.05)


def small_chunks_after_large_ones(folder):
    # Room for the 10 MiB that are kept, and not for 8 MiB of decode buffers besides.
    lazyarr.configure(memory_limit="12 MiB", readahead=0, threads=1)
    with lazyarr.open(f"{folder}/large.zarr") as ds:
        assert [int(ds["x"][i, 0]) >= 0 for i in range(2)] == [True, True]
    x = lazyarr.open(f"{folder}/small.zarr/x")
    for _ in range(2):
        for i in range(len(x)):
            assert x[i, 0] == x[i, 0]
    stats = lazyarr.stats()
    assert (stats["units_loaded"], stats["units_reloaded"]) == (2 + len(x), 0), stats
