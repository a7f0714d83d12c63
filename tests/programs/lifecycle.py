"""Programs of tests/process/test_lifecycle.py."""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time

import numpy as np

import lazyarr
from tests.programs.support import (
    in_child,
    join_all,
    keep,
    read_all,
    start_all,
    stop,
)


def fail():
    raise ValueError


ENDINGS = {
    "": lambda: None,
    "sys.exit(3)": lambda: sys.exit(3),
    "os._exit(4)": lambda: os._exit(4),
    "raise ValueError": fail,
    "os.kill(os.getpid(), signal.SIGKILL)": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "os.kill(os.getpid(), signal.SIGTERM)": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "os.abort()": lambda: os.abort(),
    "os.execv('/bin/true', ['true'])": lambda: os.execv("/bin/true", ["true"]),
}


def the_pager_ends_with_its_client(url, ending):
    faulthandler.disable()
    x = lazyarr.open(url)
    print(x[5, 0, 1], np.asarray(x)[50, 0, 1])
    sys.stdout.flush()
    keep(x)
    ENDINGS[ending]()


def exec_is_survived_however_long_it_takes(path):
    faulthandler.disable()
    group = lazyarr.open(path)
    slow_to_close = os.memfd_create("slow")  # closed between the channel and the lifeline
    os.posix_fallocate(slow_to_close, 0, 256 << 20)
    group["x"][5]
    os.execv("/bin/true", ["true"])


def the_pager_does_not_wait_for_what_nobody_wants_any_more(url, way):
    x = lazyarr.open(url)
    print(x[5, 0, 1], flush=True)
    address, before = np.asarray(x)[38].ctypes.data, lazyarr.stats()[way]
    libc = ctypes.CDLL(None)  # calls without the GIL
    work = {
        "faults": lambda: libc.memcmp(ctypes.c_void_p(address), b"", 1),
        "requests": lambda: x[38],
    }[way]
    threading.Thread(target=work, daemon=True).start()
    while lazyarr.stats()[way] == before:
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def exec_into_something_that_lives_on(url):
    x = lazyarr.open(url)
    print(x[5, 0, 1], flush=True)
    os.execv("/bin/sleep", ["sleep", "30"])


def a_child_outlives_its_parent(url, copy):
    x, data = lazyarr.open(url), np.load(copy)
    x[5]
    parent = os.getpid()
    if os.fork() == 0:
        while os.getppid() == parent:
            time.sleep(0.01)
        assert read_all(x) == data.tobytes()
        assert (x[33] == data[33]).all()
        print("read all", flush=True)
        os._exit(0)  # at exit, faulthandler would wait for its thread, which a child has not


def arrays_are_opened_and_read_while_the_interpreter_ends(url, copy, engine, way):
    lazyarr.configure(engine=engine)
    ended, data = threading.main_thread().join, np.load(copy)

    def use():
        x = lazyarr.open(url)
        x.prefetch(slice(20, 30), wait=False)
        assert (x[5] == data[5]).all() and (x[[9, 40]] == data[[9, 40]]).all()
        assert x.sum() == data.sum() and lazyarr.stats()["units_loaded"]
        print("read")

    keep(use)
    if way == "atexit.register(use)":
        atexit.register(use)
    else:
        threading.Thread(target=lambda: (ended(), use())).start()


def arrays_that_outlive_what_is_in_modules(url):
    keep(lazyarr.open(url), lazyarr.open(url, mode="c"))
    sys.kept = list(sys.modules.values())


def what_is_done_after_lazyarrs_own_end(url):
    def use():
        print(x[5, 0, 1], np.asarray(x)[50, 0, 1], lazyarr.stats())
        try:
            lazyarr.open(url)
        except lazyarr.PagerError as error:
            print(error)

    atexit.register(use)
    x = lazyarr.open(url)


def the_pager_is_nobodys_child(url):
    x = lazyarr.open(url)
    x[5]
    try:
        print(os.wait())
    except ChildProcessError:
        print("no children")


def a_store_that_cannot_be_opened_leaves_nothing(path):
    try:
        lazyarr.open(path)
    except lazyarr.NodeNotFoundError as error:
        assert isinstance(error, (KeyError, FileNotFoundError))
        print(str(error).split(":")[0])


def fork_while_threads_fault(url, copy):
    x, data = lazyarr.open(url), np.load(copy)
    stop, wrong = [], []

    def churn(seed):
        rng = np.random.default_rng(seed)
        while not stop:
            i = int(rng.integers(64))
            if not (x[i] == data[i]).all() or read_all(x[i:]) != data[i:].tobytes():
                wrong.append(i)
            x.evict()

    threads = [threading.Thread(target=churn, args=(seed,)) for seed in range(3)]
    start_all(threads)
    codes = [
        in_child(lambda: None if read_all(x) == data.tobytes() else sys.exit(1)) for _ in range(20)
    ]
    stop.append(1)
    join_all(threads)
    assert codes == [0] * 20, codes
    assert not wrong, wrong


def interrupting_a_request(url):
    x = lazyarr.open(url)
    pager = lazyarr.stats()["pid"]
    stop(pager)
    print(pager, flush=True)
    try:
        x[5]
    except KeyboardInterrupt:
        os.kill(pager, signal.SIGCONT)
    print(x[5, 0, 1], x[44, 0, 1], np.asarray(x)[20, 0, 1])
