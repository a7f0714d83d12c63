"""Messages as they come from read(2)."""

from __future__ import annotations

import pytest

from lazyarr.kernel.events import Fault, decode_faults
from lazyarr.kernel.uapi import MESSAGE_LAYOUT

ADDRESS = 0x7F12_3456_7000


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (0, Fault(ADDRESS, False, False, False, 7)),
        (1, Fault(ADDRESS, True, False, False, 7)),
        (3, Fault(ADDRESS, True, True, False, 7)),
        (4, Fault(ADDRESS, False, False, True, 7)),
        (5, Fault(ADDRESS, True, False, True, 7)),
        (1 << 20, Fault(ADDRESS, False, False, False, 7)),
    ],
)
def test_flags_tell_the_kind_of_fault(flags: int, fault: Fault) -> None:
    """Write, write-protect and minor are bits of their own; unknown bits are passed over."""
    assert decode_faults(MESSAGE_LAYOUT.pack(0x12, flags, ADDRESS, 7)) == [fault]


def test_messages_keep_their_order_and_other_events_are_passed_over() -> None:
    """A batch gives its page faults in the order of their arrival."""
    batch = b"".join(
        MESSAGE_LAYOUT.pack(event, 0, address, 0)
        for event, address in [(0x12, 4096), (0x15, 1), (0x12, 8192), (0x7F, 2), (0x12, 4096)]
    )
    assert [fault.address for fault in decode_faults(batch)] == [4096, 8192, 4096]


def test_no_messages_are_no_faults() -> None:
    """Nothing read is nothing to do."""
    assert decode_faults(b"") == []
