"""What the pager knows of each region and of each client's memory."""

from __future__ import annotations

import bisect

from lazyarr.layout.geometry import Geometry
from lazyarr.memory_kind import MemoryKind
from lazyarr.plan.dirty import DirtyUnit, Flush, Writer
from lazyarr.plan.edges import EdgePages
from lazyarr.plan.marks import Marks
from lazyarr.plan.messages import Failure
from lazyarr.plan.objects import ObjectGrid
from lazyarr.units import Span

__all__ = ["AddressTable", "Loading", "RegionState"]

# A client is warned only after so many loads of units that had been evicted, and so many times
# as many as the array has units.  So many loads take about a second.
_MANY_LOADS = 1024
_MANY_TIMES = 16
# A request for so many ranges of units picks rows here and there, as a shuffle does; one that is
# as large as a request may be has fewer where units are large.
_SCATTERED_RANGES = 8
_FEW_RANGES = 2
_MANY_SHUFFLED_TIMES = 4


class Loading:
    """A unit that is on its way, and who waits for it.

    Attributes
    ----------
    client : int
        The one in whose memory the unit is installed first.
    is_urgent : bool
        Whether somebody waits for it.
    is_dropped : bool
        Whether it was evicted on its way: what comes is older than that, and not used.
    is_marked : bool
        Whether it goes to the memory object and into nobody's page tables.
    faults : set of (int, int)
        Client and page of every thread that waits in a fault.
    late : set of (int, int)
        Those that came when the load was on its way: their page may have been
        installed, and lost to swap or madvise, before they were heard of.
    requests : set of (int, int)
        Client and ticket of every request that waits.
    writers : dict of Writer
        Those that need the unit before they can write, there or next to it; in order.
    is_silent : bool
        Whether the install wakes nobody.
    pick : (int, int) or None
        The one of them that waits for some pages alone, which come first.
    told : Span
        The pages that it was told are there, before the unit was.
    is_counted : bool
        Whether it counts as loaded already.
    held_nbytes : int
        How much of the memory limit it holds until it ends; none where memory is private.
    """

    __slots__ = (
        "client",
        "faults",
        "held_nbytes",
        "is_counted",
        "is_dropped",
        "is_marked",
        "is_silent",
        "is_urgent",
        "late",
        "pick",
        "requests",
        "told",
        "writers",
    )  # fmt: skip

    def __init__(self, client: int, *, is_urgent: bool = True, is_marked: bool = False) -> None:
        self.client = client
        self.is_urgent = is_urgent
        self.is_marked = is_marked
        self.is_dropped = False
        self.faults: set[tuple[int, int]] = set()
        self.late: set[tuple[int, int]] = set()
        self.requests: set[tuple[int, int]] = set()
        self.writers: dict[Writer, None] = {}
        self.is_silent = False
        self.pick: tuple[int, int] | None = None
        self.told = Span(0, 0)
        self.is_counted = False
        self.held_nbytes = 0

    @property
    def is_for_nobody(self) -> bool:
        """Whether no client waits for it: it is read ahead, or its requests are answered."""
        waiting = self.faults or self.requests or self.writers
        return not self.is_urgent or (self.told.size > 0 and not waiting)

    def waits_for(self, page: int) -> bool:
        """Return whether somebody waits for a page that the unit shares."""
        # Who writes next to a shared page needs it whole.
        return bool(self.writers) or any(p == page for _, p in self.faults)

    def __repr__(self) -> str:
        haste = "urgent" if self.is_urgent else "patient"
        return f"<Loading: {haste}, {len(self.faults)} faults, {len(self.requests)} requests>"


