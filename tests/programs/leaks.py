"""Programs of tests/process/test_leaks.py."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np

import lazyarr
from lazyarr.client.session import finalizers
from tests.programs.support import (
    in_child,
    read_all,
    run_threads,
)
from tests.programs.writable import kill_pager


def count_process(pid):
    """Return descriptors, mappings, threads and KiB of a process's own."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        fields = dict(line.split(":") for line in file.read().splitlines()[1:])
    own = int(fields["Anonymous"].split()[0])
    with open(f"/proc/{pid}/maps") as file:
        n_maps = len(file.readlines())
    return len(os.listdir(f"/proc/{pid}/fd")), n_maps, len(os.listdir(f"/proc/{pid}/task")), own


def count():
    """Return what this process and each process of its pager has, and KiB of shared memory."""
    worker = lazyarr.stats()["pid"]
    with open(f"/proc/{worker}/stat") as file:
        supervisor = int(file.read().rpartition(")")[2].split()[1])
    memfds = [
        f"/proc/self/fd/{fd}"
        for fd in os.listdir("/proc/self/fd")
        if os.path.islink(f"/proc/self/fd/{fd}")
        and os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:lazyarr")
    ]
    return [
        *map(count_process, ("self", worker, supervisor)),
        (sum(os.stat(name).st_blocks // 2 for name in memfds),),
    ]


def has_settled():
    stats = lazyarr.stats()
    return not stats["regions"] and stats["clients"] == 1 and not stats["resident_bytes"]


def settle():
    """Wait until the arrays that were dropped are gone on both sides."""
    deadline = time.monotonic() + 20
    while not has_settled():
        assert time.monotonic() < deadline, {**lazyarr.stats(), "steps": {}}


def has_grown(before, now, n_few, n_kib):
    return any(
        b > a + (n_kib if i == 3 or len(then) == 1 else n_few)
        for then, there in zip(before, now, strict=True)
        for i, (a, b) in enumerate(zip(then, there, strict=True))
    )


def repeat(cycle, n, n_few=4, n_kib=2048):
    """Do something some times, then often; fail if more is left then."""
    # As many channels as will ever be in use at once are opened here, and kept.
    threads = [threading.Thread(target=lazyarr.stats) for _ in range(4)]
    run_threads(threads)
    del threads
    for _ in range(max(10, n // 20)):
        cycle()
    settle()
    before = count()
    for _ in range(n):
        cycle()
    settle()
    deadline = time.monotonic() + 10
    while has_grown(before, now := count(), n_few, n_kib):
        assert time.monotonic() < deadline, (before, now)


def opening_touching_and_dropping(url):
    def cycle():
        for mode in "rc":
            x = lazyarr.open(url, mode)
            x[5]
            np.asarray(x)[60, 0, 0]

    repeat(cycle, 500)


def opening_and_closing_datasets(url, n_layouts):
    def cycle():
        with lazyarr.open(url) as dataset:
            for name in dataset:
                x = dataset[name]
                x[1]
                x.evict()
                x[1].tobytes()
                np.asarray(x)[-1].sum()

    repeat(cycle, 300 // int(n_layouts))


def reading_what_is_damaged(url):
    def cycle():
        x = lazyarr.open(url)
        for rows in (12, slice(0, 64)):
            try:
                x[rows].sum()
            except lazyarr.ChunkError:
                continue
            raise AssertionError(rows)

    repeat(cycle, 200)


def reading_from_where_nobody_answers(url):
    lazyarr.configure(retries=0)

    def look_for_nothing():
        try:
            lazyarr.open(url + "/nothing.zarr")
        except lazyarr.NodeNotFoundError:
            return
        raise AssertionError

    def be_refused():
        x = lazyarr.open(url + "/x.zarr")
        try:
            x[0]
        except lazyarr.ChunkError:
            return
        raise AssertionError

    def cycle():
        look_for_nothing()
        be_refused()

    repeat(cycle, 40)


def forking(url, copy):
    data = np.load(copy)
    n_cycles = 0

    def cycle():
        nonlocal n_cycles
        n_cycles += 1
        x, mine = lazyarr.open(url), lazyarr.open(url, "c")
        x[3]
        mine[7] = 1

        def child():
            assert (x[5] == data[5]).all() and read_all(x[40]) == data[40].tobytes()
            mine[8] = 2
            if n_cycles % 3 == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        assert in_child(child) in (0, -signal.SIGKILL)

    repeat(cycle, 100)


def pagers_that_are_killed(url):
    kept, n_open = lazyarr.open(url, "r"), []
    first = kept[0].copy()
    for number in range(4):
        x = lazyarr.open(url, "r+")
        x[3] = number
        n_open.append(len(os.listdir("/proc/self/fd")))
        kill_pager()
        del x
        finalizers.settle()
    # What is mapped keeps its descriptors: those of the first pager, and those of the last.
    assert n_open[1] > n_open[0]
    assert n_open[1:] == [n_open[1]] * 3, n_open
    assert np.array_equal(kept[0], first)
    assert np.asarray(lazyarr.open(url, "r+"))[3, 0, 0] == 3
