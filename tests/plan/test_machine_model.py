"""Random operations against a model of memory: nobody waits for ever, nobody reads wrong bytes."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from lazyarr.layout.geometry import Geometry
from lazyarr.plan import messages as m
from lazyarr.plan.readahead import Advice
from lazyarr.plan.room import Room
from lazyarr.units import Span
from tests.plan.memory_model import PAGE_NBYTES, Memory, World

_MAX_STEPS = 300

# Units that are pages, that are cut by pages, that hold pages, that share pages; tiles;
# the last unit short; an array of one byte.
GEOMETRIES = (
    Geometry((64,), (16,), 1, PAGE_NBYTES),
    Geometry((50,), (7,), 1, PAGE_NBYTES),
    Geometry((40,), (3,), 1, PAGE_NBYTES),
    Geometry((150,), (49,), 1, PAGE_NBYTES),
    Geometry((10, 9), (4, 5), 2, PAGE_NBYTES),
    Geometry((3, 13), (1, 5), 2, PAGE_NBYTES),
    Geometry((1,), (1,), 1, PAGE_NBYTES),
    # Chunks that are less than a page, together: whole pages, pages that are shared, tiles.
    Geometry((80,), (2,), 1, PAGE_NBYTES, PAGE_NBYTES),
    Geometry((80,), (7,), 1, PAGE_NBYTES, PAGE_NBYTES),
    Geometry((9, 11), (1, 2), 1, PAGE_NBYTES, 2 * PAGE_NBYTES),
    Geometry((4, 21), (1, 3), 1, PAGE_NBYTES, PAGE_NBYTES),
)
PICK = st.integers(0, 1 << 16)


class MemoryMachine(RuleBasedStateMachine):
    """Clients that open, touch, ask, detach and die, and loads that end in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(0)

    # --- choosing -------------------------------------------------------------------

    def mapped(self, pick: int, *, shared: bool | None = None) -> tuple[int, int] | None:
        """Return a client and a region that it has mapped and not asked to unmap."""
        leaving = {
            (client, region)
            for (client, _), (region, what) in self.world.tickets.items()
            if what == "detach"
        }
        choices = [
            (client, region)
            for client, region in sorted(self.world.attached - leaving)
            if shared is None or self.world.memories[region].shared is shared
        ]
        return choices[pick % len(choices)] if choices else None

    def memory(self, region: int) -> Memory:
        return self.world.memories[region]

    # --- clients ----------------------------------------------------------------------

    @initialize(
        limit=st.integers(0, 220),
        geometry=st.sampled_from(GEOMETRIES),
        window=st.sampled_from((0, 40, 1000)),
        slice_units=st.sampled_from((1, 2, 256)),
    )
    def begin(self, limit: int, geometry: Geometry, window: int, slice_units: int) -> None:
        self.world = World(0, slice_units=slice_units)
        self.world.do(m.LimitChanged(limit))
        self.world.do(m.ReadaheadChanged(window))
        region = self.world.open(self.world.add_client(), geometry, shared=True)
        self.world.attach(self.world.add_client(), region)

    @precondition(lambda self: self.world.memories)
    @rule(pick=PICK, n_units=st.integers(0, 100), is_full=st.booleans())
    def measure_link(self, pick: int, n_units: int, is_full: bool) -> None:
        regions = sorted(self.world.memories)
        self.world.do(m.LinkMeasured(regions[pick % len(regions)], n_units, is_full))

    @precondition(lambda self: len(self.world.known) < 4)
    @rule(geometry=st.sampled_from(GEOMETRIES), shared=st.booleans())
    def start_process(self, geometry: Geometry, shared: bool) -> None:
        client = self.world.add_client()
        if len(self.world.memories) < 3:
            self.world.open(client, geometry, shared=shared)
        for region, memory in sorted(self.world.memories.items()):
            if memory.shared and (client, region) not in self.world.attached:
                self.world.attach(client, region)

    @precondition(lambda self: self.world.alive and len(self.world.known) < 4)
    @rule(pick=PICK)
    def fork(self, pick: int) -> None:
        """Fork a process whose private memory lazyarr does not hand on."""
        parent = sorted(self.world.alive)[pick % len(self.world.alive)]
        mapped = {region for client, region in self.world.attached if client == parent}
        if all(self.memory(region).shared for region in mapped):
            self.world.fork(parent)

    @precondition(lambda self: self.world.reserved)
    @rule()
    def attach_forked(self) -> None:
        for client, region in sorted(self.world.reserved):
            if client in self.world.alive:
                self.world.attach(client, region)

    @rule(pick=PICK)
    def promise(self, pick: int) -> None:
        """Promise a region to a process that does not have it, and is not leaving it."""
        world = self.world
        leaving = {(k[0], where) for k, (where, what) in world.tickets.items() if what == "detach"}
        wanted = {
            (client, region)
            for client in world.alive
            for region, memory in world.memories.items()
            if memory.shared and any(key[1] == region for key in world.attached | world.reserved)
        }
        if choice := sorted(wanted - world.attached - leaving):
            world.promise(*choice[pick % len(choice)])

    @rule(pick=PICK)
    def decline(self, pick: int) -> None:
        """Have a process not take what it was promised."""
        if choice := sorted(key for key in self.world.reserved if key[0] in self.world.alive):
            self.world.decline(*choice[pick % len(choice)])

    @rule(pick=PICK)
    def detach(self, pick: int) -> None:
        if chosen := self.mapped(pick):
            self.world.detach(*chosen)

    @precondition(lambda self: len(self.world.alive) > 1)
    @rule(pick=PICK, tell=st.booleans())
    def exit(self, pick: int, tell: bool) -> None:
        client = sorted(self.world.alive)[pick % len(self.world.alive)]
        self.world.exit(client)
        if tell:
            self.world.tell_exit(client)

    @precondition(lambda self: self.world.known - self.world.alive)
    @rule()
    def tell_exit(self) -> None:
        self.world.tell_exit(min(self.world.known - self.world.alive))

    # --- what threads do ----------------------------------------------------------------

    @rule(pick=PICK, page=PICK)
    def touch(self, pick: int, page: int) -> None:
        if chosen := self.mapped(pick):
            n_pages = self.memory(chosen[1]).geometry.n_pages
            self.world.touch(*chosen, page % n_pages)

    @rule(pick=PICK, page=PICK)
    def touch_and_tell(self, pick: int, page: int) -> None:
        self.touch(pick, page)
        self.world.read_faults()

    @rule(pick=PICK, page=PICK)
    def touch_and_serve_quickly(self, pick: int, page: int) -> None:
        self.touch(pick, page)
        while self.world.faults:
            self.world.read_fault_quickly()

    @rule(pick=PICK, page=PICK)
    def touch_and_begin_quickly(self, pick: int, page: int) -> None:
        self.touch(pick, page)
        while self.world.faults:
            self.world.begin_fault_quickly()

    @rule(pick=PICK, page=PICK, other=PICK, n_loads=st.integers(1, 6))
    def touch_quickly_and_request(self, pick: int, page: int, other: int, n_loads: int) -> None:
        self.touch_and_begin_quickly(pick, page)
        self.request(other, [(0, 99)])
        self.finish(pick, n_loads)

    @rule(pick=PICK, page=PICK, n_loads=st.integers(1, 6))
    def touch_and_load(self, pick: int, page: int, n_loads: int) -> None:
        self.touch_and_tell(pick, page)
        self.finish(pick, n_loads)

    @rule(pick=PICK, page=PICK, step=st.sampled_from((-2, -1, 1, 3)), n_loads=st.integers(0, 9))
    def walk(self, pick: int, page: int, step: int, n_loads: int) -> None:
        """Read pages in order; loads end meanwhile."""
        if chosen := self.mapped(pick):
            for place in range(6):
                n_pages = self.memory(chosen[1]).geometry.n_pages
                self.world.touch(*chosen, (page + place * step) % n_pages)
                if pick % 2:
                    self.world.read_faults()
                while self.world.faults:
                    self.world.begin_fault_quickly()
                self.finish(pick, n_loads)
                self.world.run()

    @rule(pick=PICK, advice=st.sampled_from(Advice), start=PICK, size=st.integers(0, 20))
    def advise(self, pick: int, advice: Advice, start: int, size: int) -> None:
        if chosen := self.mapped(pick):
            start %= self.memory(chosen[1]).geometry.n_units + 1
            self.world.advise(*chosen, Span(start, start + size), advice)

    @rule(pick=PICK, is_end=st.booleans())
    def record(self, pick: int, is_end: bool) -> None:
        """Begin to record, or end what was begun."""
        world = self.world
        begun = sorted(key for key in world.machine._units.recorders if key[0] in world.alive)
        if is_end and begun:
            world.end_recording(*begun[pick % len(begun)])
        elif world.alive:
            world.record(sorted(world.alive)[pick % len(world.alive)])

    @rule(pick=PICK, page=PICK, step=st.sampled_from((-1, 1)), n_loads=st.integers(0, 9))
    def record_a_walk(self, pick: int, page: int, step: int, n_loads: int) -> None:
        """Begin to record, and read pages in order, and one that is served quickly."""
        self.record(pick, False)
        self.walk(pick, page, step, n_loads)
        self.touch_and_serve_quickly(pick, page * 7)
        self.world.run()

    @rule(
        pick=PICK,
        places=st.lists(st.tuples(PICK, PICK, st.integers(0, 4)), max_size=8),
        start=st.sampled_from((0, 0, 0, 3)),
        is_last=st.booleans(),
    )
    def schedule(
        self, pick: int, places: list[tuple[int, int, int]], start: int, is_last: bool
    ) -> None:
        """Tell what will be come to, of any region, also of units that there are not."""
        world = self.world
        if not world.alive:
            return
        regions = [*sorted(world.memories), 0]
        runs = []
        for which, first, size in places:
            region = regions[which % len(regions)]
            n_units = world.memories[region].geometry.n_units if region else 9
            runs.append((region, Span(first % (n_units + 2), first % (n_units + 2) + size)))
        world.schedule(
            sorted(world.alive)[pick % len(world.alive)], runs, start=start, is_last=is_last
        )

    @rule(pick=PICK, places=st.lists(PICK, min_size=3, max_size=12), n_loads=st.integers(0, 9))
    def follow_a_schedule(self, pick: int, places: list[int], n_loads: int) -> None:
        """Tell what will be come to, and come there; loads end meanwhile."""
        chosen = self.mapped(pick)
        if not chosen:
            return
        geometry = self.memory(chosen[1]).geometry
        units = [place % geometry.n_units for place in places]
        self.world.schedule(chosen[0], [(chosen[1], Span(unit, unit + 1)) for unit in units])
        for unit in units:
            page = geometry.pages_of_bytes(geometry.unit_bytes(unit)).start
            self.touch_and_begin_quickly(pick, page)
            self.finish(pick, n_loads)
            self.world.run()

    @rule()
    def run(self) -> None:
        self.world.run()

    @precondition(lambda self: self.world.faults)
    @rule(pick=PICK)
    def read_fault(self, pick: int) -> None:
        fault = self.world.faults.pop(pick % len(self.world.faults))
        self.world.do(m.Faulted(*fault))

    @rule(pick=PICK, starts=st.lists(st.tuples(PICK, st.integers(0, 5)), max_size=3))
    def request(self, pick: int, starts: list[tuple[int, int]]) -> None:
        if chosen := self.mapped(pick):
            n_units = self.memory(chosen[1]).geometry.n_units
            spans = [Span(start % (n_units + 2), start % (n_units + 2) + n) for start, n in starts]
            self.world.request(*chosen, *spans)

    @rule(pick=PICK, unit=PICK, start=st.integers(-1, 9), size=st.integers(0, 3))
    def request_pages(self, pick: int, unit: int, start: int, size: int) -> None:
        if chosen := self.mapped(pick):
            unit %= self.memory(chosen[1]).geometry.n_units + 1
            self.world.pick(*chosen, unit, Span(start, start + size))

    @rule(pick=PICK, n_loads=st.integers(1, 30))
    def request_all_and_load(self, pick: int, n_loads: int) -> None:
        self.request(pick, [(0, 99)])
        self.finish(pick, n_loads)

    @rule(pick=PICK, start=PICK, size=st.integers(0, 6))
    def evict(self, pick: int, start: int, size: int) -> None:
        if chosen := self.mapped(pick):
            start %= self.memory(chosen[1]).geometry.n_units + 1
            self.world.evict(*chosen, Span(start, start + size))

    @rule(limit=st.integers(0, 220))
    def change_limit(self, limit: int) -> None:
        self.world.do(m.LimitChanged(limit))

    @rule(is_patient=st.booleans())
    def be_patient(self, is_patient: bool) -> None:
        """Let the machine leave work for later, or not; what is left is gone on with then."""
        self.world.is_patient = is_patient
        while not is_patient and self.world.proceed():
            pass

    @precondition(lambda self: self.world.machine.has_more)
    @rule()
    def proceed(self) -> None:
        self.world.proceed()

    # --- loads ----------------------------------------------------------------------------

    def load(self, pick: int) -> tuple[int, int]:
        return sorted(self.world.loads)[pick % len(self.world.loads)]

    @precondition(lambda self: self.world.loads)
    @rule(pick=PICK)
    def install_body(self, pick: int) -> None:
        load = self.world.loads[self.load(pick)]
        if load.end is None:
            self.world.install_body(load)

    @precondition(lambda self: self.world.loads)
    @rule(pick=PICK)
    def install_awaited(self, pick: int) -> None:
        load = self.world.loads[self.load(pick)]
        if load.end is None:
            self.world.install_awaited(load)

    @precondition(lambda self: self.world.loads)
    @rule(pick=PICK, n_loads=st.integers(1, 6))
    def finish(self, pick: int, n_loads: int) -> None:
        for place in range(n_loads):
            if self.world.loads:
                self.world.finish(*self.load(pick // (place + 1)))

    @precondition(lambda self: self.world.loads)
    @rule(pick=PICK)
    def fail(self, pick: int) -> None:
        self.world.finish(*self.load(pick), fail=True)

    # --- behind the pager's back ------------------------------------------------------------

    @rule(pick=PICK, page=PICK, size=st.integers(1, 9))
    def give_back(self, pick: int, page: int, size: int) -> None:
        """Do madvise(MADV_DONTNEED) in a client."""
        if chosen := self.mapped(pick):
            memory = self.memory(chosen[1])
            for place in range(page % memory.geometry.n_pages, memory.geometry.n_pages)[:size]:
                memory.tables[chosen[0]].pop(place, None)
                if not memory.shared:
                    memory.tampered.add(place)

    @rule(pick=PICK, page=PICK, is_hole=st.booleans())
    def tamper(self, pick: int, page: int, is_hole: bool) -> None:
        """Punch a hole, or touch one through a mapping that is not registered."""
        chosen = self.mapped(pick, shared=True)
        if not chosen:
            return
        region, memory = chosen[1], self.memory(chosen[1])
        page %= memory.geometry.n_pages
        units = set(range(*memory.geometry.units_of_page(page)))
        installed = {k[1] for k, load in self.world.loads.items() if load.end and k[0] == region}
        if is_hole:
            memory.tampered.add(page)
            self.world.take_out(region, page)
        elif page not in memory.memfd and not units & (
            self.world.state(region).resident | installed
        ):
            memory.tampered.add(page)
            memory.memfd[page] = bytes(PAGE_NBYTES)

    # --- what must hold after every step ------------------------------------------------------

    @invariant()
    def every_unit_is_absent_or_loading_or_resident(self) -> None:
        for region in self.world.memories:
            state = self.world.state(region)
            assert {(region, unit) for unit in state.loading} == {
                key for key in self.world.loads if key[0] == region
            }
            assert not state.resident & state.loading.keys()

    @invariant()
    def pages_are_installed_when_their_units_are_resident(self) -> None:
        for region, memory in self.world.memories.items():
            state = self.world.state(region)
            if not memory.shared and not memory.tables:
                continue
            for page in set(range(memory.geometry.n_pages)) - memory.tampered:
                units = set(range(*memory.geometry.units_of_page(page)))
                if units <= state.resident:
                    assert memory.holds(page)
                is_left = any(page in pages for pages in state.left.values())
                if memory.shared and not units & (state.resident | state.loading.keys()):
                    assert is_left or page not in memory.memfd, f"page {page} was left behind"

    @invariant()
    def what_is_left_is_of_units_that_are_absent(self) -> None:
        """And that somebody was told of; it goes with the next load that succeeds."""
        for region, memory in self.world.memories.items():
            state = self.world.state(region)
            assert not state.left or memory.shared
            assert not state.left.keys() & state.resident
            for (of, unit), load in self.world.loads.items():
                assert of != region or load.command.replaces == (unit in state.left)

    @invariant()
    def the_residency_map_says_what_is_resident(self) -> None:
        for region, memory in self.world.memories.items():
            said = {unit for unit, resident in memory.resident_map.items() if resident}
            assert said == self.world.state(region).resident
            if memory.tables:
                for unit in said:
                    body = set(range(*memory.geometry.body_pages(unit)))
                    assert all(memory.holds(page) for page in body - memory.tampered)

    @invariant()
    def memory_stays_below_the_limit(self) -> None:
        """But for the unit that came last, and for those that somebody may be waiting for.

        And but for what is left to be done a slice at a time.
        """
        loading = kept = largest = 0
        for region, memory in self.world.memories.items():
            state, geometry = self.world.state(region), memory.geometry
            if not memory.shared:
                continue
            sizes = [geometry.unit_bytes(unit).size for unit in range(geometry.n_units)]
            largest = max(largest, *sizes)
            loading += sum(sizes[unit] for unit in state.loading)
            kept += sum(sizes[unit] for unit in state.resident if state.is_awaited(unit))
        if self.world.machine.has_more:
            return
        limit = self.world.machine.limit_nbytes
        room = max(limit - loading, limit // 2) + largest
        assert self.world.machine.resident_nbytes - kept <= room
        assert self.world.machine.resident_nbytes <= self.world.machine._units.room.shared_nbytes

    @invariant()
    def all_memory_is_counted(self) -> None:
        """Every page in a memory object, and every share that is kept for one."""
        room = self.world.machine._units.room
        shared = private = kept = 0
        for region, memory in self.world.memories.items():
            state, geometry = self.world.state(region), memory.geometry
            pages = {page for unit in state.resident for page in range(*geometry.body_pages(unit))}
            if memory.shared:
                loading = {p for unit in state.loading for p in range(*geometry.body_pages(unit))}
                installed = memory.memfd.keys() - memory.tampered - loading
                shared += len(installed | pages) * PAGE_NBYTES
                partial = state.edges._partial.values()
                kept += sum(len(share.data) for page in partial for share in page.values())
            else:
                private += len(pages) * PAGE_NBYTES + state.edges.held_nbytes
        assert shared + kept <= room.shared_nbytes
        assert private == room.private_nbytes

    @invariant()
    def who_waits_waits_for_something(self) -> None:
        for thread in self.world.waiting:
            address = self.world.address(thread.client, thread.region, thread.page)
            if (thread.client, address) in self.world.faults:
                continue
            geometry = self.memory(thread.region).geometry
            units = range(*geometry.units_of_page(thread.page))
            leaving = (thread.region, "detach") in self.world.tickets.values()
            assert leaving or any((thread.region, unit) in self.world.loads for unit in units)
        for (client, _), (region, what) in self.world.tickets.items():
            if self.world.machine.has_more:
                continue
            clients = {load.command.client for key, load in self.world.loads.items()}
            assert what not in ("evict", "advise", "record", "schedule")
            assert any(key[0] == region for key in self.world.loads)
            assert what != "detach" or client in clients

    # --- the end --------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Let all loads end: everybody is served, and everything is given back."""
        world = self.world
        self.be_patient(False)
        for client in sorted(world.known - world.alive):
            world.tell_exit(client)
        for step in range(_MAX_STEPS):
            world.run()
            world.read_faults()
            if world.loads:
                world.finish(*sorted(world.loads)[step % len(world.loads)])
            elif not world.runnable:
                break
        assert not world.waiting | world.runnable, f"somebody waits for ever: {world.log[-12:]}"
        assert not world.tickets
        for client in sorted(world.alive):
            world.exit(client)
            world.tell_exit(client)
        assert not world.memories
        assert world.machine.resident_nbytes == 0
        left = world.machine._units.room._asdict() | {"limit_nbytes": 0}
        assert left == Room(0)._asdict(), "memory is counted that nobody has"
        assert world.machine._requests.asked_nbytes == 0
        assert world.machine._units.lookahead.unread_nbytes == 0
        assert not world.machine._units.is_watched, "somebody is told who is gone"


TestMemory = MemoryMachine.TestCase
TestMemory.settings = settings(max_examples=200, stateful_step_count=50)
