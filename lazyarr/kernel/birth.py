"""Noticing that a process is a forked child, also when C code forked it.

Python calls its fork hooks only for forks that it makes itself.  For a fork made by C code, as
by uWSGI or a program with Python inside, no hook is called.  A page that the kernel empties in
every child shows each fork (madvise(2), MADV_WIPEONFORK, Linux 4.14); the check reads one byte.
"""

from __future__ import annotations

import functools
import importlib
import mmap
import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HERE", "arrive", "is_fork_seen", "may_start_threads", "renew_in_child"]

# asm-generic/mman-common.h; Python names it from 3.13 on.
_WIPEONFORK = 18


def _page() -> mmap.mmap | bytearray:
    """Return a byte that is 1 in this process and 0 in its children."""
    page: mmap.mmap | bytearray
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(_WIPEONFORK)
    except (AttributeError, OSError, ValueError):
        page = bytearray(1)  # older kernels and other systems: only Python's own forks are noticed
    page[0] = 1
    return page


# A byte, and no comparison of process ids: `x[i]` looks at it each time, and a look at
# memory takes 15 ns where getpid is a system call.
HERE = _page()
"""Its first byte is 0 in a child until `arrive` has done its work there."""

_pid = os.getpid()
_is_seen = True
_renewals: list[Callable[[], None]] = []
# The session is renewed last.  To renew it may start a thread and asks the pager, with
# locks that other renewals make anew.
_last: list[Callable[[], None]] = []


class _Arrival:
    """The renewals that a child has still to do.

    Its lock is made in the child: a lock from the parent may be held by a thread that does not
    exist here.  A signal handler that runs in between sees `is_under_way`.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.rest = [*_renewals, *_last]
        self.is_under_way = False


_arrivals: dict[int, _Arrival] = {}  # by process id; setting a default is atomic


def renew_in_child(renew: Callable[[], None], *, last: bool = False) -> Callable[[], None]:
    """Have a function called once in each child, before lazyarr does anything else there.

    Parameters
    ----------
    renew : callable
        Replaces locks, forgets threads, and so on.  `arrive` raises what this raises, and the
        next `arrive` calls it again; so it may be called again after it was done.
    last : bool
        Whether it must be called after all others, because it uses what they renew.
    """
    if not _renewals and not _last and hasattr(os, "register_at_fork"):
        # Registered twice: a signal handler may raise in the first call before its first statement.
        for _ in range(2):
            os.register_at_fork(after_in_child=_after_fork_in_child)
    (_last if last else _renewals).append(renew)
    return renew


def may_start_threads() -> bool:
    """Return whether lazyarr may start threads in this process and interpreter.

    Not where C code forks the process, as uWSGI does.  A thread of the parent that waited for
    the interpreter's lock at the fork is still counted as waiting in the child, where it does
    not exist; so the child can wait for it for ever (Python/ceval_gil.c, drop_gil;
    nptl/pthread_cond_common.c).  Only Python's own fork hooks put that right.  Not in a
    subinterpreter either: it aborts the process if it ends while a thread is left
    (Python/pylifecycle.c, Py_EndInterpreter).
    """
    return _is_seen and "uwsgi" not in sys.modules and _is_main_interpreter()


def is_fork_seen() -> bool:
    """Return whether Python made the fork that this process comes from, or it comes from none."""
    return _is_seen


@functools.cache
def _is_main_interpreter() -> bool:
    for name in ("_interpreters", "_xxsubinterpreters"):
        with suppress(ImportError):
            interpreters = importlib.import_module(name)
            return bool(interpreters.get_current() == interpreters.get_main())
    return True


def arrive(*, is_seen: bool = False) -> None:
    """Call what `renew_in_child` was given, if this is a child in which that was not done yet.

    Parameters
    ----------
    is_seen : bool
        Whether Python made the fork, and has called its hooks.
    """
    global _pid, _is_seen
    # Every public call comes by here, so the common case ends with one look at the
    # byte.  A child of a child finds the page emptied again.
    if HERE[0]:
        return
    _is_seen = is_seen
    # Two threads of a child may arrive at once, and none of the parent's locks can be
    # used.  A dictionary's `setdefault` is one step of the interpreter, so both get the
    # same arrival.  It is kept by process id: the entry of the parent has a lock that
    # may be taken.
    arrival = _arrivals.setdefault(os.getpid(), _Arrival())
    with arrival.lock:
        if HERE[0] or arrival.is_under_way:
            return
        arrival.is_under_way = True
        try:
            # A renewal is forgotten only when it has returned.  One that a signal handler
            # interrupts, or that lacks descriptors, is called again by the next call into
            # lazyarr; those before it are not.
            while arrival.rest:
                arrival.rest[0]()
                del arrival.rest[0]
        finally:
            arrival.is_under_way = False
        _arrivals.clear()
        _pid = os.getpid()
        # Last of all: from here on other threads use what was renewed, without the
        # lock.
        HERE[0] = 1


def _after_fork_in_child() -> None:
    # Where MADV_WIPEONFORK is missing nobody has emptied the byte.  And after the first
    # of the two hooks has done all of the work, the second finds nothing to do.
    if _pid != os.getpid():
        HERE[0] = 0
        arrive(is_seen=True)
