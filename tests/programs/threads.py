"""Programs of tests/process/test_threads.py."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import pickle
import sys
import threading
import time
from contextlib import suppress

import numpy as np

import lazyarr
from tests.programs.support import (
    join_all,
    keep,
    read_all,
    run_threads,
    start_all,
)


def run_64(work, n):
    """Run work(seed, random generator) in 64 threads at once; nothing may go wrong."""
    wrong, barrier = [], threading.Barrier(64)

    def run(seed):
        try:
            barrier.wait()
            rng = np.random.default_rng(seed)
            for _ in range(n):
                work(seed, rng)
        except BaseException as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(64)]
    run_threads(threads)
    assert not wrong, wrong


def threads_on_the_same_array(url, copy):
    x, data = lazyarr.open(url), np.load(copy)
    raw = np.asarray(x)

    def work(seed, rng):
        i, j = sorted(int(n) for n in rng.integers(64, size=2))
        assert raw[i : j + 1].tobytes() == data[i : j + 1].tobytes()
        assert np.array_equal(x[[i, j]], data[[i, j]])
        assert (x[i : j + 1].max(axis=0) == data[i : j + 1].max(axis=0)).all()
        if rng.random() < 0.3:
            x[i : j + 1].evict()
        if rng.random() < 0.3:
            x.prefetch(slice(i, j + 1), wait=bool(rng.random() < 0.5))

    run_64(work, 8)
    x.evict()
    run_64(lambda *_: (x[5] == data[5]).all() or sys.exit(1), 1)


def threads_on_arrays_of_their_own(path, copies):
    copies = dict(np.load(copies))

    def work(seed, rng):
        name = sorted(copies)[seed % len(copies)]
        data = copies[name]
        i = int(rng.integers(len(data)))
        mode = "rc"[seed % 2]
        with lazyarr.open(path, mode) as dataset:
            x, again = dataset[name], dataset[name]
        assert x is again
        again = pickle.loads(pickle.dumps(x[i:]))
        assert again.tobytes() == data[i:].tobytes()
        assert read_all(x[i]) == data[i].tobytes()
        if mode == "c":
            x[i] = 3
            assert (np.asarray(x)[i] == 3).all()
        x.evict()
        del x
        assert np.array_equal(again, data[i:])
        if rng.random() < 0.1:
            gc.collect()
        with suppress(KeyError):
            lazyarr.open(path)["nothing"]

    run_64(work, 3)
    gc.collect()
    deadline = time.monotonic() + 20
    while lazyarr.stats()["regions"]:
        assert time.monotonic() < deadline, lazyarr.stats()


def arrays_end_while_others_fault(url, copy):
    gc.set_threshold(50)
    x, data = lazyarr.open(url), np.load(copy)
    stop, wrong = [], []

    def read(seed):
        rng = np.random.default_rng(seed)
        while not stop:
            i = int(rng.integers(64))
            x[i].evict() if hasattr(x[i], "evict") else lazyarr.evict(x[i])
            if np.asarray(x)[i].tobytes() != data[i].tobytes():
                wrong.append(i)

    def churn(seed):
        for i in range(40):
            other = lazyarr.open(url)
            if read_all(other[i]) != data[i].tobytes():
                wrong.append(-i)
            cycle = [other, np.asarray(other)[i:]]
            cycle.append(cycle)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    churners = [threading.Thread(target=churn, args=(seed,)) for seed in range(3)]
    start_all(readers + churners)
    join_all(churners)
    stop.append(1)
    join_all(readers)
    assert not wrong, wrong


def arrays_of_a_closed_dataset_stay_valid(path, copy):
    data = np.load(copy)
    dataset = lazyarr.open(path)
    x, view = dataset["tiles"], dataset["tiles"][3:, ::2]
    dataset["large"]
    threads = [threading.Thread(target=dataset.close) for _ in range(8)]
    run_threads(threads)
    try:
        dataset["tiles"]
    except ValueError as error:
        print("closed" in str(error))
    deadline = time.monotonic() + 20
    while lazyarr.stats()["regions"] != 1:
        assert time.monotonic() < deadline
    assert np.array_equal(view, data[3:, ::2])
    assert read_all(x) == data.tobytes()
    del dataset
    x.evict()
    assert (x[5] == data[5]).all()


ENDINGS = {
    "": lambda: None,
    "sys.exit(3)": lambda: sys.exit(3),
    "os._exit(3)": lambda: os._exit(3),
}


def the_interpreter_ends_while_threads_wait(url, ending):
    faulthandler.cancel_dump_traceback_later()
    x = lazyarr.open(url)
    x[0]
    raw = np.asarray(x)[36:]
    copy = ctypes.CDLL(None).memcpy
    into = ctypes.create_string_buffer(8)
    address = raw.ctypes.data
    copy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    for work in (lambda: copy(into, address, 8), lambda: x[36], lambda: x[36:40].sum()):
        threading.Thread(target=work, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.readline()
    keep(x, raw, into)

    ENDINGS[ending]()
