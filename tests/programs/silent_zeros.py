"""Programs of tests/process/test_silent_zeros.py."""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import sys
import threading

import numpy as np

import lazyarr
from tests.programs.support import (
    exit_code,
    in_child,
    read_all,
    run_threads,
    settled,
)


def the_pager_dies_while_a_thread_waits(url):
    x = np.asarray(lazyarr.open(url))
    print(x[0, 0, 1], flush=True)
    print(lazyarr.stats()["pid"], flush=True)
    sys.stdin.readline()
    print("read", x[40, 0, 1], flush=True)


def a_child_of_os_fork_reads_the_data(url, copy):
    x, data = lazyarr.open(url), np.load(copy)
    raw = np.asarray(x)
    assert (raw[:8] == data[:8]).all()

    def child():
        assert read_all(x[4:40]) == data[4:40].tobytes()
        assert in_child(lambda: None if read_all(x) == data.tobytes() else sys.exit(3)) == 0

    assert in_child(child) == 0
    assert read_all(x) == data.tobytes()
    assert in_child(child) == 0
    assert settled()["units_loaded"] == 16, lazyarr.stats()


def a_child_forked_behind_pythons_back_dies(url):
    x = np.asarray(lazyarr.open(url))
    address = x.ctypes.data
    assert x[0, 0, 1]
    pid = ctypes.CDLL(None).fork()
    if pid == 0:
        faulthandler.disable()
        os._exit(ctypes.c_uint8.from_address(address + 9000).value and 1)
    print(exit_code(pid))


def private_memory_in_children(url, copy):
    x, data = lazyarr.open(url, mode="c"), np.load(copy)
    x[3] = data[3] = 7
    x[9, 2:5] = data[9, 2:5] = 8

    def child():
        assert read_all(x) == data.tobytes()
        x[20] = 1

    assert in_child(child) == 0
    assert read_all(x) == data.tobytes()
    assert in_child(child) == 0


def a_child_acts_on_its_own_memory(url, copy):
    x, data = lazyarr.open(url, mode="c"), np.load(copy)
    raw = np.asarray(x)

    def child():
        raw[:] = 9
        assert (raw == 9).all()

    assert in_child(child) == 0
    assert read_all(x) == data.tobytes()


def a_stray_mapping_that_touches_a_hole(url, copy):
    x, data = lazyarr.open(url), np.load(copy)
    (name,) = [
        f"/proc/self/fd/{fd}"
        for fd in os.listdir("/proc/self/fd")
        if os.path.islink(f"/proc/self/fd/{fd}")
        and os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:lazyarr ")
    ]
    with open(name, "r+b") as file, mmap.mmap(file.fileno(), x.nbytes) as stray:
        assert not any(stray[::4096])
        assert read_all(x) == data.tobytes()
        assert stray[:] == data.tobytes()


def huge_shared_pages(url, copy):
    x, data = lazyarr.open(url), np.load(copy)
    assert (x[17] == data[17]).all()
    assert read_all(x) == data.tobytes()
    x.evict()
    assert (x[[60, 2, 33]] == data[[60, 2, 33]]).all()
    assert read_all(x) == data.tobytes()


def memory_is_registered_before_it_can_be_touched(url, copy):
    data, wrong = np.load(copy), []

    def read(seed):
        for _ in range(10):
            raw = np.asarray(lazyarr.open(url))
            if raw[seed * 4 + 1, 3, 5] != data[seed * 4 + 1, 3, 5]:
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    run_threads(threads)
    assert not wrong


def damaged_chunks_give_errors(url):
    print(int(np.asarray(lazyarr.open(url))[13, 0, 0]))
