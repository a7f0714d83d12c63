"""Carries out what the state machine decides."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from lazyarr.errors import PagerError
from lazyarr.kernel import PAGE_NBYTES, Features, ScratchBuffer, Stop, punch_hole
from lazyarr.loading.workspace import Workspace
from lazyarr.pager import installer
from lazyarr.pager.clients import Client, Region
from lazyarr.pager.excuses import Excuses
from lazyarr.pager.loader import GONE
from lazyarr.pager.loads import Loads
from lazyarr.pager.log import report
from lazyarr.plan import messages as m
from lazyarr.plan.machine import Machine
from lazyarr.wire import messages as w

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lazyarr.kernel import Fault
    from lazyarr.pager.board import Board
    from lazyarr.pager.measure import Measurements
    from lazyarr.plan.quick import Quick
    from lazyarr.wire.channel import Channel

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
        self._lock = threading.Lock()
        self._events: deque[m.Event] = deque()
        self._waiting: dict[tuple[int, int], Channel] = {}
        self._gone: set[int] = set()
        self.loads = Loads(
            machine,
            self.clients,
            self.regions,
            measurements,
            board,
            lock=self._lock,
            step=self._step,
            left=self._settle_gone,
        )
        self._quick_workspace = Workspace()
        self._page = ScratchBuffer(PAGE_NBYTES)
        self._excuses = Excuses(machine, self.clients, self.regions)
        self._do: dict[type, Callable[[Any], None]] = {
            m.Load: self._do_load,
            m.Promote: self.loads.promote,
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
        self.loads.flush()

    def _carry_out(self, commands: Iterable[m.Command]) -> None:
        for command in commands:
            self._do[type(command)](command)
        self.loads.start_queued()

    def serve_quickly(self, client: Client, address: int) -> bool:
        """Serve a fault, or have it served, without the machine's events; return whether so.

        The same as `Faulted`, `Load` and `Loaded` one after the other, without the
        objects between them: for a small unit those cost several times what the unit
        does.  Where anything is out of the ordinary nothing has been taken down, and the
        long way finds out what it is.
        """
        begin = time.perf_counter()
        with self._lock:
            quick = self.machine.quick.plan(client.number, address)
            if quick is None or (quick.region, quick.unit) in self._doomed:
                return False
            region = self.regions[quick.region]
            if quick.nbytes <= _QUICK_NBYTES:
                is_done = self._load_at_once(quick, region, client)
            elif region.is_remote:
                return False
            else:
                commands = self.machine.quick.begin(quick)
                self.loads.start_quick(quick)
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
        self.machine.quick.take_down(quick)
        region.publish(quick.unit, resident=True)
        return True

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
        if number in self._gone and not self.loads.is_loading_into(number):
            self._gone.remove(number)
            self.clients.pop(number).close()

    def _do_load(self, command: m.Load) -> None:
        key = (command.region, command.unit)
        if key not in self._doomed:
            self.loads.start(command)
            return
        self._doomed.discard(key)
        reason = "the process that decoded it died, repeatedly"
        error = self.regions[command.region].source.unit_error(command.unit, reason)
        self._events.append(self.loads.loader.failed(command, error))

    # --- all else: at once, under the lock --------------------------------------

    def _do_install_page(self, command: m.InstallPage) -> None:
        self._page.view[:] = command.data
        stop = self.loads.loader.install(
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
