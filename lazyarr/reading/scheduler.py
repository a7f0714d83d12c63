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
from lazyarr.reading.handout import Handout
from lazyarr.reading.locator import IndexRead, ObjectRange
from lazyarr.reading.read_queue import Part, Urgency, Wanted
from lazyarr.reading.read_queues import Queues, WantedAlone, WantedIndex
from lazyarr.store import UNCHANGED, event_loop
from lazyarr.units import Span

if TYPE_CHECKING:
    import asyncio
    from collections import deque
    from collections.abc import Callable, Coroutine

    from lazyarr.layout import ShardIndex
    from lazyarr.reading.read_queue import Backlog
    from lazyarr.reading.store_reads import StoreReads
    from lazyarr.reading.unit_reader import UnitReader

__all__ = ["Dispatcher"]

_Job: TypeAlias = "Coroutine[Any, Any, None]"


class Dispatcher:
    """Decides which read is begun when a connection is free, and hands out what was read.

    Parameters
    ----------
    reads : StoreReads
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
        reads: StoreReads,
        backlog: Backlog,
        connections: int,
        *,
        failed: Callable[[BaseException], None],
        on_retry: Callable[[], None],
    ) -> None:
        self.connections = connections
        self._reads = reads
        self._backlog = backlog
        self._failed = failed
        self._on_retry = on_retry
        self._opening: dict[UnitReader, list[Wanted]] = {}
        self._queues = Queues(deliver=self._deliver, fail=self._fail)
        self._patient: dict[tuple[UnitReader, int], Wanted] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"{len(self._under_way)} of {self.connections} reads under way"

    def take_in(self, inbox: deque[Wanted]) -> None:
        """Look for the chunks of units, and begin to fetch."""
        while inbox:
            unit = inbox.popleft()
            if unit.urgency is Urgency.READAHEAD:
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

    def hasten(self, source: UnitReader, unit: int) -> None:
        """Move what waits for a unit to the urgent queue."""
        found = self._patient.pop((source, unit), None)
        if found is not None:
            self._queues.hasten(found)
            self.pump()

    def open(self, source: UnitReader) -> None:
        """Begin to open a source's store, unless it is open."""
        if not source.is_open and source not in self._opening:
            self._opening[source] = []
            self._spawn(self._open(source))

    async def _open(self, source: UnitReader) -> None:
        """Open a source's store, in a thread; then go on with the units that wait for it."""
        error: BaseException | None = None
        try:
            await self._reads.open(source)
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
            self._queues.look_for(Part(unit, position, chunk))
        if unit.urgency is Urgency.READAHEAD:
            self._queues.foresee(unit.source, chunks[0])

    def pump(self) -> None:
        """Begin as many reads as there are connections for."""
        while len(self._under_way) < self.connections:
            if self._backlog.hold_back_if_full():
                return
            job = self._next()
            if job is None:
                return
            self._spawn(job)

    def _next(self) -> _Job | None:
        for urgency in Urgency:
            if urgency is Urgency.READAHEAD and not self._has_spare():
                break
            wanted = self._queues.pop(urgency, self.connections)
            if isinstance(wanted, WantedIndex):
                return self._read_index(*wanted)
            if isinstance(wanted, WantedAlone):
                return self._read_alone(*wanted)
            if wanted is not None:
                return self._read_together(*wanted.key, wanted.span, wanted.items)
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

    async def _read_index(self, source: UnitReader, read: IndexRead) -> None:
        """Read a shard's index; then look further for the chunks that wait for it."""
        index: ShardIndex | None = None
        error: BaseException | None = None
        try:
            answer = await self._reads.fetch(source, source.finder.index_place(read))
            data, total = answer[:2] if answer is not None else (None, None)
            index = source.finder.keep(read, data, total)
        except Exception as failure:  # noqa: BLE001 - whoever waits must be told
            error = failure
        for part in self._queues.end_waiting(source, read):
            if error is None:
                self._queues.look_for(part, read, index)
            else:
                self._fail(part, error)

    async def _read_alone(self, source: UnitReader, place: ObjectRange, part: Part) -> None:
        """Read a whole object, or a chunk that has failed together with others."""
        try:
            kept = (
                (await self._reads.read_disk_cache(source, [place]))[0]
                if place.stop is None
                else None
            )
            unless = kept.version if kept is not None else None
            answer = await self._reads.fetch(source, place, unless=unless)
            if answer is None and place.stop is not None:
                raise source.stored.gone()
        except Exception as error:  # noqa: BLE001 - whoever waits must be told
            self._fail(part, error)
            return
        if answer is UNCHANGED and kept is not None:
            self._deliver(part, kept.data)
        elif answer is None:
            self._deliver(part, None)
        else:
            source.count_fetched(answer.fetched_nbytes)
            self._deliver(part, memoryview(answer.data))
            await self._reads.write_disk_cache(
                source, [(place, memoryview(answer.data))], answer.version
            )

    async def _read_together(
        self, source: UnitReader, key: str, span: Span, items: tuple[tuple[Span, Part], ...]
    ) -> None:
        """Read what lies side by side; each part alone if that fails: one may be to blame."""
        may_be_kept = source.cache is not None and source.cache.is_known(key)
        if may_be_kept and not all(part.is_not_cached for _, part in items):
            await self._look_up(source, key, items)
            return
        handout = Handout(span, items, self._deliver, self._failed)
        try:
            answer = await self._reads.fetch(
                source, ObjectRange(key, *span), retry=len(items) == 1, arrived=handout.hand_out
            )
            if answer is None:
                raise source.stored.gone()
        except Exception as error:  # noqa: BLE001 - whoever waits must be told
            self._fail_together(handout.waiting(), error, was_alone=len(items) == 1)
            return
        source.count_fetched(answer.fetched_nbytes)
        view = memoryview(answer.data)
        handout.hand_out(view)
        chunks = [(ObjectRange(key, *place), handout.cut(view, place)) for place, _ in items]
        await self._reads.write_disk_cache(source, chunks, answer.version)

    async def _look_up(
        self, source: UnitReader, key: str, items: tuple[tuple[Span, Part], ...]
    ) -> None:
        """Take what was kept from the disk; queue the rest again."""
        kept = await self._reads.read_disk_cache(
            source, [ObjectRange(key, *place) for place, _ in items]
        )
        for (place, part), found in zip(items, kept, strict=True):
            part.is_not_cached = True
            if found is not None:
                self._deliver(part, found.data)
            else:
                self._queues.add(part, ObjectRange(key, *place))

    # --- the end -------------------------------------------------------------------------

    def _fail_together(self, parts: list[Part], error: Exception, *, was_alone: bool) -> None:
        """Read each part alone, when a read of several has failed; some may have come."""
        is_tried_again = not was_alone and isinstance(error, StoreError)
        if is_tried_again:
            self._on_retry()
        for part in parts:
            part.must_read_alone = is_tried_again
            if is_tried_again:
                self._queues.look_for(part)
            else:
                self._fail(part, error)

    def _fail(self, part: Part, error: BaseException) -> None:
        """Look for a chunk once more when bytes were wrong: a bad transfer heals; else give up."""
        source = part.owner.source
        if isinstance(error, FormatError) and not part.is_retry:
            part.is_retry = part.is_not_cached = True
            source.stored.distrust(part.chunk)
            self._queues.look_for(part)
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


def _named(source: UnitReader, chunk: tuple[int, ...], error: BaseException) -> BaseException:
    """Return the error that says which chunk cannot be had; a bug is shown as it is."""
    if not isinstance(error, FormatError | StoreError):
        return error
    named = source.stored.chunk_error(chunk, error)
    named.__cause__ = error
    return named
