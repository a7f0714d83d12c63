"""Programs of tests/process/test_supervisor.py."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import numpy as np

import lazyarr
from tests.programs.support import (
    exit_code,
    in_child,
    join_all,
    read_all,
    start_all,
    stop,
)


def a_worker_that_dies_is_replaced(url, copy):
    x, data = lazyarr.open(url), np.load(copy)
    raw, stop, wrong = np.asarray(x), [], []
    mine = lazyarr.open(url, mode="c")
    mine[3] = 9
    changed = data.copy()
    changed[3] = 9

    def churn(seed):
        rng = np.random.default_rng(seed)
        while not stop:
            i = int(rng.integers(64))
            if rng.random() < 0.3:
                x.evict()
            if rng.random() < 0.1 and lazyarr.open(url)[i, 3, 4] != data[i, 3, 4]:
                wrong.append(i)
            for array, expected in ((raw, data), (x, data), (mine, changed)):
                if not np.array_equal(array[i], expected[i]):
                    wrong.append(i)

    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(3)]
    start_all(threads)
    for i in range(30):
        worker = lazyarr.stats()["pid"]
        if i % 5 == 0:
            assert in_child(lambda: None if read_all(x) == data.tobytes() else sys.exit(1)) == 0
        os.kill(worker, signal.SIGKILL)
    stop.append(1)
    join_all(threads)
    assert not wrong, wrong
    print(lazyarr.stats()["workers_lost"])


def how_long_a_worker_may_be_stopped_is_a_setting(url, copy, says):
    if says == "environment":
        os.environ["LAZYARR_STOP_TIMEOUT"] = "1"
    x, data = lazyarr.open(url), np.load(copy)
    if says == "configure":
        x[0]
        lazyarr.configure(stop_timeout=1.0)
    for n_lost in (1, 2):
        x.evict()
        stop(lazyarr.stats()["pid"])
        begin = time.monotonic()
        assert read_all(x) == data.tobytes()
        seconds = time.monotonic() - begin
        assert 0.8 < seconds < 8, seconds
        assert lazyarr.stats()["workers_lost"] == n_lost


def settings_outlive_a_worker(url):
    x = lazyarr.open(url)
    x[0]
    lazyarr.configure(memory_limit="3 MiB")
    os.kill(lazyarr.stats()["pid"], signal.SIGKILL)
    print(lazyarr.stats()["memory_limit"], lazyarr.stats()["workers_lost"])


def settings_of_several_processes_outlive_a_worker(url):
    x = lazyarr.open(url)
    x[0]
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(theirs)
        os.read(ours, 1)
        os._exit(0)
    lazyarr.configure(memory_limit="3 MiB")
    os.kill(lazyarr.stats()["pid"], signal.SIGKILL)
    print(lazyarr.stats()["memory_limit"], lazyarr.stats()["clients"])
    os.close(theirs)
    os.waitpid(pid, 0)


def a_child_that_comes_late_changes_no_setting(url):
    ours, theirs = os.pipe()
    # Before lazyarr's own hook, in which the child speaks first.
    os.register_at_fork(after_in_child=lambda: (os.close(theirs), os.read(ours, 1)))
    x = lazyarr.open(url)
    x[0]
    pid = os.fork()
    if pid == 0:
        os._exit(0 if x[5].any() else 1)
    lazyarr.configure(memory_limit="3 MiB")
    os.close(theirs)
    print(exit_code(pid), lazyarr.stats()["memory_limit"])


def a_worker_that_is_stopped_is_replaced(url, copy):
    x, data = lazyarr.open(url), np.load(copy)
    stop(lazyarr.stats()["pid"])
    assert read_all(x) == data.tobytes()
    print(lazyarr.stats()["workers_lost"])


def a_client_that_ends_while_there_is_no_worker(url):
    x = lazyarr.open(url)
    x[5]
    print(lazyarr.stats()["pid"], flush=True)
    sys.stdin.readline()


def a_worker_dies_before_a_child_has_come(url, copy):
    os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGSTOP))
    x, data = lazyarr.open(url), np.load(copy)
    x[5]
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        assert os.read(reader, 1)
        assert read_all(x) == data.tobytes()
        x.evict()
        os.kill(lazyarr.stats()["pid"], signal.SIGKILL)
        assert read_all(x) == data.tobytes()
        os._exit(0)
    os.waitpid(pid, os.WUNTRACED)
    del x

    def is_mapped():
        with open("/proc/self/maps") as file:
            return "/memfd:lazyarr " in file.read()

    while is_mapped():
        pass
    os.kill(lazyarr.stats()["pid"], signal.SIGKILL)
    while lazyarr.stats()["workers_lost"] != 1:
        pass
    os.kill(pid, signal.SIGCONT)
    os.write(writer, b"x")
    print(exit_code(pid))


def a_unit_that_kills_workers_is_given_up(path, way):
    x = lazyarr.open(path)
    x[0]
    print(lazyarr.stats()["pid"], flush=True)
    try:
        print(int(x[1, 5] if way == "request" else np.asarray(x)[1, 5]))
    except lazyarr.ChunkError as error:
        print("ChunkError", error.chunk, error.reason)
        print(int(x[1, 5]))


def all_is_killed_while_a_request_waits(url):
    x, _other = lazyarr.open(url), lazyarr.open(url)
    x[5]
    print(lazyarr.stats()["pid"], flush=True)
    sys.stdin.readline()
    try:
        x[40]
    except lazyarr.PagerError:
        print("PagerError")
    print(int(np.asarray(x)[5, 0, 1]), int(lazyarr.open(url)[40, 0, 1]))


def all_is_killed_while_nobody_waits(url):
    x = lazyarr.open(url)
    x[5]
    print(lazyarr.stats()["pid"], flush=True)
    sys.stdin.readline()
    print(int(np.asarray(x)[5, 0, 1]), flush=True)
    print(int(np.asarray(x)[40, 0, 1]), flush=True)


def settings_hold_for_the_next_pager(url):
    """The pager is killed when a line comes; nobody has asked it for anything since."""
    x = lazyarr.open(url)
    print(lazyarr.stats()["pid"], flush=True)
    sys.stdin.readline()
    with lazyarr.configure(memory_limit=1 << 20):
        assert lazyarr.config.memory_limit == 1 << 20
        del x
        x = lazyarr.open(url)
        assert x[40].any()
        assert lazyarr.stats()["memory_limit"] == 1 << 20
    print(lazyarr.stats()["memory_limit"] == lazyarr.config.memory_limit > 1 << 20)


def a_pager_that_cannot_start_is_an_error(url, python):
    lazyarr.configure(python=python)
    try:
        x = lazyarr.open(url)
        x[5]
    except lazyarr.PagerError:
        print("PagerError")
