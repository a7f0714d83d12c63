"""What is to be read of remote stores: a queue of each urgency, and who waits for which index.

In one thread, as all of dispatching.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from lazyarr.errors import FormatError
from lazyarr.reading.locator import IndexRead, ObjectRange
from lazyarr.reading.read_queue import Part, ReadQueue, Urgency, Wanted
from lazyarr.units import Span

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.layout import ShardIndex
    from lazyarr.plan.coalescing import Group
    from lazyarr.reading.unit_reader import UnitReader

__all__ = ["Queues", "WantedAlone", "WantedIndex"]

# A read is worth its round trip from the one on; with more than the other at once some
# connections would be busy when the others are done.  In between, all get their share.
# What is read ahead will be wanted in its order, and what shares a link comes at the same time:
# the third chunk of the first read would be behind the first ones of all others.
_MIN_NBYTES = {Urgency.FAULT: 2 << 20, Urgency.REQUEST: 2 << 20, Urgency.READAHEAD: 1 << 20}
_MAX_NBYTES = 8 << 20


class WantedIndex(NamedTuple):
    """An index to be read next."""

    source: UnitReader
    read: IndexRead


class WantedAlone(NamedTuple):
    """A chunk to be read next, with nothing else."""

    source: UnitReader
    place: ObjectRange
    part: Part


_Next: TypeAlias = "WantedIndex | WantedAlone | Group[tuple[UnitReader, str], Part] | None"


class Queues:
    """What waits to be read.

    Parameters
    ----------
    deliver : callable
        Told of a chunk that needs no read, and of its bytes; None when it is not stored.
    fail : callable
        Told of a chunk that cannot be read, and of why.
    """

    def __init__(
        self,
        *,
        deliver: Callable[[Part, memoryview | None], None],
        fail: Callable[[Part, BaseException], None],
    ) -> None:
        self._deliver = deliver
        self._fail = fail
        self._queues = {urgency: ReadQueue() for urgency in Urgency}
        self._waiting: dict[tuple[UnitReader, IndexRead], list[Part]] = {}

    def __repr__(self) -> str:
        return f"<Queues: {self._queues}>"

    def look_for(
        self, part: Part, arrived: IndexRead | None = None, index: ShardIndex | None = None
    ) -> None:
        """Queue what is to be read next on the way to a chunk."""
        source = part.owner.source
        place = source.finder.find(part.chunk, arrived, index)
        if place is None:
            self._deliver(part, None)
        elif isinstance(place, IndexRead):
            self._await_index((source, place), part)
        else:
            self.add(part, place)

    def _await_index(self, read: tuple[UnitReader, IndexRead], part: Part) -> None:
        """Have a part wait for an index, which is queued unless it is on its way."""
        own, patient = self._queues[part.owner.urgency], self._queues[Urgency.READAHEAD]
        found = next((q for q in (patient.foreseen, patient.indexes) if read in q), None)
        if found is patient.indexes and own is patient:
            found = None  # it waits where it should
        elif found is not None:
            found.remove(read)
        if found is not None or read not in self._waiting:
            own.indexes.append(read)
        self._waiting.setdefault(read, []).append(part)

    def add(self, part: Part, place: ObjectRange) -> None:
        """Queue a chunk, or refuse one that is too long."""
        source, queue = part.owner.source, self._queues[part.owner.urgency]
        if place.stop is None:
            queue.alone.append((source, place, part))
            return
        span = Span(place.start, place.stop)
        try:
            source.finder.check_size(span.size)
        except FormatError as error:
            self._fail(part, error)
            return
        if not span.size:
            self._deliver(part, memoryview(b""))
        elif part.must_read_alone:
            queue.alone.append((source, place, part))
        else:
            queue.ranges.add((source, place.key), span, part)

    def foresee(self, source: UnitReader, chunk: tuple[int, ...]) -> None:
        """Queue the index that a reader will need after this shard's.

        Without it, all connections would be idle for a round trip at the end of each shard.
        """
        read = source.finder.foresee(chunk)
        if read is not None and (source, read) not in self._waiting:
            self._waiting[source, read] = []
            self._queues[Urgency.READAHEAD].foreseen.append((source, read))

    def end_waiting(self, source: UnitReader, read: IndexRead) -> list[Part]:
        """Return the chunks that have waited for an index, which is here or cannot be had."""
        return self._waiting.pop((source, read))

    def hasten(self, unit: Wanted) -> None:
        """Move what waits for a unit to the urgent queue."""
        unit.urgency = Urgency.FAULT
        urgent, patient = self._queues[Urgency.FAULT], self._queues[Urgency.READAHEAD]
        # In one pass: a unit may have thousands of chunks, and so may those that wait with it.
        urgent.alone.extend(entry for entry in patient.alone if entry[2].owner is unit)
        patient.alone = deque(entry for entry in patient.alone if entry[2].owner is not unit)
        for key, span, part in patient.ranges.take(lambda part: part.owner is unit):
            urgent.ranges.add(key, span, part)
        for read in [read for read in patient.indexes if self._is_awaited(read, unit)]:
            patient.indexes.remove(read)
            urgent.indexes.append(read)

    def _is_awaited(self, read: tuple[UnitReader, IndexRead], unit: Wanted) -> bool:
        return any(part.owner is unit for part in self._waiting[read])

    def pop(self, urgency: Urgency, connections: int) -> _Next:
        """Return what is to be read next of an urgency; None when nothing waits.

        Parameters
        ----------
        urgency : Urgency
            Which.
        connections : int
            How many reads share what waits.
        """
        queue = self._queues[urgency]
        if queue.indexes:
            return WantedIndex(*queue.indexes.popleft())
        if queue.alone:
            return WantedAlone(*queue.alone.popleft())
        if queue.ranges:
            share_nbytes = queue.ranges.nbytes // connections
            return queue.ranges.pop(max(_MIN_NBYTES[urgency], min(_MAX_NBYTES, share_nbytes)))
        if queue.foreseen:
            return WantedIndex(*queue.foreseen.popleft())
        return None
