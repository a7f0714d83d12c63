"""What the pager knows of each region and of each client's memory."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

from lazyarr.plan.edges import EdgePages
from lazyarr.plan.geometry import Geometry

__all__ = ["AddressTable", "Loading", "RegionState"]


@dataclass(slots=True)
class Loading:
    """A unit that is on its way, and who waits for it.

    Attributes
    ----------
    client : int
        The one in whose memory the unit is installed first.
    faults : set of (int, int)
        Client and page of every thread that waits in a fault.
    requests : set of (int, int)
        Client and ticket of every request that waits.
    """

    client: int
    faults: set[tuple[int, int]] = field(default_factory=set)
    requests: set[tuple[int, int]] = field(default_factory=set)


class RegionState:
    """One array's memory: which units are resident, which are on their way.

    Parameters
    ----------
    geometry : Geometry
        The array's arithmetic.
    shared : bool
        Whether the memory lies behind a memfd, so that it can be mapped by
        several clients and evicted.
    """

    def __init__(self, geometry: Geometry, *, shared: bool) -> None:
        self.geometry = geometry
        self.shared = shared
        self.edges = EdgePages(geometry)
        self.addresses: dict[int, int] = {}
        self.loading: dict[int, Loading] = {}
        self.resident: set[int] = set()
        self.suspects: set[int] = set()
        self.leaving: dict[int, int] = {}

    def __repr__(self) -> str:
        return (
            f"<RegionState: {len(self.resident)} of {self.geometry.n_units} units resident, "
            f"{len(self.loading)} loading, {len(self.addresses)} clients>"
        )

    def is_installing(self, client: int) -> bool:
        """Return whether something is on its way into a client's memory."""
        return any(loading.client == client for loading in self.loading.values())


class AddressTable:
    """Which region, and which page of it, an address of one client belongs to."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._regions: list[tuple[int, int, int]] = []

    def __repr__(self) -> str:
        return f"<AddressTable: {len(self._starts)} regions>"

    def add(self, address: int, region: int, geometry: Geometry) -> None:
        """Enter a region; it must not overlap another."""
        place = bisect.bisect(self._starts, address)
        self._starts.insert(place, address)
        nbytes = geometry.n_pages * geometry.page_nbytes
        self._regions.insert(place, (region, nbytes, geometry.page_nbytes))

    def remove(self, address: int) -> None:
        """Take out the region that starts at `address`."""
        place = bisect.bisect_left(self._starts, address)
        if self._starts[place : place + 1] == [address]:
            del self._starts[place], self._regions[place]

    def find(self, address: int) -> tuple[int, int] | None:
        """Return region and page of an address; None when it is in no region."""
        place = bisect.bisect(self._starts, address) - 1
        if place < 0:
            return None
        region, nbytes, page_nbytes = self._regions[place]
        offset = address - self._starts[place]
        return (region, offset // page_nbytes) if offset < nbytes else None
