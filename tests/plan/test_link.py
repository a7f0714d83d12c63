"""What is read ahead over a network keeps it busy, and is not more than that asks for."""

from __future__ import annotations

import heapq
import itertools

import pytest

from lazyarr.layout.geometry import Geometry
from lazyarr.memory_kind import MemoryKind
from lazyarr.plan import messages as m
from lazyarr.plan.link import Link
from lazyarr.plan.machine import Machine

PAGE_NBYTES = 4096
UNIT_NBYTES = 1 << 20
ENCODED_NBYTES = 500_000
N_UNITS = 2000
FIRST, REST = range(N_UNITS // 4), range(N_UNITS // 4, N_UNITS)
REGION, CLIENT = 1, 7


class Scan:
    """A reader that scans an array whose chunks come over one link, in simulated time.

    A read takes the latency, and then its turn on the link; to read a unit that is there takes
    the reader its own time.

    Attributes
    ----------
    most_units : int
        The most that were on their way or unread at once, in the last run.
    """

    def __init__(self, bandwidth: float, latency: float, *, reader_seconds: float = 0.0) -> None:
        self._seconds_per_unit = ENCODED_NBYTES / bandwidth
        self._latency = latency
        self._reader_seconds = reader_seconds
        self._link = Link()
        self._machine = Machine(1 << 40)
        geometry = Geometry((N_UNITS * UNIT_NBYTES,), (UNIT_NBYTES,), 1, PAGE_NBYTES)
        opened = m.Attached(CLIENT, REGION, 0, geometry, MemoryKind.SHARED, remote=True)
        self._machine.handle(opened)
        self._machine.handle(m.ReadaheadChanged(128 << 20))
        self._arrivals: list[tuple[float, int, m.Load, tuple[float, int]]] = []
        self._order = itertools.count()
        self._free_at = self._now = 0.0
        self._marks: set[int] = set()
        self.most_units = 0

    def run(self, units: range) -> float:
        """Read units in order, and return how long that takes."""
        begin, self.most_units = self._now, 0
        for unit in units:
            if unit in self._marks or not self._is_there(unit):
                self._handle(m.Faulted(CLIENT, unit * UNIT_NBYTES))
            while not self._is_there(unit):
                self._wait()
            self._now += self._reader_seconds
            while self._arrivals and self._arrivals[0][0] <= self._now:
                self._wait()
            state = self._machine.region(REGION)
            ahead = len(state.loading) + sum(other > unit for other in state.resident)
            self.most_units = max(self.most_units, ahead)
        return self._now - begin

    def _is_there(self, unit: int) -> bool:
        return unit in self._machine.region(REGION).resident

    def _handle(self, event: m.Event) -> None:
        for command in self._machine.handle(event):
            if isinstance(command, m.Load):
                if command.mark:
                    self._marks.add(command.unit)
                begin = max(self._now + self._latency, self._free_at)
                self._free_at = begin + self._seconds_per_unit
                entry = self._free_at, next(self._order), command, self._link.begin(self._now)
                heapq.heappush(self._arrivals, entry)

    def _wait(self) -> None:
        at, _, load, begun = heapq.heappop(self._arrivals)
        self._now = max(self._now, at)
        self._link.end(begun, ENCODED_NBYTES, at)
        self._link.add_unit(ENCODED_NBYTES)
        self._handle(m.LinkMeasured(REGION, self._link.pipe_units, self._link.is_full))
        self._handle(m.Loaded(REGION, load.unit, CLIENT, ()))


@pytest.mark.parametrize("latency", [0.001, 0.01, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("bandwidth", [5e6, 50e6, 200e6])
def test_a_scan_takes_as_long_as_the_link_is_busy(bandwidth, latency):
    """From the second quarter on nine tenths of what the link carries are made use of."""
    scan = Scan(bandwidth, latency)
    scan.run(FIRST)
    seconds = scan.run(REST)
    assert len(REST) * ENCODED_NBYTES / bandwidth >= 0.9 * seconds


def test_over_a_slow_link_little_is_read_ahead():
    """A few units, four seconds' worth: not the sixteen seconds' that 32 MiB would be."""
    scan = Scan(1e6, 0.05)
    scan.run(FIRST)
    scan.run(REST)
    assert 4 <= scan.most_units <= 8


def test_a_slow_reader_has_no_more_read_ahead_than_a_fast_one():
    """What is on its way is what the link needs, whoever reads."""
    fast, slow = Scan(100e6, 0.05), Scan(100e6, 0.05, reader_seconds=0.05)
    for scan in (fast, slow):
        scan.run(FIRST)
        scan.run(REST)
    assert slow.most_units <= 1.25 * fast.most_units


def test_nothing_is_known_before_anything_was_read():
    """Nor of what a unit weighs."""
    link = Link()
    assert link.pipe_units == 0
    link.end(link.begin(0.0), 1000, 1.0)
    assert link.pipe_units == 0
    link.add_unit(1000)
    assert link.pipe_units == 3  # 1000 bytes a second, twice a second and a little


def test_small_changes_are_not_worth_telling():
    """Up to a quarter; that the link is full now is."""
    link = Link()
    link.end(link.begin(0.0), 100_000, 1.0)
    link.add_unit(1000)
    assert link.pipe_units == 205
    assert [link.differs(n, is_full=False) for n in (0, 160, 170, 250, 290)] == [
        True, True, False, False, True,
    ]  # fmt: skip
    assert link.differs(205, is_full=True)


def test_reads_side_by_side_make_the_bandwidth():
    """Each sees what came of the others while it was under way."""
    link = Link()
    first, second = link.begin(0.0), link.begin(0.0)
    link.end(first, 100, 1.0)
    assert link.bandwidth == 100
    link.end(second, 300, 1.0)
    assert link.bandwidth == 400
    assert link.latency_seconds == 1.0


def test_a_read_that_takes_longer_than_it_could_has_waited_for_others():
    """Then there is no more bandwidth to be had."""
    link = Link()
    link.end(link.begin(0.0), 100, 1.0)
    assert not link.is_full
    link.end(link.begin(2.0), 100, 4.5)
    assert link.is_full


def test_a_link_that_becomes_slower_is_seen_to_be():
    """After as many reads as are remembered."""
    link = Link()
    link.end(link.begin(0.0), 1 << 20, 0.01)
    for n in range(64):
        link.end(link.begin(1.0 + n), 1 << 10, 2.0 + n)
    assert link.bandwidth == 1 << 10
