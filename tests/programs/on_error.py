"""Programs of tests/process/test_on_error.py."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import threading
import time

import numpy as np

import lazyarr
from tests.programs.support import (
    in_child,
    join_all,
    read_all,
    run_threads,
    start_all,
)


def opened(url, copy):
    """Return an array of which touches may raise, what is in it, and its plain memory."""
    lazyarr.configure(on_error="raise")
    x = lazyarr.open(url)
    return x, np.load(copy), np.asarray(x)


def add(raw):
    _sum = raw[:32] + 1
    (lambda: None)()


def pick(raw):
    _element = raw[13, 3, 4]
    (lambda: None)()


TOUCHES = {
    "reduction": lambda raw: raw[:32].sum(),
    "operator": add,
    "element": pick,
    "copy": lambda raw: raw[8:32].copy(),
    "memcpy": lambda raw: read_all(raw[11:]),
    "across two": lambda raw: ctypes.string_at(raw[16:].ctypes.data - 3, 8),
    "from behind": lambda raw: raw[::-1].tolist(),
    "parallel code": np.unique,
}


def touching_what_cannot_be_had_raises(url, copy, touch, damaged):
    damaged = [int(i) for i in damaged.split()]
    x, data, raw = opened(url, copy)
    for _ in range(5):
        try:
            TOUCHES[touch](raw)
        except lazyarr.ChunkError as error:
            assert error.chunk in [(i, 0, 0) for i in damaged]
            assert error.key == f"c/{error.chunk[0]}/0/0"
            assert error.reason, vars(error)
            assert "do not use" in error.__notes__[0]
        else:
            print("no error")
    good = [i for i in range(64) if i // 4 not in damaged]
    assert (raw[good] == data[good]).all()
    assert not x[12:20].residency().resident_nbytes
    print("repair", flush=True)
    sys.stdin.readline()
    assert read_all(x) == data.tobytes()


def in_another_thread(url, raw):
    run_threads([threading.Thread(target=lambda: print(raw[13].sum()))])


def in_mode_c(url, raw):
    mine = np.asarray(lazyarr.open(url, mode="c"))
    print(mine[13].sum())


def where_signals_are_blocked(url, raw):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {signal.SIGBUS})
    print(raw[13].sum())


def where_signals_are_handled(url, raw):
    for number in range(signal.SIGRTMIN, signal.SIGRTMAX):
        signal.signal(number, lambda *_: None)
    print(raw[13].sum())


def where_signals_are_handled_slowly(url, raw):
    libc, sleep = ctypes.CDLL(None), ctypes.cast(ctypes.CDLL(None).sleep, ctypes.c_void_p)
    libc.signal.argtypes = ctypes.c_int, ctypes.c_void_p
    for number in range(signal.SIGRTMIN, signal.SIGRTMAX):
        libc.signal(number, sleep)  # for so many seconds as its number, or until the alarm
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 2)
    print(raw[13].sum())


def where_signals_are_ignored(url, raw):
    for number in range(signal.SIGRTMIN, signal.SIGRTMAX):
        signal.signal(number, signal.SIG_IGN)
    print(raw[13].sum())


def beside_another_thread(url, raw):
    barrier = threading.Barrier(2)

    def touch():
        barrier.wait()
        print(raw[13].sum())

    threading.Thread(target=touch).start()
    touch()


def beside_a_finalizer(url, raw):
    class Lost:
        def __del__(self):
            pass

    value = Lost()
    value = raw[13, 3, 4]
    print(value)


def after_another_setting(url, raw):
    lazyarr.configure(on_error="sigbus")
    print(raw[13].sum())


REFUSALS = {
    "another thread": in_another_thread,
    "mode c": in_mode_c,
    "blocked": where_signals_are_blocked,
    "handled by somebody else": where_signals_are_handled,
    "handled by somebody else, slowly": where_signals_are_handled_slowly,
    "ignored": where_signals_are_ignored,
    "another thread waits for the page": beside_another_thread,
    "the exception is lost in a finalizer": beside_a_finalizer,
    "sigbus again": after_another_setting,
}


def where_zeros_could_be_taken_for_data_there_is_sigbus(url, copy, touch):
    _, _, raw = opened(url, copy)
    REFUSALS[touch](url, raw)


def nobody_else_sees_zeros(url, copy):
    _, _, raw = opened(url, copy)
    assert not lazyarr.doctor().full_rights

    n_looks, seen, stop = [0, 0, 0], [], []

    def look(view, i):
        r, w = os.pipe()
        try:
            n_looks[i] += 1
            os.write(w, view)
            seen.append(os.read(r, 4096))
        except OSError as error:
            assert error.errno == 14, error
        os.close(r)
        os.close(w)

    def look_often(i):
        view = memoryview(raw[13].reshape(-1)[:64])
        while not stop and (i or os.getppid() == parent):
            look(view, i)
            if i == 0 and n_looks[0] == 100:
                os.write(tell, b"looked")
            if i == 2:
                time.sleep(random.random() * 0.003)

    parent = os.getpid()
    told, tell = os.pipe()
    os.set_blocking(told, False)

    def child_has_looked():
        try:
            return bool(os.read(told, 1))
        except BlockingIOError:
            return False

    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(bool(seen)))
        look_often(0)
    threads = [threading.Thread(target=look_often, args=(i,)) for i in (1, 2)]
    start_all(threads)
    n_errors, has_looked = 0, False
    # Each for as long as it takes the others to get the processor often enough.
    while n_errors < 200 or n_looks[1] <= 200 or not has_looked:
        try:
            raw[12:16].sum()
        except lazyarr.ChunkError:
            n_errors += 1
            has_looked = has_looked or child_has_looked()
        else:
            print("no error")
    stop.append(1)
    join_all(threads)
    os.kill(child, signal.SIGTERM)
    assert os.waitpid(child, 0)[1] == 0
    print(len(seen))


def workers_die_meanwhile(url, copy):
    _, data, raw = opened(url, copy)
    n_errors = 0
    print("ready", flush=True)
    while True:
        try:
            raw[12:20].sum()
        except (lazyarr.ChunkError, lazyarr.PagerError):
            n_errors += 1
            if n_errors % 50 == 0:
                print(n_errors, flush=True)
        else:
            rows = [bool(raw[i].any()) for i in range(12, 20)]
            print("no error", rows, data[12:20].sum(), lazyarr.stats(), flush=True)


def children_raise_too(url, copy):
    x, data, raw = opened(url, copy)

    def child():
        for _ in range(3):
            try:
                raw[13].sum()
            except lazyarr.ChunkError:
                continue
            sys.exit(3)
        assert read_all(x[20:28]) == data[20:28].tobytes()

    assert in_child(child) == 0
    codes = []
    run_threads([threading.Thread(target=lambda: codes.append(in_child(child)))])
    print(codes[0])
    assert in_child(lambda: in_child(child) and sys.exit(4)) == 0
    child()


def it_is_set_in_the_main_thread(url):
    os.environ["LAZYARR_ON_ERROR"] = "raise"
    found = []

    def other():
        found.append(lazyarr.open(url))
        found[0][0]
        try:
            lazyarr.configure(on_error="raise")
        except ValueError as error:
            print(error)

    run_threads([threading.Thread(target=other)])
    lazyarr.open(url)
    try:
        np.asarray(found[0])[13].sum()
    except lazyarr.ChunkError as error:
        print(error.chunk)


def a_store_that_stalls(url):
    lazyarr.configure(on_error="raise", timeout=2)
    x = lazyarr.open(url)
    x[0]
    print("ready", flush=True)
    sys.stdin.readline()
    begin = time.monotonic()
    try:
        try:
            np.asarray(x).sum()
        except KeyboardInterrupt:
            print("interrupted")
            (lambda: None)()
    except lazyarr.ChunkError as error:
        print("ChunkError", error.chunk)
    print(time.monotonic() - begin)


def scripts_are_not_interactive(url):
    print(lazyarr.config.on_error, flush=True)
    np.asarray(lazyarr.open(url)).sum()
