"""Programs of tests/process/test_stalls.py."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import sys
import threading

import numpy as np

import lazyarr


def touch(row):
    """Return a copy of a row of plain memory that is made without the GIL."""
    memcpy = ctypes.CDLL(None).memcpy
    memcpy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    copied = np.empty_like(row)
    memcpy(copied.ctypes.data, row.ctypes.data, row.nbytes)
    return copied


def a_stalled_read_blocks_no_other(url, copy):
    faulthandler.cancel_dump_traceback_later()
    x, data = lazyarr.open(url), np.load(copy)
    raw = np.asarray(x)
    for work in (lambda: touch(raw[0]), lambda: x[1], lambda: x.prefetch(slice(0, 16))):
        threading.Thread(target=work, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(16, 64, 2):
        assert (touch(raw[i]) == data[i]).all()
        assert (x[i + 1] == data[i + 1]).all()
    print("read", flush=True)
    os._exit(0)


def what_failed_is_tried_again(url, copy):
    faulthandler.cancel_dump_traceback_later()
    lazyarr.configure(retries=0, timeout=5)
    x, data = lazyarr.open(url), np.load(copy)
    x[60]
    print("ready", flush=True)
    for _ in range(3):
        sys.stdin.readline()
        try:
            print((x[5] == data[5]).all(), flush=True)
        except lazyarr.ChunkError as error:
            print(error.chunk[0] in (1, 5), flush=True)


def a_refused_system_call_is_right_after_a_request(path, copy):
    x, data = lazyarr.open(path)["pages"], np.load(copy)
    pages = np.asarray(x).view("u1").reshape(-1, 4096)

    def write(page):
        reader, writer = os.pipe()
        with open(reader, "rb") as source, open(writer, "wb", buffering=0) as target:
            try:
                target.write(pages[page])
            except OSError as error:
                return error.strerror
            return source.read(4096) == data.view("u1").reshape(-1, 4096)[page].tobytes()

    for _ in range(2):
        print(write(0), flush=True)
        sys.stdin.readline()
    x.prefetch(slice(0, 1))
    print(write(0), write(1), flush=True)
