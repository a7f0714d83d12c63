"""Programs of tests/process/test_shutdown.py."""

from __future__ import annotations

import gc
import os
import threading

import numpy as np

import lazyarr
from tests.process import running
from tests.programs.support import (
    exit_code,
    read_all,
    wait_until,
)


def threads():
    return {t.name for t in threading.enumerate() if t.name.startswith("lazyarr")}


def pagers():
    return running.pagers(f"LAZYARR_TEST_MARK={os.environ['LAZYARR_TEST_MARK']}")


def n_open():
    return len(os.listdir("/proc/self/fd"))


def read(url, data):
    x = lazyarr.open(url)
    assert (x[5] == data[5]).all()
    assert x.sum() == data.sum()
    return x


def nothing_is_left(url, copy, engine):
    lazyarr.configure(engine=engine)
    data = np.load(copy)
    counts = []

    def is_as_before():
        return n_open() <= counts[0]

    for _ in range(5):
        read(url, data)
        lazyarr.shutdown()
        assert not threads()
        assert wait_until(lambda: not pagers())
        # What a thread that was loading has held last is closed when that thread is gone.
        counts.append(n_open())
        assert wait_until(is_as_before), (counts, n_open())
    lazyarr.shutdown()
    _x = read(url, data)
    assert lazyarr.stats()["regions"] == 1


def arrays_that_are_referenced(url, copy, engine):
    lazyarr.configure(engine=engine)
    data = np.load(copy)
    x = read(url, data)
    view = np.asarray(x)[3:5]
    del x
    try:
        lazyarr.shutdown()
    except lazyarr.LazyarrError as error:
        assert "arrays are still referenced: '/' of file://" in str(error), error
    else:
        raise AssertionError
    assert (view == data[3:5]).all() and threads()
    y = read(url, data)
    del y, view
    lazyarr.shutdown()
    assert not threads()


def datasets_that_are_closed(url, copy, engine):
    lazyarr.configure(engine=engine)
    data = np.load(copy)
    dataset = lazyarr.open(url)
    assert (dataset["x"][5] == data[5]).all()
    try:
        lazyarr.shutdown()
    except lazyarr.LazyarrError as error:
        assert "'x' of file://" in str(error), error
    else:
        raise AssertionError
    assert (dataset["x"][50] == data[50]).all()
    dataset.close()
    lazyarr.shutdown()
    assert wait_until(lambda: not pagers())


def a_pager_that_others_use(url, copy, engine):
    lazyarr.configure(engine=engine)
    data = np.load(copy)
    x = read(url, data)
    gate, barrier = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(barrier)
        os.read(gate, 1)
        assert read_all(x) == data.tobytes() and (x[40] == data[40]).all()
        os._exit(0)
    worker = lazyarr.stats()["pid"]
    del x
    lazyarr.shutdown()
    assert worker in pagers()
    os.close(barrier)
    assert exit_code(pid) == 0
    assert wait_until(lambda: not pagers())


def the_thread_ends_when_nothing_is_open(url, copy, engine):
    lazyarr.configure(engine=engine)
    data = np.load(copy)
    for _ in range(2):
        x = read(url, data)
        assert "lazyarr-finalizers" in threads()
        del x
        gc.collect()
        assert wait_until(lambda: "lazyarr-finalizers" not in threads())
