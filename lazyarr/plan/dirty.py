"""What is known of each dirty unit, of who wants to write, and of who waits for a flush."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from lazyarr.units import Span

if TYPE_CHECKING:
    from lazyarr.plan.messages import Failure
    from lazyarr.plan.objects import ObjectGrid

__all__ = ["DirtyUnit", "DirtyUnits", "Flush", "Stage", "Writer"]

Key = tuple[int, int]
"""Region and unit."""
Owner = tuple[int, tuple[int, ...]]
"""Region and, in it, the place of an object."""

# An answer to a flush names at most so many failures.
_MAX_FAILURES = 100


class Stage(enum.Enum):
    """How far a dirty unit has come on its way to the store."""

    WAITING = "waiting"
    QUEUED = "queued"
    COPYING = "copying"
    WRITING = "writing"


class Writer:
    """A thread, or a unit of a request, that waits until it may write.

    Attributes
    ----------
    client, region : int
        Whose it is, and where it wants to write.
    units : Span
        What must be dirty before it may.
    page : int
        Where a thread waits; of a request -1.
    ticket : (int, int) or None
        The request.
    holds : bool
        Whether its units count as dirty already.
    is_counted : bool
        Whether its request waits for it.
    is_done : bool
        Whether it has got its answer, or is gone.
    failure : Failure or None
        Why it may not.
    """

    __slots__ = (
        "client", "failure", "holds", "is_counted", "is_done", "page", "region", "ticket", "units",
    )  # fmt: skip

    def __init__(
        self, client: int, region: int, units: Span, *, page: int = -1, ticket: Key | None = None
    ) -> None:
        self.client = client
        self.region = region
        self.units = units
        self.page = page
        self.ticket = ticket
        self.holds = self.is_counted = self.is_done = False
        self.failure: Failure | None = None

    def __repr__(self) -> str:
        who = f"thread at page {self.page}" if self.ticket is None else f"request {self.ticket}"
        return f"<Writer: {who} of client {self.client}, units {self.units}>"


class Flush:
    """A flush: for how many units it waits, what failed, and what was written.

    Attributes
    ----------
    client, ticket : int
        Who has asked, and with which number.
    n_waiting : int
        How many units are not written yet, of those that it has looked at.
    is_listed : bool
        Whether it has looked at all.
    is_over : bool
        Whether it was answered, or its client is gone.
    n_units, nbytes : int
        How many units were written, and how much was put into the store.
    failures : dict of str to Failure
        By their message: units that are written together fail together.
    retires : (int, Failure) or None
        Which region is read-only when all is written, and what writers get from then on.
    """

    __slots__ = (
        "client", "failures", "is_listed", "is_over", "n_units", "n_waiting", "nbytes", "retires",
        "ticket",
    )  # fmt: skip

    def __init__(self, client: int, ticket: int) -> None:
        self.client = client
        self.ticket = ticket
        self.n_waiting = self.n_units = self.nbytes = 0
        self.is_listed = self.is_over = False
        self.failures: dict[str, Failure] = {}
        self.retires: tuple[int, Failure] | None = None

    def __repr__(self) -> str:
        return f"<Flush: {self.n_units} units written, {self.n_waiting} not yet>"

    def end_unit(self, failure: Failure | None) -> None:
        """Take down that a unit is in the store, or why it is not."""
        self.n_waiting -= 1
        if failure is None:
            self.n_units += 1
        elif len(self.failures) < _MAX_FAILURES:
            self.failures.setdefault(failure.message, failure)


class DirtyUnit:
    """A unit whose memory has, or may have, what the store has not.

    Attributes
    ----------
    stage : Stage
        How far it has come on its way to the store.
    is_again : bool
        Whether it was made dirty again since it was copied.
    has_failed : bool
        Whether the last try to write it has failed, and there was none since.
    flushes : list of Flush
        Those that the write back answers which is under way, or comes next.
    later_flushes : list of Flush
        Those that came after `is_again`: they wait for the one after that.
    blocked : list of Writer
        Those that may go on when the unit is copied.
    owner : (int, tuple of int)
        Region and place of the object that it lies in.
    """

    __slots__ = (
        "blocked", "flushes", "has_failed", "is_again", "later_flushes", "nbytes", "owner", "stage",
    )  # fmt: skip

    def __init__(self, nbytes: int, owner: Owner) -> None:
        self.nbytes = nbytes
        self.owner = owner
        self.stage = Stage.WAITING
        self.is_again = self.has_failed = False
        self.flushes: list[Flush] = []
        self.later_flushes: list[Flush] = []
        self.blocked: list[Writer] = []

    def __repr__(self) -> str:
        return f"<DirtyUnit: {self.stage.value}{', again' if self.is_again else ''}>"

    @property
    def is_open(self) -> bool:
        """Whether what is written to it now is written back without any more being done."""
        return self.is_again or self.stage in (Stage.WAITING, Stage.QUEUED)

    def join(self, flush: Flush) -> None:
        """Have a flush wait until what is dirty now is written."""
        # Of a unit that is being copied or written all clients' pages were protected before:
        # what was dirty when the flush was asked for is in the copy, unless it is dirty again.
        (self.later_flushes if self.is_again else self.flushes).append(flush)
        flush.n_waiting += 1


class _DirtyObject:
    """Units of one object that nobody has tried to write yet, as they are now.

    Attributes
    ----------
    units : dict of (int, int) to None
        Region and number of each, in the order in which they became dirty.
    nbytes : int
        How many bytes they have.
    whole_nbytes : int
        How many bytes all units of the object have.
    """

    __slots__ = ("nbytes", "units", "whole_nbytes")

    def __init__(self, whole_nbytes: int) -> None:
        self.units: dict[Key, None] = {}
        self.nbytes = 0
        self.whole_nbytes = whole_nbytes

    def __repr__(self) -> str:
        return f"<_DirtyObject: {self.nbytes} of {self.whole_nbytes} bytes>"

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the object that is in the store would be kept."""
        return self.nbytes >= self.whole_nbytes


