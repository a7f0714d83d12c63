"""Chunks on their way from remote stores: many at once, neighbours together.

Everything here happens on the event loop on which asynchronous stores are read, in
one thread: so there are no locks, and nothing may block.  A unit is asked for with
`Fetcher.submit`, from any thread.  Its chunks are found, for which shard indexes may have to
be read first, each once however many chunks wait for it; then they queue as ranges of
objects, and whatever waits at the same time and lies side by side is read at once.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, TypeAlias

from lazyarr.errors import FormatError, StoreError
from lazyarr.loading.finding import IndexRead, Place
from lazyarr.loading.lanes import Done, Lane, Part, Rank, Wanted
from lazyarr.loading.reading import Reader
from lazyarr.store import UNCHANGED, event_loop
from lazyarr.units import Span

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from lazyarr.format import ShardIndex
    from lazyarr.loading.source import Fetched, Source

__all__ = ["Fetcher", "Rank"]

# A read is worth its round trip from the one on; with more than the other at once what
# has come would wait for the rest.  In between, all connections get their share.
_MIN_NBYTES = 1 << 20
_MAX_NBYTES = 8 << 20
_GONE = "the object is gone, though its index was read from it"

_Job: TypeAlias = "Coroutine[Any, Any, None]"


class Fetcher:
    """Fetches the encoded chunks of units over the network.

    Parameters
    ----------
    connections : int
        How many requests may be under way at once.
    failed : callable
        Told of an exception that must not happen; must not return before it has seen to it
        that nobody waits.
    on_retry : callable, optional
        Called when a read of several chunks has failed and each is read alone.
    backlog_nbytes : int
        How much may have come and not been released yet before no more is asked for.

    Notes
    -----
    `submit`, `hasten`, `prepare`, `flush`, `release` and `resize` may be called from any
    thread and never wait; all else is done on the event loop.
    """

    def __init__(
        self,
        connections: int,
        *,
        failed: Callable[[BaseException], None],
        on_retry: Callable[[], None] = lambda: None,
        backlog_nbytes: int = 256 << 20,
    ) -> None:
        self._backlog_nbytes = backlog_nbytes
        self._connections = connections
        self._failed = failed
        self._on_retry = on_retry
        self._inbox: deque[Wanted] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reader = Reader()
        self._opening: dict[Source, list[Wanted]] = {}
        self._lanes = {rank: Lane() for rank in Rank}
        self._patient: dict[tuple[Source, int], Wanted] = {}
        self._waiting: dict[tuple[Source, IndexRead], list[Part]] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._lock = threading.Lock()
        self._handed_nbytes = 0
        self._released_nbytes = 0
        self._is_held_back = False

    def __repr__(self) -> str:
        return f"<Fetcher: {len(self._under_way)} of {self._connections} reads under way>"

    # --- from any thread --------------------------------------------------------------

    def submit(self, source: Source, unit: int, done: Done, *, rank: Rank) -> None:
        """Queue a unit, to be fetched after the next `flush`.

        Parameters
        ----------
        source : Source
            Its array.
        unit : int
            Which one.
        done : callable
            Told of the chunks, or of the error, on the event loop: it must not wait.
            `release` must be called when what it was given is not needed any more.
        rank : Rank
            Whose turn is first.
        """
        self._inbox.append(Wanted(source, unit, rank, done))

    def hasten(self, source: Source, unit: int) -> None:
        """Let a unit that is on its way be urgent."""
        self._call(lambda: self._hasten(source, unit))

    def prepare(self, source: Source) -> None:
        """Open a source's store, which may take longer than its first fault should wait."""
        self._call(lambda: self._begin_to_open(source))

    def flush(self) -> None:
        """Begin to fetch what was submitted: what comes at once is read at once."""
        if self._inbox:
            self._call(self._take_in)

    def release(self, fetched: Fetched) -> None:
        """Take down that chunks are decoded, which may let others be fetched."""
        with self._lock:
            self._released_nbytes += _nbytes(fetched)
        if self._is_held_back:
            self._call(self._pump)

    def resize(self, connections: int) -> None:
        """Have another number of requests under way at once."""
        self._connections = connections
        if self._loop is not None:
            self._call(self._pump)

    def close(self) -> None:
        """Let the threads go when they have done what they do; nothing may be under way."""
        self._reader.close()

    def _call(self, function: Callable[[], None]) -> None:
        """Have a function called on the loop, which is found first, in a thread.

        What is imported for that takes longer than a fault may wait.
        """
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._run, function)
            return
        self._reader.submit(lambda: self._begin(function))

    def _begin(self, function: Callable[[], None]) -> None:
        try:
            self._loop = event_loop()
        except BaseException as error:  # noqa: BLE001 - nobody else would hear of it
            self._failed(error)
            return
        self._call(function)

    def _run(self, function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - nobody else would hear of it
            self._failed(error)

    # --- on the loop ----------------------------------------------------------------------

    def _take_in(self) -> None:
        while self._inbox:
            unit = self._inbox.popleft()
            if unit.rank is Rank.READAHEAD:
                self._patient[unit.source, unit.unit] = unit
            waiting = self._opening.get(unit.source)
            if waiting is not None:
                waiting.append(unit)
            elif unit.source.is_open:
                self._split(unit)
            else:
                self._begin_to_open(unit.source)
                self._opening[unit.source].append(unit)
        self._pump()

    def _hasten(self, source: Source, unit: int) -> None:
        """Move what waits for a unit to the other lane."""
        self._take_in()
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
        self._pump()

    def _is_awaited(self, read: tuple[Source, IndexRead], unit: Wanted) -> bool:
        return any(part.owner is unit for part in self._waiting[read])

    def _begin_to_open(self, source: Source) -> None:
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
        self._pump()

    def _split(self, unit: Wanted) -> None:
        """Look for the chunks of a unit."""
        chunks = unit.source.chunks_of(unit.unit)
        unit.chunks = [None] * len(chunks)
        unit.n_missing = len(chunks)
        for position, chunk in enumerate(chunks):
            self._look_for(Part(unit, position, chunk))

    def _look_for(
        self, part: Part, arrived: IndexRead | None = None, index: ShardIndex | None = None
    ) -> None:
        """Queue what is to be read next on the way to a chunk."""
        source = part.owner.source
        lane = self._lanes[part.owner.rank]
        place = source.finder.find(part.chunk, arrived, index)
        if place is None:
            self._deliver(part, None)
        elif isinstance(place, IndexRead):
            waiting = self._waiting.setdefault((source, place), [])
            if not waiting:
                lane.indexes.append((source, place))
            waiting.append(part)
        else:
            self._queue(part, place)

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

    def _pump(self) -> None:
        """Begin as many reads as there are connections for."""
        while len(self._under_way) < self._connections:
            if self._must_hold_back():
                return
            job = self._next()
            if job is None:
                return
            self._spawn(job)

    def _must_hold_back(self) -> bool:
        """Return whether too much has come; `release` has a look at it when it has said so."""
        # Written down before looking: what is released after that calls.
        self._is_held_back = True
        self._is_held_back = self._handed_nbytes - self._released_nbytes > self._backlog_nbytes
        return self._is_held_back

    def _next(self) -> _Job | None:
        for rank, lane in self._lanes.items():
            if rank is Rank.READAHEAD and not self._has_spare():
                break
            if lane.indexes:
                return self._read_index(*lane.indexes.popleft())
            if lane.alone:
                return self._read_alone(*lane.alone.popleft())
            if lane.ranges:
                share_nbytes = lane.ranges.nbytes // self._connections
                group = lane.ranges.pop(max(_MIN_NBYTES, min(_MAX_NBYTES, share_nbytes)))
                return self._read_together(*group.key, group.span, group.items)
        return None

    def _has_spare(self) -> bool:
        """Return whether something that nobody waits for may be read.

        If such reads stall, a quarter of the connections is left to who waits.
        """
        return len(self._under_way) < max(1, self._connections * 3 // 4)

    def _spawn(self, job: _Job) -> None:
        task = event_loop().create_task(job)
        self._under_way.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._under_way.remove(task)
        error = task.exception()
        if error is not None:
            self._failed(error)
        self._run(self._pump)

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
        try:
            answer = await self._reader.fetch(source, Place(key, *span), retry=len(items) == 1)
            if answer is None:
                raise FormatError(_GONE)
        except Exception as error:  # noqa: BLE001 - whoever waits must be told
            self._fail_together(items, error)
            return
        source.count_fetched(len(answer.data))
        view = memoryview(answer.data)
        chunks = []
        for place, part in items:
            chunk = view[place.start - span.start : place.stop - span.start]
            self._deliver(part, chunk)
            chunks.append((Place(key, *place), chunk))
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

    def _fail_together(self, items: tuple[tuple[Span, Part], ...], error: Exception) -> None:
        """Read each part alone, when a read of several has failed."""
        is_alone = len(items) > 1 and isinstance(error, StoreError)
        if is_alone:
            self._on_retry()
        for _, part in items:
            part.is_alone = is_alone
            if is_alone:
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
        self._handed_nbytes += _nbytes(fetched)
        unit.done(fetched)


def _named(source: Source, chunk: tuple[int, ...], error: BaseException) -> BaseException:
    """Return the error that says which chunk can not be had; a bug is shown as it is."""
    if not isinstance(error, FormatError | StoreError):
        return error
    named = source.chunk_error(chunk, error)
    named.__cause__ = error
    return named


def _nbytes(fetched: Fetched) -> int:
    return sum(len(data) for data in fetched if data is not None)
