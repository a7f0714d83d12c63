"""Memory that is written back, as dictionaries, with the store behind it: what commands act on.

Each byte holds the number of the write that it has from, so of two values the larger is the newer.
The memory object, each client's page table and its protection, the residency map and the store are
kept apart, as they are outside of the model.  Loads and write backs go on in steps, with anything
else between them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lazyarr.layout.geometry import Geometry
from lazyarr.memory_kind import MemoryKind
from lazyarr.plan import messages as m
from lazyarr.plan.dirty import Stage
from lazyarr.plan.machine import Machine
from lazyarr.plan.regions import RegionState
from lazyarr.units import Span
from tests.plan.memory_model import ADDRESS_STEP, FAILURE, PAGE_NBYTES
from tests.plan.transitions import TABLE, allows, events_in, state_of

__all__ = ["WrittenWorld"]

_WRITABLE, _PROTECTED, _POISON = "writable", "protected", "poison"
_CLEAN, _DIRTY = 1, 3
_ZEROS = [0] * PAGE_NBYTES
_OPEN = (Stage.WAITING, Stage.QUEUED)
EVENTS = tuple(sorted({name for row in TABLE for name in events_in(row.events)}))
NOT_WRITTEN = m.Failure("the disk is full", {})


@dataclass
class Area:
    """One region."""

    geometry: Geometry
    store: list[int]  # by byte of the array
    newest: list[int]  # what was written last
    memfd: dict[int, list[int]] = field(default_factory=dict)
    tables: dict[int, dict[int, str]] = field(default_factory=dict)
    map: dict[int, int] = field(default_factory=dict)
    queue: list[int] = field(default_factory=list)  # units of a `WriteBack`, not begun
    shares: dict[tuple[int, int], list[int]] = field(default_factory=dict)  # of a unit, in a page
    is_retired: bool = False
    lost: set[int] = field(default_factory=set)  # bytes of which nothing is promised
    holes: set[int] = field(default_factory=set)  # pages that a client has taken out

    def pages_of(self, unit: int) -> range:
        """Return all pages that a unit fills, alone or with others."""
        return range(*self.geometry.pages_of_bytes(self.geometry.unit_bytes(unit)))

    def lacks(self, unit: int) -> list[int]:
        """Return the pages of a unit that are not in the memory object."""
        return [page for page in self.pages_of(unit) if page not in self.memfd]

    def units_of(self, page: int) -> range:
        """Return the units that fill a page."""
        return range(*self.geometry.units_of_page(page))

    def stored(self, page: int) -> list[int]:
        """Return what a page has in the store, zeros behind the end."""
        found = self.store[page * PAGE_NBYTES : (page + 1) * PAGE_NBYTES]
        return found + [0] * (PAGE_NBYTES - len(found))


@dataclass(frozen=True)
class Thread:
    """Somebody who reads or writes a byte."""

    number: int
    client: int
    region: int
    offset: int
    writes: bool

    @property
    def page(self) -> int:
        """The page that the byte is in."""
        return self.offset // PAGE_NBYTES


@dataclass
class InFlight:
    """A load that has not ended."""

    command: m.Load
    end: str | None = None
    fragments: tuple[m.Fragment, ...] = ()


@dataclass
class Job:
    """A write back that has begun: protected, copied unit by unit, checked and put, in steps."""

    region: int
    units: tuple[int, ...]
    clients: tuple[int, ...]
    is_protected: bool = False
    is_checked: bool = False
    copies: dict[int, list[int]] = field(default_factory=dict)


class WrittenWorld:
    """Clients, the store, and the pager's hands; `do` gives an event to the machine.

    Parameters
    ----------
    limit_nbytes, slice_units : int
        Of the machine.

    Attributes
    ----------
    is_patient : bool
        Whether `do` leaves for later what the machine does, which `proceed` goes on with.
    """

    def __init__(self, limit_nbytes: int, *, slice_units: int = 256, window: int = 0) -> None:
        self.slice_units, self.limit, self.window = slice_units, limit_nbytes, window
        self.machine = self._new_machine()
        self.is_patient = False
        self.areas: dict[int, Area] = {}
        self.attached: set[tuple[int, int]] = set()
        self.reserved: set[tuple[int, int]] = set()
        self.alive: set[int] = set()
        self.known: set[int] = set()
        self.loads: dict[tuple[int, int], InFlight] = {}
        self.jobs: list[Job] = []
        self.waiting: set[Thread] = set()
        self.runnable: list[Thread] = []
        self.faults: list[Thread] = []  # messages that nobody has read
        self.told: set[Thread] = set()  # those whose message was read
        self.unmapped: set[tuple[int, int, int]] = set()  # client, region, page
        self.tickets: dict[tuple[int, int], m.Event] = {}
        self.snapshots: dict[tuple[int, int], dict[int, int]] = {}
        self.answers: dict[tuple[int, int], tuple[m.Failure, ...]] = {}
        self.served: list[tuple[Thread, str]] = []
        self.log: list[m.Command] = []
        self._numbers = itertools.count(1)
        self._found: list[m.Event] = []
        self._do: dict[type, Callable[[Any], None]] = {
            m.Load: self._load,
            m.Promote: lambda _: None,
            m.InstallPage: self._install_page,
            m.MapPages: self._map_pages,
            m.Wake: self._wake_address,
            m.Punch: self._punch,
            m.Publish: self._publish,
            m.Poison: self._poison,
            m.Protect: self._protect,
            m.Unprotect: self._unprotect,
            m.Refuse: self._refuse,
            m.WriteBack: self._write_back,
            m.Flushed: self._flushed,
            m.Lost: self._lost,
            m.Answer: self._answer,
            m.Forget: self._forget,
        }

    def _new_machine(self) -> Machine:
        machine = Machine(0, slice_units=self.slice_units)
        for event in (m.LimitChanged(self.limit), m.ReadaheadChanged(self.window)):
            assert machine.handle(event) == []
        return machine

    def number(self) -> int:
        """Return a number that was not given out yet."""
        return next(self._numbers)

    def state(self, region: int) -> RegionState:
        """Return the machine's record of a region."""
        state = self.machine.region(region)
        assert state is not None
        return state

    # --- clients ----------------------------------------------------------------------------

    def address(self, client: int, region: int, page: int) -> int:
        """Return where a client has a page."""
        return (region * 1000 + client) * ADDRESS_STEP + page * PAGE_NBYTES

    def add_client(self) -> int:
        """Start a process."""
        client = self.number()
        self.alive.add(client)
        self.known.add(client)
        return client

    def open(self, client: int, geometry: Geometry) -> int:
        """Have a client map an array of its own."""
        region = self.number()
        content = [self.number() for _ in range(geometry.nbytes)]
        self.areas[region] = Area(geometry, content, list(content))
        self.attach(client, region)
        return region

    def attach(self, client: int, region: int) -> None:
        """Have a client map a region."""
        self.reserved.discard((client, region))
        self.attached.add((client, region))
        self.areas[region].tables[client] = {}
        self._attach(client, region)

    def _attach(self, client: int, region: int) -> None:
        address, geometry = self.address(client, region, 0), self.areas[region].geometry
        # Of every three regions one has an object for each unit, the others larger ones.
        n_chunks = region % 3 + 1
        per_object = (n_chunks,) * len(geometry.shape) if n_chunks > 1 else ()
        self.do(
            m.Attached(
                client, region, address, geometry, MemoryKind.TRACKED, chunks_per_object=per_object
            )
        )

    def promise(self, client: int, region: int) -> None:
        """Promise a client a region."""
        self.reserved.add((client, region))
        self.do(m.Reserved(client, (region,)))

    def exit(self, client: int) -> None:
        """End a process; nobody has told the machine yet."""
        self.alive.remove(client)
        self.waiting = {each for each in self.waiting if each.client != client}
        self.told = {each for each in self.told if each.client != client}
        self.runnable = [each for each in self.runnable if each.client != client]
        self.faults = [each for each in self.faults if each.client != client]
        self.attached = {key for key in self.attached if key[0] != client}
        self.tickets = {key: what for key, what in self.tickets.items() if key[0] != client}
        for area in self.areas.values():
            area.tables.pop(client, None)

    def tell_exit(self, client: int) -> None:
        """Tell the machine of a process that has ended."""
        self.known.remove(client)
        self.reserved = {key for key in self.reserved if key[0] != client}
        self.unmapped = {key for key in self.unmapped if key[0] != client}
        self.do(m.ClientLeft(client))

    def leaving(self) -> set[tuple[int, int]]:
        """Return the clients that have asked to unmap a region, and have no answer."""
        return {(e.client, e.region) for e in self.tickets.values() if isinstance(e, m.Detached)}

    def take_page_out(self, region: int, page: int) -> None:
        """Have a client take a page out of the memory object, behind the pager's back."""
        area = self.areas[region]
        if page not in area.memfd:
            return
        self._take_out(region, (page,))
        area.holes.add(page)
        for unit in area.units_of(page):
            if area.map.get(unit) == _DIRTY:
                area.lost.update(range(*area.geometry.unit_bytes(unit)))

    # --- wishes -----------------------------------------------------------------------------

    def ask(self, event: m.Event) -> tuple[int, int]:
        """Have a client ask for something; return the key of its answer."""
        key = (event.client, event.ticket)
        self.tickets[key] = event
        if isinstance(event, m.FlushAsked | m.Retired):
            area = self.areas[event.region]
            units = event.units if isinstance(event, m.FlushAsked) else Span(0, 1 << 30)
            inside = units & Span(0, area.geometry.n_units)
            spans = [area.geometry.unit_bytes(unit) for unit in range(*inside)]
            self.snapshots[key] = {i: area.newest[i] for span in spans for i in range(*span)}
        self.do(event)
        return key

    def touch(self, client: int, region: int, offset: int, *, writes: bool) -> Thread:
        """Have a thread read or write a byte."""
        thread = Thread(self.number(), client, region, offset, writes)
        self._look(thread)
        return thread

    def _look(self, thread: Thread) -> None:
        key = (thread.client, thread.region)
        if key not in self.attached or key in self.leaving():
            self.served.append((thread, "SIGSEGV"))
            return
        area = self.areas[thread.region]
        found = area.tables[thread.client].get(thread.page)
        if found == _POISON:
            self.served.append((thread, "SIGBUS"))
        elif found is None or (thread.writes and found == _PROTECTED):
            self.waiting.add(thread)
            self.faults.append(thread)
        elif thread.writes:
            assert not area.is_retired, "written to what is retired"
            units = area.units_of(thread.page)
            assert all(area.map.get(unit) == _DIRTY for unit in units), "the record is behind"
            value = self.number()
            area.memfd[thread.page][thread.offset % PAGE_NBYTES] = value
            area.newest[thread.offset] = value
            area.lost.discard(thread.offset)
            self.served.append((thread, "written"))
        else:
            value = area.memfd[thread.page][thread.offset % PAGE_NBYTES]
            is_right = value == area.newest[thread.offset] or thread.offset in area.lost
            assert is_right, f"{thread} has read what is not the newest"
            self.served.append((thread, "read"))

    def run(self) -> None:
        """Let every thread that was woken look again."""
        woken, self.runnable = self.runnable, []
        for thread in woken:
            self._look(thread)

    def read_fault(self, *, quickly: bool = False) -> None:
        """Give the first fault message to the machine."""
        thread = self.faults.pop(0)
        address = self.address(thread.client, thread.region, thread.page)
        if (thread.client, thread.region) not in self.attached:
            self.do(m.Faulted(thread.client, address, thread.writes))
            return
        area = self.areas[thread.region]
        self.told.add(thread)
        if thread.writes and thread.page not in area.tables[thread.client]:
            self.unmapped.add((thread.client, thread.region, thread.page))
        if quickly and not thread.writes:
            fast = self.machine.fast_path.plan(thread.client, address)
            pages = area.geometry.body_pages(fast.unit) if fast is not None else Span(0, 0)
            if fast is not None and not any(page in area.memfd for page in range(*pages)):
                self._copy_in(thread.region, thread.client, pages, wakes=True)
                self.machine.fast_path.take_down(fast)
                area.map[fast.unit] = _CLEAN
                return
        self.do(m.Faulted(thread.client, address, thread.writes))

    def serve(self) -> None:
        """Read all messages, let all loads end, and let whoever is woken look again; once."""
        while self.faults:
            self.read_fault()
        for load in list(self.loads.values()):
            self.end_load(load)
        self.run()

    # --- loads ------------------------------------------------------------------------------

    def install_body(self, load: InFlight) -> None:
        """Read a unit and install its own pages, outside of the pager's lock."""
        command = load.command
        area, state = self.areas[command.region], self.state(command.region)
        pages = area.geometry.body_pages(command.unit)
        assert not command.mark, "the first touch of a mark would not be seen to write"
        if command.replaces:
            self._take_out(command.region, range(*pages))
        present = command.client in state.addresses and command.client in self.alive
        load.end = "loaded" if present else "stranded"
        load.fragments = tuple(self._fragments(area, command.unit))
        if present:
            self._copy_in(command.region, command.client, pages, wakes=not command.writes)

    def install_awaited(self, load: InFlight) -> None:
        """Do what a load is to do first; tell the machine if it wants to know."""
        command = load.command
        present = (command.client, command.region) in self.attached
        if command.awaited is None or command.replaces or not present:
            return
        body = self.areas[command.region].geometry.body_pages(command.unit)
        pages = command.awaited & body
        self._copy_in(command.region, command.client, pages, wakes=not command.writes)
        if command.is_pick:
            self.do(m.Arrived(command.region, command.unit, command.awaited))

    def _copy_in(self, region: int, client: int, pages: Span, *, wakes: bool) -> None:
        """Do UFFDIO_COPY with WP."""
        area = self.areas[region]
        assert (client, region) in self.attached, "installed into memory that may be unmapped"
        for page in range(*pages):
            units = area.units_of(page)
            dirty = [unit for unit in units if area.map.get(unit) == _DIRTY]
            assert not dirty, f"page {page} of dirty units {dirty} is installed"
            area.memfd[page] = area.stored(page)
            area.holes.discard(page)
            area.tables[client][page] = _PROTECTED
        if wakes:
            self._wake(region, client, range(*pages))

    def _fragments(self, area: Area, unit: int) -> Iterator[m.Fragment]:
        """Yield a unit's shares as the machine takes them; what they hold is kept here."""
        span = area.geometry.unit_bytes(unit)
        for page in area.geometry.edge_pages(unit):
            share = span & area.geometry.page_bytes(page)
            area.shares[unit, page] = area.store[share.start : share.stop]
            yield m.Fragment(page, share.start - page * PAGE_NBYTES, bytes(share.size))

    def end_load(self, load: InFlight, *, fail: bool = False) -> None:
        """Tell the machine how a load has ended."""
        command = load.command
        if load.end is None and not fail:
            self.install_body(load)
        del self.loads[command.region, command.unit]
        where = (command.region, command.unit, command.client)
        if fail:
            self.do(m.LoadFailed(*where, FAILURE))
        elif load.end == "stranded":
            self.do(m.Stranded(*where))
        else:
            self.do(m.Loaded(*where, load.fragments))

    # --- write backs ------------------------------------------------------------------------

    def begin_copy(self, region: int, units: tuple[int, ...]) -> None:
        """Begin to copy some units that the machine wants written."""
        area = self.areas[region]
        area.queue = [unit for unit in area.queue if unit not in units]
        # Listed before, for the machine may let in others only after `Copied`.
        job = Job(region, units, ())
        self.jobs.append(job)
        self.do(m.CopyBegan(region, units))
        state = self.machine.region(region)
        job.clients = tuple(state.addresses) if state is not None else ()

    def protect(self, job: Job) -> None:
        """Protect the pages of a job in the clients that had the region when it began."""
        area = self.areas[job.region]
        job.is_protected = True
        for client, unit in itertools.product(job.clients, job.units):
            table = area.tables.get(client, {})
            for page in area.pages_of(unit):
                if table.get(page) == _WRITABLE:
                    table[page] = _PROTECTED

    def copy(self, job: Job, unit: int) -> None:
        """Copy one of the units of a job, and let those in who wait to write to it."""
        area = self.areas[job.region]
        span = area.geometry.unit_bytes(unit)
        pages = area.pages_of(unit)
        data = [value for page in pages for value in area.memfd.get(page, _ZEROS)]
        start = span.start - pages.start * PAGE_NBYTES
        job.copies[unit] = data[start : start + span.size]
        self.do(m.Copied(job.region, (unit,)))

    def end_copy(self, job: Job) -> None:
        """Copy what is not copied yet, and look whether all was there; else all fail."""
        if not job.is_protected:
            self.protect(job)
        for unit in job.units:
            if unit not in job.copies:
                self.copy(job, unit)
        area = self.areas[job.region]
        job.is_checked = not any(area.lacks(unit) for unit in job.units) and all(
            self.machine.is_being_written(job.region, unit) for unit in job.units
        )
        if job.is_checked:
            assert all(map(all, job.copies.values())), "a hole would be written as zeros"
        else:
            self.end_job(job, fail=True)

    def put(self, job: Job) -> None:
        """Put the copies into the store."""
        area = self.areas[job.region]
        for unit, data in job.copies.items():
            span = area.geometry.unit_bytes(unit)
            for offset, value in zip(range(*span), data, strict=True):
                assert value >= area.store[offset] or offset in area.lost, "older than the store"
                area.store[offset] = value

    def end_job(self, job: Job, n_units: int = 1 << 30, *, fail: bool = False) -> None:
        """Tell the machine what has become of some units of a job."""
        if not (fail or job.is_checked):
            self.end_copy(job)
            if not job.is_checked:
                return
        if not fail:
            self.put(job)
        some, rest = job.units[:n_units], job.units[n_units:]
        if rest:
            job.units = rest
            job.copies = {unit: data for unit, data in job.copies.items() if unit in rest}
        else:
            self.jobs.remove(job)
        self.do(m.WrittenBack(job.region, some, NOT_WRITTEN if fail else None, 10))

    def fail_queued(self, region: int, units: tuple[int, ...]) -> None:
        """Let units fail that were not begun, as when the store cannot be opened."""
        area = self.areas[region]
        area.queue = [unit for unit in area.queue if unit not in units]
        self.do(m.WrittenBack(region, units, NOT_WRITTEN, 0))

    # --- another worker ---------------------------------------------------------------------

    def take_over(self) -> None:
        """Have another machine go on, which knows no more than the memory and the ledger."""
        self.machine = self._new_machine()
        self.loads.clear()
        self.jobs.clear()
        self.unmapped.clear()
        self.told.clear()
        self.faults.clear()
        self.runnable += sorted(self.waiting, key=lambda each: each.number)
        self.waiting.clear()
        for region in sorted(self.areas):
            self._take_over_region(region)
        # What clients had asked for, they ask again.
        for event in list(self.tickets.values()):
            if event.client in self.known:
                self.do(event)

    def _take_over_region(self, region: int) -> None:
        area = self.areas[region]
        area.queue.clear()
        found = sorted(unit for unit, said in area.map.items() if said == _DIRTY)
        dirty = tuple(unit for unit in found if not area.lacks(unit))
        for unit in set(found) - set(dirty):
            self._protect(m.Protect(region, Span(0, area.geometry.n_pages)))
            area.lost.update(range(*area.geometry.unit_bytes(unit)))
        kept = {page for unit in dirty for page in area.pages_of(unit)}
        area.holes.clear()
        area.map = dict.fromkeys(dirty, _DIRTY)
        self._take_out(region, [page for page in range(area.geometry.n_pages) if page not in kept])
        attached = sorted(client for client, of in self.attached if of == region)
        for client in attached:
            self._attach(client, region)
        waiting = sorted(client for client, of in self.reserved if of == region)
        if waiting or dirty:
            self.do(m.Opened(region, area.geometry, MemoryKind.TRACKED))
            for client in waiting:
                self.do(m.Reserved(client, (region,)))
        if dirty:
            self.do(m.Restored(region, dirty))
        if self.machine.region(region) is None:
            self.areas.pop(region, None)
        elif area.is_retired and attached:
            self.do(m.Retired(attached[0], -region, region))

    # --- steps of the machine ---------------------------------------------------------------

    def do(self, event: m.Event) -> None:
        """Give an event to the machine and carry out what follows."""
        if isinstance(event, m.LimitChanged):
            self.limit = event.limit_nbytes
        events = [event]
        while events:
            event = events.pop(0)
            name = type(event).__name__
            before, taken = self._unit_states(), self._dirty_nbytes()
            self._carry_out(self.machine.handle(event))
            self._check_step(before, name)
            if not isinstance(event, m.Restored):
                self._check_growth(taken)
            events += self._found
            self._found = []
        while not self.is_patient and self.proceed():
            pass

    def proceed(self) -> bool:
        """Have the machine take a step of what it has left to do; return whether there was one."""
        if not self.machine.has_more:
            return False
        before, taken = self._unit_states(), self._dirty_nbytes()
        self._carry_out(self.machine.proceed())
        # It goes on with an event, and which one that was is not known any more.
        self._check_step(before, *EVENTS)
        self._check_growth(taken)
        found, self._found = self._found, []
        is_patient, self.is_patient = self.is_patient, True
        for event in found:
            self.do(event)
        self.is_patient = is_patient
        return True

    def _carry_out(self, commands: list[m.Command]) -> None:
        for command in commands:
            self.log.append(command)
            self._do[type(command)](command)

    def _unit_states(self) -> dict[tuple[int, int], str]:
        return {
            (region, unit): state_of(state, unit)
            for region in self.areas
            if (state := self.machine.region(region)) is not None
            for unit in range(state.geometry.n_units)
        }

    def _check_step(self, before: dict[tuple[int, int], str], *events: str) -> None:
        for key, after in self._unit_states().items():
            first = before.get(key, "ABSENT")
            assert first == after or any(allows(first, event, after) for event in events), (
                f"unit {key[1]}: {first} -> {after} by {events[0] if len(events) == 1 else 'any'}"
            )

    def _dirty_nbytes(self) -> int:
        return self.machine._units.dirty.taken_nbytes

    def _check_growth(self, before_nbytes: int) -> None:
        """Look whether a writer was let in though too much was dirty."""
        after_nbytes = self._dirty_nbytes()
        most_nbytes = self.limit // 2
        for area in self.areas.values():
            geometry = area.geometry
            # The last one that was let in may have needed all units of a page.
            page_nbytes = geometry.page_nbytes + 2 * geometry.unit_nbytes
            most_nbytes = max(most_nbytes, page_nbytes)
        few_nbytes = max(
            (a.geometry.page_nbytes + 2 * a.geometry.unit_nbytes for a in self.areas.values()),
            default=0,
        )
        # One that was let in before its unit was written is let in again, with less room.
        allowed_nbytes = most_nbytes + max(self.limit // 8, few_nbytes) + few_nbytes
        assert after_nbytes <= max(before_nbytes, allowed_nbytes), "too much is dirty"

    # --- commands ---------------------------------------------------------------------------

    def _load(self, command: m.Load) -> None:
        key = (command.region, command.unit)
        assert key not in self.loads, "a unit is loaded twice at once"
        assert command.unit not in self.state(command.region).resident
        assert command.client in self.known
        self.loads[key] = InFlight(command)

    def _install_page(self, command: m.InstallPage) -> None:
        area, page = self.areas[command.region], command.page
        assert command.client in self.state(command.region).addresses
        assert not any(area.map.get(unit) == _DIRTY for unit in area.units_of(page))
        data = [value for unit in area.units_of(page) for value in area.shares[unit, page]]
        area.memfd[page] = data + [0] * (PAGE_NBYTES - len(data))
        area.holes.discard(page)
        # Through the memory object, where the client is gone whose mapping it should go through.
        if command.client in self.alive:
            area.tables[command.client][page] = _PROTECTED
        self._wake(command.region, command.client, (page,))

    def _map_pages(self, command: m.MapPages) -> None:
        area = self.areas[command.region]
        assert command.client in self.state(command.region).addresses
        if command.client not in self.alive:
            return
        table = area.tables[command.client]
        for page in range(*command.pages):
            if page not in area.memfd:
                self._found.append(m.HoleFound(command.client, command.region, page))
            elif table.get(page) in (None, _POISON):
                table[page] = _PROTECTED
        self._wake(command.region, command.client, range(*command.pages))

    def _protect(self, command: m.Protect) -> None:
        for table in self.areas[command.region].tables.values():
            for page in range(*command.pages):
                if table.get(page) == _WRITABLE:
                    table[page] = _PROTECTED

    def _unprotect(self, command: m.Unprotect) -> None:
        area = self.areas[command.region]
        assert command.client in self.state(command.region).addresses
        for page in range(*command.pages):
            for unit in area.units_of(page):
                assert area.map.get(unit) == _DIRTY, f"unit {unit} is not published as dirty"
                # A copy of what was lost meanwhile is not used.
                is_lost = unit in self.state(command.region).strays
                assert is_lost or not any(
                    job.region == command.region and unit in job.units and unit not in job.copies
                    for job in self.jobs
                ), f"page {page} is unprotected while unit {unit} is copied"
        if command.client not in self.alive:
            return
        table = area.tables[command.client]
        noted = {(command.client, command.region, page) for page in range(*command.pages)}
        awaited = {page for _, _, page in self.unmapped & noted}
        self.unmapped -= noted
        # From the first page on, and from each that is waited for: up to one that is mapped.
        for start in sorted({command.pages.start, *awaited}):
            for page in range(start, command.pages.stop):
                if page not in area.memfd:
                    if page == start:
                        self._found.append(m.HoleFound(command.client, command.region, page))
                    break
                if page in table:
                    break
                table[page] = _WRITABLE
        for page in range(*command.pages):
            if table.get(page) == _PROTECTED:
                table[page] = _WRITABLE
        self._wake(command.region, command.client, range(*command.pages))

    def _refuse(self, command: m.Refuse) -> None:
        for thread in self._who_waits(command.region, command.client, command.pages):
            if thread.writes and thread in self.told:
                self.waiting.discard(thread)
                self.served.append((thread, "SIGBUS"))

    def _poison(self, command: m.Poison) -> None:
        assert command.client in self.state(command.region).addresses
        if command.client not in self.alive:
            return
        table = self.areas[command.region].tables[command.client]
        for page in command.pages:
            if page not in table:
                table[page] = _POISON
        self._wake(command.region, command.client, command.pages)

    def _who_waits(self, region: int, client: int, pages: Iterable[int]) -> list[Thread]:
        return sorted(
            (
                t
                for t in self.waiting
                if (t.region, t.client) == (region, client) and t.page in pages
            ),
            key=lambda thread: thread.number,
        )

    def _wake(self, region: int, client: int, pages: Iterable[int]) -> None:
        woken = self._who_waits(region, client, pages)
        self.waiting.difference_update(woken)
        self.told.difference_update(woken)
        self.runnable += woken

    def _wake_address(self, command: m.Wake) -> None:
        for region in {each.region for each in self.waiting if each.client == command.client}:
            offset = command.address - self.address(command.client, region, 0)
            self._wake(region, command.client, (offset // PAGE_NBYTES,))

    def _punch(self, command: m.Punch) -> None:
        area = self.areas[command.region]
        for page in range(*command.pages):
            units = area.units_of(page)
            assert not any(area.map.get(unit) == _DIRTY for unit in units), (
                "dirty memory is punched"
            )
            assert not any(area.map.get(unit) for unit in units), "resident memory is punched"
        self._take_out(command.region, range(*command.pages))
        area.holes.difference_update(range(*command.pages))

    def _take_out(self, region: int, pages: Iterable[int]) -> None:
        area = self.areas[region]
        for page in pages:
            area.memfd.pop(page, None)
            for table in area.tables.values():
                if table.get(page) != _POISON:
                    table.pop(page, None)

    def _publish(self, command: m.Publish) -> None:
        area, unit = self.areas[command.region], command.unit
        said = (_DIRTY if command.dirty else _CLEAN) if command.resident else 0
        if said == _DIRTY:
            missing = set(area.lacks(unit)) - area.holes
            assert not missing, f"unit {unit} is dirty and lacks pages {missing}"
        elif area.map.get(unit) == _DIRTY:
            for offset in range(*area.geometry.unit_bytes(unit)):
                is_there = area.store[offset] == area.newest[offset]
                assert is_there or offset in area.lost, "clean, and not in the store"
        area.map[unit] = said

    def _write_back(self, command: m.WriteBack) -> None:
        area = self.areas[command.region]
        for unit in command.units:
            assert unit not in area.queue, "to be written twice at once"
            assert not any(
                job.region == command.region and unit in job.units for job in self.jobs
            ), "to be written while it is written"
            area.queue.append(unit)

    def _flushed(self, command: m.Flushed) -> None:
        key = (command.client, command.ticket)
        if command.client not in self.alive or command.ticket < 0:
            return
        assert key in self.tickets, "answered twice"
        event = self.tickets.pop(key)
        assert isinstance(event, m.FlushAsked | m.Retired)
        area = self.areas[event.region]
        snapshot = self.snapshots.pop(key)
        self.answers[key] = command.failures
        if command.failures:
            return
        for offset, value in snapshot.items():
            assert area.store[offset] >= value or offset in area.lost, "flushed, and not stored"
        if isinstance(event, m.Retired):
            area.is_retired = True

    def _lost(self, command: m.Lost) -> None:
        area = self.areas[command.region]
        state = self.machine.region(command.region)
        is_gone = all(area.holes.intersection(area.pages_of(unit)) for unit in command.units)
        is_hopeless = state is None or not state.addresses
        assert is_gone or is_hopeless, "lost, and somebody could try again"
        for unit in command.units:
            area.lost.update(range(*area.geometry.unit_bytes(unit)))

    def _answer(self, command: m.Answer) -> None:
        key = (command.client, command.ticket)
        if command.client not in self.alive:
            return
        assert key in self.tickets, "answered twice"
        event = self.tickets.pop(key)
        assert not isinstance(event, m.FlushAsked | m.Retired), "a flush has an answer of its own"
        self.answers[key] = command.failures
        if isinstance(event, m.Detached):
            assert not any(
                load.command.region == event.region and load.command.client == command.client
                for load in self.loads.values()
            ), "a load is on its way into memory that is unmapped"
            self.attached.discard((command.client, event.region))
            self.areas[event.region].tables.pop(command.client, None)

    def _forget(self, command: m.Forget) -> None:
        assert not any(region == command.region for region, _ in self.loads)
        assert not any(region == command.region for _, region in self.attached | self.reserved)
        area = self.areas.pop(command.region)
        is_written = area.queue or any(job.region == command.region for job in self.jobs)
        assert not is_written, "forgotten while it is written back"
        for offset, value in enumerate(area.newest):
            assert area.store[offset] == value or offset in area.lost, "forgotten, and not stored"

    # --- what holds between any two steps ---------------------------------------------------

    def check(self) -> None:
        """Check the invariants of memory that is written back."""
        for region, area in self.areas.items():
            self._check_area(area, self.state(region))
            for client, table in area.tables.items():
                if client in self.state(region).addresses:
                    writable = [page for page, how in table.items() if how == _WRITABLE]
                    for page in writable:
                        self._check_writable(region, area, page)
        self._check_room()

    def _check_area(self, area: Area, state: RegionState) -> None:
        for unit in range(area.geometry.n_units):
            said = area.map.get(unit, 0)
            assert (said == _DIRTY) == (unit in state.dirty), "the map is wrong of what is dirty"
            assert bool(said) == (unit in state.resident), "the map is wrong of what is resident"
            if said == _DIRTY:
                assert area.holes.issuperset(area.lacks(unit)), "dirty, and not whole"
            for offset in range(*area.geometry.unit_bytes(unit)):
                page = offset // PAGE_NBYTES
                is_there = page in area.holes
                if said != _DIRTY:
                    is_there = area.store[offset] == area.newest[offset]
                elif page in area.memfd:
                    is_there = area.memfd[page][offset % PAGE_NBYTES] == area.newest[offset]
                assert is_there or offset in area.lost, "a write is lost"

    def _check_writable(self, region: int, area: Area, page: int) -> None:
        dirty = self.state(region).dirty
        for unit in area.units_of(page):
            assert unit in dirty, f"page {page} is writable, and unit {unit} is clean"
            found = dirty[unit]
            is_begun = any(
                job.region == region and unit in job.units and not job.is_protected
                for job in self.jobs
            )
            is_open = found.stage in _OPEN or found.is_again or is_begun
            assert is_open, f"page {page} is writable, and unit {unit} is {found!r}"

    def _check_room(self) -> None:
        units = self.machine._units
        dirty = [each for area in self.areas for each in self.state(area).dirty.values()]
        assert units.dirty.n_units == len(dirty)
        assert units.dirty.nbytes == sum(each.nbytes for each in dirty)
        waiting = [each for each in dirty if each.stage is Stage.WAITING]
        failed = sum(each.nbytes for each in waiting if each.has_failed)
        assert units.dirty.failed_nbytes == failed
        assert units.dirty.fresh_nbytes == sum(each.nbytes for each in waiting) - failed
        if self.machine.has_more:
            return
        promised = loading = kept = largest = 0
        for region, area in self.areas.items():
            state = self.state(region)
            sizes = [state.unit_nbytes(unit) for unit in range(area.geometry.n_units)]
            largest = max(largest, *sizes)
            promised += sum(sizes[unit] for unit in state.promised if unit not in state.dirty)
            loading += sum(sizes[unit] for unit in state.loading)
            kept += sum(
                sizes[unit]
                for unit in state.resident
                if unit in state.dirty or unit in state.promised or state.is_awaited(unit)
            )
        assert units.dirty.promised_nbytes == promised
        room_nbytes = max(self.limit - loading, self.limit // 2) + largest
        assert self.machine.resident_nbytes - kept <= room_nbytes, "too much is resident"

    # --- the end ----------------------------------------------------------------------------

    def settle(self, n_steps: int = 600) -> None:
        """Let every load and write back succeed, and every thread run, in turn."""
        self.is_patient = False
        self.do(m.LimitChanged(self.limit))
        for step in range(n_steps):
            self.run()
            while self.faults:
                self.read_fault()
            if self.loads:
                keys = sorted(self.loads)
                self.end_load(self.loads[keys[step % len(keys)]])
            if self.jobs:
                self.end_job(self.jobs[0])
            for region in sorted(self.areas):
                if region in self.areas and self.areas[region].queue and not self.jobs:
                    self.begin_copy(region, tuple(self.areas[region].queue))
            if not (self.loads or self.jobs or self.runnable or self.faults):
                break
        is_over = not (self.loads or self.jobs or self.runnable or self.faults)
        assert is_over, f"it goes on for ever: {self.log[-12:]}"
        self.check()
        assert not self.waiting, f"{self.waiting} waits for ever: {self.log[-12:]}"
        assert not self.tickets, f"{self.tickets} are not answered: {self.log[-12:]}"

    def finish(self) -> None:
        """Have everything served and flushed, and all clients end."""
        for client in sorted(self.known - self.alive):
            self.tell_exit(client)
        self.settle()
        for client, region in sorted(self.attached):
            ticket = self.number()
            self.ask(m.FlushAsked(client, region, ticket, Span(0, 1 << 30)))
            self.settle()
            if not self.areas[region].holes:
                assert self.answers[client, ticket] == ()
                assert not self.state(region).dirty
        for client in sorted(self.alive):
            self.exit(client)
            self.tell_exit(client)
            self.settle()
        kept = {region: self.machine.region(region) for region in self.areas}
        assert not kept, f"{kept} is kept, and nobody has it: {self.log[-12:]}"
        assert (self.machine.n_dirty, self.machine.held_nbytes) == (0, 0)
        assert self.machine._units.dirty.taken_nbytes == 0
