"""Programs of tests/process/test_repositories.py."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import signal
import sys
import threading
import time
import warnings

import numpy as np

import lazyarr
from tests.programs.support import exit_code, join_all, start_all

_PATIENCE_SECONDS = 60


def in_child(function):
    """Return how a forked child ended that ran a function, and then what Python does at its end."""
    # A child would wait at its end for the thread that this has in the parent.
    faulthandler.cancel_dump_traceback_later()
    with warnings.catch_warnings():
        # Python 3.12 and later warn of what is tested here.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_PATIENCE_SECONDS)  # a child that hangs is ended by the kernel
        function()
        sys.exit(0)
    return exit_code(pid)


@contextlib.contextmanager
def refused():
    """Expect the error of a process in which icechunk does not work, within some seconds."""
    begun = time.monotonic()
    try:
        yield
    except lazyarr.LazyarrError as error:
        assert "'spawn' or 'forkserver'" in str(error), error
    else:
        raise AssertionError("there is no error")
    assert time.monotonic() - begun < 30


def fork_after_reading(url, copy):
    """What was open is read on in children, by the pager or from memory; the rest is refused."""
    data = np.load(copy)
    ds = lazyarr.open(url)
    x = ds["x"]
    assert (x[0] == data[0]).all()
    text = pickle.dumps(x)
    has_pager = isinstance(x, lazyarr.LazyArray)

    def child():
        assert (x[0] == data[0]).all()
        if has_pager:
            assert (x[...] == data).all()
            assert (pickle.loads(text)[-1] == data[-1]).all()
        else:
            with refused():
                x[-1]
        with refused():
            ds["y"]
        with refused():
            list(ds)
        with refused():
            lazyarr.open(url, storage_options={"branch": "main"})

    assert in_child(child) == 0
    assert (x[...] == data).all()
    ds.tree()
    if has_pager:
        # It reads what the child opens, whose document the parent has seen.
        assert in_child(lambda: ds["y"].sum() == 0 or sys.exit(1)) == 0
    assert ds["y"].sum() == 0


def fork_after_others_used_it(url, copy):
    """A child finds out by itself that icechunk does not work in it; its parent goes on."""
    import icechunk

    data = np.load(copy)
    icechunk.Repository.exists(icechunk.in_memory_storage())

    def child():
        for _ in range(2):
            with refused():
                lazyarr.open(url)

    assert in_child(child) == 0
    assert (lazyarr.open(url)["x"][...] == data).all()


def fork_while_it_is_imported(url, copy):
    """A child of a process in which another thread opens a repository for the first time."""
    data = np.load(copy)
    x = lazyarr.open(copy)  # so that the hooks of fork are there
    assert x[0].sum() == data[0].sum()
    threads = [threading.Thread(target=lazyarr.open, args=(url,))]
    start_all(threads)
    while "icechunk" not in sys.modules:
        time.sleep(0.001)

    def child():
        try:
            lazyarr.open(url)
        except lazyarr.LazyarrError as error:
            assert "'spawn' or 'forkserver'" in str(error), error

    assert in_child(child) == 0
    join_all(threads)
    assert (lazyarr.open(url)["x"][...] == data).all()


def fork_before_reading(url, copy):
    """Children of a process that has not used icechunk use it, and theirs cannot."""
    data = np.load(copy)

    def child():
        assert (lazyarr.open(url)["x"][...] == data).all()

        def grandchild():
            with refused():
                lazyarr.open(url)["x"]

        assert in_child(grandchild) == 0

    assert in_child(child) == 0
