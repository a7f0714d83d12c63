"""Programs of tests/process/test_closed_descriptors.py."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys

import daemon
import numpy as np

import lazyarr
from tests.programs.support import (
    in_child,
    read_all,
)


class Own:
    """Sockets of the user's under every number that lazyarr had."""

    def __init__(self, highest):
        self.ends = []
        while not self.ends or self.ends[-1] < highest:
            self.ends += [end.detach() for end in socket.socketpair(type=socket.SOCK_SEQPACKET)]
        self.before = [os.fstat(end) for end in self.ends]

    def check(self):
        assert [os.fstat(end) for end in self.ends] == self.before
        for end in self.ends:
            os.set_blocking(end, False)
            with contextlib.suppress(BlockingIOError):
                raise AssertionError(os.read(end, 1000))


def close_all():
    highest = max(map(int, os.listdir("/proc/self/fd")))
    os.closerange(3, highest + 1)
    return Own(highest)


def refused(way):
    """Return whether something is refused since other code has closed descriptors."""
    try:
        way()
    except lazyarr.PagerError as error:
        return "other code" in str(error)
    return False


class Opened:
    """A group and an array of it, some of which is loaded, and what both of its arrays hold."""

    def __init__(self, url, copy, engine):
        lazyarr.configure(engine=engine)
        self.url, self.engine, self.data = url, engine, np.load(copy)
        self.group = lazyarr.open(url)
        self.x = self.group["x"]
        self.x[5]
        self.x.residency()  # waits until all of its chunk is there
        with contextlib.suppress(lazyarr.NodeNotFoundError):
            lazyarr.open(url, path="nothing")

    def check(self, own):
        """Read, and read what is opened now, with the user's own descriptors untouched."""
        data = self.data
        signal.alarm(30)
        if self.engine == "userfaultfd":
            assert (self.x[5] == data[5]).all()
            assert refused(lambda: self.x[40])
            assert refused(lambda: self.x.sum())
            with contextlib.suppress(KeyError):  # no pager, no statistics
                assert refused(lambda: lazyarr.stats()["pid"])
        else:
            assert (self.x[40] == data[40]).all()
            assert self.x.sum() == data.sum()
        assert (self.group["y"][9] == data[9]).all()
        y = lazyarr.open(self.url, path="x")
        assert (y[30] == data[30]).all()
        assert y.sum() == data.sum()
        own.check()
        del self.x, self.group
        gc.collect()
        assert (lazyarr.open(self.url, path="y")[60] == data[60]).all()
        own.check()


def in_the_same_process(url, copy, engine):
    opened = Opened(url, copy, engine)
    own = close_all()
    opened.check(own)
    print("done")


def a_double_fork(url, copy, engine):
    opened = Opened(url, copy, engine)
    gate, barrier = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            own = close_all()
            opened.check(own)
            print("done", flush=True)
        os._exit(0)
    os.wait()
    os.close(barrier)
    os.read(gate, 1)  # the grandchild has closed its copy of the other end


def python_daemon(url, copy, engine):
    opened = Opened(url, copy, engine)
    pid = os.fork()
    if pid == 0:
        with daemon.DaemonContext(
            stdout=sys.stdout, stderr=sys.stderr, working_directory=os.getcwd()
        ):
            opened.check(Own(30))
            print("done", flush=True)
        os._exit(0)
    os.wait()


def a_fork_after_that(url, copy, engine):
    opened = Opened(url, copy, engine)
    own = close_all()

    def use():
        for row in (5, 40):
            assert refused(lambda row=row: opened.x[row])
        assert (lazyarr.open(url)["x"][5] == opened.data[5]).all()
        own.check()

    assert in_child(use) == 0
    opened.check(own)
    y = lazyarr.open(url, path="y")

    def read():
        own.check()
        assert (y[9] == opened.data[9]).all()

    assert in_child(read) == 0
    print("done")


def what_was_loaded_stays_and_touches_are_served(url, copy, engine):
    opened = Opened(url, copy, engine)
    raw = np.asarray(opened.x)
    own = close_all()
    assert read_all(raw) == opened.data.tobytes()
    own.check()
    print("done")


def a_pager_that_waits_to_be_used(url, copy):
    with contextlib.suppress(lazyarr.NodeNotFoundError):
        lazyarr.open(url, path="nothing")
    highest = max(map(int, os.listdir("/proc/self/fd")))
    os.closerange(3, highest + 1)
    ends = [end.detach() for _ in range(highest) for end in socket.socketpair()]
    before = [os.fstat(end) for end in ends]
    assert (lazyarr.open(url, path="x")[5] == np.load(copy)[5]).all()
    assert [os.fstat(end) for end in ends] == before
    print("done")
