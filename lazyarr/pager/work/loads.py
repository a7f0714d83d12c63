"""Loads under way: threads of the worker or decoders read and decode units, outside of the lock."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from lazyarr.pager.work.decoders import Decoders, Order
from lazyarr.pager.work.loader import Loader, arrived
from lazyarr.pager.work.replacements import Replacements
from lazyarr.pager.work.shared_load import SharedLoad
from lazyarr.plan import messages as m
from lazyarr.reading.workspace import Workspace
from lazyarr.units import Span
from lazyarr.wire.jobs import News

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lazyarr.pager.work.core import Core
    from lazyarr.pager.work.leader_followers import Job, LeaderFollowers
    from lazyarr.pager.work.shared_load import Work
    from lazyarr.plan.machine import FastLoad
    from lazyarr.reading.fetcher import Fetcher
    from lazyarr.reading.read_queue import Urgency
    from lazyarr.reading.workspace import Fetched
    from lazyarr.wire.jobs import Result

__all__ = ["Loads"]


class Loads:
    """Starts loads, and gives the machine the events by which they end.

    Loads are started under the core's lock.  They run outside of it, and the event by which
    each ends is handled under it.

    Parameters
    ----------
    core : Core
        The state machine, and the clients and regions that it decides about.

    Attributes
    ----------
    threads : LeaderFollowers
        The worker's threads, which do the loads that no decoder does.
    decoders : Decoders
        The processes that decode beside the worker.
    replacements : Replacements
        Which shards loads may not read from now.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self.threads: LeaderFollowers
        self.make_fetcher: Callable[[], Fetcher]
        self._fetcher: Fetcher | None = None
        self.decoders = Decoders(core, refuse=self._load_here, on_result=self._on_result)
        self.loader = Loader(core)
        self.replacements = Replacements()
        self._queued: list[m.Load] = []
        # For each load on which no client waits, what makes it urgent.  A load that has ended, or
        # was made urgent, is not here any more.
        self._hasten: dict[tuple[int, int], Callable[[], None]] = {}

    def __repr__(self) -> str:
        return f"<Loads: {len(self._queued)} queued, {self.decoders!r}>"

    # --- remote stores ----------------------------------------------------------------

    @property
    def fetcher(self) -> Fetcher:
        """The fetcher, which reads from remote stores; made for the first of them."""
        # It has an event loop and threads, which a pager of local arrays never needs.
        if self._fetcher is None:
            self._fetcher = self.make_fetcher()
        return self._fetcher

    def resize_fetcher(self, connections: int) -> None:
        """Change how many requests to remote stores are under way at once."""
        if self._fetcher is not None:
            self._fetcher.resize(connections)

    def flush(self) -> None:
        """Start the requests to remote stores that were submitted."""
        if self._fetcher is not None:
            self._fetcher.flush()

    # --- beginning --------------------------------------------------------------------

    def start(self, command: m.Load) -> None:
        """Take on a load; `start_queued` must follow."""
        region = self._core.regions[command.region]
        if region.kind.writes_back:
            shards = region.source.shards_of(command.unit)
            again = partial(self.start, command)
            if not self.replacements.begin_load(command.region, command.unit, shards, again):
                return
        self._core.begin_load(command.client)
        # Queued, so that small neighbouring units become one job.
        if not region.is_remote:
            self._queued.append(command)
            return
        # A request over a network waits far longer than it computes.  So the event loop of the
        # fetcher waits for it, and a thread is taken only when there are bytes to decode.
        if not command.urgent:
            key = (command.region, command.unit)
            self._hasten[key] = partial(self.fetcher.hasten, region.source, command.unit)
        done = partial(self._fetched, command, time.perf_counter())
        self.fetcher.submit(region.source, command.unit, done, urgency=_urgency(command))

    def start_fast(self, fast: FastLoad) -> None:
        """Start a load that `FastPath.begin` has taken down."""
        # As a `Load` too: decoders, and whatever goes wrong, know loads only by this command.
        self._core.begin_load(fast.client)
        awaited = Span(fast.page, fast.page + 1)
        load = m.Load(fast.region, fast.unit, fast.client, urgent=True, awaited=awaited)
        order = Order(load, fast)
        if not self._load_elsewhere(order):
            self._load_here(order)

    def start_queued(self) -> None:
        """Give out the loads of the commands that were carried out last."""
        if not self._queued:
            return
        queued, self._queued = self._queued, []
        # A batch of small units stays in the worker.  A decoder takes one large unit at a time.
        for batch in self._batches(queued):
            if len(batch) > 1 or not self._load_elsewhere(Order(batch[0], None)):
                self._add_job(partial(self._load_batch, batch), batch)

    def _batches(self, commands: Sequence[m.Load]) -> Iterator[list[m.Load]]:
        """Divide loads into jobs, each large enough to be worth waking a thread for."""
        # Loads of one job differ in their unit alone: they are for one client, and of
        # one urgency.
        batch: list[m.Load] = []
        for command in commands:
            if batch and not (
                command[2:] == batch[0][2:]
                and command.region == batch[0].region
                and len(batch) < self._core.regions[command.region].n_units_per_job
            ):
                yield batch
                batch = []
            batch.append(command)
        if batch:
            yield batch

    def _add_job(self, job: Job, batch: Sequence[m.Load], *, is_promoted: bool = False) -> None:
        """Give a batch to the worker's threads; `is_promoted` if it was made urgent meanwhile."""
        is_urgent = batch[0].urgent or is_promoted
        if not is_urgent:
            hasten = partial(self.threads.promote, job)
            self._hasten.update({(command.region, command.unit): hasten for command in batch})
        self.threads.add(job, urgent=is_urgent)

    def promote(self, command: m.Promote) -> None:
        """Make a load urgent, because a client waits for it now."""
        # The load may be queued in this very step.
        self.start_queued()
        hasten = self._hasten.pop((command.region, command.unit), None)
        if hasten is not None:
            hasten()

    # --- in the worker's threads, outside of the lock -------------------------------------

    def _fetched(self, command: m.Load, begin: float, result: Fetched | BaseException) -> None:
        """Have a thread decode the chunks of a unit that were fetched, or end its load."""
        # Called on the fetcher's event loop.  Decoding there would hold up all other requests.
        if isinstance(result, BaseException):
            event = self.loader.failed(command, result)
            self.threads.add(lambda _: self._end_loads((command,), [event]), urgent=command.urgent)
            return
        self._core.measurements.add("fetch", time.perf_counter() - begin)
        news = self._measure_link(command, result)
        with self._core.lock:
            if news:
                self._core.step(news)
            # Not in `_hasten` any more: a client has come to wait while the chunks were fetched.
            # An urgent load never was there, and is urgent anyway.
            is_promoted = self._hasten.pop((command.region, command.unit), None) is None
            job = partial(self._load_fetched, command, result)
            self._add_job(job, (command,), is_promoted=is_promoted)

    def _measure_link(self, command: m.Load, fetched: Fetched) -> list[m.Event]:
        """Take in how large a unit was; return an event if more or less should be on its way."""
        link = self._core.regions[command.region].source.link
        state = self._core.machine.region(command.region)
        nbytes = sum(len(data) for data in fetched if data is not None)
        if nbytes:  # else all chunks are missing, which says nothing of the other units
            link.add_unit(nbytes)
        # An event for each unit would make a step of the machine for each, under the lock.
        if state is None or not link.differs(state.pipe_units, is_full=state.is_pipe_full):
            return []
        return [m.LinkMeasured(command.region, link.pipe_units, link.is_full)]

    def _load_fetched(self, command: m.Load, fetched: Fetched, workspace: Workspace) -> None:
        """Load a unit from its fetched chunks."""
        self._end_loads((command,), self._load((command,), workspace, fetched))
        # The fetcher stops while too many bytes wait to be decoded, and goes on by this.
        self.fetcher.release(fetched)

    def _load_batch(self, batch: Sequence[m.Load], workspace: Workspace) -> None:
        """Load the units of a job."""
        if batch[0].urgent:
            # A request is answered when all its units are resident, so one step for all of them
            # makes nobody wait longer.
            self._end_loads(batch, self._load(batch, workspace))
            return
        for command in batch:
            # Readahead: the reader may be right behind, and looks at the residency map.
            self._end_loads((command,), self._load((command,), workspace))

    def _load(
        self, batch: Sequence[m.Load], workspace: Workspace, fetched: Fetched | None = None
    ) -> list[m.Event]:
        """Load and install units; return the events for the machine."""
        events: list[m.Event] = []
        for command in batch:
            self._core.inflight.begin(command.region, command.unit)
            events.append(self.loader.load(command, workspace, fetched))
        self._core.inflight.end()
        # Memory to decode in counts towards the limit, and is kept for the next units.
        growth = workspace.take_growth()
        if growth:
            events.append(m.ScratchGrew(growth))
        return events

    def _end_loads(self, batch: Sequence[m.Load], events: Iterable[m.Event]) -> None:
        """Give the machine the events of loads that have ended."""
        with self._core.lock:
            for command in batch:
                self._hasten.pop((command.region, command.unit), None)
                self.replacements.end_load(command.region, command.unit)
            self._core.step(events)
            self._core.end_loads(batch[0].client, len(batch))

    def share(self, n_parts: int, work: Work, workspace: Workspace) -> None:
        """Do the parts of a load, together with the threads that are idle."""
        shared = SharedLoad(n_parts, work)

        def help_out(workspace: Workspace) -> None:
            shared.help(workspace)
            growth = workspace.take_growth()
            if growth:
                with self._core.lock:
                    self._core.step([m.ScratchGrew(growth)])

        for _ in range(min(self.threads.n_idle, n_parts - 1)):
            self.threads.add(help_out, urgent=True)
        shared.finish(workspace)

    def _load_fast(self, command: m.Load, fast: FastLoad, workspace: Workspace) -> None:
        """Load a unit that `FastPath.begin` has taken down."""
        events = self._load((command,), workspace)
        with self._core.lock:
            self._end_fast(fast, events)

    def _end_fast(self, fast: FastLoad, events: list[m.Event]) -> None:
        """Take down that a load of the fast path has ended; the lock is held."""
        # Where another client or thread has come to wait meanwhile, the events do it: they know
        # whom to answer.
        if type(events[0]) is m.Loaded and self._core.machine.fast_path.end(fast):
            self._core.regions[fast.region].publish(fast.unit, resident=True)
            events = events[1:]
        self._core.step(events)
        self._core.end_loads(fast.client, 1)

    # --- in decoders --------------------------------------------------------------------

    def _load_elsewhere(self, order: Order) -> bool:
        """Have a decoder load a unit; return whether one takes it."""
        if not self.decoders.max_processes:
            return False
        # Written down first: `add` may refuse the order at once, and `_load_here` takes
        # a missing entry for a load that was made urgent.
        if not order.command.urgent:
            key = (order.command.region, order.command.unit)
            self._hasten[key] = partial(self.decoders.promote, order)
        return self.decoders.add(order)

    def _load_here(self, order: Order) -> None:
        """Have a thread of the worker load a unit."""
        command, fast = order
        if fast is None:
            is_promoted = self._hasten.pop((command.region, command.unit), None) is None
            self._add_job(
                partial(self._load_batch, (command,)), (command,), is_promoted=is_promoted
            )
        else:
            self.threads.add(partial(self._load_fast, command, fast), urgent=True)

    def _on_result(self, order: Order, result: Result) -> None:
        """Take down what a decoder has done of a load; the lock is held."""
        if result.news is News.ARRIVED:
            self._core.step([arrived(order.command)])
            return
        if result.grown_nbytes:
            self._core.step([m.ScratchGrew(result.grown_nbytes)])
        if result.news is News.FAILED:
            # The decoder may have installed a part of the unit.  Another version of the chunk must
            # not be mixed with that, so the worker takes it out first.
            again = order.command._replace(replaces=True)
            self._load_here(order._replace(command=again))
        else:
            self._end_order(order, result)

    def _end_order(self, order: Order, result: Result) -> None:
        """Take down that a decoder has loaded a unit; the lock is held."""
        command, fast = order
        self._core.measurements.add_decoded(
            result.decode_seconds, result.install_seconds, result.nbytes
        )
        events: list[m.Event] = [m.Loaded(command.region, command.unit, command.client, ())]
        if fast is not None:
            self._end_fast(fast, events)
        else:
            self._hasten.pop((command.region, command.unit), None)
            self._core.step(events)
            self._core.end_loads(command.client, 1)


def _urgency(command: m.Load) -> Urgency:
    """Return a load's urgency at the fetcher: awaited pages, then requests, then readahead."""
    # Imported here: a pager of local arrays never needs it.
    from lazyarr.reading.read_queue import Urgency

    if command.awaited is not None:
        return Urgency.FAULT
    return Urgency.REQUEST if command.urgent else Urgency.READAHEAD
