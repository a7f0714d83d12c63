"""Programs of tests/process/test_interrupts.py."""

from __future__ import annotations

import sys
import time

import numpy as np

import lazyarr
from tests.programs.support import (
    read_all,
)


def reads_what_stalls(url, copy, way, timeout_seconds):
    lazyarr.configure(timeout=float(timeout_seconds))
    data = np.load(copy)
    x = lazyarr.open(url)
    assert (x[4] == data[4]).all()
    print("ready", flush=True)
    begin = time.monotonic()
    try:
        if way == "request":
            x[38]
        elif way == "operation":
            with lazyarr.configure(memory_limit=x.nbytes // 2):
                x.mean(axis=0)
        else:
            read_all(x[38:39])
    except KeyboardInterrupt:
        print(time.monotonic() - begin, flush=True)
    assert (x[:36] == data[:36]).all()
    sys.stdin.readline()
    while True:
        try:
            x[38]  # joins the load that stalls, until that has failed
        except lazyarr.ChunkError:
            continue
        break
    assert read_all(x) == data.tobytes()
    print("right")
