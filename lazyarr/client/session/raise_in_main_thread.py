"""ChunkError in the main thread for a touch of what cannot be had, in place of SIGBUS.

The pager sends a signal before it lets the thread go on; Python runs the handler in the
main thread once the machine code that touched has returned.  `lazyarr.pager.onerror.shown_zeros`
says how zeros are kept from everybody else meanwhile.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lazyarr import settings
from lazyarr.client.session.failures import raise_first
from lazyarr.client.session.fork_hooks import letting_come
from lazyarr.errors import ChunkError, PagerError
from lazyarr.kernel import arm_once, signal_main_thread
from lazyarr.wire import messages as w
from lazyarr.wire.channel import channel_pair

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from lazyarr.wire.channel import Channel

__all__ = ["ask_on", "raise_signal", "take_failure"]

_NOTE = (
    "what was touched has read as zeros until this was raised: do not use what the "
    "interrupted statements have computed or assigned"
)
_number = 0
_pid = 0
_before: Callable[[sys.UnraisableHookArgs], Any] = sys.__unraisablehook__
_find_control: Callable[[], Channel | None] | None = None


def ask_on(find_control: Callable[[], Channel | None]) -> None:
    """Have the pager asked for failures on the channel that a function finds, if there is one.

    Parameters
    ----------
    find_control : callable
        Called in the handler of the signal, which may have interrupted anything.
    """
    global _find_control
    _find_control = find_control


def raise_signal() -> int:
    """Return the signal that raises ChunkError in the main thread; 0 when none does.

    It is the first real-time signal that nobody uses, taken when the main thread of this
    process asks for the first time.
    """
    if settings.current().on_error != "raise":
        return 0
    # Python lets only the main thread set a handler.  Another thread reports what the
    # main thread has set, or nothing, and then a touch is SIGBUS.
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and not (_number and _pid == os.getpid() and _is_ours(_number)):
        _install()
    return _number


def _is_ours(number: int) -> bool:
    return signal.getsignal(number) is _on_signal


def _install() -> None:
    global _number, _pid, _before
    _pid = os.getpid()
    # The first ones are those that other libraries take.
    for number in range(signal.SIGRTMIN + 8, signal.SIGRTMAX):
        if signal.getsignal(number) is signal.SIG_DFL or _is_ours(number):
            if not _is_handled_at_once(number):
                break
            _number = number
            _arm()
            # Python has two ways to lose an exception of a handler: a finalizer, which
            # drops it, and code that catches everything.  The first is closed here; of the
            # second the note on the error warns.
            if sys.unraisablehook is not _die_of_what_was_lost:
                _before, sys.unraisablehook = sys.unraisablehook, _die_of_what_was_lost
            return
    _number = 0


def _is_handled_at_once(number: int) -> bool:
    """Return whether Python runs the handler of a signal as soon as machine code returns.

    CPython 3.13 does not in a child that another than the main thread has forked: handlers
    wait there until a function asks for them, as `time.sleep` does (seen with 3.13.0, not with
    3.12.1).  Until then the thread would go on with zeros, so it has to get SIGBUS.
    """
    served: list[int] = []
    is_handled = False
    signal.signal(number, lambda *_: served.append(number))
    # Asked of Python itself, and not of its version: which version and which kind of
    # fork it is changes, and a wrong guess would be zeros that are computed with.
    with suppress(OSError), letting_come(number):
        signal_main_thread(os.getpid(), number)
        # Looked at before signals are blocked again: that asks for handlers too.
        is_handled = bool(served)
    # Asks for handlers first, and drops a signal that is blocked.
    signal.signal(number, signal.SIG_IGN)
    signal.signal(number, signal.SIG_DFL)
    return is_handled


def _arm() -> None:
    # Python puts the handler in place, and the kernel takes it away when it has served.
    signal.signal(_number, _on_signal)
    arm_once(_number)


def _on_signal(_: int, __: FrameType | None) -> None:
    """Raise what the pager has sent the signal for; serve for the next one."""
    try:
        control = None if _find_control is None else _find_control()
        failures = [] if control is None else take_failure(control)
    except PagerError:
        failures = []
    finally:
        # Ready for the next one before it raises: the pager tells by the handler that
        # is back that the exception of the last one is on its way.
        _arm()
    if not failures:
        reason = "the process of the pager that knew it has died"
        message = f"a chunk that was touched cannot be had: {reason}; touch it again"
        failures = [{"message": message, "reason": reason}]
    try:
        raise_first(failures)
    except ChunkError as error:
        error.add_note(_NOTE)
        raise


def _die_of_what_was_lost(unraisable: sys.UnraisableHookArgs) -> None:
    """Die when our exception came in a finalizer, where Python drops it: zeros would stay."""
    _before(unraisable)
    if _NOTE in getattr(unraisable.exc_value, "__notes__", ()):
        os.kill(os.getpid(), signal.SIGBUS)


def take_failure(control: Channel) -> list[dict[str, Any]]:
    """Return what the main thread is to raise, as `Done` has it.

    On a channel of its own and without a lock: this runs in a signal's handler, and the
    thread that it interrupts may hold any of ours.

    Raises
    ------
    PagerError
        The pager is gone, or its worker has died.
    """
    # Where there are no descriptors this raises that error: an exception comes in any
    # case.
    ours, theirs = channel_pair()
    try:
        control.send(w.OpenChannel(), (theirs.fileno(),))
        theirs.close()
        ours.send(w.WantFailure(0))
        received = ours.receive()
    finally:
        theirs.close()
        ours.close()
    if received is None or not isinstance(received.message, w.Done):
        raise PagerError("the pager's worker has died; what it knew is lost")
    return received.message.failures
