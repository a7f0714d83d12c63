"""Another process's threads held still for a moment, by ptrace."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from lazyarr.kernel.libc import call

__all__ = ["allow_holding", "hold_still", "must_allow_holding"]

# linux/ptrace.h
_SEIZE, _INTERRUPT, _SETOPTIONS, _DETACH = 0x4206, 0x4207, 0x4200, 17
_EXITKILL = 1 << 20
_EVENT_STOP = 128
# linux/wait.h: also threads that are no children.
_WALL = 0x40000000
# linux/prctl.h: "Yama", whose restricted mode lets a process say who may trace it.
_PR_SET_PTRACER = 0x59616D61
_PAUSE_SECONDS = 0.0001


def hold_still(pid: int, spared: int, act: Callable[[], None], *, seconds: float) -> bool:
    """Do something while all threads of another process but one stand still.

    Parameters
    ----------
    pid, spared : int
        The process, and the kernel id of the thread that goes on.
    act : callable
        What to do; it must not take long.
    seconds : float
        How long it may take until all of them stand still.

    Returns
    -------
    bool
        Whether it was done: not where this process may not trace that one, somebody
        else traces it, or a thread does not stop in time.

    Notes
    -----
    Were this process killed meanwhile, the kernel would kill the other one
    (PTRACE_O_EXITKILL in ptrace(2)).  A system call that a thread is in is restarted, or
    returns EINTR, as when a debugger comes (signal(7)).
    """
    ended: list[BaseException | None] = []
    tracer = threading.Thread(
        target=_hold, args=(pid, spared, act, time.monotonic() + seconds, ended), name="tracer"
    )
    # ptrace belongs to a thread: only the one that has seized a thread may interrupt or
    # detach it.
    # A thread of its own: whoever did not stop in time is let go of when that ends.
    tracer.start()
    tracer.join()
    for error in ended:
        if error is not None:
            raise error
    return bool(ended)


def must_allow_holding() -> bool:
    """Return whether a process of the same user may hold this one's only if it is allowed to."""
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope") as file:
            return file.read().strip() == "1"
    except OSError:
        return False


def allow_holding(pid: int) -> None:
    """Let another process hold this one's threads, where Yama would not have it otherwise."""
    with suppress(OSError):
        call("prctl", _PR_SET_PTRACER, pid, 0, 0, 0)


def _hold(
    pid: int,
    spared: int,
    act: Callable[[], None],
    deadline: float,
    ended: list[BaseException | None],
) -> None:
    held: dict[int, int] = {}
    try:
        if not _stop_all(pid, spared, held, deadline):
            return
        # Only now: until all of them stand, nothing is shown that a death of this
        # process would leave behind, and the client would be killed for nothing.
        for thread in held:
            call("ptrace", _SETOPTIONS, thread, None, _EXITKILL)
        act()
        ended.append(None)
    except OSError:
        return
    except BaseException as error:  # noqa: BLE001 - raised again by who waits
        ended.append(error)
    finally:
        # With the signal that the thread was stopped at.  Without it that signal would
        # be lost: the thread was stopped as it was about to be delivered (ptrace(2),
        # signal-delivery-stop).
        for thread, signal in held.items():
            with suppress(OSError):
                call("ptrace", _DETACH, thread, None, signal)


def _stop_all(pid: int, spared: int, held: dict[int, int], deadline: float) -> bool:
    """Stop every thread but one, also those that start meanwhile; return whether all stand.

    `held` gets each, with the signal that it was about to be given.
    """
    while time.monotonic() < deadline:
        # Again until a listing shows nobody new: a thread that has not been stopped yet
        # may start another one.
        threads = {int(name) for name in os.listdir(f"/proc/{pid}/task")} - {spared}
        if threads <= held.keys():
            return True
        started = threads - held.keys()
        for thread in started:
            # One that has ended since is found out by the next listing.
            with suppress(ProcessLookupError):
                # SEIZE, not ATTACH: that stops a thread by a SIGSTOP, which cannot be told
                # from one that somebody else sends (ptrace(2)).
                call("ptrace", _SEIZE, thread, None, None)
                call("ptrace", _INTERRUPT, thread, None, None)
        for thread in started:
            if not _await_stop(thread, held, deadline):
                return False
    return False


def _await_stop(thread: int, held: dict[int, int], deadline: float) -> bool:
    """Wait until a thread stands still, or has ended; return whether it does in time."""
    while time.monotonic() < deadline:
        try:
            # Polled, with a deadline: a thread in an uninterruptible sleep, as in a read of
            # a network file system, does not stop, and this happens under the pager's lock.
            found, status = os.waitpid(thread, _WALL | os.WNOHANG)
        except ChildProcessError:
            return True  # it ended before it could be seized
        if found:
            if os.WIFSTOPPED(status):
                is_own = status >> 16 == _EVENT_STOP
                held[thread] = 0 if is_own else os.WSTOPSIG(status)
            return True
        time.sleep(_PAUSE_SECONDS)
    return False
