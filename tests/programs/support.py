"""What many programs do."""

from __future__ import annotations

import ctypes
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterable
from threading import Thread
from typing import Any

import numpy as np

import lazyarr

_PAUSE_SECONDS = 0.001


def read_all(array: Any) -> bytes:
    """Return the bytes through a raw pointer, with no lazyarr in the way."""
    raw = np.asarray(array)
    return ctypes.string_at(raw.ctypes.data, raw.nbytes)


def settled() -> dict[str, Any]:
    """Return the statistics once nothing is on its way: a page is there before it is counted."""
    while (stats := lazyarr.stats())["units_loading"]:
        os.sched_yield()
    return stats


def in_child(function: Callable[[], object], fork: Callable[[], int] = os.fork) -> int:
    """Return how a forked child ended that ran a function."""
    pid = fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return exit_code(pid)


def exit_code(pid: int) -> int:
    """Wait for a child; return its exit code, or less than 0 for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_threads(threads: Iterable[Thread]) -> None:
    """Start threads, and wait until all have ended."""
    threads = list(threads)
    start_all(threads)
    join_all(threads)


def start_all(threads: Iterable[Thread]) -> None:
    """Start threads."""
    for thread in threads:
        thread.start()


def join_all(threads: Iterable[Thread]) -> None:
    """Wait until threads have ended."""
    for thread in threads:
        thread.join()


def keep(*kept: object) -> None:
    """Keep what a program has until its interpreter ends, as the globals of a script are kept."""
    _kept.extend(kept)


_kept: list[object] = []


def stop(*pids: int) -> None:
    """Stop processes, and wait until all of their threads stand still: they go on for a moment."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    tasks = [f"/proc/{pid}/task/{task}" for pid in pids for task in os.listdir(f"/proc/{pid}/task")]
    for task in tasks:
        assert wait_until(lambda task=task: _state(task) == "T")


def _state(task: str) -> str:
    # proc(5): the state comes after the name, which stands in brackets.
    with open(f"{task}/stat") as file:
        return file.read().rpartition(")")[2][1]


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> bool:
    """Return whether a condition comes true, however busy the machine is meanwhile."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        # Not without a pause: the processor is for what is waited for.
        time.sleep(_PAUSE_SECONDS)
    return True
