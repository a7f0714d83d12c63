"""ChunkError in the main thread for a touch of what can not be had, in place of SIGBUS.

The pager sends a signal before it lets the thread go on; Python runs the handler in the
main thread once the machine code that touched has returned.  `lazyarr.pager.excuses`
says how zeros are kept from everybody else meanwhile.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from lazyarr import settings
from lazyarr.client import process
from lazyarr.client.failures import raise_first
from lazyarr.errors import ChunkError, PagerError
from lazyarr.kernel import arm_once
from lazyarr.wire import messages as w
from lazyarr.wire.channel import channel_pair

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from lazyarr.wire.channel import Channel

__all__ = ["raise_signal", "take_failure"]

_NOTE = (
    "what was touched has read as zeros until this was raised: do not use what the "
    "interrupted statements have computed or assigned"
)
_number = 0
_before: Callable[[sys.UnraisableHookArgs], Any] = sys.__unraisablehook__


def raise_signal() -> int:
    """Return the signal that raises ChunkError in the main thread; 0 when none does.

    It is the first real-time signal that nobody uses, taken when the main thread asks
    for the first time.
    """
    if settings.current().on_error != "raise":
        return 0
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and (not _number or signal.getsignal(_number) is not _on_signal):
        _install()
    return _number


def _install() -> None:
    global _number, _before
    # The first ones are those that other libraries take.
    for number in range(signal.SIGRTMIN + 8, signal.SIGRTMAX):
        if signal.getsignal(number) is signal.SIG_DFL:
            _number = number
            _arm()
            if sys.unraisablehook is not _die_of_what_was_lost:
                _before, sys.unraisablehook = sys.unraisablehook, _die_of_what_was_lost
            return
    _number = 0


def _arm() -> None:
    # Python puts the handler in place, and the kernel takes it away when it has served.
    signal.signal(_number, _on_signal)
    arm_once(_number)


def _on_signal(_: int, __: FrameType | None) -> None:
    """Raise what the pager has sent the signal for; serve for the next one."""
    try:
        live = process.current_session()
        failures = [] if live is None else take_failure(live.control)
    except PagerError:
        failures = []
    finally:
        _arm()
    if not failures:
        reason = "the process of the pager that knew it has died"
        message = f"a chunk that was touched can not be had: {reason}; touch it again"
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
