"""Messages read from a userfaultfd, as values."""

from __future__ import annotations

from typing import NamedTuple

from lazyarr.kernel.uapi import MESSAGE_LAYOUT, Event, FaultFlag

__all__ = ["PAGEFAULT", "Fault", "decode_faults"]

# Plain ints: flag arithmetic on enum members costs a microsecond a message.
PAGEFAULT = int(Event.PAGEFAULT)
_WRITE, _WP, _MINOR = int(FaultFlag.WRITE), int(FaultFlag.WP), int(FaultFlag.MINOR)


class Fault(NamedTuple):
    """A page fault that waits for its page.

    Attributes
    ----------
    address : int
        Where, in the faulting process; rounded down to a page unless
        `Features.EXACT_ADDRESS` is on.
    write : bool
        Whether it is a write.
    wp : bool
        Whether the page is there but write-protected.
    minor : bool
        Whether the page is in the memory object but not mapped: answer with
        CONTINUE.
    thread_id : int
        Kernel id of the thread, 0 without `Features.THREAD_ID`.
    """

    address: int
    write: bool
    wp: bool
    minor: bool
    thread_id: int


def decode_faults(messages: bytes) -> list[Fault]:
    """Return the page faults among whole messages, in their order.

    Messages of other kinds are passed over: they come only with features that
    `Userfaultfd.open` refuses.

    Examples
    --------
    >>> decode_faults(MESSAGE_LAYOUT.pack(0x12, 1, 0x7F0000001000, 42))
    [Fault(address=139637976731648, write=True, wp=False, minor=False, thread_id=42)]
    """
    # In the kernel's order, and with duplicates.  Five threads on one page send five
    # messages.  With full rights a signal that is pending during a fault which the
    # kernel took makes that fault again and again, thousands of times a second (Linux
    # 6.18).  To drop duplicates is for the caller, who can do it for addresses, cheaper
    # than for objects.
    return [
        Fault(address, bool(flags & _WRITE), bool(flags & _WP), bool(flags & _MINOR), thread_id)
        for event, flags, address, thread_id in MESSAGE_LAYOUT.iter_unpack(messages)
        if event == PAGEFAULT
    ]
