"""Looks at residency maps, without making pages of what nobody has written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazyarr.kernel import PAGE_NBYTES, buffer_address, in_core
from lazyarr.units import DIRTY, Span

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["dirty_units", "parts_of_map"]

# A residency map of this size is read as it is.  Of a larger one, the kernel is asked first which
# of its pages exist, for so many bytes at a time.
_SMALL_NBYTES = 1 << 20
_PART_NBYTES = 1 << 30
_IS_DIRTY = bytes(bool(byte & DIRTY) for byte in range(256))


def parts_of_map(residency: memoryview, span: Span) -> Iterator[Span]:
    """Yield the parts of a residency map that may show a resident unit."""
    # The map of a sparse array is mostly hole.  Reading a hole through a mapping makes pages of
    # it: eight gigabytes for 2**33 units.  So only pages that exist are read (mincore(2)).
    if span.size <= _SMALL_NBYTES:
        yield span
        return
    address = buffer_address(residency)
    first = (address + span.start) // PAGE_NBYTES * PAGE_NBYTES
    for start in range(first, address + span.stop, _PART_NBYTES):
        nbytes = min(_PART_NBYTES, address + span.stop - start)
        pages = bytes(in_core(start, nbytes)).translate(_IS_IN_CORE)
        place = pages.find(1)
        while place >= 0:
            stop = pages.find(0, place)
            stop = len(pages) if stop < 0 else stop
            offset = start - address
            yield Span(place * PAGE_NBYTES + offset, stop * PAGE_NBYTES + offset) & span
            place = pages.find(1, stop)


# mincore(2): the lowest bit alone means something.
_IS_IN_CORE = bytes(byte & 1 for byte in range(256))


def dirty_units(residency: memoryview, units: Span) -> Iterator[int]:
    """Yield those of some units that a residency map shows as dirty."""
    for part in parts_of_map(residency, units):
        found = residency[part.start : part.stop].tobytes().translate(_IS_DIRTY)
        place = found.find(1)
        while place >= 0:
            yield part.start + place
            place = found.find(1, place + 1)
