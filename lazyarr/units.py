"""Quantities that must not be mixed up, and a half-open range of them."""

from __future__ import annotations

from typing import NamedTuple, NewType

__all__ = ["DIRTY", "RESIDENT", "Address", "ByteOffset", "PageIndex", "Span", "UnitIndex"]

Address = NewType("Address", int)
"""A virtual address of a client process."""

ByteOffset = NewType("ByteOffset", int)
"""A position in an array's memory, in bytes from its first element."""

PageIndex = NewType("PageIndex", int)
"""A page of an array's memory, counted from its first."""

UnitIndex = NewType("UnitIndex", int)
"""A unit of an array: the smallest contiguous run made of whole chunks."""

RESIDENT = 1
"""Bit of a unit's byte on a residency map: the unit is in memory."""

DIRTY = 2
"""Bit of a unit's byte on a residency map: its memory may have what the store has not.

A dirty unit is resident.
"""


class Span(NamedTuple):
    """The half-open range ``start <= i < stop``.

    Examples
    --------
    >>> Span(2, 5).size
    3
    >>> Span(0, 10) & Span(5, 20)
    Span(start=5, stop=10)
    """

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many there are; never negative."""
        return max(0, self.stop - self.start)

    def __and__(self, other: Span) -> Span:
        """What both spans hold; empty when they do not meet."""
        start = max(self.start, other.start)
        return Span(start, max(start, min(self.stop, other.stop)))

    def __contains__(self, index: object) -> bool:
        """Whether an index lies in the span."""
        return isinstance(index, int) and self.start <= index < self.stop
