"""What the machine records, and what it loads by a schedule before anybody comes there."""

from __future__ import annotations

import random

import pytest

from lazyarr.plan import messages as m
from lazyarr.units import Span
from tests.plan.memory_model import PAGE_NBYTES, World, noted
from tests.plan.test_machine_readahead import MANY, UNEVEN, scan, world_that_reads_ahead
from tests.plan.worlds import commands, outcomes, settle

ORDER = random.Random(1).sample(range(100), 100)


def record(world: World, client: int):
    """Return a recorder."""
    recorder = world.machine.find_recorder(client, world.record(client))
    assert recorder is not None
    return recorder


def runs_of(region: int, units: list[int]) -> list[tuple[int, Span]]:
    return [(region, Span(unit, unit + 1)) for unit in units]


def read(world: World, client: int, region: int, units: list[int]) -> int:
    """Read units in an order, each when all that is on its way has come; return how many waited."""
    n_waited = 0
    for unit in units:
        n_waited += unit not in world.state(region).resident
        world.touch(client, region, unit)
        settle(world)
    return n_waited


def test_units_are_noted_in_the_order_in_which_they_are_come_to():
    """By faults of any process, the short way too, and by requests; each once."""
    world, clients, region = world_that_reads_ahead(n_clients=2)
    recorder = record(world, clients[0])
    scan(world, clients[1], region, range(50, 51))
    world.touch(clients[0], region, 7)
    while world.faults:
        world.read_fault_quickly()
    world.request(clients[1], region, Span(20, 23), Span(3, 4))
    scan(world, clients[0], region, range(50, 51))
    assert [unit for _, unit in noted(recorder)] == [50, 7, 20, 21, 22, 3]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("geometry", [MANY, UNEVEN])
def test_a_scan_that_is_read_ahead_is_noted_as_it_is_read(geometry, shared):
    """All that was come to and nothing else, though most of it was there before."""
    world, (client,), region = world_that_reads_ahead(geometry, shared=shared)
    recorder = record(world, client)
    last = geometry.n_pages * 2 // 3
    scan(world, client, region, range(last))
    units = geometry.units_of_bytes(Span(0, last * PAGE_NBYTES))
    assert [unit for _, unit in noted(recorder)] == list(range(*units))
    if geometry is MANY and shared:
        assert world.machine.counters["units_ahead"] > 50


def test_several_record_and_each_until_it_ends():
    """By its wish, or with its client; nothing is looked at then any more."""
    world, (first, second), region = world_that_reads_ahead(n_clients=2)
    ticket = world.record(first)
    recorder = record(world, second)
    scan(world, first, region, range(5, 6))
    world.end_recording(first, ticket)
    assert world.machine.find_recorder(first, ticket) is None
    scan(world, first, region, range(9, 10))
    assert len(recorder) == 2
    world.exit(second)
    world.tell_exit(second)
    assert not world.machine._units.is_watched


def test_what_was_noted_outlives_its_region():
    """An array may be closed before the recording ends."""
    world, (client,), region = world_that_reads_ahead()
    recorder = record(world, client)
    scan(world, client, region, range(4, 5))
    assert world.machine.is_recorded(region)
    world.detach(client, region)
    assert recorder.runs(0, 9) == [(0, Span(4 * PAGE_NBYTES, 5 * PAGE_NBYTES))]
    assert recorder.regions == [(region, MANY)]


@pytest.mark.parametrize("n_clients", [1, 3])
def test_a_random_order_is_there_before_it_is_come_to(n_clients):
    """By the order alone, and of each unit once; without it each is waited for."""
    world, clients, region = world_that_reads_ahead(n_clients=n_clients)
    world.schedule(clients[0], runs_of(region, ORDER))
    assert [load.unit for load in commands(world, m.Load)] == ORDER[:8], "half of the window"
    settle(world)
    for place, unit in enumerate(ORDER):
        assert read(world, clients[place % n_clients], region, [unit]) == 0
    assert outcomes(world) == ["read"] * 100
    assert world.machine.counters["units_loaded"] == 100
    assert not world.machine._units.is_watched, "it has been gone through"
    world, (client,), region = world_that_reads_ahead()
    assert read(world, client, region, ORDER) > 90


def test_never_more_than_the_window_is_ahead():
    """In the order of the schedule, however it comes."""
    world, (client,), region = world_that_reads_ahead()
    name = world.schedule(client, runs_of(region, ORDER[:40]), is_last=False)
    world.schedule(client, runs_of(region, ORDER[40:]), schedule=name, start=40)
    settle(world)
    for place, unit in enumerate(ORDER):
        assert world.state(region).resident <= set(ORDER[: place + 16])
        assert read(world, client, region, [unit]) == 0


@pytest.mark.parametrize("n_units", [6, 10, 20, 50])
def test_what_it_brings_stays_until_it_is_read(n_units):
    """With little room it is less; nothing is loaded twice, and the limit holds."""
    world, (client,), region = world_that_reads_ahead(limit=n_units * PAGE_NBYTES)
    world.do(m.ReadaheadChanged(4000 * PAGE_NBYTES))
    world.schedule(client, runs_of(region, ORDER))
    settle(world)
    n_waited = read(world, client, region, ORDER)
    counted = world.machine.counters
    assert (counted["units_loaded"], counted["ahead_evicted"]) == (100, 0)
    assert n_waited < 10


