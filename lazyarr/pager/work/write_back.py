"""Writes dirty units to the store: copies, encodes, puts and syncs, outside of the lock.

The machine says what is written (`WriteBack`) and hears how it went (`CopyBegan`, `Copied`,
`WrittenBack`).  Of one region one batch is encoded at a time, while another one is put.  The steps
of a batch:

1. A portion of its units is protected in every client.
2. The worker's idle threads copy these units and encode the copies, one after the other.  Writers
   of a unit wait until it is copied.  Steps 1 and 2 go on until the batch is encoded.
3. Where pages were missing nothing of the object is put, for they were copied as zeros.
4. Threads that do nothing else put the objects, for the disk or the network keeps them waiting.
5. When all are there the store is synced, and the machine is told.

A batch is so many units that their bytes and what they are encoded to take about 64 MiB.  What
lies in one object is never divided: of a larger shard the bytes are copied in portions, and what
they are encoded to is kept until the shard is put.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from lazyarr.errors import ChunkError, LazyarrError, PagerError, StoreError
from lazyarr.pager.log import report
from lazyarr.plan import messages as m
from lazyarr.plan.selection import merge_spans
from lazyarr.shortage import describe_shortage, lacks_descriptors
from lazyarr.units import Span
from lazyarr.values import Struct

if TYPE_CHECKING:
    from lazyarr.layout.geometry import Geometry
    from lazyarr.pager.memory.clients import Region
    from lazyarr.pager.memory.committing import Chunks, Committing
    from lazyarr.pager.work.core import Core
    from lazyarr.pager.work.loads import Loads
    from lazyarr.reading.workspace import Workspace

__all__ = ["WriteBacks"]

# Bytes and encoded bytes together are up to twice as much.
_BATCH_NBYTES = 32 << 20
# So much is protected at a time.  Who writes to it waits for the units in front to be encoded.
_PORTION_NBYTES = 16 << 20
# Of the memory limit: what batches take counts, and what is clean would have to make room for it.
_BATCH_SHARE = 16
# A step of the machine takes as long as its units are many, and others wait for the lock.
_UNITS_PER_STEP = 256
# So many batches are under way at once: while one waits for the disk another is encoded.
_MAX_BATCHES = 2
# So many objects are put at once, of all batches.
_MAX_PUTS = 8
# A thread that puts objects ends when there has been nothing to put for so long.
_IDLE_SECONDS = 10.0
# How long to go on without descriptors, which says nothing of the store.
_SHORT_SECONDS = 10.0
_PAUSE_SECONDS = 0.05


class _Group(Struct):
    """Units whose chunks lie in the same objects, and what has become of them.

    Attributes
    ----------
    units : tuple of int
        The units.
    keys : tuple of str
        The shards among their objects.
    chunks : dict
        Their chunks, encoded.
    failure : m.Failure or None
        Why they cannot be written.
    nbytes : int
        How many bytes of chunks were put.
    """

    units: tuple[int, ...]
    keys: tuple[str, ...]
    chunks: Chunks
    failure: m.Failure | None = None
    nbytes: int = 0


class _Batch(Struct):
    """Groups of one region that are written together.

    Attributes
    ----------
    region : int
        The region's number.
    groups : list of _Group
        What is written.
    n_to_put : int
        How many of them are not put yet.  Whoever puts the last one syncs.
    scratch_nbytes : int
        How much memory the machine has been told of.
    """

    region: int
    groups: list[_Group]
    n_to_put: int = 0
    scratch_nbytes: int = 0

    @property
    def encoded_nbytes(self) -> int:
        """How many bytes the chunks have that are encoded and not put."""
        return sum(
            len(data) for group in self.groups for data in group.chunks.values() if data is not None
        )


class _Queue:
    """What is to be written of one region, and whether some of it is being encoded."""

    def __init__(self) -> None:
        self.units: list[int] = []
        self.groups: deque[tuple[int, ...]] = deque()
        self.committing: Committing | None = None
        self.is_busy = False


class WriteBacks:
    """Carries out `WriteBack`, and gives the machine the events by which it ends.

    Parameters
    ----------
    core : Core
        The state machine, and the clients and regions that it decides about.
    loads : Loads
        Its threads copy and encode.  Its loads do not read from shards that are being replaced.

    Attributes
    ----------
    failed : callable
        Is given an error that is a mistake of the pager's own, in a thread that puts objects.
    """

    def __init__(self, core: Core, loads: Loads) -> None:
        self._core = core
        self._loads = loads
        self._queues: dict[int, _Queue] = {}
        self._n_batches = 0
        self._puts = _Putters()
        self.failed: Callable[[BaseException], None] = _raise

    def __repr__(self) -> str:
        return f"<WriteBacks: {len(self._queues)} regions, {self._n_batches} batches under way>"

    # --- beginning: with the lock -------------------------------------------------------

    def start(self, command: m.WriteBack) -> None:
        """Take on units that are to be written; the lock is held."""
        queued = self._queues.setdefault(command.region, _Queue())
        queued.units += command.units
        self._start_batches()

    def forget(self, region: int) -> None:
        """Let go of the store of a region that is not there any more; the lock is held."""
        queued = self._queues.pop(region, None)
        if queued is not None and queued.committing is not None:
            # Not under the lock: to close descriptors may take its time.
            close = queued.committing.close
            self._loads.threads.add(lambda _: close(), urgent=False)

    def close(self) -> None:
        """Let the threads end that put objects; nothing may be under way."""
        self._puts.close()

    def _start_batches(self) -> None:
        """Start batches of regions of which none is under way, as many as there may be."""
        for region, queued in self._queues.items():
            if self._n_batches >= _MAX_BATCHES:
                return
            if not queued.is_busy and (queued.units or queued.groups):
                queued.is_busy = True
                self._n_batches += 1
                # Urgent: a client waits for a flush, or writers wait for memory.
                self._loads.threads.add(partial(self._write, region, queued), urgent=True)

    # --- copying and encoding: in the worker's threads, without the lock -------------------

    def _write(self, region: int, queued: _Queue, workspace: Workspace) -> None:
        """Copy and encode a batch, and have it put."""
        with self._core.lock:
            units, queued.units = queued.units, []
        batch = _Batch(region, [])
        try:
            if queued.committing is None:
                queued.committing = self._open(region)
            if units:
                queued.groups.extend(queued.committing.group(units))
        except Exception as error:  # noqa: BLE001 - each unit must come to an event
            groups = [tuple(units), *queued.groups]
            queued.groups.clear()
            failure = self._failure(region, (), error)
            batch.groups = [_Group(each, (), {}, failure) for each in groups if each]
            self._end(batch, queued)
            return
        self._fill(batch, queued.groups)
        self._encode(batch, queued.committing, workspace)
        self._put(batch, queued)

    def _open(self, region: int) -> Committing:
        """Open the store of a region to write to it."""
        open_committing = self._core.regions[region].open_committing
        if open_committing is None:
            raise PagerError("the memory of the array is not written back")
        return self._persevere(open_committing)

    def _persevere(self, act: Callable[[], Committing]) -> Committing:
        """Act, again for a while where there are no descriptors for that."""
        deadline = time.monotonic() + _SHORT_SECONDS
        while True:
            try:
                return act()
            except Exception as error:
                if not lacks_descriptors(error) or time.monotonic() > deadline:
                    raise
            self._loads.loader.spare_descriptors()
            time.sleep(_PAUSE_SECONDS)

    def _fill(self, batch: _Batch, groups: deque[tuple[int, ...]]) -> None:
        """Move groups to a batch: one, and more as long as they are not too much."""
        source = self._core.regions[batch.region].source
        geometry = self._geometry(batch.region)
        nbytes = 0
        while groups:
            nbytes += sum(geometry.unit_bytes(unit).size for unit in groups[0])
            if batch.groups and nbytes > self._batch_nbytes():
                return
            units = groups.popleft()
            keys = {key for unit in units for key in source.shards_of(unit)}
            batch.groups.append(_Group(units, tuple(keys), {}))
            # A unit that has killed workers while it was encoded fails once.
            doomed = [unit for unit in units if (batch.region, unit) in self._core.doomed]
            for unit in doomed:
                self._core.doomed.discard((batch.region, unit))
                error = PagerError("the process that encoded it died, repeatedly")
                batch.groups[-1].failure = self._failure(batch.region, (unit,), error)

    def _batch_nbytes(self) -> int:
        """Return how many bytes of units a batch may have, if they lie in several objects."""
        return min(_BATCH_NBYTES, self._core.machine.limit_nbytes // _BATCH_SHARE)

    def _geometry(self, region: int) -> Geometry:
        state = self._core.machine.region(region)
        assert state is not None
        return state.geometry

    def _encode(self, batch: _Batch, committing: Committing, workspace: Workspace) -> None:
        """Copy the units of a batch and encode the copies, portion by portion."""
        geometry = self._geometry(batch.region)
        owners = {
            unit: group for group in batch.groups if group.failure is None for unit in group.units
        }
        sizes = {unit: geometry.unit_bytes(unit).size for unit in owners}
        for portion in _portions(owners, sizes, min(self._batch_nbytes(), _PORTION_NBYTES)):
            wanted = [unit for unit in portion if owners[unit].failure is None]
            # About as much as they are encoded to, and what was encoded before.
            nbytes = sum(sizes[unit] for unit in wanted)
            self._take_scratch(batch, nbytes + batch.encoded_nbytes)
            encode = partial(self._encode_one, batch.region, wanted, owners, committing)
            try:
                with self._protected(batch.region, wanted):
                    self._loads.share(len(wanted), encode, workspace)
            except Exception as error:  # noqa: BLE001 - each unit must come to an event
                failure = self._failure(batch.region, wanted, error)
                for unit in wanted:
                    owners[unit].failure = owners[unit].failure or failure
        self._check_copies(batch)
        growth = workspace.take_growth()
        if growth:
            self._core.handle([m.ScratchGrew(growth)])

    @contextmanager
    def _protected(self, region: int, units: Sequence[int]) -> Iterator[None]:
        """Keep every client from writing to units until each is copied (`Copied`).

        Raises
        ------
        PagerError
            A client cannot be kept from that.
        """
        core = self._core
        with core.lock:
            core.step([m.CopyBegan(region, tuple(units))])
            state = core.machine.region(region)
            assert state is not None
            geometry, found = state.geometry, core.regions[region]
            # A client that attaches from now on maps pages that are protected.
            clients = [
                (core.clients[number], address)
                for number, address in state.addresses.items()
                if number in core.clients
            ]
            # As if they were loads: no descriptor of these clients is closed meanwhile.
            for client, _ in clients:
                core.begin_load(client.number)
        try:
            spans = [geometry.pages_of_bytes(geometry.unit_bytes(unit)) for unit in units]
            for pages in merge_spans(spans):
                for client, address in clients:
                    start = address + pages.start * geometry.page_nbytes
                    nbytes = pages.size * geometry.page_nbytes
                    if not core.protect(client.number, found.kind, start, nbytes):
                        # What it writes after the copy would be lost; when it is gone, not.
                        raise PagerError(f"process {client.pid} could not be kept from writing")
            yield
        finally:
            with core.lock:
                for client, _ in clients:
                    core.end_loads(client.number, 1)

    def _encode_one(
        self,
        region: int,
        units: Sequence[int],
        owners: Mapping[int, _Group],
        committing: Committing,
        part: int,
        workspace: Workspace,
    ) -> None:
        """Copy and encode one of the units of a portion."""
        unit = units[part]
        group = owners[unit]
        self._core.inflight.begin(region, unit)
        try:
            data = self._copy(region, unit, workspace)
            # Several threads may be at units of one group: to update a dictionary is one step.
            group.chunks.update(committing.encode(unit, data))
        except Exception as error:  # noqa: BLE001 - each unit must come to an event
            group.failure = group.failure or self._failure(region, (unit,), error)
        finally:
            self._core.inflight.end()

    def _copy(self, region: int, unit: int, workspace: Workspace) -> memoryview:
        """Copy a unit that is protected to memory of this process, and let its writers go on.

        Raises
        ------
        OSError, PagerError
            When that cannot be done; the machine is told by `WrittenBack`.
        """
        core = self._core
        geometry, found = self._geometry(region), core.regions[region]
        span = geometry.unit_bytes(unit)
        # One unit at a time, just before it is encoded: it is in the processor's cache then, and
        # threads that wait to write to it do not wait for others.
        workspace.unit.grow(span.size)
        view = workspace.unit.view[: span.size]
        _read(found, span, view)
        core.handle([m.Copied(region, (unit,))])
        return view

    def _check_copies(self, batch: _Batch) -> None:
        """Let those fail of which pages were not in memory when they were copied."""
        # Such pages were read as zeros, and these would be written.  Asked for after the reads: a
        # hole that is made before the read is there still, or else a load has filled it, which
        # the machine knows of.
        core, region = self._core, batch.region
        owners = {
            unit: group for group in batch.groups if group.failure is None for unit in group.units
        }
        units, geometry = sorted(owners), self._geometry(region)
        spans = [geometry.pages_of_bytes(geometry.unit_bytes(unit)) for unit in units]
        gone = [units[number] for number in core.regions[region].lacking(spans)]
        with core.lock:
            gone += [unit for unit in units if not core.machine.is_being_written(region, unit)]
        if gone:
            error = PagerError("pages that were written to are not in memory any more")
            failure = self._failure(region, gone, error)
            for unit in gone:
                owners[unit].failure = failure

    def _take_scratch(self, batch: _Batch, nbytes: int) -> None:
        """Let the memory of a batch count towards the limit; with less than before, less."""
        grown, batch.scratch_nbytes = nbytes - batch.scratch_nbytes, nbytes
        if grown:
            self._core.handle([m.ScratchGrew(grown)])

    # --- putting: in threads of their own -------------------------------------------------

    def _put(self, batch: _Batch, queued: _Queue) -> None:
        """Have the objects of a batch put; when the last one is, the batch ends."""
        assert queued.committing is not None
        to_put = [group for group in batch.groups if group.failure is None]
        if not to_put:
            self._end(batch, queued)
            return
        batch.n_to_put = len(to_put)
        # The copies are gone; what they were encoded to is kept until it is put.
        self._take_scratch(batch, batch.encoded_nbytes)
        with self._core.lock:
            for group in to_put:
                put = partial(self._put_one, batch, group, queued.committing)
                # At once, or when the loads have ended that read from these shards.
                begin = partial(self._puts.add, partial(self._guard, put))
                self._loads.replacements.begin(batch.region, group.keys, begin)
            # The next batch is encoded meanwhile: else the processors would wait for the disk.
            queued.is_busy = False
            self._start_batches()

    def _guard(self, act: Callable[[], None]) -> None:
        """Act, in a thread that puts objects; an error that nobody expects ends the worker."""
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - whoever waits would wait for ever
            self.failed(error)

    def _put_one(self, batch: _Batch, group: _Group, committing: Committing) -> None:
        """Put the objects of a group, and let loads read them."""
        try:
            committing.put(group.chunks)
            group.nbytes = sum(len(data) for data in group.chunks.values() if data is not None)
        except Exception as error:  # noqa: BLE001 - each unit must come to an event
            group.failure = self._failure(batch.region, group.units, error)
        group.chunks.clear()
        source = self._core.regions[batch.region].source
        # Also after a failure: what is in the store is not known then.
        source.forget(group.units)
        with self._core.lock:
            self._loads.replacements.end(batch.region, group.keys)
            self._loads.start_queued()
            self._core.step(())
            batch.n_to_put -= 1
            is_last = not batch.n_to_put
        if is_last:
            self._sync(batch, committing)
            # By a thread of the worker, which ends with it when a step goes wrong.
            self._loads.threads.add(lambda _: self._end(batch), urgent=True)

    def _sync(self, batch: _Batch, committing: Committing) -> None:
        """Return when what was put is durable, or take down that it is not."""
        try:
            committing.sync()
        except Exception as error:  # noqa: BLE001 - each unit must come to an event
            self._fail(batch, self._failure(batch.region, (), error))

    def _fail(self, batch: _Batch, failure: m.Failure) -> None:
        """Take down why nothing of a batch is written."""
        for group in batch.groups:
            group.failure = group.failure or failure

    # --- the end ------------------------------------------------------------------------

    def _end(self, batch: _Batch, queued: _Queue | None = None) -> None:
        """Tell the machine what has become of the units of a batch, and start the next one.

        Of a batch of which nothing was put, `queued` is the queue that it was taken from.
        """
        self._take_scratch(batch, 0)
        for group in batch.groups:
            nbytes = group.nbytes if group.failure is None else 0
            for start in range(0, len(group.units), _UNITS_PER_STEP):
                some = group.units[start : start + _UNITS_PER_STEP]
                # The bytes are told of once.
                event = m.WrittenBack(batch.region, some, group.failure, 0 if start else nbytes)
                self._core.handle([event])
        with self._core.lock:
            self._n_batches -= 1
            if queued is not None:
                queued.is_busy = False
            self._start_batches()

    def _failure(self, region: int, units: Sequence[int], error: BaseException) -> m.Failure:
        """Return what a client is told of units that cannot be written."""
        label = self._core.regions[region].label
        if isinstance(error, ChunkError):
            names = ("url", "array", "chunk", "key", "byte_range", "reason")
            fields = {name: getattr(error, name) for name in names}
            return m.Failure(f"cannot write to {label}: {error.message}", fields)
        reason = (
            f"{error}" if isinstance(error, LazyarrError) else f"{type(error).__name__}: {error}"
        )
        if lacks_descriptors(error):
            reason = f"the pager lacks descriptors: {describe_shortage(error)}"
        elif not isinstance(error, LazyarrError | OSError | MemoryError):
            # Not one of lazyarr's own errors, so nobody expects it.
            report(f"unexpected {reason} while writing to {label}")
        fields = {"error": "StoreError", "reason": reason}
        if isinstance(error, StoreError):
            fields["key"] = error.key or ""
        what = f"unit {units[0]} of {label}" if len(units) == 1 else label
        return m.Failure(f"cannot write {what}: {reason}", fields)


class _Putters:
    """Threads that put objects; each ends when it has had nothing to do for a while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._n_idle = 0

    def __repr__(self) -> str:
        return f"<_Putters: {len(self._threads)} threads, {self._n_idle} idle>"

    def add(self, job: Callable[[], None]) -> None:
        """Have a job done; the job raises nothing."""
        with self._lock:
            self._jobs.put(job)
            if self._n_idle >= self._jobs.qsize() or len(self._threads) >= _MAX_PUTS:
                return
            thread = threading.Thread(target=self._work, name="pager-put", daemon=True)
            self._threads.add(thread)
        thread.start()

    def close(self) -> None:
        """Wait for the end of all jobs and threads."""
        with self._lock:
            threads = list(self._threads)
        for _ in threads:
            self._jobs.put(None)
        for thread in threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                self._n_idle += 1
            job, is_idle = None, False
            try:
                job = self._jobs.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                is_idle = True
            with self._lock:
                self._n_idle -= 1
                # One may have been added since, for this thread.
                if job is None and not (is_idle and self._jobs.qsize()):
                    self._threads.discard(threading.current_thread())
                    return
            if job is not None:
                job()


def _portions(
    units: Iterable[int], sizes: Mapping[int, int], most_nbytes: int
) -> Iterator[list[int]]:
    """Yield units in portions, each of which is protected at once."""
    portion: list[int] = []
    nbytes = 0
    for unit in units:
        nbytes += sizes[unit]
        if portion and (nbytes > most_nbytes or len(portion) == _UNITS_PER_STEP):
            yield portion
            portion, nbytes = [], sizes[unit]
        portion.append(unit)
    if portion:
        yield portion


def _read(region: Region, span: Span, view: memoryview) -> None:
    """Copy bytes of a region from its memory object."""
    done = 0
    while done < span.size:
        n_read = os.preadv(
            region.backing.memfd, [view[done:]], region.backing.offset + span.start + done
        )
        if not n_read:
            raise PagerError("the memory object of an array has become shorter")
        done += n_read


def _raise(error: BaseException) -> None:
    raise error
