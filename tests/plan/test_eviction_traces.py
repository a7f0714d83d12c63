"""The eviction policy on traces, against first in, first out and least recently used.

A trace says of each access whether the pager would see it where the unit is resident: it
sees requests, and no raw touches.  The rival that knows the least recently used is told of
all of them, which no pager can be.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from lazyarr.plan.eviction import TwoQueues

ROOM = 200  # units
UNIT_NBYTES = 1000


class Access(NamedTuple):
    """Somebody uses a unit."""

    unit: int
    is_seen: bool = False
    is_counted: bool = True


class Rival:
    """First in, first out; or least recently used."""

    def __init__(self, *, is_lru: bool) -> None:
        self._is_lru = is_lru
        self._units: OrderedDict[int, None] = OrderedDict()

    def use(self, access: Access) -> bool:
        """Return whether a unit was there; then it is."""
        if access.unit in self._units:
            if self._is_lru:
                self._units.move_to_end(access.unit)
            return True
        self._units[access.unit] = None
        if len(self._units) > ROOM:
            self._units.popitem(last=False)
        return False


class Ours:
    """The policy as the machine uses it."""

    def __init__(self) -> None:
        self._policy = TwoQueues()

    def use(self, access: Access) -> bool:
        """Return whether a unit was there; then it is."""
        key = (1, access.unit)
        if key in self._policy:
            if access.is_seen:
                self._policy.touch(key)
            return True
        self._policy.add(key, UNIT_NBYTES)
        while self._policy.resident_nbytes > ROOM * UNIT_NBYTES:
            victim = self._policy.victim(lambda _: False)
            assert victim is not None
            self._policy.evict(victim)
        return False


def share_of_hits(policy: Rival | Ours, trace: list[Access]) -> float:
    """Return for which part of the accesses that count the unit was there."""
    found = [policy.use(access) for access in trace]
    counted = [hit for hit, access in zip(found, trace, strict=True) if access.is_counted]
    return sum(counted) / len(counted)


def hits(trace: list[Access]) -> tuple[float, float, float]:
    """Return the parts for ours, first in first out, and least recently used."""
    rivals = (Rival(is_lru=False), Rival(is_lru=True))
    first, recent = (share_of_hits(rival, trace) for rival in rivals)
    return share_of_hits(Ours(), trace), first, recent


def scan_with_hot_set(n_hot: int, *, is_seen: bool) -> list[Access]:
    """Return a scan of 20 times the room, and one use of a random hot unit after each step."""
    chance = random.Random(n_hot)

    def steps() -> Iterator[Access]:
        for unit in range(n_hot):
            yield Access(unit, is_counted=False)
        for unit in range(20 * ROOM):
            yield Access(10_000 + unit, is_counted=False)
            yield Access(chance.randrange(n_hot), is_seen=is_seen)

    return list(steps())


def loop(n_units: int, n_rounds: int, first: int = 0) -> list[Access]:
    """Return the same units in order, again and again."""
    return [Access(first + unit) for _ in range(n_rounds) for unit in range(n_units)]


def zipf(n_units: int) -> list[Access]:
    """Return units of which a few are used much more often than the rest."""
    weights = [1 / (rank + 1) for rank in range(n_units)]
    return [Access(u) for u in random.Random(3).choices(range(n_units), weights, k=20_000)]


@pytest.mark.parametrize(
    ("is_seen", "n_hot", "least"),
    [
        (True, 100, 0.99),
        (True, 170, 0.94),
        (False, 50, 0.96),
        (False, 100, 0.9),
        (False, 170, 0.78),
    ],
)
def test_scan_does_not_flush_a_hot_set_that_fits(is_seen, n_hot, least):
    """Also where the pager sees nothing of its use but that it comes back when it has gone."""
    ours, first, recent = hits(scan_with_hot_set(n_hot, is_seen=is_seen))
    assert ours > least
    assert ours > recent + 0.02
    assert ours > first + 0.15


def test_hot_set_that_comes_after_a_scan_is_kept():
    """The memory is full of what was read once; a unit that has come back once stays."""
    before = [access._replace(is_counted=False) for access in loop(3 * ROOM, 1, first=20_000)]
    ours, first, _ = hits(before + scan_with_hot_set(60, is_seen=False))
    assert ours > max(0.9, first + 0.1)


@pytest.mark.parametrize(("n_units", "least"), [(210, 0.75), (300, 0.4), (600, 0.2)])
def test_loop_over_more_than_there_is_room_for_finds_part_of_it(n_units, least):
    """The rivals have always just dropped what comes next."""
    ours, first, recent = hits(loop(n_units, 10))
    assert ours > least
    assert first == recent == 0


def test_loop_that_fits_is_all_hits():
    """Everything is loaded once."""
    ours, _, _ = hits(loop(180, 10))
    assert ours == 0.9


def test_loop_finds_more_each_time_though_memory_was_full_of_something_else():
    """What is kept without evidence changes slowly, and does change."""
    before = loop(ROOM + 50, 1, first=20_000)
    early = before + loop(300, 2)
    late = before + loop(300, 40)
    n_late = len(late) - len(early)
    gained = share_of_hits(Ours(), late) * len(late) - share_of_hits(Ours(), early) * len(early)
    assert gained / n_late > 0.3


def test_random_access_finds_what_there_is_room_for():
    """No policy does better or worse than the part that is resident."""
    chance = random.Random(5)
    ours, first, recent = hits([Access(chance.randrange(2 * ROOM)) for _ in range(20_000)])
    assert min(ours, first, recent) > 0.48
    assert abs(ours - recent) < 0.02


def test_skewed_access_is_as_good_as_with_every_use_seen():
    """Coming back is evidence enough."""
    ours, first, recent = hits(zipf(5 * ROOM))
    assert ours > first + 0.03
    assert ours > recent - 0.02


def test_change_of_the_working_set_costs_a_second_load_at_most():
    """What was of use before must come to light as of no use now."""
    chance = random.Random(7)
    trace = loop(ROOM, 1, first=20_000)
    for phase in range(5):
        trace += [Access(1000 * phase + chance.randrange(100)) for _ in range(2000)]
    ours, first, _ = hits(trace)
    n_misses = (1 - ours) * len(trace) - ROOM
    assert n_misses <= 2 * 5 * 100 + 5 * 20
    assert ours > first - 0.06