@pytest.mark.parametrize(("geometry", "shared"), [(MANY, False), (UNEVEN, True)])
def test_memory_without_marks_waits_for_one_unit_of_a_batch(geometry, shared):
    """Private memory; and units that share pages, none of which is that of one alone."""
    world, (client,), region = world_that_reads_ahead(geometry, shared=shared)
    world.do(m.ReadaheadChanged(4000))
    world.schedule(client, [(region, Span(0, 100))])
    settle(world)
    scan(world, client, region, range(geometry.n_pages))
    counted = world.machine.counters
    assert counted["units_loaded"] == 100
    assert counted["units_ahead"] > 60


def test_nothing_is_guessed_of_an_order_that_is_known():
    """All of it was asked for at once; its readers are no reason to read more ahead."""
    world, clients, region = world_that_reads_ahead(n_clients=3)
    world.do(m.ReadaheadChanged(4000 * PAGE_NBYTES))
    world.schedule(clients[0], runs_of(region, ORDER[:40]))
    settle(world)
    for place, unit in enumerate(ORDER[:40]):
        assert world.machine._units.is_watched
        assert read(world, clients[place % 3], region, [unit]) == 0
    assert world.state(region).resident == set(ORDER[:40])
    assert not world.machine._units.is_watched, "its last unit was come to"


def test_units_that_are_there_are_passed_over():
    """All of them, with a first batch behind them: their reader is not heard of."""
    world, (client,), region = world_that_reads_ahead()
    read(world, client, region, ORDER[:60])
    world.schedule(client, runs_of(region, ORDER))
    settle(world)
    assert read(world, client, region, ORDER) == 0


def test_a_schedule_that_nobody_follows_is_forgotten():
    """It costs a batch, and some looks."""
    world, (client,), region = world_that_reads_ahead()
    world.schedule(client, runs_of(region, ORDER[:30]))
    for _ in range(2):
        assert world.machine._units.is_watched
        read(world, client, region, ORDER[30:])
        world.evict(client, region, Span(0, 100))
    assert not world.machine._units.is_watched
    assert not world.state(region).resident & set(ORDER[8:30]), "it was followed"


@pytest.mark.parametrize("how", ["exit", "detach"])
def test_a_schedule_ends_with_its_client_and_with_its_arrays(how):
    """What others have of it stays."""
    world, clients, region = world_that_reads_ahead(n_clients=2)
    world.schedule(clients[0], runs_of(region, ORDER))
    settle(world)
    if how == "exit":
        world.exit(clients[0])
        world.tell_exit(clients[0])
    else:
        for client in clients:
            world.detach(client, region)
    assert not world.machine._units.is_watched


def test_a_schedule_whose_beginning_is_not_known_is_none():
    """Its first runs were told to another worker; so is one that is told twice."""
    world, (client,), region = world_that_reads_ahead()
    world.schedule(client, runs_of(region, ORDER), schedule=77, start=5)
    assert not world.machine._units.is_watched
    name = world.schedule(client, runs_of(region, ORDER[:50]), is_last=False)
    world.schedule(client, runs_of(region, ORDER[:50]), schedule=name, is_last=False)
    (schedule,) = world.machine._units._schedules.values()
    assert schedule.n_units == 50


def test_arrays_that_are_not_known_are_left_out():
    """And units that they have not."""
    world, (client,), region = world_that_reads_ahead()
    world.schedule(client, [(99, Span(0, 5)), (region, Span(98, 200)), (region, Span(3, 4))])
    assert [load.unit for load in commands(world, m.Load)] == [98, 99, 3]


def test_so_many_schedules_and_no_more():
    """The first one goes."""
    world, (client,), region = world_that_reads_ahead()
    names = [world.schedule(client, runs_of(region, ORDER), is_last=False) for _ in range(20)]
    assert [name for _, name in world.machine._units._schedules] == names[4:]


def test_nothing_is_loaded_by_a_schedule_while_readahead_is_off():
    """It goes on when readahead is on again."""
    world, (client,), region = world_that_reads_ahead()
    world.do(m.ReadaheadChanged(0))
    world.schedule(client, runs_of(region, ORDER))
    assert read(world, client, region, ORDER[:10]) == 10
    world.do(m.ReadaheadChanged(64 * PAGE_NBYTES))
    assert read(world, client, region, ORDER[10:]) < 3


def test_a_schedule_and_a_recording_go_together():
    """What was loaded ahead is noted when it is come to."""
    world, (client,), region = world_that_reads_ahead()
    recorder = record(world, client)
    world.schedule(client, runs_of(region, ORDER))
    settle(world)
    assert read(world, client, region, ORDER[:70]) == 0
    assert [unit for _, unit in noted(recorder)] == ORDER[:70]


def test_a_chunk_that_cannot_be_had_is_nobodys_until_it_is_come_to():
    """The reader that comes there tries again."""
    world, (client,), region = world_that_reads_ahead()
    world.schedule(client, runs_of(region, ORDER))
    world.finish(region, ORDER[1], fail=True)
    settle(world)
    assert read(world, client, region, ORDER) < 5
    assert outcomes(world) == ["read"] * 100
