"""An executor and all that it works with, over memory that nobody has mapped.

Machine, executor, loads and loader are the real ones.  A client's userfaultfd writes down what it
is told, jobs wait until a test runs them, and units come from a dictionary.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator
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
        self.protected: list[Span] = []
        self.unprotected: list[Span] = []
        self.mapped: list[Span] = []
        # The memory object that pages are installed in.
        self.memfd = -1

    def copy_at_once(self, dst: int, src: int, nbytes: int, mode: int = 0) -> bool:
        return self.copy(dst, src, nbytes, mode=mode).stop is Stop.DONE

    def copy(self, dst: int, src: int, nbytes: int, *, mode: int = 0) -> Outcome:
        place = Span((dst - ADDRESS) // PAGE_NBYTES, (dst - ADDRESS + nbytes) // PAGE_NBYTES)
        self.installed.append((place, ctypes.string_at(src, nbytes)))
        if self.memfd >= 0:
            os.pwrite(self.memfd, self.installed[-1][1], dst - ADDRESS)
        return Outcome(Stop.DONE, nbytes)

    def continue_(self, address: int, nbytes: int, *, mode: int = 0) -> Outcome:
        start = (address - ADDRESS) // PAGE_NBYTES
        self.mapped.append(Span(start, start + nbytes // PAGE_NBYTES))
        return Outcome(Stop.DONE, nbytes)

    def writeprotect(self, address: int, nbytes: int, *, mode: int = 1) -> Outcome:
        place = Span(
            (address - ADDRESS) // PAGE_NBYTES, (address - ADDRESS + nbytes) // PAGE_NBYTES
        )
        (self.protected if mode & 1 else self.unprotected).append(place)
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

    def shards_of(self, unit: int) -> tuple[str, ...]:
        return ()

    def forget(self, units: Iterable[int]) -> None: ...

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

    def promote(self, job: Callable[[Workspace], None]) -> None:
        if job in self:
            self.remove(job)
            self.insert(0, job)

    def drop_workspaces(self) -> int:
        return 0  # each job has a workspace of its own

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
        is_remote: bool = False,
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
            uffd_of=lambda _: self.uffd,
            wake=self.uffd.wake,
            main=MainThread(),
            notices=[],
            close=lambda: setattr(self, "is_closed", True),
        )
        memfds = create_memfd("pages"), create_memfd("map")
        for memfd in memfds:
            resize_memfd(memfd, self.geometry.n_pages * PAGE_NBYTES)
        self.arena = Arena(*memfds)
        self.uffd.memfd = memfds[0] if kind.writes_back else -1
        region = Region(
            message=w.OpenRegion(
                REGION, ADDRESS, 0, 0, "u", "a", "layout", {"kind": "local"}, is_remote, kind.name
            ),
            kind=kind,
            source=self.source,
            backing=Backing(memfds[0], 0),
            residency=Backing(memfds[1], 0),
            arena=self.arena,
            descriptors=(),
            is_remote=is_remote,
            label="'a' in u",
            memory_nbytes=self.geometry.n_pages * PAGE_NBYTES,
            unit_nbytes=unit_nbytes,
            n_units=n_units,
            limits=(),
            pipeline=b"{}",
        )
        self.executor.add_client(client)
        self.executor.add_region(REGION, region)
        attached = m.Attached(CLIENT, REGION, ADDRESS, self.geometry, kind, is_remote)
        self.executor.handle([attached])
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
        self.executor.write_backs.close()
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
