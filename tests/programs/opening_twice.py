"""Programs of tests/process/test_opening_twice.py."""

from __future__ import annotations

import os
import signal
import sys
import threading

import numpy as np

import lazyarr
from tests.programs.support import (
    in_child,
    run_threads,
    settled,
)


def a_parent_finds_what_its_child_has_opened(url):
    _other = lazyarr.open(url, mode="c")
    parent, child = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        x = lazyarr.open(url)
        total = int(np.asarray(x).sum(dtype="u8"))
        os.write(child[1], b"%d" % total)
        os.read(parent[0], 1)
        os._exit(0)
    total = int(os.read(child[0], 100))
    y = lazyarr.open(url)
    assert int(np.asarray(y).sum(dtype="u8")) == total
    print(settled()["units_loaded"], lazyarr.stats()["regions"])
    os.kill(lazyarr.stats()["pid"], signal.SIGKILL)
    while not lazyarr.stats()["workers_lost"]:
        os.sched_yield()
    z = lazyarr.open(url)
    assert z._region is y._region
    assert int(np.asarray(z).sum(dtype="u8")) == total
    os.write(parent[1], b"x")
    os.waitpid(pid, 0)
    assert int(np.asarray(y).sum(dtype="u8")) == total
    print(settled()["units_loaded"], lazyarr.stats()["regions"])


def threads_open_and_drop_one_array(url):
    wrong, expected = [], lazyarr.open(url)[33].tolist()

    def churn(seed):
        for i in range(100):
            x = lazyarr.open(url)
            y = lazyarr.open(url) if (seed + i) % 3 else x
            del x
            if np.asarray(y)[33].tolist() != expected:
                wrong.append((seed, i))

    def fork():
        for _ in range(10):
            if in_child(lambda: (churn(1), wrong and sys.exit(1))):
                wrong.append("child")

    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(6)]
    threads.append(threading.Thread(target=fork))
    run_threads(threads)
    assert not wrong, wrong
    while lazyarr.stats()["regions"]:
        os.sched_yield()
