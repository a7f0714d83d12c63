"""Readahead on traces: how often a reader waits, and how much is read for nothing."""

from __future__ import annotations

import itertools
import random
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazyarr.plan.readahead import Advice, Ahead, Readahead
from lazyarr.units import Span

N_UNITS = 1000
MAX_UNITS = 32
LOAD_TICKS = 3  # a reader needs one for a unit that is there
N_LOADERS = 4


class Simulator:
    """Readers that take turns, loaders, and a memory that holds the units that came last.

    Parameters
    ----------
    can_mark : bool
        Whether the first touch of a mark is heard of; else it is not read ahead.
    n_room : int
        How many units there is memory for.
    n_units : int
        How many units the array has.
    """

    def __init__(
        self, *, can_mark: bool = True, n_room: int = 10**6, n_units: int = N_UNITS
    ) -> None:
        self.policy = Readahead(n_units)
        self.n_waits = self.n_loads = self.n_ahead = self.n_evicted_unread = 0
        self._can_mark = can_mark
        self._n_room = n_room
        self._now = 0
        self._resident: OrderedDict[int, None] = OrderedDict()
        self._marked: set[int] = set()
        self._unread: set[int] = set()
        self._queue: deque[int] = deque()
        self._loading: dict[int, int] = {}

    def _is_absent(self, unit: int) -> bool:
        return not (unit in self._resident or unit in self._loading or unit in self._queue)

    def _tick(self) -> None:
        self._now += 1
        for unit in [u for u, done in self._loading.items() if done <= self._now]:
            del self._loading[unit]
            self._resident[unit] = None
        while len(self._resident) > self._n_room:
            gone, _ = self._resident.popitem(last=False)
            self.n_evicted_unread += gone in self._unread
            self._unread.discard(gone)
            self._marked.discard(gone)
        while self._queue and len(self._loading) < N_LOADERS:
            self._start(self._queue.popleft())

    def _start(self, unit: int) -> None:
        self.n_loads += 1
        self._loading[unit] = self._now + LOAD_TICKS

    def touch(self, unit: int) -> None:
        """Read a unit, and wait for it if need be."""
        is_lost = self._is_absent(unit)
        if unit not in self._resident:
            self.n_waits += 1
            self._hear(unit, is_lost=is_lost)
            if unit in self._queue:
                self._queue.remove(unit)
            if unit not in self._loading:
                self._start(unit)
            while unit not in self._resident:
                self._tick()
        elif unit in self._marked:
            self._hear(unit, is_lost=False)
        self._marked.discard(unit)
        self._unread.discard(unit)
        self._tick()

    def _hear(self, unit: int, *, is_lost: bool) -> None:
        ahead = self.policy.accessed(
            Span(unit, unit + 1),
            is_lost=is_lost,
            is_absent=lambda u: u != unit and self._is_absent(u),
            max_units=MAX_UNITS,
            room_units=self._n_room // 2 - len(self._unread),
        )
        for u in ahead.units:
            if u != ahead.mark or self._can_mark:
                self.n_ahead += 1
                self._queue.append(u)
                self._unread.add(u)
                if u == ahead.mark:
                    self._marked.add(u)

    def run(self, *readers: Iterable[int]) -> Simulator:
        """Let readers take turns until all are done."""
        rest = [iter(reader) for reader in readers]
        while rest:
            for reader in list(rest):
                unit = next(reader, None)
                if unit is None:
                    rest.remove(reader)
                else:
                    self.touch(unit)
        return self


def test_sequential_reader_waits_only_at_the_start():
    """Windows double until they last for as long as a load takes."""
    simulator = Simulator().run(range(N_UNITS))
    assert simulator.n_waits < 12
    assert simulator.n_loads == N_UNITS


def test_backward_reader_waits_only_at_the_start():
    """Backwards is as good as forwards."""
    simulator = Simulator().run(range(N_UNITS - 1, -1, -1))
    assert simulator.n_waits < 12
    assert simulator.n_loads == N_UNITS


@pytest.mark.parametrize("step", [2, 7, -5, 100])
def test_strided_reader_waits_only_at_the_start(step):
    """What lies between is not read."""
    wanted = range(0, N_UNITS, step) if step > 0 else range(N_UNITS - 1, -1, step)
    simulator = Simulator().run(wanted)
    assert simulator.n_waits < 14
    assert simulator.n_loads == len(wanted)


