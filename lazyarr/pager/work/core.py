"""The state machine, and the clients and regions that it decides about, under one lock."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from lazyarr.errors import KernelError, PagerError
from lazyarr.pager.log import report
from lazyarr.pager.memory import installer
from lazyarr.plan import messages as m
from lazyarr.wire import messages as w

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lazyarr.memory_kind import MemoryKind
    from lazyarr.pager.lifecycle.inflight_record import Deed, InflightRecord
    from lazyarr.pager.measure import Measurements
    from lazyarr.pager.memory.clients import Client, Region
    from lazyarr.plan.machine import Machine
    from lazyarr.wire.channel import Channel

__all__ = ["Core"]

# So much of a trace goes into one message.
_MAX_TRACE_ARRAYS = 1024
_MAX_TRACE_RUNS = 8192


class Core(ABC):
    """The state machine, and everything that its decisions are about, under one lock.

    The lock makes a step of the machine and the commands that follow from it one action.  So no
    client is told that it may unmap memory while a page is being mapped there, and what the
    machine believes is never ahead of the memory.  The price is that every thread of the worker
    waits here; so what takes long runs outside of the lock, and comes back with an event.

    Each state has one owner, and every other class asks the owner for it:

    ==========================================  ===========================================
    state                                       owner
    ==========================================  ===========================================
    which unit is where, who waits for it       `Machine`, which does nothing else
    clients, regions, and their descriptors     `Core`
    loads that write to a client's memory       `Core`: it closes no client before they end
    which channel a ticket is answered on       `Core`
    loads that wait for a thread                `Loads`
    loads that other processes do               `Decoders`
    dirty units that are being written          `WriteBacks`
    which shards are read, which replaced       `Replacements`
    exceptions that a client is about to raise  `ShownZeros`, in ``Client.main``
    ==========================================  ===========================================

    `Loads`, `Loader`, `Decoders` and `WriteBacks` know this class.  The one that carries out
    commands, `Executor`, derives from it and knows all of them.

    Parameters
    ----------
    machine : Machine
        Decides what is loaded, evicted and answered.
    measurements : Measurements
        Takes counts and times.
    inflight : InflightRecord
        Where each thread writes down which unit it loads.  The supervisor reads it when this
        process has died.
    doomed : set of Deed
        Regions and units whose loads have killed workers before.  Each fails once, at once.

    Attributes
    ----------
    lock : Lock
        Held for each step.  Methods that say so must be called with it.
    clients, regions : dict of int
        The clients and regions of the pager, by their numbers.
    forgotten : callable
        Told of each region that is written back, before its memory goes.
    expelled : callable
        Told of each client that is to be let go of, in whatever thread, with the lock or without.
    """

    def __init__(
        self,
        machine: Machine,
        measurements: Measurements,
        *,
        inflight: InflightRecord,
        doomed: set[Deed],
    ) -> None:
        self.machine = machine
        self.measurements = measurements
        self.inflight = inflight
        self.doomed = doomed
        self.lock = threading.Lock()
        self.clients: dict[int, Client] = {}
        self.regions: dict[int, Region] = {}
        self.forgotten: Callable[[int], None] = lambda _: None
        self.expelled: Callable[[int], None] = lambda _: None
        self._expelled: set[int] = set()
        self._events: deque[m.Event] = deque()
        # What traces say of arrays that are gone, and of which a recording has units.
        self._gone_arrays: dict[int, dict[str, Any]] = {}
        # Loads on their way into each client's memory, and the clients that have ended before
        # these.  Such a client is in `clients` still: its descriptors are in use.
        self._n_loads: Counter[int] = Counter()
        self._gone: set[int] = set()
        # The channel on which each ticket of each client is answered.
        self._waiting: dict[tuple[int, int], Channel] = {}

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"<{name}: {len(self.clients)} clients, {len(self.regions)} regions>"

    # --- steps of the machine -----------------------------------------------------------

    def handle(self, events: Iterable[m.Event]) -> None:
        """Give events to the machine and carry out what follows from each."""
        with self.lock:
            self.step(events)

    def step(self, events: Iterable[m.Event]) -> None:
        """Do as `handle` does; the lock is held."""
        # A command may bring further events (`follow_with`), as an install that finds a hole.
        # They wait in this queue until all commands of the event before are carried out.
        self._events.extend(events)
        while self._events:
            self.carry_out(self.machine.handle(self._events.popleft()))
        # Told with the next answer: no thread of a client listens for messages that the
        # client has not asked for.
        for number, state in self.machine.take_thrashing():
            notice = self.regions[number].statistics(number, state)
            for client in state.addresses.keys() & self.clients.keys():
                self.clients[client].notices.append(notice)
        self.end_step()

    def follow_with(self, *events: m.Event) -> None:
        """Add events to the step that is under way; the lock is held."""
        self._events.extend(events)

    @abstractmethod
    def carry_out(self, commands: Iterable[m.Command]) -> None:
        """Carry out what the machine has decided; the lock is held."""

    @abstractmethod
    def end_step(self) -> None:
        """Finish a step, once for all of its commands; the lock is held."""

    # --- clients and regions --------------------------------------------------------------

    def add_client(self, client: Client) -> None:
        """Begin to serve a client."""
        with self.lock:
            self.clients[client.number] = client

    def has_clients(self) -> bool:
        """Return whether a client is left that has not ended."""
        # A client that has ended may be kept for its last loads.  They keep no pager alive.
        return bool(self.clients.keys() - self._gone)

    def remove_client(self, number: int) -> None:
        """Stop serving a client that has ended, and close its descriptors.

        They are closed when the last load into its memory has ended.  The number of a closed
        descriptor goes to the next file, and a load that is under way would act on that file.
        """
        with self.lock:
            self._gone.add(number)
            self.step([m.ClientLeft(number)])
            for key in [key for key in self._waiting if key[0] == number]:
                del self._waiting[key]
            self._close_if_gone(number)

    def expel(self, number: int, error: KernelError) -> None:
        """Have a client let go of whose memory is not what it has said; no other waits for that.

        Parameters
        ----------
        number : int
            The client.
        error : KernelError
            What the kernel has refused to do with its memory.
        """
        client = self.clients.get(number)
        # One that has left already may have lost its memory, and its descriptors here.
        if client is not None and number not in self._gone and number not in self._expelled:
            self._expelled.add(number)
            report(f"cannot serve process {client.pid}: {error}")
            self.expelled(number)

    def is_served(self, number: int) -> bool:
        """Return whether a client is there that has not left."""
        return number in self.clients and number not in self._gone

    def protect(self, number: int, kind: MemoryKind, address: int, nbytes: int) -> bool:
        """Have the next write of a client to each page of a range be a fault.

        Returns
        -------
        bool
            False when the kernel refuses that: the client may write, and is let go of.

        Raises
        ------
        PagerError
            When the kernel could not do it now.
        """
        try:
            installer.protect(self.clients[number].uffd_of(kind), address, nbytes)
        except KernelError as error:
            self.expel(number, error)
            return False
        return True

    def has_unwritten(self) -> bool:
        """Return whether a region is left that is written back, with clients or without."""
        # One that has no client any more is there only as long as something of it is not written.
        with self.lock:
            return any(region.kind.writes_back for region in self.regions.values())

    def add_region(self, number: int, region: Region) -> None:
        """Begin to serve a region; the machine must be told next."""
        with self.lock:
            self.regions[number] = region

    def remove_region(self, number: int) -> None:
        """Close a region that no client has."""
        with self.lock:
            region = self.regions.pop(number)
            self.let_go(number, region)
            region.close()

    def let_go(self, number: int, region: Region) -> None:
        """Tell the supervisor that a region goes, before its memory does; the lock is held.

        A worker that took over a region whose memory is gone would take the zeros there for what
        was written.
        """
        if region.kind.writes_back:
            self.forgotten(number)

    def begin_load(self, client: int) -> None:
        """Take down that a load is on its way into a client's memory; the lock is held."""
        self._n_loads[client] += 1

    def end_loads(self, client: int, n_loads: int) -> None:
        """Take down that loads into a client's memory have ended; the lock is held."""
        # After the events of these loads, which may still name the client.
        self._n_loads[client] -= n_loads
        if not self._n_loads[client]:
            del self._n_loads[client]
        if self._gone:
            self._close_if_gone(client)

    def _close_if_gone(self, number: int) -> None:
        if number in self._gone and number not in self._n_loads:
            self._gone.remove(number)
            self.clients.pop(number).close()

    # --- answers --------------------------------------------------------------------------

    def expect(self, client: int, ticket: int, channel: Channel) -> None:
        """Take down on which channel a ticket is to be answered."""
        with self.lock:
            self._waiting[client, ticket] = channel

    def answer(
        self,
        client: int,
        message: w.Done | w.Statistics | w.Found | w.ClaimFound | w.Trace,
        descriptors: Sequence[int] = (),
    ) -> None:
        """Send the answer to a ticket, unless the client that sent the ticket has hung up."""
        channel = self._waiting.pop((client, message.ticket), None)
        owner = self.clients.get(client)
        # Notices go with a `Done` only, which is the one answer that has a place for them.
        is_heard = channel is not None and isinstance(message, w.Done)
        if is_heard and owner is not None and owner.notices:
            told = owner.notices
            message = message._replace(notices=told)
            # One process of several that have an array tells its user.
            for each in self.clients.values():
                each.notices = [notice for notice in each.notices if notice not in told]
        if channel is not None and channel.fileno() >= 0:
            # Never waited for: this may be under the lock, and a client that does not read would
            # stop all others.
            try:
                channel.send(message, descriptors, wait=False)
            except PagerError:
                # Not closed here.  The channel is watched under its number, which the next file
                # would get.  The handler sees the end and closes it.
                channel.hang_up()

    # --- traces ---------------------------------------------------------------------------

    def note_gone(self, number: int, region: Region) -> None:
        """Take down that a region ends, of which a recording may have units; the lock is held."""
        if self.machine.is_recorded(number):
            self._gone_arrays[number] = region.about()
        elif self._gone_arrays:
            gone = self._gone_arrays.items()
            self._gone_arrays = {n: about for n, about in gone if self.machine.is_recorded(n)}

    def trace(self, client: int, recording: int, start: int, n_arrays: int) -> dict[str, Any]:
        """Return a part of what a recording of a client has noted: some arrays, and some runs.

        Of each run there is the place of its array among all arrays, and the bytes of the array's
        memory.  ``n_arrays`` and ``n_runs`` are how many there are in all.  An empty document
        means that there is no such recording: the worker that had it has died.
        """
        with self.lock:
            recorder = self.machine.find_recorder(client, recording)
            if recorder is None:
                return {}
            arrays = []
            for number, geometry in recorder.regions[n_arrays : n_arrays + _MAX_TRACE_ARRAYS]:
                region = self.regions.get(number)
                about = self._gone_arrays[number] if region is None else region.about()
                arrays.append({**about, "itemsize": geometry.itemsize})
            return {
                "n_arrays": len(recorder.regions),
                "n_runs": len(recorder),
                "n_left_out": recorder.n_left_out,
                "arrays": arrays,
                "runs": [
                    [place, *span] for place, span in recorder.runs(start, start + _MAX_TRACE_RUNS)
                ],
            }

    # --- statistics -----------------------------------------------------------------------

    def statistics(self) -> dict[str, Any]:
        """Return the counts of all arrays, and of each array of which anything was loaded."""
        # Under the lock: an install wakes a thread of the client before the unit is taken down,
        # and that thread may ask at once.
        with self.lock:
            machine = self.machine
            arrays = [
                self.regions[number].statistics(number, state)
                for number, state in machine.loaded_regions()
            ]
            return {
                **machine.counters,
                "units_loading": machine.n_loading,
                "resident_bytes": machine.resident_nbytes,
                "private_bytes": machine.private_nbytes,
                "memory_limit": machine.limit_nbytes,
                "units_dirty": machine.n_dirty,
                "bytes_dirty": machine.dirty_nbytes,
                "clients": len(self.clients),
                "regions": len(self.regions),
                "arrays": arrays,
            }
