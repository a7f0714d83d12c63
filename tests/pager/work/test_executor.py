"""The state machine, its lock and its commands, over memory that nobody has mapped.

Machine, executor, loads and loader are the real ones.  A client's userfaultfd writes down what it
is told, jobs wait until a test runs them, and units come from a dictionary.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from lazyarr.errors import ChunkError
from lazyarr.kernel import PAGE_NBYTES, Features, Outcome, Stop, create_memfd, resize_memfd
from lazyarr.layout.geometry import Geometry
from lazyarr.memory_kind import MemoryKind
from lazyarr.pager.lifecycle.inflight_record import InflightRecord
from lazyarr.pager.measure import Measurements
from lazyarr.pager.memory.clients import Arena, Region
from lazyarr.pager.memory.installer import Backing
from lazyarr.pager.memory.main_thread import MainThread
from lazyarr.pager.work.executor import Executor
from lazyarr.plan import messages as m
from lazyarr.plan.machine import Machine
from lazyarr.reading.workspace import Workspace
from lazyarr.units import Span
from lazyarr.wire import messages as w
from lazyarr.wire.channel import channel_pair

ADDRESS = 1 << 40
CLIENT, REGION = 1, 7
LIMIT_NBYTES = 64 << 20


class FakeUserfaultfd:
    """Writes down what is installed where, with the bytes, and which threads are woken."""

    features = Features.POISON

    def __init__(self) -> None:
        self.installed: list[tuple[Span, bytes]] = []
        self.woken: list[Span] = []
        self.poisoned: list[int] = []

    def copy_at_once(self, dst: int, src: int, nbytes: int, mode: int = 0) -> bool:
        return self.copy(dst, src, nbytes, mode=mode).stop is Stop.DONE

    def copy(self, dst: int, src: int, nbytes: int, *, mode: int = 0) -> Outcome:
        place = Span((dst - ADDRESS) // PAGE_NBYTES, (dst - ADDRESS + nbytes) // PAGE_NBYTES)
        self.installed.append((place, ctypes.string_at(src, nbytes)))
        return Outcome(Stop.DONE, nbytes)

    def poison(self, address: int, nbytes: int) -> Outcome:
        self.poisoned.append((address - ADDRESS) // PAGE_NBYTES)
        return Outcome(Stop.DONE, nbytes)

    def wake(self, address: int, nbytes: int) -> None:
        page = (address - ADDRESS) // PAGE_NBYTES
        self.woken.append(Span(page, page + nbytes // PAGE_NBYTES))


class FakeSource:
    """Units of one letter each, but for those that fail."""

    can_lend = False

    def __init__(self, geometry: Geometry, *, is_open: bool) -> None:
        self._geometry = geometry
        self._is_open = is_open
        self.failing: set[int] = set()
        self.n_loads = 0

    def load_quickly(self, unit, workspace, *, may_wait, progress=None):
        return self.load(unit, workspace) if self._is_open and unit not in self.failing else None

    def load(self, unit: int, workspace: Workspace, fetched: object = None) -> bool:
        self.n_loads += 1
        if unit in self.failing:
            raise self.unit_error(unit, "its checksum is wrong")
        span = self._geometry.unit_bytes(unit)
        workspace.unit.grow(span.size + PAGE_NBYTES)
        workspace.unit.view[: span.size] = letter(unit) * span.size
        return True

    def unit_error(self, unit: int, reason: str) -> ChunkError:
        return ChunkError(
            f"unit {unit}: {reason}",
            url="u",
            array="a",
            chunk=(unit,),
            key="c",
            byte_range=None,
            reason=reason,
        )

    def close(self) -> None: ...


class Jobs(list):
    """Threads that do nothing until they are told to."""

    n_idle = 0

    def add(self, job: Callable[[Workspace], None], *, urgent: bool) -> None:
        self.insert(0, job) if urgent else self.append(job)

    def run(self) -> None:
        """Do every job, and those that come of them."""
        while self:
            workspace = Workspace()
            self.pop(0)(workspace)
            workspace.close()


class Served:
    """An executor that serves one client, with one region."""

    def __init__(
        self,
        n_units: int,
        unit_nbytes: int,
        *,
        kind: MemoryKind = MemoryKind.SHARED,
        is_open: bool = True,
        doomed: set[tuple[int, int]] | None = None,
    ) -> None:
        self.inflight = InflightRecord()
        self.executor = Executor(
            Machine(LIMIT_NBYTES), Measurements(), inflight=self.inflight, doomed=doomed or set()
        )
        self.jobs = self.executor.loads.threads = Jobs()
        self.geometry = Geometry(
            (n_units * unit_nbytes,), (unit_nbytes,), itemsize=1, page_nbytes=PAGE_NBYTES
        )
        self.source = FakeSource(self.geometry, is_open=is_open)
        self.uffd = FakeUserfaultfd()
        self.is_closed = False
        client = SimpleNamespace(
            number=CLIENT,
            pid=1,
            uffd=self.uffd,
            main=MainThread(),
            notices=[],
            close=lambda: setattr(self, "is_closed", True),
        )
        memfds = create_memfd("pages"), create_memfd("map")
        for memfd in memfds:
            resize_memfd(memfd, self.geometry.n_pages * PAGE_NBYTES)
        self.arena = Arena(*memfds)
        region = Region(
            message=SimpleNamespace(url="u", path="a"),
            kind=kind,
            source=self.source,
            backing=Backing(memfds[0], 0),
            residency=Backing(memfds[1], 0),
            arena=self.arena,
            descriptors=(),
            is_remote=False,
            label="'a' in u",
            memory_nbytes=self.geometry.n_pages * PAGE_NBYTES,
            unit_nbytes=unit_nbytes,
            n_units=n_units,
            limits=(),
            pipeline=b"{}",
        )
        self.executor.add_client(client)
        self.executor.add_region(REGION, region)
        self.executor.handle([m.Attached(CLIENT, REGION, ADDRESS, self.geometry, kind)])
        self.ours, self.theirs = channel_pair()

    def fault(self, page: int) -> None:
        """Let a thread of the client wait for a page."""
        self.executor.handle([m.Faulted(CLIENT, ADDRESS + page * PAGE_NBYTES)])

    def ask(self, event: m.Event) -> None:
        """Let the client ask for something, to be answered on its channel."""
        self.executor.expect(CLIENT, event.ticket, self.theirs)
        self.executor.handle([event])

    @property
    def residency(self) -> list[int]:
        """What the residency map says of each unit."""
        published = self.executor.regions[REGION].published
        return [0] * self.geometry.n_units if published is None else list(published)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()
        region = self.executor.regions.pop(REGION, None)
        if region is not None:
            region.close()
        os.close(self.inflight.fileno())


def letter(unit: int) -> bytes:
    return bytes([ord("a") + unit])


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def make(*arguments: int, **options: object) -> Served:
        made.append(Served(*arguments, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


# --- loads ----------------------------------------------------------------------------


def test_a_fault_is_one_job_that_installs_and_publishes_the_unit(serve):
    """Nothing is done in the thread that heard of it, which goes on listening."""
    one = serve(4, 1 << 16)
    one.fault(17)
    assert (len(one.jobs), one.uffd.installed) == (1, [])
    one.jobs.run()
    assert b"".join(data for _, data in one.uffd.installed) == b"b" * (1 << 16)
    assert one.residency == [0, 1, 0, 0]
    assert one.executor.machine.resident_nbytes == 1 << 16


def test_a_small_unit_is_installed_by_the_thread_that_hears_of_its_fault(serve):
    """To wake another one would take longer than the unit does."""
    one = serve(4, PAGE_NBYTES)
    client = one.executor.clients[CLIENT]
    assert one.executor.serve_fast(client, ADDRESS + 2 * PAGE_NBYTES)
    assert not one.jobs
    assert one.uffd.installed == [(Span(2, 3), b"c" * PAGE_NBYTES)]
    assert one.residency == [0, 0, 1, 0]
    assert not one.executor.serve_fast(client, ADDRESS + 2 * PAGE_NBYTES)  # it is there


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("unit_nbytes", [1 << 20, (1 << 20) + 100])
def test_the_awaited_page_comes_first_whichever_way_a_unit_goes(serve, is_open, unit_nbytes):
    """From an open shard or not, in whole pages or not: each page is installed once."""
    one = serve(3, unit_nbytes, is_open=is_open)
    page = one.geometry.body_pages(1).start + 100
    one.fault(page)
    one.jobs.run()
    body = one.geometry.body_pages(1)
    installed = [pages for pages, _ in one.uffd.installed if pages.start in body]
    assert installed[0].start == page
    assert installed[0].size < body.size // 2
    assert sorted(n for pages in installed for n in range(*pages)) == list(range(*body))


def test_a_request_for_pages_is_answered_while_the_rest_is_on_its_way(serve):
    """`x[i]` returns when its row is there."""
    one = serve(2, 1 << 20)
    answered_after = []
    copy = one.uffd.copy

    def watch(*arguments: int, **options: int) -> Outcome:
        if one.ours.is_readable() and not answered_after:
            answered_after.append(len(one.uffd.installed))
        return copy(*arguments, **options)

    one.uffd.copy = watch
    one.ask(m.Requested(CLIENT, REGION, 5, (Span(1, 2),), pages=Span(300, 302)))
    one.jobs.run()
    assert one.ours.receive().message == w.Done(5, [])
    assert answered_after == [1]
    assert not one.ours.is_readable()


def test_loads_of_small_units_share_a_job(serve):
    """Waking a thread costs more than one of them does."""
    one = serve(32, PAGE_NBYTES, is_open=False)
    one.ask(m.Requested(CLIENT, REGION, 5, (Span(0, 32),)))
    assert len(one.jobs) == 2
    assert not one.ours.is_readable()
    one.jobs.run()
    assert one.ours.receive().message == w.Done(5, [])
    assert one.residency == [1] * 32


# --- what goes wrong --------------------------------------------------------------------


def test_a_unit_that_fails_is_poison_for_who_waits_and_an_error_for_who_asks(serve, capfd):
    """And neither for the other units."""
    one = serve(2, 1 << 16)
    one.source.failing.add(0)
    one.fault(3)
    one.jobs.run()
    assert one.uffd.poisoned == [3]
    assert "its checksum is wrong" in capfd.readouterr().err
    one.ask(m.Requested(CLIENT, REGION, 9, (Span(0, 2),)))
    one.jobs.run()
    done = one.ours.receive().message
    assert [failure["reason"] for failure in done.failures] == ["its checksum is wrong"]
    assert one.residency == [0, 1]


def test_a_unit_that_has_killed_workers_is_not_even_read(serve, capfd):
    """Once: the next time it may have been mended."""
    one = serve(2, 1 << 16, doomed={(REGION, 1)})
    assert not one.executor.serve_fast(one.executor.clients[CLIENT], ADDRESS + 20 * PAGE_NBYTES)
    one.fault(20)
    one.jobs.run()
    assert (one.source.n_loads, one.uffd.poisoned) == (0, [20])
    assert "died, repeatedly" in capfd.readouterr().err
    one.fault(20)
    one.jobs.run()
    assert one.residency == [0, 1]


def test_a_client_is_closed_when_the_last_load_into_it_has_ended(serve):
    """Its descriptors' numbers would be given to others, and the load would act on those."""
    one = serve(2, 1 << 16)
    one.fault(0)
    one.fault(20)
    one.executor.remove_client(CLIENT)
    assert not one.executor.has_clients()
    first, last = one.jobs.pop(0), one.jobs.pop(0)
    assert not one.is_closed
    for job, is_last in ((first, False), (last, True)):
        workspace = Workspace()
        job(workspace)
        workspace.close()
        assert one.is_closed is is_last
    one.jobs.run()
    assert REGION not in one.executor.regions


def test_who_does_not_read_answers_is_hung_up_on(serve):
    """Nobody waits for them."""
    one = serve(1, PAGE_NBYTES)
    for ticket in range(10_000):
        one.executor.expect(CLIENT, ticket, one.theirs)
        one.executor.answer(CLIENT, w.Done(ticket, [{"message": "x" * 10_000}]))
        if one.theirs.is_hung_up():
            break
    assert one.theirs.is_hung_up()


# --- kinds of memory --------------------------------------------------------------------


@pytest.mark.parametrize("kind", MemoryKind)
def test_only_memory_that_can_be_evicted_is_taken_out(serve, kind):
    """A private page may have been written to."""
    one = serve(2, 1 << 16, kind=kind)
    one.fault(0)
    one.jobs.run()
    one.ask(m.EvictionAsked(CLIENT, REGION, 3, Span(0, 2)))
    one.jobs.run()
    one.ours.receive()
    assert one.residency == [int(not kind.is_evictable), 0]
