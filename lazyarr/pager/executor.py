"""Carries out what the state machine decides."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter, deque
from functools import partial
from typing import TYPE_CHECKING, Any

from lazyarr.errors import PagerError
from lazyarr.kernel import PAGE_NBYTES, Features, ScratchBuffer, Stop, punch_hole
from lazyarr.loading.workspace import Workspace
from lazyarr.pager import installer
from lazyarr.pager.clients import Client, Region
from lazyarr.pager.decoders import Decoders, Order
from lazyarr.pager.excuses import Excuses
from lazyarr.pager.loader import GONE, Loader
from lazyarr.pager.log import report
from lazyarr.pager.teamwork import Teamwork
from lazyarr.plan import messages as m
from lazyarr.plan.machine import Machine
from lazyarr.units import Span
from lazyarr.wire import messages as w
from lazyarr.wire.jobs import ARRIVED, FAILED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lazyarr.kernel import Fault
    from lazyarr.loading.fetching import Fetcher
    from lazyarr.loading.lanes import Rank
    from lazyarr.loading.source import Fetched
    from lazyarr.pager.board import Board
    from lazyarr.pager.crew import Crew, Job
    from lazyarr.pager.measure import Measurements
    from lazyarr.pager.teamwork import Work
    from lazyarr.plan.machine import Quick
    from lazyarr.wire.channel import Channel
    from lazyarr.wire.jobs import Result

__all__ = ["Executor"]

# Units that are read and decoded in less time than it takes to wake a thread.
_QUICK_NBYTES = 32 << 10


class Executor:
    """The state machine, and the hands that do what it says.

    One lock makes the machine's step and its commands one action: no client is
    told that it may unmap while a page is being mapped there, and the record is
    never ahead of the memory.  `Load` alone runs outside of it, in the crew.

    Parameters
    ----------
    machine : Machine
        Decides.
    measurements : Measurements
        Where counts and times go.
    board : Board
        Where it is written down what is on its way.
    doomed : set of (int, int)
        Region and unit of loads that have killed workers before: they fail once, at once.
    """

    def __init__(
        self,
        machine: Machine,
        measurements: Measurements,
        *,
        board: Board,
        doomed: set[tuple[int, int]],
    ) -> None:
        self.machine = machine
        self._board = board
        self._doomed = doomed
        self.measurements = measurements
        self.clients: dict[int, Client] = {}
        self.regions: dict[int, Region] = {}
        self.crew: Crew
        self.make_fetcher: Callable[[], Fetcher]
        self._fetcher: Fetcher | None = None
        self._lock = threading.Lock()
        self._events: deque[m.Event] = deque()
        self._waiting: dict[tuple[int, int], Channel] = {}
        self._n_loads: Counter[int] = Counter()
        self._gone: set[int] = set()
        self._queued: list[m.Load] = []
        self.decoders = Decoders(machine, self.clients, self.regions, refuse=self._load_here)
        self.decoders.on_result = self._on_result
        self._quick_workspace = Workspace()
        self._loader = Loader(
            machine, self.clients, self.regions, measurements, arrived=self._tell_arrived
        )
        # How to hasten what is on its way for nobody in particular.
        self._hasten: dict[tuple[int, int], Callable[[], None]] = {}
        self._page = ScratchBuffer(PAGE_NBYTES)
        self._excuses = Excuses(machine, self.clients, self.regions)
        self._do: dict[type, Callable[[Any], None]] = {
            m.Load: self._do_load,
            m.Promote: self._do_promote,
            m.InstallPage: self._do_install_page,
            m.MapPages: self._do_map_pages,
            m.Wake: self._do_wake,
            m.Punch: self._do_punch,
            m.Publish: self._do_publish,
            m.Poison: self._do_poison,
            m.Answer: self._do_answer,
            m.Forget: self._do_forget,
        }

    def __repr__(self) -> str:
        return f"<Executor: {len(self.clients)} clients, {len(self.regions)} regions>"

    def handle(self, events: Iterable[m.Event]) -> None:
        """Give events to the machine and carry out what follows from each."""
        with self._lock:
            self._step(events)

    def _step(self, events: Iterable[m.Event]) -> None:
        self._events.extend(events)
        while self._events:
            self._carry_out(self.machine.handle(self._events.popleft()))
        if self._fetcher is not None:
            self._fetcher.flush()

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

    def _carry_out(self, commands: Iterable[m.Command]) -> None:
        for command in commands:
            self._do[type(command)](command)
        if self._queued:
            self._add_queued()

    def serve_quickly(self, client: Client, address: int) -> bool:
        """Serve a fault, or have it served, without the machine's events; return whether so.

        The same as `Faulted`, `Load` and `Loaded` one after the other, without the
        objects between them: for a small unit those cost several times what the unit
        does.  Where anything is out of the ordinary nothing has been taken down, and the
        long way finds out what it is.
        """
        begin = time.perf_counter()
        with self._lock:
            quick = self.machine.plan_quick(client.number, address)
            if quick is None or (quick.region, quick.unit) in self._doomed:
                return False
            region = self.regions[quick.region]
            if quick.nbytes <= _QUICK_NBYTES:
                is_done = self._load_at_once(quick, region, client)
            elif region.is_remote:
                return False
            else:
                commands = self.machine.begin_quick(quick)
                self._n_loads[quick.client] += 1
                awaited = Span(quick.page, quick.page + 1)
                load = m.Load(quick.region, quick.unit, quick.client, urgent=True, awaited=awaited)
                order = Order(load, quick)
                if not self._load_elsewhere(order):
                    self._load_here(order)
                self._carry_out(commands)
                return True
        if is_done:
            self.measurements.add("quick", time.perf_counter() - begin)
        return is_done

    def _load_at_once(self, quick: Quick, region: Region, client: Client) -> bool:
        """Load a unit under the lock; return whether that was done."""
        workspace = self._quick_workspace
        self._board.begin(quick.region, quick.unit)
        has_bytes = region.source.load_quickly(quick.unit, workspace, may_wait=False)
        self._board.end()
        if has_bytes is None:
            return False
        if has_bytes:
            source = workspace.unit.address
            is_installed = client.uffd.copy_at_once(quick.address, source, quick.nbytes)
        else:
            outcome = client.uffd.zeropage(quick.address, quick.nbytes)
            is_installed = outcome.stop is Stop.DONE
        if not is_installed:
            return False
        self.machine.take_down_quick(quick)
        region.publish(quick.unit, resident=True)
        return True

    def _load_quickly(self, command: m.Load, quick: Quick, workspace: Workspace) -> None:
        """Load a unit that `begin_quick` has taken down."""
        events = self._load((command,), workspace)
        with self._lock:
            self._end_quick(quick, events)

    def _end_quick(self, quick: Quick, events: list[m.Event]) -> None:
        if type(events[0]) is m.Loaded and self.machine.end_quick(quick):
            self.regions[quick.region].publish(quick.unit, resident=True)
            events = events[1:]
        self._step(events)
        self._settle_load(quick.client, 1)

    # --- loads that other processes do ---------------------------------------------

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
        command, quick = order
        with self._lock:
            if result.outcome == ARRIVED:
                self._step([m.Arrived(command.region, command.unit)])
                return
            if result.outcome == FAILED:
                self._load_here(order)
                self.decoders.feed()
                return
            self.measurements.add_decoded(
                result.decode_seconds, result.install_seconds, result.nbytes
            )
            events: list[m.Event] = [m.Loaded(command.region, command.unit, command.client, ())]
            if result.grown_nbytes:
                events.append(m.ScratchGrew(result.grown_nbytes))
            if quick is not None:
                self._end_quick(quick, events)
            else:
                self._hasten.pop((command.region, command.unit), None)
                self._step(events)
                self._settle_load(command.client, 1)
            self.decoders.feed()

    def excuse(self, client: Client, faults: Sequence[Fault], n_raised: int) -> list[int]:
        """Serve faults of a thread that is about to raise; return the others' addresses."""
        with self._lock:
            return self._excuses.serve(client, faults, n_raised)

    def end_excuse(self, client: Client, ticket: int, channel: Channel) -> None:
        """Tell a main thread what it raises."""
        with self._lock:
            failure = self._excuses.end(client)
        self.expect(client.number, ticket, channel)
        self.answer(client.number, w.Done(ticket, [_document(failure)] if failure else []))

    def expect(self, client: int, ticket: int, channel: Channel) -> None:
        """Take down on which channel a ticket is to be answered."""
        with self._lock:
            self._waiting[client, ticket] = channel

    def add_client(self, client: Client) -> None:
        """Begin to serve a client."""
        with self._lock:
            self.clients[client.number] = client

    def add_region(self, number: int, region: Region) -> None:
        """Begin to serve a region; the machine must be told next."""
        with self._lock:
            self.regions[number] = region

    def remove_region(self, number: int) -> None:
        """Let go of a region that nobody has."""
        with self._lock:
            self.regions.pop(number).close()

    def remove_client(self, number: int) -> None:
        """Stop serving a client that is gone, and close what was held of it.

        Not while a load is on its way into it: a descriptor that is closed gives
        its number to the next one, and the load would act on that.
        """
        with self._lock:
            self._gone.add(number)
            self._step([m.ClientLeft(number)])
            for key in [key for key in self._waiting if key[0] == number]:
                del self._waiting[key]
            self._settle_gone(number)

    def has_clients(self) -> bool:
        """Return whether a client is left, other than in loads that nobody waits for."""
        return bool(self.clients.keys() - self._gone)

    def _settle_gone(self, number: int) -> None:
        if number in self._gone and not self._n_loads[number]:
            self._gone.remove(number)
            del self._n_loads[number]
            self.clients.pop(number).close()

    # --- loads: in the crew's threads, outside of the lock ----------------------

    def _do_load(self, command: m.Load) -> None:
        key = (command.region, command.unit)
        region = self.regions[command.region]
        if key in self._doomed:
            self._doomed.discard(key)
            reason = "the process that decoded it died, repeatedly"
            error = region.source.unit_error(command.unit, reason)
            self._events.append(self._loader.failed(command, error))
            return
        self._n_loads[command.client] += 1
        if not region.is_remote:
            self._queued.append(command)
            return
        if not command.urgent:
            self._hasten[key] = partial(self.fetcher.hasten, region.source, command.unit)
        done = partial(self._fetched, command, time.perf_counter())
        self.fetcher.submit(region.source, command.unit, done, rank=_rank(command))

    def _add_queued(self) -> None:
        """Give the crew the loads that the commands just carried out have asked for."""
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
                and len(batch) < self.regions[command.region].n_units_per_job
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

    def _do_promote(self, command: m.Promote) -> None:
        if self._queued:
            self._add_queued()
        hasten = self._hasten.pop((command.region, command.unit), None)
        if hasten is not None:
            hasten()

    def _fetched(self, command: m.Load, begin: float, result: Fetched | BaseException) -> None:
        """Have the chunks of a unit decoded, or the error seen to: not where they were fetched."""
        if isinstance(result, BaseException):
            event = self._loader.failed(command, result)
            self.crew.add(lambda _: self._end_loads((command,), [event]), urgent=command.urgent)
            return
        self.measurements.add("fetch", time.perf_counter() - begin)
        with self._lock:
            is_promoted = self._hasten.pop((command.region, command.unit), None) is None
            job = partial(self._load_fetched, command, result)
            self._add_job(job, (command,), is_promoted=is_promoted)

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
            events.append(self._loader.load(command, workspace, fetched))
        self._board.end()
        if workspace.nbytes != had_nbytes:
            events.append(m.ScratchGrew(workspace.nbytes - had_nbytes))
        return events

    def _tell_arrived(self, command: m.Load) -> None:
        """Let a request be answered whose pages are there, while the rest is on its way."""
        self.handle([m.Arrived(command.region, command.unit)])

    def _end_loads(self, batch: Sequence[m.Load], events: Iterable[m.Event]) -> None:
        with self._lock:
            for command in batch:
                self._hasten.pop((command.region, command.unit), None)
            self._step(events)
            self._settle_load(batch[0].client, len(batch))

    def _settle_load(self, client: int, n_loads: int) -> None:
        """Take down that loads are no longer on their way into a client's memory."""
        self._n_loads[client] -= n_loads
        self._settle_gone(client)

    def share(self, n_parts: int, work: Work, workspace: Workspace) -> None:
        """Do the parts of a load, together with the threads that are idle."""
        team = Teamwork(n_parts, work)

        def help_out(workspace: Workspace) -> None:
            had_nbytes = workspace.nbytes
            team.help(workspace)
            if workspace.nbytes != had_nbytes:
                self.handle([m.ScratchGrew(workspace.nbytes - had_nbytes)])

        for _ in range(min(self.crew.n_idle, n_parts - 1)):
            self.crew.add(help_out, urgent=True)
        team.finish(workspace)

    # --- all else: at once, under the lock --------------------------------------

    def _do_install_page(self, command: m.InstallPage) -> None:
        self._page.view[:] = command.data
        stop = self._loader.install(
            command.region,
            command.client,
            command.page,
            1,
            source=self._page.address,
            data=self._page.view,
        )
        if stop is not Stop.DONE and stop not in GONE:
            # No memory: the units are loaded again, by when there may be some.
            self._events.append(m.HoleFound(command.client, command.region, command.page))

    def _do_map_pages(self, command: m.MapPages) -> None:
        state = self.machine.region(command.region)
        owner = self.clients.get(command.client)
        if state is None or owner is None or command.client not in state.addresses:
            return
        address = state.addresses[command.client] + command.pages.start * PAGE_NBYTES
        nbytes = command.pages.size * PAGE_NBYTES
        if self.regions[command.region].backing is None:
            owner.uffd.wake(address, nbytes)
            return
        _, holes = installer.map_resident(owner.uffd, address, nbytes)
        self._events.extend(
            m.HoleFound(command.client, command.region, command.pages.start + hole // PAGE_NBYTES)
            for hole in holes
        )

    def _do_wake(self, command: m.Wake) -> None:
        owner = self.clients.get(command.client)
        if owner is not None:
            owner.uffd.wake(command.address & -PAGE_NBYTES, PAGE_NBYTES)

    def _do_punch(self, command: m.Punch) -> None:
        backing = self.regions[command.region].backing
        if backing is not None:
            start = backing.offset + command.pages.start * PAGE_NBYTES
            punch_hole(backing.memfd, start, command.pages.size * PAGE_NBYTES)

    def _do_publish(self, command: m.Publish) -> None:
        self.regions[command.region].publish(command.unit, resident=command.resident)

    def _do_poison(self, command: m.Poison) -> None:
        """Say why, then let the waiters go: the process may not live to be told afterwards."""
        pages = self._excuses.excuse(command)
        if not pages:
            return
        report(f"{command.failure.message}; a thread that waits for it gets SIGBUS")
        state = self.machine.region(command.region)
        owner = self.clients.get(command.client)
        if state is None or owner is None or command.client not in state.addresses:
            return
        if Features.POISON not in owner.uffd.features:
            signal.pidfd_send_signal(owner.pidfd, signal.SIGBUS)
            return
        for page in pages:
            installer.poison(owner.uffd, state.addresses[command.client] + page * PAGE_NBYTES)

    def _do_answer(self, command: m.Answer) -> None:
        failures = [_document(failure) for failure in command.failures]
        self.answer(command.client, w.Done(command.ticket, failures))

    def answer(
        self,
        client: int,
        message: w.Done | w.Statistics | w.Found,
        descriptors: Sequence[int] = (),
    ) -> None:
        """Send an answer, unless whoever asked has hung up."""
        channel = self._waiting.pop((client, message.ticket), None)
        if channel is not None and channel.fileno() >= 0:
            try:
                channel.send(message, descriptors, wait=False)
            except PagerError:
                # Not closed: it is watched under its number, which the next file would get.
                channel.hang_up()

    def _do_forget(self, command: m.Forget) -> None:
        self.regions.pop(command.region).close()


def _document(failure: m.Failure) -> dict[str, Any]:
    return {"message": failure.message, **failure.fields}


def _rank(command: m.Load) -> Rank:
    from lazyarr.loading.lanes import Rank

    if command.awaited is not None:
        return Rank.FAULT
    return Rank.REQUEST if command.urgent else Rank.READAHEAD
