"""A schedule by itself: batches, marks, readers that follow it and readers that do not."""

from __future__ import annotations

import random

from lazyarr.plan.schedule import Schedule
from lazyarr.units import Span

ORDER = random.Random(1).sample(range(1000), 1000)


def schedule_of(units: list[int]) -> Schedule:
    """Return a schedule of units of region 7, each a run, given in two parts."""
    schedule = Schedule(client=1)
    runs = [(7, Span(unit, unit + 1)) for unit in units]
    schedule.add(runs[: len(runs) // 3])
    schedule.add(runs[len(runs) // 3 :])
    schedule.is_whole = True
    return schedule


def ask(schedule: Schedule, n_units: int = 10) -> list[int]:
    """Ask for a batch of so many units; return which these are."""
    schedule.begin_batch()
    found = []
    while (key := schedule.next_unit()) is not None and schedule.takes(1 / n_units):
        schedule.ask(1 / n_units, is_left=False)
        found.append(key[1])
    schedule.end_batch()
    return found


def came(schedule: Schedule, unit: int, *, is_lost: bool = False) -> tuple[list[int], bool]:
    """Have a reader come to a unit; return what it has passed, and if a batch is due."""
    passed, is_due = schedule.came(3, 7, unit, is_lost=is_lost)
    return [unit for _, unit in passed], is_due


def test_batches_are_the_order_and_the_first_unit_of_each_is_its_mark():
    """Who comes to it has passed what was asked for before it."""
    schedule = schedule_of(ORDER)
    assert ask(schedule) == ORDER[:10]
    assert came(schedule, ORDER[0]) == (ORDER[:1], True)
    assert ask(schedule) == ORDER[10:20]
    assert came(schedule, ORDER[4]) == (ORDER[1:5], False)
    assert came(schedule, ORDER[10]) == (ORDER[5:11], True)
    assert schedule.reader == 3


def test_runs_have_all_of_their_units():
    """And those of several regions keep their order; a unit of no region is no news."""
    schedule = Schedule(client=1)
    schedule.add([(7, Span(4, 7)), (8, Span(1, 1)), (9, Span(0, 2)), (7, Span(0, 1))])
    schedule.begin_batch()
    found = []
    while (key := schedule.next_unit()) is not None:
        found.append(key)
        schedule.skip()
    assert found == [(7, 4), (7, 5), (7, 6), (9, 0), (9, 1), (7, 0)]
    assert not schedule.is_over, "more may be told of"
    schedule.is_whole = True
    assert schedule.is_over
    assert 9 in schedule
    assert 8 not in schedule
    assert schedule.came(1, 8, 1, is_lost=True) == ([], False)


def test_a_reader_that_overtakes_is_met_where_it_is():
    """What it has come to is not asked for any more."""
    schedule = schedule_of(ORDER)
    ask(schedule)
    assert came(schedule, ORDER[30], is_lost=True) == (ORDER[:10], True)
    assert ask(schedule) == ORDER[31:41]


def test_readers_side_by_side_are_one():
    """The one that is late says nothing, whether its unit is there still or not."""
    schedule = schedule_of(ORDER)
    ask(schedule)
    came(schedule, ORDER[5])
    assert came(schedule, ORDER[2]) == ([], False)
    assert came(schedule, ORDER[2], is_lost=True) == ([], False)
    assert came(schedule, ORDER[9]) == (ORDER[6:10], True)


def test_a_jump_is_followed_when_the_second_place_is_behind_the_first():
    """One touch elsewhere may be anybody's."""
    schedule = schedule_of(ORDER)
    ask(schedule)
    assert came(schedule, ORDER[500], is_lost=True) == ([], False)
    assert came(schedule, ORDER[900], is_lost=True) == ([], False)
    assert came(schedule, ORDER[501], is_lost=True)[1]
    assert ask(schedule) == ORDER[502:512]
    for unit in ORDER[100:102]:
        is_due = came(schedule, unit, is_lost=True)[1]
    assert is_due, "back again"
    assert ask(schedule) == ORDER[102:112]


def test_who_reads_in_another_order_does_not_follow():
    """After some while it is taken to be nobody's; each batch that was read makes that longer."""
    schedule = schedule_of(ORDER[:600])
    ask(schedule)
    for n_strays, unit in enumerate(ORDER[600:]):
        assert not schedule.is_forsaken, n_strays
        assert came(schedule, unit, is_lost=True) == ([], False)
        if n_strays >= 64 + 8 * 10:
            break
    assert schedule.is_forsaken
    came(schedule, ORDER[0])
    assert not schedule.is_forsaken


def test_a_batch_that_is_evicted_unread_makes_the_next_ones_shorter():
    """They grow again with each that is not."""
    schedule = schedule_of(ORDER)
    ask(schedule, 16)
    came(schedule, ORDER[3], is_lost=True)
    assert len(ask(schedule, 16)) == 4
    assert len(ask(schedule, 16)) == 8
    assert len(ask(schedule, 16)) == 16


def test_a_unit_that_comes_twice_is_found_where_the_reader_is():
    """The nearest place counts."""
    schedule = schedule_of([*ORDER, *ORDER])
    for place in range(0, 1200, 100):
        assert ask(schedule, 100) == (ORDER + ORDER)[place : place + 100]
        came(schedule, ORDER[place % 1000])
    assert came(schedule, ORDER[230], is_lost=True)[1]
    assert ask(schedule) == ORDER[231:241]