def test_readers_of_one_array_are_told_apart():
    """Each of six, in both directions and of several strides, is followed as if it were alone."""
    readers = (
        range(120),
        range(200, 320),
        range(519, 399, -1),
        range(600, 840, 2),
        range(850, 950),
        range(999, 950, -1),
    )
    simulator = Simulator().run(*readers)
    assert simulator.n_waits < 6 * 12
    assert simulator.n_loads - sum(map(len, readers)) < 6 * MAX_UNITS


def test_several_readers_of_the_same_units():
    """Processes that read along with one another are one reader."""
    simulator = Simulator().run(*(range(500) for _ in range(4)))
    assert simulator.n_waits < 12
    assert simulator.n_loads <= 500 + 2 * MAX_UNITS


def test_random_reader_has_hardly_anything_read_ahead():
    """Neighbours come one after the other by chance, and then it is one unit."""
    chance = random.Random(1)
    simulator = Simulator(n_room=100).run(chance.randrange(N_UNITS) for _ in range(3000))
    assert simulator.n_ahead < 0.08 * simulator.n_loads


def test_random_readers_of_few_units_have_hardly_anything_read_ahead():
    """Where two of a few units are neighbours more often than of many."""
    chance = random.Random(1)
    readers = [[chance.randrange(320) for _ in range(1000)] for _ in range(4)]
    simulator = Simulator(n_room=28, n_units=320).run(*readers)
    assert simulator.n_ahead < 0.06 * simulator.n_loads


def test_window_of_a_reader_that_stops_is_all_that_is_lost():
    """Two batches at most: the one that it was in, and the next."""
    simulator = Simulator().run(itertools.chain(range(300), [900, 700, 500, 800]))
    assert simulator.n_loads <= 304 + 2 * MAX_UNITS


def test_random_accesses_of_another_thread_do_not_disturb_a_reader():
    """Its stream is not forgotten for them."""
    chance = random.Random(2)
    others = [chance.randrange(500, N_UNITS) for _ in range(400)]
    alone = Simulator().run(others)
    assert Simulator().run(range(400), others).n_waits < alone.n_waits + 16


def test_without_marks_a_reader_waits_once_for_each_window():
    """The unit that would be marked is left to the reader; the rest is there when it comes."""
    simulator = Simulator(can_mark=False).run(range(N_UNITS))
    assert simulator.n_waits < 12 + 1.2 * N_UNITS / MAX_UNITS
    assert simulator.n_loads == N_UNITS


@pytest.mark.parametrize("n_room", [4, 8, 20, 40])
def test_what_was_read_ahead_is_not_evicted_unread(n_room):
    """However little memory there is, nothing is loaded twice, and it still helps."""
    simulator = Simulator(n_room=n_room).run(range(N_UNITS))
    assert simulator.n_evicted_unread == 0
    assert simulator.n_loads == N_UNITS
    assert simulator.n_waits < 0.51 * N_UNITS


