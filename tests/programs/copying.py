"""Programs of tests/process/test_copying.py."""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
import threading

import numpy as np

import lazyarr
from tests.programs.support import (
    in_child,
    join_all,
    start_all,
)


def it_is_chosen_without_a_word(url, copy):
    x, data = lazyarr.open(url), np.load(copy)
    assert (x[5] == data[5]).all()
    print("ready", flush=True)
    sys.stdin.read()


def children_read_right(url, copy):
    x, data = lazyarr.open(url), np.load(copy)
    lazyarr.configure(threads=3)

    def check():
        assert (x[[60, 3, 17]] == data[[60, 3, 17]]).all()
        x.evict()
        assert (np.asarray(x) == data).all() and (lazyarr.open(url)[9] == data[9]).all()

    assert in_child(check) == 0
    stop, wrong = [], []

    def churn(seed):
        rng = np.random.default_rng(seed)
        while not stop:
            rows = rng.integers(0, 64, 8)
            if not (x[rows] == data[rows]).all():
                wrong.append(rows)
            x.evict()

    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(4)]
    start_all(threads)
    codes = [in_child(check) for _ in range(30)]
    codes.append(in_child(lambda: None if in_child(check) == 0 else 1 / 0))
    stop.append(1)
    join_all(threads)
    assert codes == [0] * 31 and not wrong, (codes, wrong)


def a_child_that_is_forked_while_a_thread_imports(url, copy):
    x, data = lazyarr.open(url), np.load(copy)
    main, importing, forked = threading.get_ident(), threading.Event(), threading.Event()

    def is_waited_for():
        frame = sys._current_frames()[main]
        while frame and frame.f_code.co_name != "finish_imports":
            frame = frame.f_back
        return frame or forked.is_set()

    class Slow:
        def find_spec(name, path=None, target=None):
            if name == "zstandard":
                sys.meta_path.remove(Slow)
                spec = importlib.util.find_spec(name)
                Slow.create_module, Slow.real = spec.loader.create_module, spec.loader
                spec.loader = Slow
                return spec
            return None

        def exec_module(module):
            importing.set()
            while not is_waited_for():
                pass
            Slow.real.exec_module(module)

    del sys.modules["zstandard"]  # as if nothing had needed it yet
    sys.meta_path.insert(0, Slow)
    reader = threading.Thread(target=lambda: x[5])
    reader.start()
    assert importing.wait(30)

    def check():
        signal.alarm(20)
        assert (x[9] == data[9]).all()

    code = in_child(check)
    forked.set()
    reader.join()
    print(code)


def children_have_what_the_parent_has_read(url, copy):
    x, data = lazyarr.open(url, mode="c"), np.load(copy)
    x.prefetch()
    x[5] = 7
    before = lazyarr.stats()["units_loaded"]

    def check():
        assert (x[5] == 7).all() and (x[9] == data[9]).all()
        x[5] = 8
        assert lazyarr.stats()["units_loaded"] == before

    assert in_child(check) == 0
    assert (x[5] == 7).all()


def children_read_remote_stores(url, copy, path):
    x = lazyarr.open(url, storage_options=json.loads(path))
    data = np.load(copy)

    def check():
        assert (x[[60, 3, 17]] == data[[60, 3, 17]]).all()

    assert in_child(check) == 0
    check()
    x.evict()
    stop = []

    def churn():
        while not stop:
            check()
            x.evict()

    thread = threading.Thread(target=churn)
    thread.start()
    codes = [in_child(check) for _ in range(5)]
    stop.append(1)
    thread.join()
    assert codes == [0] * 5, codes


def interrupting_a_read(url):
    x = lazyarr.open(url)
    print(x[5, 0, 1], flush=True)
    for rows in (slice(8, 9), slice(12, 60)):
        sys.stdin.readline()
        try:
            np.asarray(x[rows])
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    sys.stdin.readline()
    print(x[8, 0, 1], x[44, 0, 1], np.asarray(x)[20, 0, 1])


def the_end_waits_for_nothing(url):
    x = lazyarr.open(url)
    x[5]
    print("ready", flush=True)
    sys.stdin.readline()
    x.prefetch(wait=False)
    sys.stdin.readline()
