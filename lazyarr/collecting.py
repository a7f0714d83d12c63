"""Keeping Python's collector of cyclic garbage out of the way for a while."""

from __future__ import annotations

import gc
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["without_collection"]

# Whoever enters this from a finalizer that a collection runs waits for that collection in vain.
_WAIT_SECONDS = 1.0
_PAUSE_SECONDS = 0.001

# A collection may begin in here as well, and run a finalizer that comes here again.
_lock = threading.RLock()
_blocks: dict[object, int] = {}  # those that are open, with their threads
_is_paused = False


@contextmanager
def without_collection() -> Iterator[None]:
    """Have no cyclic garbage collected in this process while the block runs, in any thread.

    A library may hold a lock while it calls this process's Python, and take the same lock when its
    objects are freed.  A collection frees them in whatever thread it happens to run.  If that is
    a thread that the call waits for, both wait for ever.

    Objects that are in no cycle are freed as always.  Calls of `gc.collect` are not held up.  A
    program that calls `gc.disable` while a block runs finds the collector enabled after it.

    Examples
    --------
    >>> with without_collection():
    ...     gc.isenabled()
    False
    """
    block = object()
    try:
        _pause(block)
        yield
    finally:
        _go_on(block)


def _pause(block: object) -> None:
    global _is_paused
    with _lock:
        # First: who ends meanwhile finds that others are left.
        _blocks[block] = threading.get_ident()
        if gc.isenabled():
            gc.disable()
            _is_paused = True
    _wait_for_collection()


def _go_on(block: object) -> None:
    global _is_paused
    with _lock:
        _blocks.pop(block, None)
        if _is_paused and not _blocks:
            _is_paused = False
            gc.enable()


def _wait_for_collection() -> None:
    """Return when no other thread is in the middle of a collection that it began before."""
    thread = threading.get_ident()
    collected = []

    def note(_phase: str, _info: dict[str, int]) -> None:
        collected.append(threading.get_ident())

    gc.callbacks.append(note)
    try:
        until = time.monotonic() + _WAIT_SECONDS
        while True:
            # Of the youngest objects, which are few.  It does nothing while another one runs.
            gc.collect(0)
            if thread in collected or time.monotonic() > until:
                return
            time.sleep(_PAUSE_SECONDS)
    finally:
        gc.callbacks.remove(note)


def _begin_in_child() -> None:
    """Forget the blocks of threads that a forked child does not have."""
    global _lock, _blocks
    thread = threading.get_ident()
    _lock = threading.RLock()
    _blocks = {block: owner for block, owner in _blocks.items() if owner == thread}
    _go_on(object())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
