"""A thread that does what finalizers may not do themselves.

A finalizer may run anywhere, also where its own thread holds the locks that it
would need, so it only puts its work in a queue that is made for that
(`queue.SimpleQueue`: put is reentrant).  The thread is there while something is open that
will have such work at its end.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeAlias

from lazyarr.client.session.fork_hooks import hold_signals
from lazyarr.errors import LazyarrError
from lazyarr.kernel import may_start_threads

__all__ = ["after_fork_in_child", "defer", "expect", "settle", "start", "stop"]

# Longer than it takes from the start of an opening to what is open.
_IDLE_SECONDS = 2.0

_SETTLE_SECONDS = 0.5

_Work: TypeAlias = Callable[[], None]

_lock = threading.Lock()
# With each work how many things have ended that were expected to defer something; None ends
# the thread.
_queue: SimpleQueue[tuple[_Work, int] | None] = SimpleQueue()
_thread: threading.Thread | None = None
_n_expected = 0


def defer(work: _Work, *, is_end: bool = False) -> None:
    """Have some work done soon, in the thread of `finalizers`; takes no lock.

    Parameters
    ----------
    work : callable
        What to do.
    is_end : bool
        Whether it is that of something that was expected to defer it.
    """
    # No lock and no call: a finalizer runs between any two instructions of any thread,
    # also of one that holds the session's lock.
    _queue.put((work, int(is_end)))


def expect() -> None:
    """Keep the thread until one more work was done that is an end."""
    global _n_expected
    with _lock:
        _n_expected += 1
        # Before there is anything to do, because starting a thread takes locks of
        # Python's, which a finalizer may not.
        if may_start_threads():
            _start()


def start() -> None:
    """Start the thread, if it does not run; to be called without a lock.

    Where there can be none, as in Python 3.12 when the interpreter ends, what is deferred
    waits for the next call.
    """
    if may_start_threads():
        with _lock:
            _start()
    else:
        # Without a thread the memory of arrays that are gone is kept until the next
        # call into lazyarr.  That is the cost of working where a thread would abort the
        # process (`may_start_threads`).
        _do_what_waits()


def stop() -> None:
    """Do what was deferred, and end the thread; the next thing that is opened starts it again."""
    global _thread
    with _lock:
        thread, _thread = _thread, None
    if thread is not None:
        _queue.put(None)
        thread.join()
    _do_what_waits()


def settle() -> None:
    """Return when what was deferred so far is done, and what that has deferred."""
    for _ in range(2):
        with _lock:
            thread = _thread
        if thread is None or thread is threading.current_thread():
            _do_what_waits()
            continue
        done = threading.Event()
        defer(done.set)
        # The thread may have ended meanwhile, in a child or with the interpreter.
        while not done.wait(_SETTLE_SECONDS) and thread.is_alive():
            pass


def after_fork_in_child() -> None:
    """Begin anew: a child has the parent's queue, and none of its threads."""
    global _lock, _queue, _thread
    had_thread = _thread is not None
    # The parent's thread may have held the lock of its queue at the fork, and is not
    # here to release it.
    waiting, _lock, _queue, _thread = _queue, threading.Lock(), SimpleQueue(), None
    with suppress(Empty):
        while True:
            _queue.put(waiting.get_nowait())
    if had_thread:
        start()


def _start() -> None:
    global _thread
    if _thread is None:
        thread = threading.Thread(target=_run, name="lazyarr-finalizers", daemon=True)
        # The interpreter is ending.  What was deferred does not matter any more, as all
        # memory goes.
        with suppress(RuntimeError):
            thread.start()
            _thread = thread


def _do_what_waits() -> None:
    with suppress(Empty):
        while True:
            _do(_queue.get_nowait())


def _run() -> None:
    # Python's handlers run in the main thread whichever thread a signal comes to.  One
    # that came here would interrupt a call of this thread, while the main thread sleeps
    # on.
    hold_signals()
    queue = _queue
    while True:
        try:
            # While arrays are open it waits as long as it takes.  Without any it waits for
            # what may be opened next, and ends: a program that has let go of all arrays has
            # no thread of lazyarr's.
            found = queue.get(timeout=None if _n_expected else _IDLE_SECONDS)
        except Empty:
            if _is_over(queue):
                return
            continue
        if found is None:
            return
        _do(found)
        # Not kept while this waits for the next one: a store is claimed as long as anything
        # refers to it.
        found = None


def _is_over(queue: SimpleQueue[tuple[_Work, int] | None]) -> bool:
    """Return whether the thread may end, and is known to."""
    global _thread
    with _lock:
        is_over = not _n_expected and queue.empty()
        if is_over and _thread is threading.current_thread():
            _thread = None
        return is_over


def _do(found: tuple[_Work, int] | None) -> None:
    global _n_expected
    if found is None:
        return
    work, n_ended = found
    try:
        with suppress(LazyarrError, OSError):
            work()
    except Exception:  # noqa: BLE001 - told, as Python does of what a finalizer raises
        # The thread goes on: nobody would start another one, and what is deferred later
        # would wait for ever.
        thread = threading.current_thread()
        threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), thread)))
    finally:
        if n_ended:
            with _lock:
                _n_expected -= n_ended
