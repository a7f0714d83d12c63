"""The queues of what is to be read of remote stores: lanes of ranks, and who waits for which index.

In one thread, as all of dispatching.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from lazyarr.errors import FormatError
from lazyarr.loading.finding import IndexRead, Place
from lazyarr.loading.lanes import Lane, Part, Rank, Wanted
from lazyarr.units import Span

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.format import ShardIndex
    from lazyarr.loading.source import Source
    from lazyarr.plan.coalescing import Group

__all__ = ["Queues", "WantedAlone", "WantedIndex"]

# A read is worth its round trip from the one on; with more than the other at once some
# connections would be busy when the others are done.  In between, all get their share.
# What is read ahead will be wanted in its order, and what shares a link comes at the same time:
# the third chunk of the first read would be behind the first ones of all others.
_MIN_NBYTES = {Rank.FAULT: 2 << 20, Rank.REQUEST: 2 << 20, Rank.READAHEAD: 1 << 20}
_MAX_NBYTES = 8 << 20


class WantedIndex(NamedTuple):
    """An index to be read next."""

    source: Source
    read: IndexRead


class WantedAlone(NamedTuple):
    """A chunk to be read next, with nothing else."""

    source: Source
    place: Place
    part: Part


_Next: TypeAlias = "WantedIndex | WantedAlone | Group[tuple[Source, str], Part] | None"


class Queues:
    """What waits to be read.

    Parameters
    ----------
    deliver : callable
        Told of a chunk that needs no read, and of its bytes; None when it is not stored.
    fail : callable
        Told of a chunk that can not be read, and of why.
    """

    def __init__(
        self,
        *,
        deliver: Callable[[Part, memoryview | None], None],
        fail: Callable[[Part, BaseException], None],
    ) -> None:
        self._deliver = deliver
        self._fail = fail
        self._lanes = {rank: Lane() for rank in Rank}
        self._waiting: dict[tuple[Source, IndexRead], list[Part]] = {}

    def __repr__(self) -> str:
        return f"<Queues: {self._lanes}>"

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

    def _await_index(self, read: tuple[Source, IndexRead], part: Part) -> None:
        """Have a part wait for an index, which is queued unless it is on its way."""
        lane, patient = self._lanes[part.owner.rank], self._lanes[Rank.READAHEAD]
        queue = next((q for q in (patient.foreseen, patient.indexes) if read in q), None)
        if queue is patient.indexes and lane is patient:
            queue = None  # it waits where it should
        elif queue is not None:
            queue.remove(read)
        if queue is not None or read not in self._waiting:
            lane.indexes.append(read)
        self._waiting.setdefault(read, []).append(part)

    def add(self, part: Part, place: Place) -> None:
        """Queue a chunk, or refuse one that is too long."""
        source, lane = part.owner.source, self._lanes[part.owner.rank]
        if place.stop is None:
            lane.alone.append((source, place, part))
            return
        span = Span(place.start, place.stop)
        try:
            source.finder.check_size(span.size)
        except FormatError as error:
            self._fail(part, error)
            return
        if not span.size:
            self._deliver(part, memoryview(b""))
        elif part.is_alone:
            lane.alone.append((source, place, part))
        else:
            lane.ranges.add((source, place.key), span, part)

    def foresee(self, source: Source, chunk: tuple[int, ...]) -> None:
        """Queue the index that a reader will need after this shard's.

        Without it, all connections would be idle for a round trip at the end of each shard.
        """
        read = source.finder.foresee(chunk)
        if read is not None and (source, read) not in self._waiting:
            self._waiting[source, read] = []
            self._lanes[Rank.READAHEAD].foreseen.append((source, read))

    def end_waiting(self, source: Source, read: IndexRead) -> list[Part]:
        """Return the chunks that have waited for an index, which is here or can not be had."""
        return self._waiting.pop((source, read))

    def hasten(self, unit: Wanted) -> None:
        """Move what waits for a unit to the other lane."""
        unit.rank = Rank.FAULT
        urgent, patient = self._lanes[Rank.FAULT], self._lanes[Rank.READAHEAD]
        for entry in [entry for entry in patient.alone if entry[2].owner is unit]:
            patient.alone.remove(entry)
            urgent.alone.append(entry)
        for key, span, part in patient.ranges.take(lambda part: part.owner is unit):
            urgent.ranges.add(key, span, part)
        for read in [read for read in patient.indexes if self._is_awaited(read, unit)]:
            patient.indexes.remove(read)
            urgent.indexes.append(read)

    def _is_awaited(self, read: tuple[Source, IndexRead], unit: Wanted) -> bool:
        return any(part.owner is unit for part in self._waiting[read])

    def pop(self, rank: Rank, connections: int) -> _Next:
        """Return what is to be read next with a rank; None when nothing waits.

        Parameters
        ----------
        rank : Rank
            Which.
        connections : int
            How many reads share what waits.
        """
        lane = self._lanes[rank]
        if lane.indexes:
            return WantedIndex(*lane.indexes.popleft())
        if lane.alone:
            return WantedAlone(*lane.alone.popleft())
        if lane.ranges:
            share_nbytes = lane.ranges.nbytes // connections
            return lane.ranges.pop(max(_MIN_NBYTES[rank], min(_MAX_NBYTES, share_nbytes)))
        if lane.foreseen:
            return WantedIndex(*lane.foreseen.popleft())
        return None
