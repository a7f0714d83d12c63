"""What the pager holds of each client and of each region: descriptors, with their owners."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

from lazyarr.kernel import (
    PAGE_NBYTES,
    Stop,
    Userfaultfd,
    map_shared,
    memory_view,
    punch_hole,
    unmap,
)
from lazyarr.pager.excuses import MainThread
from lazyarr.values import Struct

if TYPE_CHECKING:
    from lazyarr.loading.source import Source
    from lazyarr.pager.installer import Backing
    from lazyarr.wire.channel import Channel
    from lazyarr.wire.messages import OpenRegion

__all__ = ["Arena", "Client", "Region"]

# Below vm.mmap_min_addr on every system: never mapped, never registered.
_NOWHERE = PAGE_NBYTES
_EXEC_SECONDS = 1.0
_JOB_NBYTES = 64 << 10


class Arena:
    """The memory objects of one client, in which its regions lie; closed with their last user.

    Parameters
    ----------
    memfd : int
        Descriptor of the one that holds arrays; the arena owns it.
    map_memfd : int
        Descriptor of the one that holds residency maps; the arena owns it.
    """

    def __init__(self, memfd: int, map_memfd: int) -> None:
        self.memfd = memfd
        self.map_memfd = map_memfd
        self._n_users = 1

    def __repr__(self) -> str:
        return f"<Arena: descriptor {self.memfd}, {self._n_users} users>"

    def share(self) -> Arena:
        """Return the arena with one more user."""
        self._n_users += 1
        return self

    def release(self) -> None:
        """Have one user less; the last one closes the descriptors."""
        self._n_users -= 1
        if self._n_users == 0:
            os.close(self.memfd)
            os.close(self.map_memfd)
            self.memfd = self.map_memfd = -1


class Client(Struct):
    """One process whose memory is filled.

    Attributes
    ----------
    number : int
        What the state machine calls it.
    pid, pidfd : int
        The process, and a descriptor that says when it has ended.
    uffd : Userfaultfd
        Its userfaultfd.
    arena : Arena
        Its memory objects.
    lifeline : int
        The far end of its lifeline; closing it kills the client.
    channels : list of Channel
        The first is the one that it came on.
    main : MainThread
        Whether it may get exceptions, and whether one is on its way.
    """

    number: int
    pid: int
    pidfd: int
    uffd: Userfaultfd
    arena: Arena
    lifeline: int
    channels: list[Channel]
    main: MainThread

    def is_alive(self) -> bool:
        """Return whether the memory that the userfaultfd acts on still exists.

        After exec the process lives and its old memory does not: an install
        anywhere tells them apart (ESRCH before any look at the range).
        """
        return self.uffd.zeropage(_NOWHERE, PAGE_NBYTES).stop is not Stop.EXITED

    def close(self) -> None:
        """Close every descriptor of a client that is gone.

        One that calls exec is seen to be gone before it has closed all of its own, and must
        not be killed: its end of the lifeline is waited for.
        """
        if not self.is_alive():
            poll = select.poll()
            poll.register(self.lifeline, 0)
            poll.poll(_EXEC_SECONDS * 1000)
        self.uffd.close()
        self.arena.release()
        for channel in self.channels:
            channel.close()
        os.close(self.pidfd)
        os.close(self.lifeline)


class Region(Struct):
    """One array's memory.

    Attributes
    ----------
    message : OpenRegion
        What the client said of it that opened it.
    source : Source
        Gives decoded units.
    backing : Backing or None
        Where its pages lie behind the mapping; None for private memory.
    residency : Backing
        Where its residency map lies, one byte per unit.
    arena : Arena
        The memory objects that these refer to.
    descriptors : tuple of int
        What the store is opened with.
    is_remote : bool
        Whether its chunks come over a network, and are fetched apart from decoding.
    label : str
        Array and store, for statistics.
    memory_nbytes, unit_nbytes : int
        How long its memory and each unit of it are.
    n_units : int
        How many units it has.
    limits : tuple
        Under which settings its source was made: time-out, retries, cache.
    published, published_at : memoryview or None, int
        The residency map in this process's memory, once it has been written to.
    """

    message: OpenRegion
    source: Source
    backing: Backing | None
    residency: Backing
    arena: Arena
    descriptors: tuple[int, ...]
    is_remote: bool
    label: str
    memory_nbytes: int
    unit_nbytes: int
    n_units: int
    limits: tuple[object, ...]
    published: memoryview | None = None
    published_at: int = 0

    @property
    def n_units_per_job(self) -> int:
        """How many units make a job that is worth waking a thread for."""
        return max(1, _JOB_NBYTES // max(1, self.unit_nbytes))

    def wipe(self) -> None:
        """Take everything out of memory, and off the residency map."""
        # Whole pages: a hole in a part of one is written as zeros, and gives nothing back.
        map_nbytes = -(-self.n_units // PAGE_NBYTES) * PAGE_NBYTES
        for place, nbytes in ((self.backing, self.memory_nbytes), (self.residency, map_nbytes)):
            if place is not None and nbytes:
                punch_hole(place.memfd, place.offset, nbytes)

    def publish(self, unit: int, *, resident: bool) -> None:
        """Write on the residency map whether a unit is there: no call is made for it."""
        if self.published is None:
            place = self.residency
            address = map_shared(place.memfd, place.offset, self.n_units, writable=True)
            self.published = memory_view(address, self.n_units, writable=True)
            self.published_at = address
        self.published[unit] = resident

    def close(self) -> None:
        """Give the memory back and let go of the store."""
        self.wipe()
        self.source.close()
        if self.published is not None:
            self.published.release()
            unmap(self.published_at, self.n_units)
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.arena.release()
