"""Programs of tests/client/pickling/test_changes.py."""

from __future__ import annotations

import os
import pickle
import signal

import lazyarr
from lazyarr.client.session import session


def decoders_and_new_workers_keep_track(url):
    lazyarr.configure(threads=8)
    x = lazyarr.open(url, mode="c")
    new = len(pickle.dumps(x))
    x[10:20].sum()
    x[12, 0, 0] = 1
    pid = lazyarr.stats()["pid"]
    os.kill(pid, signal.SIGKILL)
    while lazyarr.stats()["pid"] == pid:
        os.sched_yield()
    total = int(x.sum())
    pickled = pickle.dumps(x)
    assert len(pickled) < new + 3 * 4096, len(pickled)
    assert int(pickle.loads(pickled).sum()) == total


def without_tracking_all_that_is_there_goes_along(url):
    session._USED &= ~session.TRACKING
    x = lazyarr.open(url, mode="c")
    new = len(pickle.dumps(x))
    x[10:18].sum()
    x[12] = 1
    pickled = pickle.dumps(x)
    assert 8 * 8192 <= len(pickled) - new < 40 * 8192, len(pickled)
    there = pickle.loads(pickled)
    assert (there[12] == 1).all() and (there[:12] == x[:12]).all() and (there[13:] == x[13:]).all()
