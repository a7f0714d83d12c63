"""Clients, regions and arenas: the descriptors that the pager holds, each with one owner."""

from __future__ import annotations

import itertools
import os
import select
import threading
from typing import TYPE_CHECKING, Any

from lazyarr.errors import PagerError
from lazyarr.kernel import (
    PAGE_NBYTES,
    Stop,
    Userfaultfd,
    map_shared,
    memory_view,
    punch_hole,
    unmap,
)
from lazyarr.memory_kind import MemoryKind
from lazyarr.pager.memory.main_thread import MainThread
from lazyarr.units import DIRTY, RESIDENT, Span
from lazyarr.values import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lazyarr.pager.memory.committing import Committing
    from lazyarr.pager.memory.installer import Backing
    from lazyarr.plan.regions import RegionState
    from lazyarr.reading.unit_reader import UnitReader
    from lazyarr.wire.channel import Channel
    from lazyarr.wire.messages import OpenRegion

__all__ = ["Arena", "Client", "Region"]

# Never registered: below it programs are linked at the earliest.  And not below
# vm.mmap_min_addr (65536 by default on most distributions), where kernels older than 6.18 refuse
# an address (EINVAL) before they look whether the process lives.
_NOWHERE = 1 << 20
# How long a client that calls exec may take to close its old descriptors.
_EXEC_SECONDS = 1.0
# Waking a thread costs as much as loading some tens of kilobytes.  Units that are
# smaller than this go several to a job.
_JOB_NBYTES = 64 << 10
# So much of a residency map is read at once.
_MAP_NBYTES = 1 << 20
_DIRTY_UNIT = bytes([RESIDENT | DIRTY])
# What becomes of each value of a residency map where nothing stays but what is dirty.
_DIRTY_ALONE = bytes(RESIDENT | DIRTY if value & DIRTY else 0 for value in range(256))


class Arena:
    """The two memory objects of one client, in which its regions lie.

    The client and each of its regions use the arena.  The last user closes the descriptors.  A
    region may outlive the client that opened it, where other clients have mapped it.

    Parameters
    ----------
    memfd : int
        Descriptor of the memory object that holds arrays; the arena owns it.
    map_memfd : int
        Descriptor of the memory object that holds residency maps; the arena owns it.
    """

    def __init__(self, memfd: int, map_memfd: int) -> None:
        self.memfd = memfd
        self.map_memfd = map_memfd
        self._lock = threading.Lock()  # handlers of messages do not hold the core's
        self._n_users = 1

    def __repr__(self) -> str:
        return f"<Arena: descriptor {self.memfd}, {self._n_users} users>"

    def share(self) -> Arena:
        """Return the arena with one more user."""
        with self._lock:
            self._n_users += 1
        return self

    def release(self) -> None:
        """Give up one use of the arena; the last one closes the descriptors."""
        with self._lock:
            self._n_users -= 1
            is_last = self._n_users == 0
        if is_last:
            os.close(self.memfd)
            os.close(self.map_memfd)
            self.memfd = self.map_memfd = -1


