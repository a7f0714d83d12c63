"""Programs of tests/writer: writers that are held up, interrupted or killed."""

from __future__ import annotations

import os
import signal
import sys
import threading

import numpy as np

import lazyarr
from lazyarr.errors import KernelUnsupportedError
from lazyarr.writer import open_writer
from lazyarr.writer.staging import StagedDirectory


def holds_a_store(kind, url):
    """Write when a line comes, and fork before that where it is asked to."""
    make = {
        "append": lambda: open_writer(url),
        "overwrite": lambda: lazyarr.create(url, overwrite=True),
        "new": lambda: lazyarr.create(url),
    }[kind]
    with make() as writer:
        print("ready", flush=True)
        pid = os.fork() if sys.stdin.read(1) == "f" else None
        if not pid:  # the child, where there is one
            print("forked", flush=True)
        if pid == 0:
            os.close(1)
            sys.stdin.read()
            os._exit(0)
        if sys.stdin.read(1) == "":
            os._exit(1)
        if kind == "append":
            writer["x"].append([100, 101])
        else:
            writer.create_array("x", shape=(1,), dtype="i8")[:] = 7
    print("closed", flush=True)


def saves_without_end(url):
    class Endless:
        shape, dtype = (10**9, 1000), np.dtype("u1")

        def __getitem__(self, index):
            print("reading", flush=True)
            n_rows = index[0].stop - index[0].start
            return np.random.default_rng(0).integers(0, 9, (n_rows, 1000), "u1")

    lazyarr.save(url, Endless())


def no_thread_is_left(url):
    lazyarr.save(url, np.ones((100, 100)))
    assert threading.enumerate() == [threading.main_thread()], threading.enumerate()


def dies_between_the_steps(path):
    n_renames = 0

    def exchange(*_, **__):
        raise KernelUnsupportedError("no", missing=("renameat2",), remedy="none")

    def hook(event, _):
        nonlocal n_renames
        if event == "os.rename":
            n_renames += 1
            if n_renames == 2:
                os.kill(os.getpid(), signal.SIGKILL)

    place = StagedDirectory(path, overwrite=True)
    place.put("zarr.json", [b"new"])
    sys.addaudithook(hook)
    place.publish(exchange=exchange)


def holds_a_directory(path):
    _place = StagedDirectory(path, overwrite=False)
    print("ready", flush=True)
    sys.stdin.read()
