"""Programs of tests/client/test_byteorder.py."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys

import numpy as np

import lazyarr
from tests.programs.support import (
    read_all,
)


def check_what_is_given():
    arrays, data = pickle.load(sys.stdin.buffer)
    orders = [x.dtype.byteorder for x in arrays]
    assert orders == ["=", ">", "="] * 2, orders
    for n, x in enumerate(arrays):
        assert (x[5] == data[5]).all()
        assert (x[8:] == data[8:]).all()
        assert (x[7] == (258 if n in (3, 4) else data[7])).all()


def two_orders_never_share_pages(url, copy):
    data = np.load(copy)
    arrays = [
        lazyarr.open(url, mode=mode, byteorder=order)
        for mode in "rc"
        for order in ("native", "stored", "native")
    ]
    for x in arrays:
        assert (x[5] == data[5]).all()
    assert lazyarr.stats()["regions"] == 5
    arrays[3][7] = 258
    arrays[4][7] = 258
    given = pickle.dumps((arrays, data))
    subprocess.run(
        [sys.executable, "-m", "tests.programs", "byteorder:check_what_is_given"],
        input=given,
        check=True,
    )
    _group = lazyarr.open(os.path.dirname(url), byteorder="stored", consolidated=False)


def other_processes_decode_it_too(url, copy):
    lazyarr.configure(threads=8)
    x, data = lazyarr.open(url), np.load(copy)
    assert (x[3] == data[3]).all()
    x.prefetch()
    assert x.dtype.isnative and (x == data).all()
    pid = lazyarr.stats()["pid"]
    os.kill(pid, signal.SIGKILL)
    while lazyarr.stats()["pid"] == pid:
        os.sched_yield()
    assert read_all(x) == data.astype("=f4").tobytes()
