"""Random operations against a model of memory that is written back: no write is lost.

And whoever waits is answered, nothing is written that is torn, and nobody reads what is not the
newest.
"""

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
from lazyarr.units import Span
from tests.plan.memory_model import PAGE_NBYTES
from tests.plan.written_model import WrittenWorld

# Units that are pages, that hold pages, that share pages, of which several are in one page; tiles.
GEOMETRIES = (
    Geometry((64,), (16,), 1, PAGE_NBYTES),
    Geometry((160,), (32,), 1, PAGE_NBYTES),
    Geometry((96,), (40,), 1, PAGE_NBYTES),
    Geometry((50,), (7,), 1, PAGE_NBYTES),
    Geometry((40,), (20,), 1, PAGE_NBYTES),
    Geometry((10, 9), (4, 5), 2, PAGE_NBYTES),
    Geometry((80,), (7,), 1, PAGE_NBYTES, PAGE_NBYTES),
)
PICK = st.integers(0, 1 << 16)
FEW = st.integers(1, 4)
RARELY = st.integers(0, 3)


class WrittenMachine(RuleBasedStateMachine):
    """Clients that read, write, flush and die, a store that fails, and workers that follow."""

    def __init__(self) -> None:
        super().__init__()
        self.world = WrittenWorld(0)

    @initialize(
        limit=st.sampled_from((0, 32, 64, 100, 200, 400)),
        geometry=st.sampled_from(GEOMETRIES),
        window=st.sampled_from((0, 40, 1000)),
        slice_units=st.sampled_from((1, 2, 256)),
        is_patient=st.booleans(),
    )
    def begin(
        self, limit: int, geometry: Geometry, window: int, slice_units: int, is_patient: bool
    ) -> None:
        self.world = WrittenWorld(limit, slice_units=slice_units, window=window)
        region = self.world.open(self.world.add_client(), geometry)
        self.world.attach(self.world.add_client(), region)
        self.world.is_patient = is_patient

    # --- choosing ---------------------------------------------------------------------------

    def mapped(self, pick: int) -> tuple[int, int] | None:
        """Return a client and a region that it has and will keep."""
        choices = sorted(self.world.attached - self.world.leaving())
        return choices[pick % len(choices)] if choices else None

    def span(self, region: int, pick: int, n_units: int) -> Span:
        start = pick % self.world.areas[region].geometry.n_units
        return Span(start, start + n_units)

    def job(self, pick: int):
        return self.world.jobs[pick % len(self.world.jobs)]

    # --- clients ----------------------------------------------------------------------------

    @rule(pick=PICK, at=PICK, writes=st.booleans())
    def touch(self, pick: int, at: int, writes: bool) -> None:
        if found := self.mapped(pick):
            nbytes = self.world.areas[found[1]].geometry.nbytes
            self.world.touch(*found, at % nbytes, writes=writes)

    @rule(pick=PICK, at=PICK, n_units=FEW, writes=st.booleans(), others=st.none() | PICK)
    def request(self, pick: int, at: int, n_units: int, writes: bool, others: int | None) -> None:
        if found := self.mapped(pick):
            units = [self.span(found[1], at, n_units)]
            if others is not None:
                units.append(self.span(found[1], others, 1))
            ticket = self.world.number()
            self.world.ask(m.Requested(*found, ticket, tuple(units), writes=writes))

    @rule(pick=PICK, at=PICK)
    def pick_page(self, pick: int, at: int) -> None:
        if found := self.mapped(pick):
            units = self.span(found[1], at, 1)
            body = self.world.areas[found[1]].geometry.body_pages(units.start)
            pages = Span(body.start, body.start + 1)
            ticket = self.world.number()
            self.world.ask(m.Requested(*found, ticket, (units,), pages=pages))

    @rule(pick=PICK, at=PICK, n_units=st.integers(1, 12))
    def flush(self, pick: int, at: int, n_units: int) -> None:
        if found := self.mapped(pick):
            units = self.span(found[1], at, n_units)
            self.world.ask(m.FlushAsked(*found, self.world.number(), units))

    @rule(pick=PICK, at=PICK, n_units=st.integers(1, 12))
    def evict(self, pick: int, at: int, n_units: int) -> None:
        if found := self.mapped(pick):
            units = self.span(found[1], at, n_units)
            self.world.ask(m.EvictionAsked(*found, self.world.number(), units))

    @rule(pick=PICK, at=PICK, chance=RARELY)
    def take_page_out(self, pick: int, at: int, chance: int) -> None:
        """Do madvise(MADV_REMOVE) in a client."""
        found = self.mapped(pick)
        if found and not chance:
            self.world.take_page_out(found[1], at % self.world.areas[found[1]].geometry.n_pages)

    @rule(pick=PICK, at=PICK, n_units=FEW, advice=st.sampled_from(Advice))
    def advise(self, pick: int, at: int, n_units: int, advice: Advice) -> None:
        if found := self.mapped(pick):
            units = self.span(found[1], at, n_units)
            self.world.ask(m.Advised(*found, self.world.number(), units, advice))

    @rule(pick=PICK, places=st.lists(st.tuples(PICK, FEW), min_size=1, max_size=6))
    def schedule(self, pick: int, places: list[tuple[int, int]]) -> None:
        if found := self.mapped(pick):
            runs = tuple((found[1], self.span(found[1], at, n_units)) for at, n_units in places)
            name = self.world.number()
            self.world.ask(m.Scheduled(found[0], name, name, 0, runs, is_last=True))

    @precondition(lambda self: len(self.world.areas) == 1)
    @rule(pick=PICK, chance=RARELY)
    def retire(self, pick: int, chance: int) -> None:
        found = self.mapped(pick)
        if found and not chance:
            self.world.ask(m.Retired(found[0], self.world.number(), found[1]))

    @rule(pick=PICK, chance=RARELY)
    def detach(self, pick: int, chance: int) -> None:
        found = self.mapped(pick)
        if found and not chance:
            self.world.ask(m.Detached(*found, self.world.number()))

    @precondition(lambda self: len(self.world.known) < 3 and self.world.areas)
    @rule(pick=PICK, is_promised=st.booleans())
    def join(self, pick: int, is_promised: bool) -> None:
        found = self.mapped(pick)
        if found is None:
            return
        client = self.world.add_client()
        if is_promised:
            self.world.promise(client, found[1])
        else:
            self.world.attach(client, found[1])

    @precondition(lambda self: self.world.reserved)
    @rule()
    def come(self) -> None:
        client, region = min(self.world.reserved)
        if client in self.world.alive:
            self.world.attach(client, region)

    @precondition(lambda self: len(self.world.areas) < 2 and self.world.alive)
    @rule(geometry=st.sampled_from(GEOMETRIES))
    def open(self, geometry: Geometry) -> None:
        self.world.open(min(self.world.alive), geometry)

    @precondition(lambda self: self.world.alive)
    @rule(pick=PICK, is_told=st.booleans(), chance=RARELY)
    def exit(self, pick: int, is_told: bool, chance: int) -> None:
        if chance:
            return
        client = sorted(self.world.alive)[pick % len(self.world.alive)]
        self.world.exit(client)
        if is_told:
            self.world.tell_exit(client)

    @precondition(lambda self: self.world.known - self.world.alive)
    @rule()
    def tell_exit(self) -> None:
        self.world.tell_exit(min(self.world.known - self.world.alive))

    @precondition(lambda self: self.world.alive)
    @rule(pick=PICK)
    def record(self, pick: int) -> None:
        client = sorted(self.world.alive)[pick % len(self.world.alive)]
        self.world.ask(m.RecordingBegan(client, self.world.number()))

    # --- the pager --------------------------------------------------------------------------

    @precondition(lambda self: self.world.attached)
    @rule(pick=PICK, at=PICK, writes=st.sampled_from((True, True, False)))
    def touch_and_serve(self, pick: int, at: int, writes: bool) -> None:
        """Most threads are served at once: what is rare comes about while much is dirty."""
        self.touch(pick, at, writes)
        self.world.serve()

    @precondition(lambda self: self.world.runnable)
    @rule()
    def run(self) -> None:
        self.world.run()

    @precondition(lambda self: self.world.faults)
    @rule(quickly=st.booleans())
    def read_fault(self, quickly: bool) -> None:
        self.world.read_fault(quickly=quickly)

    @precondition(lambda self: self.world.loads)
    @rule(pick=PICK, how=st.sampled_from(("awaited", "install", "end", "end", "fail")))
    def load(self, pick: int, how: str) -> None:
        keys = sorted(self.world.loads)
        load = self.world.loads[keys[pick % len(keys)]]
        if how == "fail":
            self.world.end_load(load, fail=True)
        elif how == "end":
            self.world.end_load(load)
        elif load.end is None and how == "install":
            self.world.install_body(load)
        elif load.end is None:
            self.world.install_awaited(load)

    @precondition(lambda self: any(area.queue for area in self.world.areas.values()))
    @rule(pick=PICK, n_units=st.integers(1, 8), fails=st.integers(0, 5))
    def begin_copy(self, pick: int, n_units: int, fails: int) -> None:
        queues = sorted(region for region, area in self.world.areas.items() if area.queue)
        region = queues[pick % len(queues)]
        units = tuple(self.world.areas[region].queue[:n_units])
        if fails:
            self.world.begin_copy(region, units)
        else:
            self.world.fail_queued(region, units)

    @precondition(lambda self: self.world.jobs)
    @rule(
        pick=PICK, how=st.sampled_from(("protect", "copy", "checked", "put", "end", "part", "fail"))
    )
    def write_back(self, pick: int, how: str) -> None:
        job = self.job(pick)
        if how == "protect" and not job.is_protected:
            self.world.protect(job)
        elif how == "copy" and job.is_protected and not job.is_checked:
            left = [unit for unit in job.units if unit not in job.copies]
            if left:
                self.world.copy(job, left[0])
        elif how == "checked" and not job.is_checked:
            self.world.end_copy(job)
        elif how == "put" and job.is_checked:
            self.world.put(job)
        elif how == "part":
            self.world.end_job(job, 1)
        elif how in ("end", "fail"):
            self.world.end_job(job, fail=how == "fail")

    @precondition(lambda self: self.world.machine.has_more)
    @rule()
    def proceed(self) -> None:
        self.world.proceed()

    @rule(limit=st.integers(0, 400))
    def change_limit(self, limit: int) -> None:
        self.world.do(m.LimitChanged(limit))

    @rule(chance=RARELY)
    def take_over(self, chance: int) -> None:
        if not chance:
            self.world.take_over()

    # --- what always holds ------------------------------------------------------------------

    @invariant()
    def memory_and_store_are_right(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.world.finish()


TestWritten = WrittenMachine.TestCase
TestWritten.settings = settings(max_examples=100, stateful_step_count=50)
