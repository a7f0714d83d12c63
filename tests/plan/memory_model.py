"""Clients, memory objects and page tables as dictionaries: what the machine's commands act on.

It follows the kernel: a page is in a client's page table, or missing, or poisoned;
a shared page is in the memory object or a hole of it; a thread that is woken looks
again, and waits again when its page is not there.  One long module, since all of its
operations are on the same few dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lazyarr.layout.geometry import Geometry
from lazyarr.memory_kind import MemoryKind
from lazyarr.plan import messages as m
from lazyarr.plan.machine import FastLoad, Machine
from lazyarr.plan.readahead import Advice
from lazyarr.plan.recorder import Recorder
from lazyarr.plan.regions import RegionState
from lazyarr.units import Span
from tests.plan.transitions import allows, state_of

PAGE_NBYTES = 16
POISON = b"poison"
ADDRESS_STEP = 1 << 20
# Looking at each unit of a larger region after each event would take the time of all tests.
_MOST_CHECKED = 64
FAILURE = m.Failure("chunk (0,) of 'x' cannot be had", {"reason": "damaged"})


@dataclass
class Memory:
    """One region: the array's true bytes, the memory object, each client's page table."""

    geometry: Geometry
    shared: bool
    truth: bytes
    memfd: dict[int, bytes] = field(default_factory=dict)
    tables: dict[int, dict[int, bytes]] = field(default_factory=dict)
    resident_map: dict[int, bool] = field(default_factory=dict)
    tampered: set[int] = field(default_factory=set)  # pages changed behind the pager's back

    @property
    def kind(self) -> MemoryKind:
        """What the machine is told of the memory."""
        return MemoryKind.SHARED if self.shared else MemoryKind.PRIVATE

    def page(self, page: int) -> bytes:
        """Return what a page must hold."""
        size = self.geometry.page_nbytes
        return self.truth[page * size : (page + 1) * size]

    def holds(self, page: int) -> bool:
        """Return whether a page is installed: in the object, or in the only client."""
        if self.shared:
            return page in self.memfd
        return any(table.get(page, POISON) != POISON for table in self.tables.values())


@dataclass(frozen=True)
class Thread:
    """Somebody who touches a page of a client."""

    number: int
    client: int
    region: int
    page: int


@dataclass
class InFlight:
    """A load that the machine has started and that has not ended."""

    command: m.Load
    end: str | None = None  # how it will end; None while nothing is installed
    is_promoted: bool = False
    quick: FastLoad | None = None  # what it was begun with, when that was not an event


class World:
    """All clients and the pager's hands; `do` gives an event to the machine.

    Parameters
    ----------
    limit_nbytes : int
        The memory limit.
    slice_units : int
        How many units the machine looks at in a step.

    Attributes
    ----------
    is_patient : bool
        Whether `do` leaves for later what the machine does, which `proceed` goes on with.
    """

    def __init__(self, limit_nbytes: int, *, slice_units: int = 256) -> None:
        self.machine = Machine(limit_nbytes, slice_units=slice_units)
        self.is_patient = False
        self.memories: dict[int, Memory] = {}
        self.attached: set[tuple[int, int]] = set()  # mapped: client and region
        self.reserved: set[tuple[int, int]] = set()  # to be mapped by a client that is not there
        self.alive: set[int] = set()
        self.known: set[int] = set()  # clients of whose end the machine does not know
        self.loads: dict[tuple[int, int], InFlight] = {}
        self.waiting: set[Thread] = set()
        self.runnable: set[Thread] = set()
        self.faults: list[tuple[int, int]] = []  # messages nobody has read: client, address
        self.tickets: dict[tuple[int, int], tuple[int, str]] = {}
        self.answers: dict[tuple[int, int], tuple[m.Failure, ...]] = {}
        self.served: list[tuple[Thread, str]] = []
        self.log: list[m.Command] = []
        # By recording, the units that were there, or on their way, when it began.
        self.known_before: dict[tuple[int, int], set[tuple[int, int]]] = {}
        self._n = 0
        self._found: list[m.HoleFound] = []
        self._do: dict[type, Callable[[Any], None]] = {
            m.Load: self._load,
            m.Promote: self._promote,
            m.InstallPage: self._install_page,
            m.MapPages: self._map_pages,
            m.Wake: self._wake_address,
            m.Punch: self._punch,
            m.Publish: self._publish,
            m.Poison: self._poison,
            m.Answer: self._answer,
            m.Forget: self._forget,
        }

    # --- what happens outside of the pager ----------------------------------------

    def number(self) -> int:
        """Return a number that was not given out yet."""
        self._n += 1
        return self._n

    def state(self, region: int) -> RegionState:
        """Return the machine's record of a region."""
        state = self.machine.region(region)
        assert state is not None
        return state

    def address(self, client: int, region: int, page: int) -> int:
        """Return where a client has a page; no two clients have a region at one place."""
        return (region * 7 + client) * ADDRESS_STEP + page * PAGE_NBYTES

    def add_client(self) -> int:
        """Start a process."""
        client = self.number()
        self.alive.add(client)
        self.known.add(client)
        return client

    def open(self, client: int, geometry: Geometry, *, shared: bool) -> int:
        """Have a client map an array of its own."""
        region = self.number()
        nbytes = geometry.n_pages * geometry.page_nbytes
        content = bytes((i * 7 + region * 13) % 251 + 1 for i in range(geometry.nbytes))
        self.memories[region] = Memory(geometry, shared, content.ljust(nbytes, b"\0"))
        self.attach(client, region)
        return region

    def fork(self, parent: int) -> int:
        """Have a client announce a child, which will have all that it has."""
        child = self.add_client()
        regions = tuple(sorted(region for client, region in self.attached if client == parent))
        self.reserved |= {(child, region) for region in regions}
        self.do(m.Reserved(child, regions))
        return child

    def promise(self, client: int, region: int) -> None:
        """Promise a client a region that another one has."""
        self.reserved.add((client, region))
        self.do(m.Reserved(client, (region,)))

    def decline(self, client: int, region: int) -> tuple[int, int]:
        """Have a client say that it does not take what it was promised."""
        self.reserved.discard((client, region))
        return self.detach(client, region)

    def attach(self, client: int, region: int) -> None:
        """Have a client map a region, register it and say so."""
        self.reserved.discard((client, region))
        memory = self.memories[region]
        memory.tables[client] = {}
        self.attached.add((client, region))
        address = self.address(client, region, 0)
        self.do(m.Attached(client, region, address, memory.geometry, memory.kind))

    def detach(self, client: int, region: int) -> tuple[int, int]:
        """Have a client ask to unmap a region; it unmaps when that is answered."""
        key = self._ask(client, region, "detach")
        self.do(m.Detached(client, region, key[1]))
        return key

    def request(self, client: int, region: int, *units: Span) -> tuple[int, int]:
        """Have a client ask for units; return the key of the answer."""
        key = self._ask(client, region, "request")
        self.do(m.Requested(client, region, key[1], units))
        return key

    def pick(self, client: int, region: int, unit: int, pages: Span) -> tuple[int, int]:
        """Have a client ask for some pages of a unit."""
        key = self._ask(client, region, "request")
        units = (Span(unit, unit + 1),)
        self.do(m.Requested(client, region, key[1], units, pages=pages))
        return key

    def evict(self, client: int, region: int, units: Span) -> tuple[int, int]:
        """Have a client ask for units to be taken out."""
        key = self._ask(client, region, "evict")
        self.do(m.EvictionAsked(client, region, key[1], units))
        return key

    def advise(self, client: int, region: int, units: Span, advice: Advice) -> tuple[int, int]:
        """Have a client say how it will read units."""
        key = self._ask(client, region, "advise")
        self.do(m.Advised(client, region, key[1], units, advice))
        return key

    def record(self, client: int) -> int:
        """Have a client ask for the order of first touches; return its ticket for that."""
        key = self._ask(client, 0, "record")
        self.known_before[key] = {
            (region, unit)
            for region in self.memories
            for unit in self.state(region).resident | self.state(region).loading.keys()
        }
        self.do(m.RecordingBegan(*key))
        return key[1]

    def _check_records(self, thread: Thread) -> None:
        """Look whether the touch of a page, or one before it, has been noted."""
        units = self.memories[thread.region].geometry.units_of_page(thread.page)
        # Of a page that is several units' one may have been told of by the touch of another.
        if units.size > 1:
            return
        for (client, ticket), known in self.known_before.items():
            recorder = self.machine.find_recorder(client, ticket)
            if recorder is not None and (thread.region, units.start) not in known:
                assert (thread.region, units.start) in noted(recorder), f"{thread} was not noted"

    def end_recording(self, client: int, recording: int) -> None:
        """Have a client need that no more."""
        key = self._ask(client, 0, "record")
        self.do(m.RecordingEnded(*key, recording))

    def schedule(
        self,
        client: int,
        runs: list[tuple[int, Span]],
        *,
        schedule: int | None = None,
        start: int = 0,
        is_last: bool = True,
    ) -> int:
        """Have a client tell what will be come to; return its name for that."""
        key = self._ask(client, 0, "schedule")
        name = key[1] if schedule is None else schedule
        self.do(m.Scheduled(*key, name, start, tuple(runs), is_last))
        return name

    def _ask(self, client: int, region: int, what: str) -> tuple[int, int]:
        key = (client, self.number())
        self.tickets[key] = (region, what)
        return key

    def touch(self, client: int, region: int, page: int) -> Thread:
        """Have a thread read a page."""
        thread = Thread(self.number(), client, region, page)
        self._look(thread)
        return thread

    def _look(self, thread: Thread) -> None:
        memory = self.memories.get(thread.region)
        if memory is None or (thread.client, thread.region) not in self.attached:
            self.served.append((thread, "SIGSEGV"))
            return
        found = memory.tables[thread.client].get(thread.page)
        if found is None:
            self.waiting.add(thread)
            self.faults.append(
                (thread.client, self.address(thread.client, thread.region, thread.page))
            )
        elif found == POISON:
            self.served.append((thread, "SIGBUS"))
        else:
            assert found == memory.page(thread.page), f"{thread} read other bytes"
            self._check_records(thread)
            self.served.append((thread, "read"))

    def run(self) -> None:
        """Let every thread that was woken look again."""
        while self.runnable:
            self._look(self.runnable.pop())

    def read_faults(self) -> None:
        """Give all fault messages to the machine."""
        while self.faults:
            self.do(m.Faulted(*self.faults.pop(0)))

    def read_fault_quickly(self) -> None:
        """Serve the first fault message the short way, or else the long way."""
        client, address = self.faults.pop(0)
        quick = self.machine.fast_path.plan(client, address)
        if quick is None or not self._copy_at_once(client, quick.region, quick.unit):
            self.do(m.Faulted(client, address))
            return
        assert quick.address == self.address(client, quick.region, 0) + quick.unit * quick.nbytes
        self.machine.fast_path.take_down(quick)
        self.memories[quick.region].resident_map[quick.unit] = True

    def begin_fault_quickly(self) -> None:
        """Begin the load for the first fault message the short way, or else the long way."""
        client, address = self.faults.pop(0)
        quick = self.machine.fast_path.plan(client, address)
        if quick is None:
            self.do(m.Faulted(client, address))
            return
        assert quick.address == self.address(client, quick.region, 0) + quick.unit * quick.nbytes
        assert quick.page == (address - self.address(client, quick.region, 0)) // PAGE_NBYTES
        commands = self.machine.fast_path.begin(quick)
        self._load(
            m.Load(
                quick.region,
                quick.unit,
                client,
                urgent=True,
                awaited=Span(quick.page, quick.page + 1),
            )
        )
        self.loads[quick.region, quick.unit].quick = quick
        self._carry_out(commands)

    def _copy_at_once(self, client: int, region: int, unit: int) -> bool:
        """Do UFFDIO_COPY on a unit: up to the first page that is there."""
        memory = self.memories[region]
        for page in range(*memory.geometry.body_pages(unit)):
            there = memory.memfd if memory.shared else memory.tables[client]
            if client not in self.alive or there.get(page, POISON) != POISON:
                return False
            self._install(region, client, page, memory.page(page))
        return True

    def exit(self, client: int) -> None:
        """End a process; nobody has told the machine yet."""
        self.alive.remove(client)
        self.waiting = {t for t in self.waiting if t.client != client}
        self.runnable = {t for t in self.runnable if t.client != client}
        self.faults = [f for f in self.faults if f[0] != client]
        self.attached = {key for key in self.attached if key[0] != client}
        self.tickets = {k: v for k, v in self.tickets.items() if k[0] != client}
        for memory in self.memories.values():
            memory.tables.pop(client, None)

    def tell_exit(self, client: int) -> None:
        """Tell the machine of a process that has ended."""
        self.known.remove(client)
        self.reserved = {key for key in self.reserved if key[0] != client}
        self.do(m.ClientLeft(client))

    # --- loads ----------------------------------------------------------------------

    def install_body(self, load: InFlight) -> None:
        """Do the part of a load that happens outside of the pager's lock."""
        command = load.command
        state = self.state(command.region)
        present = command.client in state.addresses and command.client in self.alive
        load.end = "loaded" if present or command.mark else "stranded"
        memory = self.memories[command.region]
        if command.replaces:
            assert memory.shared
            for page in range(*state.geometry.body_pages(command.unit)):
                self.take_out(command.region, page)
        if command.mark:
            assert memory.shared
            for page in range(*state.geometry.body_pages(command.unit)):
                memory.memfd[page] = memory.page(page)
                memory.tampered.discard(page)
        elif present:
            for page in range(*state.geometry.body_pages(command.unit)):
                content = self.memories[command.region].page(page)
                self._install(command.region, command.client, page, content)

    def install_awaited(self, load: InFlight) -> None:
        """Do what a load is to do first; and tell the machine if it wants to know."""
        command = load.command
        present = (command.client, command.region) in self.attached and command.client in self.alive
        if command.awaited is None or command.replaces or not present:
            return
        for page in range(*command.awaited):
            if page in self.state(command.region).geometry.body_pages(command.unit):
                content = self.memories[command.region].page(page)
                self._install(command.region, command.client, page, content)
        if command.is_pick:
            self.do(m.Arrived(command.region, command.unit, command.awaited))

    def end_load(self, load: InFlight) -> None:
        """Tell the machine how a load has ended."""
        command = load.command
        del self.loads[command.region, command.unit]
        where = (command.region, command.unit, command.client)
        if load.end == "loaded" and load.quick and self.machine.fast_path.end(load.quick):
            self.memories[command.region].resident_map[command.unit] = True
        elif load.end == "loaded":
            self.do(m.Loaded(*where, self._fragments(command.region, command.unit)))
        elif load.end == "stranded":
            self.do(m.Stranded(*where))
        else:
            self.do(m.LoadFailed(*where, FAILURE))

    def finish(self, region: int, unit: int, *, fail: bool = False) -> None:
        """Carry a load out to its end."""
        load = self.loads[region, unit]
        if fail:
            load.end = "failed"
        elif load.end is None:
            self.install_body(load)
        self.end_load(load)

    def _fragments(self, region: int, unit: int) -> tuple[m.Fragment, ...]:
        memory = self.memories[region]
        geometry = memory.geometry
        span = geometry.unit_bytes(unit)
        found = []
        for page in geometry.edge_pages(unit):
            share = span & geometry.page_bytes(page)
            start = share.start - page * geometry.page_nbytes
            found.append(m.Fragment(page, start, memory.truth[share.start : share.stop]))
        return tuple(found)

    # --- commands ---------------------------------------------------------------------

    def do(self, event: m.Event) -> None:
        """Give an event to the machine and carry out what follows."""
        events: list[m.Event] = [event]
        while events:
            self._carry_out(self.handle(events.pop(0)))
            events += self._found
            self._found = []
        while not self.is_patient and self.proceed():
            pass

    def handle(self, event: m.Event) -> list[m.Command]:
        """Give an event to the machine; check its step by the table of transitions."""
        before = self._unit_states()
        commands = self.machine.handle(event)
        name = type(event).__name__
        for key, after in self._unit_states().items():
            found = f"{before.get(key, 'ABSENT')} -> {after} by {name}"
            assert allows(before.get(key, "ABSENT"), name, after), found
        return commands

    def _unit_states(self) -> dict[tuple[int, int], str]:
        return {
            (region, unit): state_of(state, unit)
            for region in self.memories
            if (state := self.machine.region(region)) is not None
            and state.geometry.n_units <= _MOST_CHECKED
            for unit in range(state.geometry.n_units)
        }

    def proceed(self) -> bool:
        """Have the machine take a step of what it has left to do; return whether there was one."""
        if not self.machine.has_more:
            return False
        self._carry_out(self.machine.proceed())
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

    def _promote(self, command: m.Promote) -> None:
        load = self.loads[command.region, command.unit]
        assert not load.command.urgent
        assert not load.is_promoted, "promoted twice"
        load.is_promoted = True

    def _load(self, command: m.Load) -> None:
        key = (command.region, command.unit)
        assert key not in self.loads, "a unit is loaded twice at once"
        assert command.unit not in self.state(command.region).resident
        assert command.client in self.known
        self.loads[key] = InFlight(command)

    def _install(self, region: int, client: int, page: int, content: bytes) -> None:
        """Do UFFDIO_COPY on a page, and CONTINUE after an update where it is there already."""
        memory = self.memories[region]
        assert (client, region) in self.attached, "installed into memory that may be unmapped"
        assert content == memory.page(page), f"page {page} installed with other bytes"
        memory.tampered.discard(page)
        if memory.shared:
            memory.memfd[page] = content
        if memory.shared or memory.tables[client].get(page, POISON) == POISON:
            memory.tables[client][page] = content
        self._wake(region, client, range(page, page + 1))

    def _install_page(self, command: m.InstallPage) -> None:
        assert command.client in self.state(command.region).addresses
        if command.client in self.alive:
            self._install(command.region, command.client, command.page, command.data)
        else:
            self.memories[command.region].tampered.add(command.page)

    def _map_pages(self, command: m.MapPages) -> None:
        memory = self.memories[command.region]
        assert command.client in self.state(command.region).addresses
        if command.client not in self.alive:
            return
        for page in range(*command.pages) if memory.shared else ():
            if page in memory.memfd:
                memory.tables[command.client][page] = memory.memfd[page]
            else:
                self._found.append(m.HoleFound(command.client, command.region, page))
        self._wake(command.region, command.client, range(*command.pages))

    def _wake(self, region: int, client: int, pages: range) -> None:
        woken = {
            t for t in self.waiting if (t.region, t.client) == (region, client) and t.page in pages
        }
        self.waiting -= woken
        self.runnable |= woken

    def _wake_address(self, command: m.Wake) -> None:
        for region in {t.region for t in self.waiting if t.client == command.client}:
            offset = command.address - self.address(command.client, region, 0)
            page = offset // PAGE_NBYTES
            self._wake(region, command.client, range(page, page + 1))

    def _punch(self, command: m.Punch) -> None:
        memory = self.memories[command.region]
        for page in range(*command.pages):
            owners = set(range(*memory.geometry.units_of_page(page)))
            state = self.machine.region(command.region)
            assert state is None or not owners & state.resident
            self.take_out(command.region, page)
            memory.tampered.discard(page)

    def take_out(self, region: int, page: int) -> None:
        """Punch a hole: poison stays, as it does in the kernel."""
        memory = self.memories[region]
        memory.memfd.pop(page, None)
        for table in memory.tables.values():
            if table.get(page, POISON) != POISON:
                del table[page]

    def _publish(self, command: m.Publish) -> None:
        self.memories[command.region].resident_map[command.unit] = command.resident

    def _poison(self, command: m.Poison) -> None:
        memory = self.memories[command.region]
        assert command.client in self.state(command.region).addresses
        if command.client not in self.alive:
            return
        for page in command.pages:
            if page not in memory.tables[command.client]:
                memory.tables[command.client][page] = POISON
                self._wake(command.region, command.client, range(page, page + 1))

    def _answer(self, command: m.Answer) -> None:
        key = (command.client, command.ticket)
        if command.client not in self.alive:
            return
        assert key in self.tickets, "answered twice"
        region, what = self.tickets.pop(key)
        self.answers[key] = command.failures
        if what == "detach":
            assert not any(
                (load.command.region, load.command.client) == (region, command.client)
                for load in self.loads.values()
            ), "a load is on its way into memory that is unmapped"
            self.attached.discard((command.client, region))
            self.memories[region].tables.pop(command.client, None)

    def _forget(self, command: m.Forget) -> None:
        assert not any(region == command.region for region, _ in self.loads)
        assert not any(region == command.region for _, region in self.attached | self.reserved)
        del self.memories[command.region]


def noted(recorder: Recorder) -> list[tuple[int, int]]:
    """Return the units that a recorder has noted, in order, each with its region."""
    found = []
    for place, span in recorder.runs(0, len(recorder)):
        region, geometry = recorder.regions[place]
        found += [(region, unit) for unit in range(*geometry.units_of_bytes(span))]
    return found
