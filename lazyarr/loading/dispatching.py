"""What is read next of remote stores.

Everything here happens on the event loop on which asynchronous stores are read, in one
thread: so there are no locks, and nothing may block.  The chunks of a unit are found, for which
shard indexes may have to be read first, each once however many chunks wait for it; then they
queue as ranges of objects, and whatever waits at the same time and lies side by side is
read at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from lazyarr.errors import FormatError, StoreError
from lazyarr.loading.finding import IndexRead, Place
from lazyarr.loading.handout import Handout
from lazyarr.loading.lanes import Lane, Part, Rank, Wanted
from lazyarr.store import UNCHANGED, event_loop
from lazyarr.units import Span

if TYPE_CHECKING:
    import asyncio
    from collections import deque
    from collections.abc import Callable, Coroutine

    from lazyarr.format import ShardIndex
    from lazyarr.loading.lanes import Backlog
    from lazyarr.loading.reading import Reader
    from lazyarr.loading.source import Source

__all__ = ["Dispatcher"]

# A read is worth its round trip from the one on; with more than the other at once some
# connections would be busy when the others are done.  In between, all get their share.
# What is read ahead will be wanted in its order, and what shares a link comes at the same time:
# the third chunk of the first read would be behind the first ones of all others.
_MIN_NBYTES = {Rank.FAULT: 2 << 20, Rank.REQUEST: 2 << 20, Rank.READAHEAD: 1 << 20}
_MAX_NBYTES = 8 << 20
_GONE = "the object is gone, though its index was read from it"

_Job: TypeAlias = "Coroutine[Any, Any, None]"


class Dispatcher:
    """Decides which read is begun when a connection is free, and hands out what was read.

    Parameters
    ----------
    reader : Reader
        Reads.
    backlog : Backlog
        What was handed out and is not decoded yet.
    connections : int
        How many requests may be under way at once.
    failed, on_retry : callable
        As of `Fetcher`.
    """

    def __init__(
        self,
        reader: Reader,
        backlog: Backlog,
        connections: int,
        *,
        failed: Callable[[BaseException], None],
        on_retry: Callable[[], None],
    ) -> None:
        self.connections = connections
        self._reader = reader
        self._backlog = backlog
        self._failed = failed
        self._on_retry = on_retry
        self._opening: dict[Source, list[Wanted]] = {}
        self._lanes = {rank: Lane() for rank in Rank}
        self._patient: dict[tuple[Source, int], Wanted] = {}
        self._waiting: dict[tuple[Source, IndexRead], list[Part]] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"{len(self._under_way)} of {self.connections} reads under way"

    def take_in(self, inbox: deque[Wanted]) -> None:
        """Look for the chunks of units, and begin to fetch."""
        while inbox:
            unit = inbox.popleft()
            if unit.rank is Rank.READAHEAD:
                self._patient[unit.source, unit.unit] = unit
            waiting = self._opening.get(unit.source)
            if waiting is not None:
                waiting.append(unit)
            elif unit.source.is_open:
                self._split(unit)
            else:
                self.open(unit.source)
                self._opening[unit.source].append(unit)
        self.pump()

    def hasten(self, source: Source, unit: int) -> None:
        """Move what waits for a unit to the other lane."""
        found = self._patient.pop((source, unit), None)
        if found is None:
            return
        found.rank = Rank.FAULT
        urgent, patient = self._lanes[Rank.FAULT], self._lanes[Rank.READAHEAD]
        for entry in [entry for entry in patient.alone if entry[2].owner is found]:
            patient.alone.remove(entry)
            urgent.alone.append(entry)
        for key, span, part in patient.ranges.take(lambda part: part.owner is found):
            urgent.ranges.add(key, span, part)
        for read in [read for read in patient.indexes if self._is_awaited(read, found)]:
            patient.indexes.remove(read)
            urgent.indexes.append(read)
        self.pump()

    def _is_awaited(self, read: tuple[Source, IndexRead], unit: Wanted) -> bool:
        return any(part.owner is unit for part in self._waiting[read])

    def open(self, source: Source) -> None:
        """Begin to open a source's store, unless it is open."""
        if not source.is_open and source not in self._opening:
            self._opening[source] = []
            self._spawn(self._open(source))

    async def _open(self, source: Source) -> None:
        """Open a source's store, in a thread; then go on with the units that wait for it."""
        error: BaseException | None = None
        try:
            await self._reader.open(source)
        except Exception as failure:  # noqa: BLE001 - whoever waits must be told
            error = failure
        for unit in self._opening.pop(source):
            if error is None:
                self._split(unit)
            else:
                self._patient.pop((source, unit.unit), None)
                unit.done(_named(source, source.chunks_of(unit.unit)[0], error))
        self.pump()

    def _split(self, unit: Wanted) -> None:
        """Look for the chunks of a unit."""
        chunks = unit.source.chunks_of(unit.unit)
        unit.chunks = [None] * len(chunks)
        unit.n_missing = len(chunks)
        for position, chunk in enumerate(chunks):
            self._look_for(Part(unit, position, chunk))
        if unit.rank is Rank.READAHEAD:
            self._foresee(unit.source, chunks[0])

    def _foresee(self, source: Source, chunk: tuple[int, ...]) -> None:
        """Queue the index that a reader will need after this shard's.

        Without it, all connections would be idle for a round trip at the end of each shard.
        """
        read = source.finder.foresee(chunk)
        if read is not None and (source, read) not in self._waiting:
            self._waiting[source, read] = []
            self._lanes[Rank.READAHEAD].foreseen.append((source, read))

    def _look_for(
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
            self._queue(part, place)

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

    def _queue(self, part: Part, place: Place) -> None:
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

    def pump(self) -> None:
        """Begin as many reads as there are connections for."""
        while len(self._under_way) < self.connections:
            if self._backlog.is_full():
                return
            job = self._next()
            if job is None:
                return
            self._spawn(job)

    def _next(self) -> _Job | None:
        for rank, lane in self._lanes.items():
            if rank is Rank.READAHEAD and not self._has_spare():
                break
            if lane.indexes:
                return self._read_index(*lane.indexes.popleft())
            if lane.alone:
                return self._read_alone(*lane.alone.popleft())
            if lane.ranges:
                share_nbytes = lane.ranges.nbytes // self.connections
                group = lane.ranges.pop(max(_MIN_NBYTES[rank], min(_MAX_NBYTES, share_nbytes)))
                return self._read_together(*group.key, group.span, group.items)
            if lane.foreseen:
                return self._read_index(*lane.foreseen.popleft())
        return None

    def _has_spare(self) -> bool:
        """Return whether something that nobody waits for may be read.

        If such reads stall, a quarter of the connections is left to who waits.
        """
        return len(self._under_way) < max(1, self.connections * 3 // 4)

    def _spawn(self, job: _Job) -> None:
        task = event_loop().create_task(job)
        self._under_way.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._under_way.remove(task)
        error = task.exception()
        try:
            if error is not None:
                raise error
            self.pump()
        except BaseException as failure:  # noqa: BLE001 - nobody else would hear of it
            self._failed(failure)

    async def _read_index(self, source: Source, read: IndexRead) -> None:
        """Read a shard's index; then look further for the chunks that wait for it."""
        index: ShardIndex | None = None
        error: BaseException | None = None
        try:
            answer = await self._reader.fetch(source, source.finder.index_place(read))
            data, total = answer[:2] if answer is not None else (None, None)
            index = source.finder.keep(read, data, total)
        except Exception as failure:  # noqa: BLE001 - whoever waits must be told
            error = failure
        for part in self._waiting.pop((source, read)):
            if error is None:
                self._look_for(part, read, index)
            else:
                self._fail(part, error)

    async def _read_alone(self, source: Source, place: Place, part: Part) -> None:
        """Read a whole object, or a chunk that has failed together with others."""
        try:
            kept = (await self._reader.recall(source, [place]))[0] if place.stop is None else None
            unless = kept.version if kept is not None else None
            answer = await self._reader.fetch(source, place, unless=unless)
            if answer is None and place.stop is not None:
                raise FormatError(_GONE)
        except Exception as error:  # noqa: BLE001 - whoever waits must be told
            self._fail(part, error)
            return
        if answer is UNCHANGED and kept is not None:
            self._deliver(part, kept.data)
        elif answer is None:
            self._deliver(part, None)
        else:
            source.count_fetched(len(answer.data))
            self._deliver(part, memoryview(answer.data))
            await self._reader.keep(source, [(place, memoryview(answer.data))], answer.version)

    async def _read_together(
        self, source: Source, key: str, span: Span, items: tuple[tuple[Span, Part], ...]
    ) -> None:
        """Read what lies side by side; each part alone if that fails: one may be to blame."""
        may_be_kept = source.cache is not None and source.cache.is_known(key)
        if may_be_kept and not all(part.is_looked_up for _, part in items):
            await self._look_up(source, key, items)
            return
        handout = Handout(span, items, self._deliver, self._failed)
        try:
            answer = await self._reader.fetch(
                source, Place(key, *span), retry=len(items) == 1, arrived=handout.hand_out
            )
            if answer is None:
                raise FormatError(_GONE)
        except Exception as error:  # noqa: BLE001 - whoever waits must be told
            self._fail_together(handout.waiting(), error, is_alone=len(items) == 1)
            return
        source.count_fetched(len(answer.data))
        view = memoryview(answer.data)
        handout.hand_out(view)
        chunks = [(Place(key, *place), handout.cut(view, place)) for place, _ in items]
        await self._reader.keep(source, chunks, answer.version)

    async def _look_up(
        self, source: Source, key: str, items: tuple[tuple[Span, Part], ...]
    ) -> None:
        """Take what was kept from the disk; queue the rest again."""
        kept = await self._reader.recall(source, [Place(key, *place) for place, _ in items])
        for (place, part), found in zip(items, kept, strict=True):
            part.is_looked_up = True
            if found is not None:
                self._deliver(part, found.data)
            else:
                self._queue(part, Place(key, *place))

    # --- the end -------------------------------------------------------------------------

    def _fail_together(self, parts: list[Part], error: Exception, *, is_alone: bool) -> None:
        """Read each part alone, when a read of several has failed; some may have come."""
        is_tried_again = not is_alone and isinstance(error, StoreError)
        if is_tried_again:
            self._on_retry()
        for part in parts:
            part.is_alone = is_tried_again
            if is_tried_again:
                self._look_for(part)
            else:
                self._fail(part, error)

    def _fail(self, part: Part, error: BaseException) -> None:
        """Look for a chunk once more when bytes were wrong: a bad transfer heals; else give up."""
        source = part.owner.source
        if isinstance(error, FormatError) and not part.is_second:
            part.is_second = part.is_looked_up = True
            source.distrust(part.chunk)
            self._look_for(part)
            return
        part.owner.error = part.owner.error or _named(source, part.chunk, error)
        self._settle(part.owner)

    def _deliver(self, part: Part, data: memoryview | None) -> None:
        part.owner.chunks[part.position] = data
        self._settle(part.owner)

    def _settle(self, unit: Wanted) -> None:
        """Hand a unit over when nothing of it is on its way any more."""
        unit.n_missing -= 1
        if unit.n_missing:
            return
        self._patient.pop((unit.source, unit.unit), None)
        if unit.error is not None:
            unit.done(unit.error)
            return
        fetched = tuple(unit.chunks)
        self._backlog.hand_over(fetched)
        unit.done(fetched)


def _named(source: Source, chunk: tuple[int, ...], error: BaseException) -> BaseException:
    """Return the error that says which chunk can not be had; a bug is shown as it is."""
    if not isinstance(error, FormatError | StoreError):
        return error
    named = source.chunk_error(chunk, error)
    named.__cause__ = error
    return named