class DirtyUnits:
    """How many units of all regions are dirty, and which of them are best written first.

    Attributes
    ----------
    n_units, nbytes : int
        Dirty units, those that are being written among them.
    promised_nbytes : int
        Units that somebody was let in to write to, and that are not dirty yet.
    fresh_nbytes : int
        Units that nobody has tried to write yet, as they are now.
    failed_nbytes : int
        Units whose last try has failed.
    """

    def __init__(self) -> None:
        self.n_units = self.nbytes = self.promised_nbytes = 0
        self.fresh_nbytes = self.failed_nbytes = 0
        self._failed: dict[Key, None] = {}
        # In the order in which a unit of theirs has become dirty last.
        self._objects: dict[Owner, _DirtyObject] = {}
        # Units that are clean since they were written, with their bytes: the last ones.
        self._written: dict[Key, int] = {}
        self._written_nbytes = 0

    def __repr__(self) -> str:
        return f"<DirtyUnits: {self.n_units} units, {self.nbytes} bytes>"

    @property
    def taken_nbytes(self) -> int:
        """How much is dirty, or will be."""
        return self.nbytes + self.promised_nbytes

    @property
    def underway_nbytes(self) -> int:
        """How much is being written, or queued for that."""
        return self.nbytes - self.fresh_nbytes - self.failed_nbytes

    @property
    def settled_nbytes(self) -> int:
        """How much is fresh, but for an object that somebody may be about to fill."""
        if not self._objects:
            return 0
        newest = self._objects[next(reversed(self._objects))]
        return self.fresh_nbytes - (0 if newest.is_whole else newest.nbytes)

    def choose(self, left_nbytes: int, *, with_newest: bool) -> list[Key]:
        """Return units to be written, so that no more are fresh than so many bytes of them.

        Those that have failed come first.  Then come whole objects: they are put without what is
        in the store being read, and need not be put again for what comes next.  Then those to
        which nobody has written for the longest time.

        Parameters
        ----------
        left_nbytes : int
            How many bytes may be left.
        with_newest : bool
            Whether the object too that was written to last may be chosen before it is whole.
        """
        chosen = list(self._failed)
        nbytes = self.fresh_nbytes
        objects = list(self._objects.values())
        if objects and not with_newest and not objects[-1].is_whole:
            objects.pop()
        objects.sort(key=lambda each: not each.is_whole)
        for each in objects:
            if nbytes <= left_nbytes:
                break
            chosen += each.units
            nbytes -= each.nbytes
        return chosen

    def add(self, key: Key, unit: DirtyUnit, objects: ObjectGrid) -> None:
        """Take down that a unit is dirty."""
        self.n_units += 1
        self.nbytes += unit.nbytes
        self._written_nbytes -= self._written.pop(key, 0)
        self._wait(key, unit, objects)

    def note_written(self, key: Key, nbytes: int, most_nbytes: int) -> None:
        """Take down that a unit is clean since it was written; of more than so many, the last."""
        self._written[key] = nbytes
        self._written_nbytes += nbytes
        while self._written_nbytes > most_nbytes and len(self._written) > 1:
            self._written_nbytes -= self._written.pop(next(iter(self._written)))

    def was_written(self, key: Key) -> bool:
        """Return whether a unit is one of the last that were written, and clean since."""
        return key in self._written

    def remove(self, key: Key, unit: DirtyUnit) -> None:
        """Take down that a unit is clean."""
        self._leave(key, unit)
        self.n_units -= 1
        self.nbytes -= unit.nbytes

    def queue(self, key: Key, unit: DirtyUnit) -> None:
        """Take down that a unit is to be written back."""
        self._leave(key, unit)
        unit.stage = Stage.QUEUED
        unit.has_failed = False

    def put_back(self, key: Key, unit: DirtyUnit, objects: ObjectGrid, *, has_failed: bool) -> None:
        """Take down that a unit is dirty still, or again, after it was written back."""
        self._leave(key, unit)
        unit.stage = Stage.WAITING
        unit.is_again = False
        unit.has_failed = has_failed
        self._wait(key, unit, objects)

    def _wait(self, key: Key, unit: DirtyUnit, objects: ObjectGrid) -> None:
        if unit.has_failed:
            self.failed_nbytes += unit.nbytes
            self._failed[key] = None
            return
        self.fresh_nbytes += unit.nbytes
        owner = self._objects.pop(unit.owner, None)
        if owner is None:
            owner = _DirtyObject(objects.nbytes_of(unit.owner[1]))
        self._objects[unit.owner] = owner
        owner.units[key] = None
        owner.nbytes += unit.nbytes

    def _leave(self, key: Key, unit: DirtyUnit) -> None:
        if self._failed.pop(key, self) is None:
            self.failed_nbytes -= unit.nbytes
            return
        owner = self._objects.get(unit.owner)
        if owner is None or owner.units.pop(key, self) is not None:
            return
        self.fresh_nbytes -= unit.nbytes
        owner.nbytes -= unit.nbytes
        if not owner.units:
            del self._objects[unit.owner]
