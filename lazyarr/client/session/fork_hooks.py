"""Hooks before and after a fork, each of which is completed even when it is interrupted.

Python prints the exception of a hook, and forks all the same.  So a hook that an error or a
signal handler interrupts must not leave a lock taken, or memory that children must not inherit.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from lazyarr.client.session.imports import finish_imports
from lazyarr.kernel import arrive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lazyarr.wire.channel import Channel

__all__ = ["around_fork", "fork", "hold_signals", "letting_come", "release_all"]

# A hook that was interrupted is called again, up to so many times.
_TRIES = 8

# A signal handler may raise in a call of a hook before its first statement, which nothing can
# catch.  So the hook that ends a fork is registered so many times; one call does the work.
_N_CALLS = 8

# Signals of faults are not blocked: the kernel kills a thread that blocks them when it faults.
_FAULTS = {"SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS"}


class _Fork(threading.local):
    """What a thread that forks has to put back, and gives to its child.

    Attributes
    ----------
    is_open : bool
        Whether hooks were called before a fork, and not yet all of those after it.
    mask : set of int or None
        The signals that the thread had blocked before.
    channel : Channel or None
        The channel that the pager awaits the next child on.  Two children with one channel
        would each take the other's answers.  So it is taken back before each fork, even where
        signal handlers interrupt every Python function that should have done so:
        `functools.partial(setattr, ...)` is C code, which they cannot interrupt.
    """

    is_open = False
    mask: set[int] | None = None
    channel: Channel | None = None


fork = _Fork()
"""The fork that this thread is about to make, makes, or has made last."""

_steps: list[tuple[Callable[[], object], Callable[[], object]]] = []


def around_fork(before: Callable[[], object], after: Callable[[], object]) -> None:
    """Have one function called before each fork, and another in the parent after it.

    For the child there is `lazyarr.kernel.renew_in_child`.

    Parameters
    ----------
    before : callable
        Its exceptions prevent neither the other hooks nor the fork.
    after : callable
        Undoes what `before` has done, even if that was interrupted.  It may be called twice.
    """
    _steps.append((before, after))
    if len(_steps) == 1 and hasattr(os, "register_at_fork"):
        # Hooks cannot be unregistered, and come with every fork of the process, so they
        # are registered only when there is a session.
        os.register_at_fork(before=_before_fork)
        # Called first: the order is reversed.
        os.register_at_fork(before=functools.partial(setattr, fork, "channel", None))
        for _ in range(_N_CALLS):
            os.register_at_fork(
                after_in_parent=_after_fork_in_parent, after_in_child=_let_signals_come
            )


def release_all(lock: threading.RLock) -> None:
    """Release a lock as often as this thread has taken it."""
    with suppress(RuntimeError):
        # A hook that was interrupted, and called again, may have taken the lock twice.
        while True:
            lock.release()


def _before_fork() -> None:
    fork.is_open = True
    # This process may be a child itself that C code has forked.
    # Signals first, for each of the others must not be left in the middle.  Imports
    # before any lock of ours: the thread that imports may need one.
    _take_every([hold_signals, finish_imports, arrive, *(before for before, _ in _steps)])


def _after_fork_in_parent() -> None:
    if fork.is_open:
        # This is called several times for one fork.  The first call that gets to its end
        # leaves nothing for the others.  In reverse order, so that signals that waited
        # come when no lock is held.
        _take_every([*(after for _, after in reversed(_steps)), _let_signals_come, _end_fork])


def _end_fork() -> None:
    fork.is_open = False


def _take_every(steps: Iterable[Callable[[], object]]) -> None:
    """Call some functions, each again when it was interrupted; then raise the first exception."""
    first: BaseException | None = None
    for step in steps:
        # A signal handler that raises at every call would keep a step from ever being
        # done; then the fork goes on all the same, and the child forbids its memory.
        # Eight times in a row is no accident.
        for _ in range(_TRIES):
            try:
                step()
            except BaseException as error:  # noqa: BLE001 - raised below
                first = first or error
            else:
                break
    if first is not None:
        raise first


def hold_signals() -> None:
    """Block signals in this thread, and in the child that it forks, except those of faults.

    Python runs the handlers of signals that other threads receive in the main thread all the
    same, in the midst of a hook.  For these there is `_take_every`.
    """
    if not hasattr(signal, "pthread_sigmask"):
        return  # on Windows, where nothing is forked
    if fork.mask is None:
        # What holds is asked for before anything is blocked.  In one call, an exception
        # between the change and the assignment would lose the mask, and signals would
        # stay blocked for good.
        fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    signal.pthread_sigmask(signal.SIG_BLOCK, _signals_to_hold())


@contextmanager
def letting_come(number: int) -> Iterator[None]:
    """Unblock one signal for a block of code, if only `hold_signals` has blocked it here."""
    is_held = fork.mask is not None and number not in fork.mask
    if is_held:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    try:
        yield
    finally:
        if is_held:
            signal.pthread_sigmask(signal.SIG_BLOCK, {number})


def _let_signals_come() -> None:
    """Unblock the signals that `hold_signals` has blocked in this thread, if it has."""
    if fork.mask is not None:
        # Signals that came meanwhile are delivered here, and their handlers may raise.
        signal.pthread_sigmask(signal.SIG_SETMASK, fork.mask)
        fork.mask = None


@functools.cache
def _signals_to_hold() -> frozenset[int]:
    faults = {getattr(signal, name) for name in _FAULTS if hasattr(signal, name)}
    return frozenset(signal.valid_signals() - faults)
