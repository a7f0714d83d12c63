"""A thread that does what finalizers may not do themselves.

A finalizer may run anywhere, also where its own thread holds the locks that it
would need, so it only puts its work in a queue that is made for that
(`queue.SimpleQueue`: put is reentrant).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from lazyarr.errors import LazyarrError

__all__ = ["after_fork_in_child", "defer", "start"]

_lock = threading.Lock()
_queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
_thread: threading.Thread | None = None


def defer(work: Callable[[], None]) -> None:
    """Have some work done soon, in the janitor's thread; takes no lock."""
    _queue.put(work)


def start() -> None:
    """Start the thread, if it does not run.

    Where there can be none, as in Python 3.12 when the interpreter ends, what is deferred
    waits for the next call.
    """
    global _thread
    with _lock:
        if _thread is None:
            thread = threading.Thread(target=_run, name="lazyarr-janitor", daemon=True)
            with suppress(RuntimeError):
                thread.start()
                _thread = thread


def after_fork_in_child() -> None:
    """Begin anew: a child has the parent's queue, and none of its threads."""
    global _lock, _queue, _thread
    waiting, _lock, _queue, _thread = _queue, threading.Lock(), SimpleQueue(), None
    with suppress(Empty):
        while True:
            _queue.put(waiting.get_nowait())
    start()


def _run() -> None:
    queue = _queue
    while True:
        with suppress(LazyarrError, OSError):
            queue.get()()