class Client(Struct):
    """One process whose memory the pager fills.

    Attributes
    ----------
    number : int
        The client's number in the state machine.
    pid, pidfd : int
        The process, and a descriptor that is readable when the process has ended.
    uffd : Userfaultfd
        The client's userfaultfd of all memory but the writable regions.
    arena : Arena
        The client's memory objects.
    lifeline : int
        The pager's end of the client's lifeline; closing it kills the client.
    channels : list of Channel
        All channels to the client.  The first is the one on which it said `Hello`.
    main : MainThread
        Whether the main thread may get exceptions, and whether one is on its way.
    notices : list of dict
        What the client is told with the next answer: see `Done`.
    writable_uffd : Userfaultfd or None
        The userfaultfd of its writable regions (`MemoryKind.writes_back`); None for a client
        that can have none.
    """

    number: int
    pid: int
    pidfd: int
    uffd: Userfaultfd
    arena: Arena
    lifeline: int
    channels: list[Channel]
    main: MainThread
    notices: list[dict[str, Any]]
    writable_uffd: Userfaultfd | None = None

    def uffd_of(self, kind: MemoryKind) -> Userfaultfd:
        """Return the userfaultfd with which the client has registered memory of a kind."""
        if kind.writes_back and self.writable_uffd is not None:
            return self.writable_uffd
        return self.uffd

    def require(self, kind: MemoryKind) -> None:
        """Raise unless the client can have memory of a kind.

        Raises
        ------
        PagerError
            The memory is to be written back, and the client has no userfaultfd for that.
        """
        if kind.writes_back and self.writable_uffd is None:
            raise PagerError(
                f"process {self.pid} has no userfaultfd for writable arrays; run 'lazyarr doctor'"
            )

    def wake(self, address: int, nbytes: int) -> None:
        """Wake the threads that wait in a range, whatever kind of memory it is."""
        # A range that another userfaultfd is responsible for has no waiters in this one.
        self.uffd.wake(address, nbytes)
        if self.writable_uffd is not None:
            self.writable_uffd.wake(address, nbytes)

    def is_alive(self) -> bool:
        """Return whether the memory that the userfaultfd acts on still exists.

        After exec the process lives and its old memory does not: an install
        anywhere tells them apart (ESRCH before any look at the range).
        """
        # A pidfd tells of the process alone, and a channel may be open in another
        # process.  Only the userfaultfd knows whether its memory is there.
        return self.uffd.zeropage(_NOWHERE, PAGE_NBYTES).stop is not Stop.EXITED

    def has_cut_lifeline(self) -> bool:
        """Return whether the client has closed its end of the lifeline."""
        # No events: the other end's close is always reported (POLLHUP in poll(2)).
        poll = select.poll()
        poll.register(self.lifeline, 0)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close every descriptor of a client that is gone.

        A client that calls exec loses its memory before the kernel closes its descriptors.  Were
        the lifeline closed here first, the new program would be killed.  So this waits until the
        client's end is closed.
        """
        if not self.is_alive():
            poll = select.poll()
            poll.register(self.lifeline, 0)
            poll.poll(_EXEC_SECONDS * 1000)
        self.uffd.close()
        if self.writable_uffd is not None:
            self.writable_uffd.close()
        self.arena.release()
        for channel in self.channels:
            channel.close()
        os.close(self.pidfd)
        os.close(self.lifeline)


class Region(Struct):
    """The memory of one array, with the reader that fills it.

    Attributes
    ----------
    message : OpenRegion
        The message by which the first client opened the region.
    kind : MemoryKind
        What can be done with this memory.
    source : UnitReader
        Reads and decodes units of the array.
    backing : Backing
        Where the pages lie in a memory object.  Means nothing for kinds that are not shared.
    residency : Backing
        Where the residency map lies, one byte per unit.
    arena : Arena
        The memory objects to which `backing` and `residency` refer.
    descriptors : tuple of int
        Descriptors that the store is opened with.
    is_remote : bool
        Whether chunks come over a network, and are fetched before a thread decodes them.
    label : str
        Array and store, for messages.
    memory_nbytes, unit_nbytes : int
        Size in bytes of the memory, and of one unit.
    n_units : int
        Number of units.
    limits : tuple
        The settings under which the source was made: time-out, retries, cache.
    pipeline : bytes
        How chunks are decoded, as text for the decoders.
    chunks_per_object : tuple of int
        Where memory is written back, how many chunks a shard has along each axis; else empty.
    open_committing : callable or None
        Opens the store for what clients have written; None where memory is not written back.
    published, published_at : memoryview or None, int
        The residency map in the pager's memory, and its address.  Mapped by the first write.
    """

    message: OpenRegion
    kind: MemoryKind
    source: UnitReader
    backing: Backing
    residency: Backing
    arena: Arena
    descriptors: tuple[int, ...]
    is_remote: bool
    label: str
    memory_nbytes: int
    unit_nbytes: int
    n_units: int
    limits: tuple[object, ...]
    pipeline: bytes
    chunks_per_object: tuple[int, ...] = ()
    open_committing: Callable[[], Committing] | None = None
    published: memoryview | None = None
    published_at: int = 0

    @property
    def n_units_per_job(self) -> int:
        """How many units make up a job that is worth waking a thread for."""
        return max(1, _JOB_NBYTES // max(1, self.unit_nbytes))

    def statistics(self, number: int, state: RegionState) -> dict[str, Any]:
        """Return the counts of this array alone."""
        return {
            "region": number,
            "url": self.message.url,
            "array": self.message.path,
            "units": self.n_units,
            "units_resident": len(state.resident),
            "units_dirty": len(state.dirty),
            "units_loaded": state.n_loaded,
            "units_reloaded": state.n_reloaded,
            "loads_per_unit": round(state.n_loaded / max(1, self.n_units), 3),
            "is_shuffled": state.is_shuffled,
        }

    def about(self) -> dict[str, Any]:
        """Return what traces say of this array."""
        return {"url": self.message.url, "path": self.message.path, **self.message.about}

    def backing_at(self, offset: int) -> Backing | None:
        """Return where the pages from an offset in bytes on lie in a memory object.

        None for private memory, which lies in none.
        """
        if not self.kind.is_shared:
            return None
        return self.backing._replace(offset=self.backing.offset + offset)

    def punch(self, pages: Span) -> None:
        """Take pages out of the memory of every process, where the kind of memory allows it."""
        # A hole in the memory object also clears the page tables of all processes that have
        # mapped it.  Nothing takes a page out of another process's private memory.
        if self.kind.is_evictable and pages.size:
            page_nbytes = self.kind.page_nbytes
            start = self.backing.offset + pages.start * page_nbytes
            punch_hole(self.backing.memfd, start, pages.size * page_nbytes)

    def read_dirty(self) -> list[int]:
        """Return the units that the residency map shows as dirty, in order."""
        if not self.kind.writes_back:
            return []
        units = []
        for first, found in self._read_map():
            dirty = found.translate(_DIRTY_ALONE)
            place = dirty.find(_DIRTY_UNIT)
            while place >= 0:
                units.append(first + place)
                place = dirty.find(_DIRTY_UNIT, place + 1)
        return units

    def _read_map(self) -> Iterator[tuple[int, bytes]]:
        """Yield parts of the residency map, each with its first unit, where anything is written."""
        place, stop = self.residency.offset, self.residency.offset + self.n_units
        while place < stop:
            try:
                place = os.lseek(self.residency.memfd, place, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing is written behind this
                return
            if place < stop:
                found = os.pread(self.residency.memfd, min(_MAP_NBYTES, stop - place), place)
                yield place - self.residency.offset, found
                place += len(found)

    def lacking(self, spans: Sequence[Span]) -> list[int]:
        """Return which of some spans of pages are not whole in the memory object.

        Parameters
        ----------
        spans : sequence of Span
            Spans of pages; quickest when they are in order.

        Returns
        -------
        list of int
            The numbers of those that are not.
        """
        # What was swapped out is no hole (Linux, mm/filemap.c, `mapping_seek_hole_data`).  The
        # file offset that this moves is nobody's: all reads and writes name their own.
        page_nbytes, offset = self.kind.page_nbytes, self.backing.offset
        found = []
        # Between these is no hole.  The kernel goes on to the next one, however far that is, so it
        # is not asked for each span.
        start = hole = -1
        for number, pages in enumerate(spans):
            first = offset + pages.start * page_nbytes
            if not start <= first < hole:
                start, hole = first, os.lseek(self.backing.memfd, first, os.SEEK_HOLE)
            if hole < offset + pages.stop * page_nbytes:
                found.append(number)
        return found

    def wipe_clean(self, pages: Sequence[Span], units: Sequence[int]) -> None:
        """Take all but some pages out of memory, and all but dirty units off the residency map.

        Parameters
        ----------
        pages : sequence of Span
            The pages that stay, in order.
        units : sequence of int
            The units that stay dirty.
        """
        edges = [0, *itertools.chain(*pages), self.memory_nbytes // self.kind.page_nbytes]
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            self.punch(Span(start, stop))
        stay = set(units)
        for first, found in self._read_map():
            # What is dirty is never clean in between: this process may end at any moment.
            kept = bytearray(found.translate(_DIRTY_ALONE))
            for unit in set(range(first, first + len(kept))) - stay if _DIRTY_UNIT in kept else ():
                kept[unit - first] = 0
            os.pwrite(self.residency.memfd, kept, self.residency.offset + first)

    def wipe(self) -> None:
        """Take all pages out of memory, and all marks off the residency map."""
        self.punch(Span(0, self.memory_nbytes // self.kind.page_nbytes))
        # Whole pages: a hole in a part of a page writes zeros there, and frees nothing.  No
        # other map lies on the last page, for the client gives out whole pages.
        map_nbytes = -(-self.n_units // PAGE_NBYTES) * PAGE_NBYTES
        if map_nbytes:
            punch_hole(self.residency.memfd, self.residency.offset, map_nbytes)

    def publish(self, unit: int, *, resident: bool, dirty: bool = False) -> None:
        """Write on the residency map whether a unit is resident, and whether it is dirty."""
        # Mapped, because a system call would be on the path of every small fault.
        # Mapped late, because of ten thousand open arrays few may be read.
        if self.published is None:
            place = self.residency
            address = map_shared(place.memfd, place.offset, self.n_units, writable=True)
            self.published = memory_view(address, self.n_units, writable=True)
            self.published_at = address
        self.published[unit] = resident | dirty << 1

    def close(self) -> None:
        """Give the memory back and close the store."""
        self.wipe()
        self.source.close()
        if self.published is not None:
            self.published.release()
            unmap(self.published_at, self.n_units)
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.arena.release()
