"""The regions that are mapped in this process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from lazyarr.client.session.region import Memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazyarr.client.session.region import Region

__all__ = ["RegionTable"]


class RegionTable:
    """Regions by number, and by the array that they are of; to be used under a lock."""

    def __init__(self) -> None:
        self._regions: dict[int, Region] = {}
        self._numbers: dict[tuple[str | None, str | None], set[int]] = {}  # by store and path
        # A region that the pager is being asked to forget.  It cannot be had again
        # before that is done: to the pager the client that leaves and the client that
        # comes back are one.
        self._leaving: dict[int, threading.Event] = {}

    def __repr__(self) -> str:
        return f"<RegionTable: {len(self)} regions, {len(self._leaving)} leaving>"

    def __len__(self) -> int:
        """How many regions there are."""
        return len(self._regions)

    def is_empty(self) -> bool:
        """Return whether there are no regions, and none on its way out."""
        return not (self._regions or self._leaving)

    def __iter__(self) -> Iterator[Region]:
        """Give the regions; safe while others come and go."""
        # A copy: a signal handler, or another thread in `find`, which takes no lock,
        # may look while regions come and go.
        return iter(tuple(self._regions.values()))

    def enter(self, region: Region) -> None:
        """Add a region."""
        self._regions[region.number] = region
        self._numbers.setdefault(_place(region.array), set()).add(region.number)

    def begin_leaving(self, region: Region) -> threading.Event | None:
        """Take out a region, until `end_leaving` on its way; None when it was not there."""
        if self._regions.pop(region.number, None) is None:
            return None
        numbers = self._numbers[_place(region.array)]
        numbers.discard(region.number)
        if not numbers:
            del self._numbers[_place(region.array)]
        left = self._leaving[region.number] = threading.Event()
        return left

    def end_leaving(self, region: Region) -> None:
        """Let those know who wait for a region to have gone."""
        self._leaving.pop(region.number).set()

    def memory_of(self, number: int) -> Memory | threading.Event | None:
        """Return memory on a region; None when it is not here, an event while it leaves."""
        region = self._regions.get(number)
        return self._leaving.get(number) if region is None else Memory(region)

    def has_region_of(self, array: dict[str, Any]) -> bool:
        """Return whether there is memory for an array that others could use too."""
        numbers = self._numbers.get(_place(array), ())
        regions = (self._regions[number] for number in numbers)
        return any(region.kind.is_shared and _is_same(region.array, array) for region in regions)

    def find(self, address: int) -> Region | None:
        """Return the region that an address lies in."""
        # Linear, for it serves only calls such as `lazyarr.evict(array)` on plain
        # arrays.  What faults the pager looks up in a sorted table of its own.
        for region in self:
            if region.address <= address < region.address + region.memory_nbytes:
                return region
        return None


def _is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two arrays are the same, for whichever reference they were opened."""
    return {**one, "origin": ""} == {**other, "origin": ""}


def _place(array: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return what finds the regions of an array among many."""
    return array.get("url"), array.get("path")