class RegionState:
    """One array's memory: which units are resident, which are on their way.

    Parameters
    ----------
    geometry : Geometry
        The array's arithmetic.
    kind : MemoryKind
        Whether several clients can map the memory, and whether it can be evicted.
    remote : bool
        Whether its chunks come over a network, so that a few take no longer than one.
    chunks_per_object : tuple of int
        Which of its units lie in one object, as `ObjectGrid` takes it.

    Attributes
    ----------
    pipe_units : int
        How many units should be on their way so that the network is never idle; 0 when it is
        not known.
    is_pipe_full : bool
        Whether more of them would only wait for each other.
    left : dict of int to Span
        By unit, the pages that stayed of one that failed, for somebody was told of them.
    taken_nbytes : int
        How much memory it takes, of what `Room` counts.
    n_loaded, n_reloaded : int
        How many loads have brought a unit, and how many of them one that had been there before
        and went for want of room.
    is_shuffled : bool
        Whether rows are picked here and there, and units loaded again and again for that.
    objects : ObjectGrid
        Which units lie in one object.
    dirty : dict of int to DirtyUnit
        The units that are dirty, those that are being written among them.
    strays : set of int
        Units that were lost while they were queued or written.  Nothing of them is written anew
        before that has come to its end.
    promised : dict of int to int
        Units that will be dirty as soon as they can, and how many writers wait for that.
    retiring : list of Flush
        Those after which nobody may write any more.
    retired : Failure or None
        What writers get since then.
    delayed : list of Writer
        Those that wait for the end of `retiring`.
    n_tries : dict of int to int or None
        How often each dirty unit could not be written since nobody has the region; None while
        somebody has it.
    last_failure : Failure or None
        Why the last one of them could not be written.
    """

    def __init__(
        self,
        geometry: Geometry,
        *,
        kind: MemoryKind,
        remote: bool = False,
        chunks_per_object: tuple[int, ...] = (),
    ) -> None:
        self.geometry = geometry
        self.objects = ObjectGrid(geometry, chunks_per_object)
        self.kind = kind
        self.remote = remote
        self.pipe_units = 0
        self.is_pipe_full = False
        self.left: dict[int, Span] = {}
        self.taken_nbytes = 0
        self.n_loaded = self.n_reloaded = self._n_refaults = 0
        self.is_shuffled = False
        # Units that went for want of room and have not come back; None until the first goes.
        self._gone: Marks | None = None
        # Units of whole pages and whole chunks; all but the last one, or none.
        self.n_plain_units = geometry.nbytes // geometry.unit_nbytes if geometry.unit_pages else 0
        self.edges = EdgePages(geometry)
        self.addresses: dict[int, int] = {}
        self.loading: dict[int, Loading] = {}
        self.resident: set[int] = set()
        # Pages of private memory that faulted though they are resident: woken once,
        # loaded at the second time.  See `Machine._on_resident_fault`.
        self.suspects: set[int] = set()
        # By client: poison lies in the page table of the one whose thread waited.
        self.poisoned: set[tuple[int, int]] = set()
        # By client, the ticket that is answered when nothing is on its way into its
        # memory any more.
        self.leaving: dict[int, int] = {}
        # Clients that will have the region: announced children, and those whom it was
        # promised.  While there is one, the region is not forgotten.
        self.reserved: set[int] = set()
        self.dirty: dict[int, DirtyUnit] = {}
        self.strays: set[int] = set()
        self.promised: dict[int, int] = {}
        self.retiring: list[Flush] = []
        self.retired: Failure | None = None
        self.delayed: list[Writer] = []
        self.n_tries: dict[int, int] | None = None
        self.last_failure: Failure | None = None

    def __repr__(self) -> str:
        return (
            f"<RegionState: {len(self.resident)} of {self.geometry.n_units} units resident, "
            f"{len(self.loading)} loading, {len(self.addresses)} clients>"
        )

    def count_refault(self) -> bool:
        """Count a fault that follows a reload; return True once, when there are too many.

        Too many is sixteen times the units of the array.  A program that reads an array a few
        times in order stays below that; one that goes across the units reaches it at once.
        Whether a fault or readahead has brought the unit again is a matter of luck, so faults
        are counted, up to as many as there were reloads.  Requests bring units without faults.
        """
        # A fault on a unit that was never away says nothing, so no more of them count
        # than there were reloads.
        if self._n_refaults >= self.n_reloaded:
            return False
        self._n_refaults += 1
        return self._n_refaults == max(_MANY_LOADS, _MANY_TIMES * self.geometry.n_units)

    def count_scattered(self, n_ranges: int, n_units: int) -> bool:
        """Count a request for some ranges of units; return True once, if they come too often.

        Of units as large as these `n_units` may be in one request, none of them neighbours.

        Too often is four times the units of the array.  A program that picks rows in a random
        order loads a unit for each row, as soon as there is no room for all units.
        """
        many = max(_MANY_LOADS, _MANY_SHUFFLED_TIMES * self.geometry.n_units)
        n_scattered = max(_FEW_RANGES, min(n_units, _SCATTERED_RANGES))
        if self.is_shuffled or n_ranges < n_scattered or self.n_reloaded < many:
            return False
        self.is_shuffled = True
        return True

    def count_loaded(self, unit: int) -> bool:
        """Count a unit that has come; return whether it had gone for want of room before."""
        self.n_loaded += 1
        if self._gone is None or not self._gone.remove(unit):
            return False
        self.n_reloaded += 1
        return True

    def note_evicted(self, unit: int) -> None:
        """Take down that a unit goes for want of room."""
        if self._gone is None:
            self._gone = Marks()
        self._gone.add(unit)

    def is_installed(self, page: int) -> bool:
        """Return whether a page has been installed and not taken out since."""
        units = self.geometry.units_of_page(page)
        return units.start in self.resident if units.size == 1 else self.edges.is_installed(page)

    def is_absent(self, unit: int) -> bool:
        """Return whether a unit is neither there nor on its way."""
        return unit not in self.resident and unit not in self.loading

    def can_mark(self, unit: int) -> bool:
        """Return whether a unit can be in memory in such a way that its first touch is a fault."""
        # A first touch that writes must find the unit protected, and not missing: such a load is
        # installed as any other.
        if self.kind.writes_back:
            return False
        body = self.geometry.body_pages(unit)
        # What heals a poisoned page maps it, and with it the unit.
        is_poisoned = bool(self.poisoned) and any(page in body for _, page in self.poisoned)
        return self.kind.is_shared and body.size > 0 and not is_poisoned

    def unit_nbytes(self, unit: int) -> int:
        """Return how long a unit is."""
        if unit < self.n_plain_units:
            return self.geometry.unit_nbytes
        return self.geometry.unit_bytes(unit).size

    def body_nbytes(self, unit: int) -> int:
        """Return how long the pages are that a unit fills alone."""
        if unit < self.n_plain_units:
            return self.geometry.unit_nbytes
        return self.geometry.body_pages(unit).size * self.geometry.page_nbytes

    def is_awaited(self, unit: int) -> bool:
        """Return whether somebody waits for a page that a unit shares with one on its way."""
        return any(
            not self.edges.is_installed(page)
            and any(
                other in self.loading and self.loading[other].waits_for(page)
                for other in range(*self.geometry.units_of_page(page))
            )
            for page in self.geometry.edge_pages(unit)
        )

    def drop_waiters(self, client: int) -> set[int]:
        """Forget the threads of a client that wait; return their pages."""
        pages = set()
        for loading in self.loading.values():
            gone = {fault for fault in loading.faults if fault[0] == client}
            loading.faults -= gone
            pages |= {page for _, page in gone}
        self.poisoned = {fault for fault in self.poisoned if fault[0] != client}
        return pages

    def poison(self, faults: set[tuple[int, int]]) -> None:
        """Take down that pages are poisoned: whoever waited for them waits no more."""
        for page in {page for _, page in faults}:
            for unit in range(*self.geometry.units_of_page(page)):
                if unit in self.loading:
                    self.loading[unit].faults -= faults
        self.poisoned |= faults

    def take_healed(self, unit: int) -> set[tuple[int, int]]:
        """Return, and forget, the poisoned pages that a loaded unit has completed.

        Poison holds in one client's page table: an install in another does not heal it.
        """
        if not self.poisoned:
            return set()
        pages = self.geometry.pages_of_bytes(self.geometry.unit_bytes(unit))
        healed = {f for f in self.poisoned if f[1] in pages and self.is_installed(f[1])}
        self.poisoned -= healed
        return healed

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
        # Looked up for each fault, among up to ten thousand arrays.
        place = bisect.bisect(self._starts, address) - 1
        if place < 0:
            return None
        region, nbytes, page_nbytes = self._regions[place]
        offset = address - self._starts[place]
        return (region, offset // page_nbytes) if offset < nbytes else None
