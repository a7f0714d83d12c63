"""Units on their way: read and decoded by the crew, or in other processes, outside of the lock."""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from lazyarr.loading.workspace import Workspace
from lazyarr.pager.decoders import Decoders, Order
from lazyarr.pager.loader import Loader
from lazyarr.pager.teamwork import Teamwork
from lazyarr.plan import messages as m
from lazyarr.units import Span
from lazyarr.wire.jobs import News

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lazyarr.loading.fetching import Fetcher
    from lazyarr.loading.lanes import Rank
    from lazyarr.loading.source import Fetched
    from lazyarr.pager.board import Board
    from lazyarr.pager.clients import Client, Region
    from lazyarr.pager.crew import Crew, Job
    from lazyarr.pager.measure import Measurements
    from lazyarr.pager.teamwork import Work
    from lazyarr.plan.machine import Machine
    from lazyarr.plan.quick import Quick
    from lazyarr.wire.jobs import Result

__all__ = ["Loads"]


class Loads:
    """Starts loads, and has the machine told how they end.

    What it starts is started under the executor's lock, and what ends is told under it.

    Parameters
    ----------
    machine : Machine
        Knows where each client has each region.
    clients, regions : dict
        The executor's.
    measurements : Measurements
        Where counts and times go.
    board : Board
        Where it is written down what is on its way.
    lock : Lock
        The executor's.
    step : callable
        Gives events to the machine; the lock must be held.
    left : callable
        Told of a client when there are fewer loads on their way into its memory.

    Attributes
    ----------
    crew : Crew
        Does what this process does itself.
    decoders : Decoders
        Other processes that do.
    """

    def __init__(
        self,
        machine: Machine,
        clients: dict[int, Client],
        regions: dict[int, Region],
        measurements: Measurements,
        board: Board,
        *,
        lock: threading.Lock,
        step: Callable[[Iterable[m.Event]], None],
        left: Callable[[int], None],
    ) -> None:
        self._machine = machine
        self._regions = regions
        self._measurements = measurements
        self._board = board
        self._lock = lock
        self._step = step
        self._left = left
        self.crew: Crew
        self.make_fetcher: Callable[[], Fetcher]
        self._fetcher: Fetcher | None = None
        self.decoders = Decoders(
            machine,
            clients,
            regions,
            lock=lock,
            refuse=self._load_here,
            on_result=self._on_result,
        )
        self.loader = Loader(machine, clients, regions, measurements, arrived=self._tell_arrived)
        self._n_loads: Counter[int] = Counter()
        self._queued: list[m.Load] = []
        # How to hasten what is on its way for nobody in particular.
        self._hasten: dict[tuple[int, int], Callable[[], None]] = {}

    def __repr__(self) -> str:
        return f"<Loads: {self._n_loads.total()} on their way, {self.decoders!r}>"

    def is_loading_into(self, client: int) -> bool:
        """Return whether something is on its way into a client's memory."""
        return self._n_loads[client] > 0

    # --- remote stores ----------------------------------------------------------------

    @property
    def fetcher(self) -> Fetcher:
        """What fetches from remote stores; made for the first of them."""
        if self._fetcher is None:
            self._fetcher = self.make_fetcher()
        return self._fetcher

    def resize_fetcher(self, connections: int) -> None:
        """Have another number of requests under way at once, if any are."""
        if self._fetcher is not None:
            self._fetcher.resize(connections)

    def flush(self) -> None:
        """Have what was asked for of remote stores fetched."""
        if self._fetcher is not None:
            self._fetcher.flush()

    # --- beginning --------------------------------------------------------------------

    def start(self, command: m.Load) -> None:
        """Take on a load; `start_queued` is to follow."""
        region = self._regions[command.region]
        self._n_loads[command.client] += 1
        if not region.is_remote:
            self._queued.append(command)
            return
        if not command.urgent:
            key = (command.region, command.unit)
            self._hasten[key] = partial(self.fetcher.hasten, region.source, command.unit)
        done = partial(self._fetched, command, time.perf_counter())
        self.fetcher.submit(region.source, command.unit, done, rank=_rank(command))

    def start_quick(self, quick: Quick) -> None:
        """Start what `ShortWay.begin` has taken down."""
        self._n_loads[quick.client] += 1
        awaited = Span(quick.page, quick.page + 1)
        load = m.Load(quick.region, quick.unit, quick.client, urgent=True, awaited=awaited)
        order = Order(load, quick)
        if not self._load_elsewhere(order):
            self._load_here(order)

    def start_queued(self) -> None:
        """Give out the loads that the commands just carried out have asked for."""
        if not self._queued:
            return
        queued, self._queued = self._queued, []
        for batch in self._batches(queued):
            if len(batch) > 1 or not self._load_elsewhere(Order(batch[0], None)):
                self._add_job(partial(self._load_batch, batch), batch)

    def _batches(self, commands: Sequence[m.Load]) -> Iterator[list[m.Load]]:
        """Divide loads into jobs that are worth a thread's while."""
        batch: list[m.Load] = []
        for command in commands:
            if batch and not (
                command[2:] == batch[0][2:]
                and command.region == batch[0].region
                and len(batch) < self._regions[command.region].n_units_per_job
            ):
                yield batch
                batch = []
            batch.append(command)
        if batch:
            yield batch

    def _add_job(self, job: Job, batch: Sequence[m.Load], *, is_promoted: bool = False) -> None:
        is_urgent = batch[0].urgent or is_promoted
        if not is_urgent:
            hasten = partial(self.crew.promote, job)
            self._hasten.update({(command.region, command.unit): hasten for command in batch})
        self.crew.add(job, urgent=is_urgent)

    def promote(self, command: m.Promote) -> None:
        """Let a load that was not urgent be so."""
        self.start_queued()
        hasten = self._hasten.pop((command.region, command.unit), None)
        if hasten is not None:
            hasten()

    # --- in the crew, outside of the lock -----------------------------------------------

    def _fetched(self, command: m.Load, begin: float, result: Fetched | BaseException) -> None:
        """Have the chunks of a unit decoded, or the error seen to: not where they were fetched."""
        if isinstance(result, BaseException):
            event = self.loader.failed(command, result)
            self.crew.add(lambda _: self._end_loads((command,), [event]), urgent=command.urgent)
            return
        self._measurements.add("fetch", time.perf_counter() - begin)
        news = self._measure_link(command, result)
        with self._lock:
            if news:
                self._step(news)
            is_promoted = self._hasten.pop((command.region, command.unit), None) is None
            job = partial(self._load_fetched, command, result)
            self._add_job(job, (command,), is_promoted=is_promoted)

    def _measure_link(self, command: m.Load, fetched: Fetched) -> list[m.Event]:
        """Return what the machine must be told of the network: when it has become another one."""
        link = self._regions[command.region].source.link
        state = self._machine.region(command.region)
        nbytes = sum(len(data) for data in fetched if data is not None)
        if nbytes:  # else there is no such unit, which says nothing of the others
            link.add_unit(nbytes)
        if state is None or not link.differs(state.pipe_units, is_full=state.is_pipe_full):
            return []
        return [m.LinkMeasured(command.region, link.pipe_units, link.is_full)]

    def _load_fetched(self, command: m.Load, fetched: Fetched, workspace: Workspace) -> None:
        self._end_loads((command,), self._load((command,), workspace, fetched))
        self.fetcher.release(fetched)

    def _load_batch(self, batch: Sequence[m.Load], workspace: Workspace) -> None:
        if batch[0].urgent:
            # Whoever asked is told when all are there.
            self._end_loads(batch, self._load(batch, workspace))
            return
        for command in batch:
            # A reader may be right behind, and look at what is resident.
            self._end_loads((command,), self._load((command,), workspace))

    def _load(
        self, batch: Sequence[m.Load], workspace: Workspace, fetched: Fetched | None = None
    ) -> list[m.Event]:
        """Load and install units; return what the machine must be told of that."""
        had_nbytes = workspace.nbytes
        events: list[m.Event] = []
        for command in batch:
            self._board.begin(command.region, command.unit)
            events.append(self.loader.load(command, workspace, fetched))
        self._board.end()
        if workspace.nbytes != had_nbytes:
            events.append(m.ScratchGrew(workspace.nbytes - had_nbytes))
        return events

    def _tell_arrived(self, command: m.Load) -> None:
        """Let a request be answered whose pages are there, while the rest is on its way."""
        with self._lock:
            self._tell_machine_arrived(command)

    def _tell_machine_arrived(self, command: m.Load) -> None:
        assert command.awaited is not None
        self._step([m.Arrived(command.region, command.unit, command.awaited)])

    def _end_loads(self, batch: Sequence[m.Load], events: Iterable[m.Event]) -> None:
        with self._lock:
            for command in batch:
                self._hasten.pop((command.region, command.unit), None)
            self._step(events)
            self._settle_load(batch[0].client, len(batch))

    def _settle_load(self, client: int, n_loads: int) -> None:
        """Take down that loads are no longer on their way into a client's memory."""
        self._n_loads[client] -= n_loads
        if not self._n_loads[client]:
            del self._n_loads[client]
        self._left(client)

    def share(self, n_parts: int, work: Work, workspace: Workspace) -> None:
        """Do the parts of a load, together with the threads that are idle."""
        team = Teamwork(n_parts, work)

        def help_out(workspace: Workspace) -> None:
            had_nbytes = workspace.nbytes
            team.help(workspace)
            if workspace.nbytes != had_nbytes:
                with self._lock:
                    self._step([m.ScratchGrew(workspace.nbytes - had_nbytes)])

        for _ in range(min(self.crew.n_idle, n_parts - 1)):
            self.crew.add(help_out, urgent=True)
        team.finish(workspace)

    def _load_quickly(self, command: m.Load, quick: Quick, workspace: Workspace) -> None:
        """Load a unit that `ShortWay.begin` has taken down."""
        events = self._load((command,), workspace)
        with self._lock:
            self._end_quick(quick, events)

    def _end_quick(self, quick: Quick, events: list[m.Event]) -> None:
        if type(events[0]) is m.Loaded and self._machine.quick.end(quick):
            self._regions[quick.region].publish(quick.unit, resident=True)
            events = events[1:]
        self._step(events)
        self._settle_load(quick.client, 1)

    # --- in other processes -----------------------------------------------------------

    def _load_elsewhere(self, order: Order) -> bool:
        """Have a unit loaded by another process; return whether there is one for that."""
        if not order.command.urgent:
            key = (order.command.region, order.command.unit)
            self._hasten[key] = partial(self.decoders.promote, order)
        return self.decoders.add(order)

    def _load_here(self, order: Order) -> None:
        """Have a unit loaded by the crew."""
        command, quick = order
        if quick is None:
            is_promoted = self._hasten.pop((command.region, command.unit), None) is None
            self._add_job(
                partial(self._load_batch, (command,)), (command,), is_promoted=is_promoted
            )
        else:
            self.crew.add(partial(self._load_quickly, command, quick), urgent=True)

    def _on_result(self, order: Order, result: Result) -> None:
        """See to it that what another process has done of a load is known."""
        if result.news is News.ARRIVED:
            self._tell_machine_arrived(order.command)
            return
        if result.grown_nbytes:
            self._step([m.ScratchGrew(result.grown_nbytes)])
        if result.news is News.FAILED:
            # It may have installed a part.
            again = order.command._replace(replaces=True)
            self._load_here(order._replace(command=again))
        else:
            self._end_order(order, result)

    def _end_order(self, order: Order, result: Result) -> None:
        command, quick = order
        self._measurements.add_decoded(result.decode_seconds, result.install_seconds, result.nbytes)
        events: list[m.Event] = [m.Loaded(command.region, command.unit, command.client, ())]
        if quick is not None:
            self._end_quick(quick, events)
        else:
            self._hasten.pop((command.region, command.unit), None)
            self._step(events)
            self._settle_load(command.client, 1)


def _rank(command: m.Load) -> Rank:
    from lazyarr.loading.lanes import Rank

    if command.awaited is not None:
        return Rank.FAULT
    return Rank.REQUEST if command.urgent else Rank.READAHEAD