def test_second_round_passes_over_what_is_there():
    """Half of the units are resident, here and there: the others are read ahead."""
    simulator = Simulator().run(random.Random(3).sample(range(N_UNITS), N_UNITS // 2))
    before = simulator.n_waits
    simulator.run(range(N_UNITS))
    assert simulator.n_waits - before < 40
    assert simulator.n_loads <= N_UNITS


def test_reader_that_takes_more_at_a_time_is_given_as_much():
    """The first batch is as long as what was asked for last."""
    policy = Readahead(N_UNITS)
    assert heard(policy, Span(0, 10)) == Ahead()
    assert heard(policy, Span(10, 20)).units == tuple(range(20, 30))
    assert heard(policy, Span(20, 30)).units == tuple(range(30, 50))


def test_stride_of_several_units_a_time():
    """A row that lies across two units needs both, at each place."""
    policy = Readahead(N_UNITS)
    for start in (0, 10, 20):
        ahead = heard(policy, Span(start, start + 2))
    assert ahead.units == (30, 31)
    ahead = heard(policy, Span(30, 32))
    assert ahead == Ahead((30, 31), (40, 41, 50, 51), 40)


def test_units_that_share_a_page_are_side_by_side_though_they_overlap():
    """The page between two holds a part of both."""
    policy = Readahead(N_UNITS)
    heard(policy, Span(0, 5))
    assert heard(policy, Span(4, 9)).units == tuple(range(9, 14))


def test_advice_random_is_believed():
    """Nothing is read ahead there, and elsewhere it is."""
    policy = Readahead(N_UNITS)
    policy.advise(Span(0, 500), Advice.RANDOM)
    assert all(heard(policy, Span(u, u + 1)) == Ahead() for u in range(100))
    heard(policy, Span(600, 601))
    assert heard(policy, Span(601, 602)).units == (602,)


def test_advice_sequential_is_believed_at_the_first_touch():
    """With a large window."""
    policy = Readahead(N_UNITS)
    policy.advise(Span(0, N_UNITS), Advice.SEQUENTIAL)
    assert heard(policy, Span(40, 41)).units == tuple(range(41, 49))


def test_last_advice_holds():
    """Normal takes back what was said before; of parts the last that was said of them."""
    policy = Readahead(N_UNITS)
    policy.advise(Span(0, N_UNITS), Advice.RANDOM)
    policy.advise(Span(0, 100), Advice.SEQUENTIAL)
    assert heard(policy, Span(50, 51)).units
    assert not heard(policy, Span(500, 501)).units
    policy.advise(Span(0, N_UNITS), Advice.NORMAL)
    heard(policy, Span(200, 201))
    assert heard(policy, Span(201, 202)).units == (202,)


def test_a_batch_has_as_many_units_as_are_worth_a_round_trip():
    """From the first one on, and twice as many in the next; one unit alone shows no reader."""
    policy = Readahead(N_UNITS)
    batches = []
    for unit in (7, 8, 9, 17, 33):
        span = Span(unit, unit + 1)
        ahead = policy.accessed(
            span,
            is_lost=True,
            is_absent=lambda u, unit=unit: u != unit,
            min_units=8,
            max_units=20,
            room_units=10**6,
        )
        batches.append(ahead.units)
    assert batches == [
        (),
        tuple(range(9, 17)),
        tuple(range(17, 33)),
        tuple(range(33, 53)),
        tuple(range(53, 73)),
    ]


def test_repr_shows_the_windows():
    """The last reader comes first."""
    policy = Readahead(N_UNITS)
    for unit in (1, 2, 500, 501, 502):
        heard(policy, Span(unit, unit + 1))
    assert repr(policy) == "<Readahead: 2 readers, windows [2, 1]>"


def heard(policy: Readahead, span: Span) -> Ahead:
    """Tell a policy of an access where nothing is resident and there is room for all."""
    return policy.accessed(
        span, is_lost=True, is_absent=lambda u: u not in span, max_units=32, room_units=10**6
    )


def walks(data: st.DataObject) -> Iterator[Span]:
    """Yield spans in which there are patterns, broken off at random."""
    for _ in range(data.draw(st.integers(1, 6))):
        unit, step = data.draw(st.integers(0, 60)), data.draw(st.integers(-9, 9))
        for _ in range(data.draw(st.integers(1, 12))):
            unit = min(max(unit + step, 0), 59)
            yield Span(unit, min(60, unit + data.draw(st.integers(1, 3))))


@given(st.data())
@settings(max_examples=60)
def test_only_absent_units_of_the_array_are_asked_for_and_once(data):
    """Whatever is touched, and whatever is absent; never more than there is room for."""
    policy = Readahead(60)
    for span in walks(data):
        bits = data.draw(st.integers(0, 2**60 - 1))
        here = {unit for unit in range(60) if bits >> unit & 1} | set(range(*span))
        room = data.draw(st.integers(-5, 20))
        ahead = policy.accessed(
            span,
            is_lost=data.draw(st.booleans()),
            is_absent=lambda unit, here=here: unit not in here,
            min_units=data.draw(st.integers(0, 20)),
            max_units=data.draw(st.integers(1, 16)),
            room_units=room,
        )
        assert len(set(ahead.units)) == len(ahead.units) <= max(0, room)
        assert all(0 <= unit < 60 and unit not in here for unit in ahead.units)
        assert ahead.mark in ahead.units if ahead.units else ahead.mark is None
