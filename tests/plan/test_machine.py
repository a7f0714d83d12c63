"""What the machine loads, maps and answers, case by case."""

from __future__ import annotations

import pytest

from lazyarr.layout.geometry import Geometry
from lazyarr.plan import messages as m
from lazyarr.units import Span
from tests.plan.memory_model import FAILURE, PAGE_NBYTES, World
from tests.plan.worlds import HALVES, LONG, PAGES, commands, outcomes, settle, world_with

# --- loading -------------------------------------------------------------------------


def test_fault_loads_its_unit_and_no_other():
    """What is not touched is not read."""
    world, (client,), region = world_with(PAGES)
    world.touch(client, region, 2)
    world.read_faults()
    assert commands(world, m.Load) == [m.Load(region, 2, client, urgent=True, awaited=Span(2, 3))]
    settle(world)
    assert outcomes(world) == ["read"]
    assert world.state(region).resident == {2}


def test_unit_that_is_loading_is_not_loaded_twice():
    """Five threads on one page, another process and a request are one load."""
    world, (first, second), region = world_with(PAGES, n_clients=2)
    for client in (first, first, second, first, second):
        world.touch(client, region, 0)
    world.read_faults()
    key = world.request(second, region, Span(0, 1))
    assert len(commands(world, m.Load)) == 1
    settle(world)
    assert outcomes(world) == ["read"] * 5
    assert world.answers[key] == ()


def test_load_names_the_page_that_a_thread_waits_for():
    """It is installed first; a request waits for no page in particular."""
    world, (client,), region = world_with(LONG)
    world.touch(client, region, 1)
    world.read_faults()
    world.request(client, region, Span(1, 2))
    assert commands(world, m.Load) == [
        m.Load(region, 0, client, urgent=True, awaited=Span(1, 2)),
        m.Load(region, 1, client, urgent=True),
    ]


def test_a_request_for_some_pages_is_answered_when_they_are_there():
    """The rest of the unit may take its time, and other requests wait for it."""
    world, (client,), region = world_with(LONG)
    early = world.pick(client, region, 0, Span(1, 2))
    late = world.pick(client, region, 0, Span(1, 2))
    pages = Span(1, 2)
    assert commands(world, m.Load) == [
        m.Load(region, 0, client, urgent=True, awaited=pages, is_pick=True)
    ]
    world.install_awaited(world.loads[region, 0])
    assert world.answers == {early: ()}
    assert world.machine.counters["units_loaded"] == 1, "who has its answer finds it counted"
    detached = world.detach(client, region)
    assert detached not in world.answers
    settle(world)
    assert world.answers == {early: (), late: (), detached: ()}
    assert world.machine.counters["units_loaded"] == 1


def test_pages_that_a_unit_does_not_fill_alone_are_not_answered_for_early():
    """Nor what is no range of pages at all."""
    world, (client,), region = world_with(LONG)
    for pages in (Span(2, 3), Span(1, 3), Span(-1, 1), Span(1, 1), Span(5, 2)):
        key = world.pick(client, region, 0, pages)
        assert commands(world, m.Load) == [m.Load(region, 0, client, urgent=True)]
        settle(world)
        assert world.answers.pop(key) == ()
        world.evict(client, region, Span(0, 1))
        commands(world, m.Load)


def world_with_a_row_left():
    """Return a world in which a unit has failed after some of its pages were answered."""
    world, (client,), region = world_with(LONG)
    key = world.pick(client, region, 0, Span(0, 1))
    world.install_awaited(world.loads[region, 0])
    world.finish(region, 0, fail=True)
    assert world.answers == {key: ()}
    assert set(world.memories[region].memfd) == {0}
    world.log.clear()
    return world, client, region


def test_what_fails_after_it_was_answered_is_no_answer_twice():
    """The unit is out again but for what it was told is there: the next touch finds out why."""
    world, client, region = world_with_a_row_left()
    world.touch(client, region, 0)
    assert [end for _, end in world.served] == ["read"]
    world.touch(client, region, 1)
    world.read_faults()
    world.finish(region, 0, fail=True)
    assert set(world.memories[region].memfd) == {0}, "what was answered stays"


def test_what_is_left_of_a_unit_is_replaced_as_a_whole():
    """The store may have another version of it by now, and pages of both would be torn."""
    world, client, region = world_with_a_row_left()
    again = world.request(client, region, Span(0, 1))
    assert commands(world, m.Load) == [m.Load(region, 0, client, urgent=True, replaces=True)]
    settle(world)
    assert world.answers[again] == ()
    assert not world.state(region).left
    world.evict(client, region, Span(0, 1))
    assert not world.memories[region].memfd


def test_what_is_left_of_a_unit_can_be_evicted():
    """As if it were resident, which the record does not say."""
    world, client, region = world_with_a_row_left()
    room = world.machine._units.room
    assert room.shared_nbytes == PAGE_NBYTES
    world.evict(client, region, Span(0, 1))
    assert not world.memories[region].memfd
    assert (room.shared_nbytes, world.state(region).left) == (0, {})


def test_what_was_evicted_on_its_way_leaves_nothing_when_it_fails():
    """Who has asked for it since gets what a new load says."""
    world, (client,), region = world_with(LONG)
    world.pick(client, region, 0, Span(0, 1))
    world.install_awaited(world.loads[region, 0])
    world.evict(client, region, Span(0, 1))
    key = world.request(client, region, Span(0, 1))
    world.finish(region, 0, fail=True)
    assert not world.memories[region].memfd
    assert key not in world.answers
    settle(world)
    assert world.answers[key] == ()


def test_what_was_evicted_on_its_way_is_not_answered_early():
    """It is older than the wish to have it out."""
    world, (client,), region = world_with(LONG)
    state = world.state(region)
    key = world.pick(client, region, 0, Span(0, 1))
    state.loading[0].is_dropped = True
    world.install_awaited(world.loads[region, 0])
    assert world.answers == {}
    settle(world)
    assert world.answers == {key: ()}


def test_page_of_two_units_is_installed_when_both_are_there():
    """The first share waits for the second; nothing is decoded twice."""
    world, (client,), region = world_with(HALVES)
    world.touch(client, region, 0)
    world.read_faults()
    assert set(world.loads) == {(region, 0), (region, 1)}
    world.finish(region, 0)
    assert commands(world, m.InstallPage) == []
    world.finish(region, 1)
    assert [command.page for command in commands(world, m.InstallPage)] == [0]
    settle(world)
    assert outcomes(world) == ["read"]


def test_fault_at_an_unknown_address_wakes_the_thread():
    """It may be old news of memory that is gone; the thread finds out for itself."""
    world, (client,), _ = world_with(PAGES)
    assert world.machine.handle(m.Faulted(client, 1)) == [m.Wake(client, 1)]
    assert world.machine.handle(m.Faulted(99, 1)) == [m.Wake(99, 1)]


def test_second_process_maps_what_the_first_has_brought():
    """Without another load, and all pages that the unit fills alone at once."""
    world, (first, second), region = world_with(LONG, n_clients=2)
    world.touch(first, region, 0)
    settle(world)
    commands(world, m.Load)
    world.touch(second, region, 1)
    world.read_faults()
    assert world.log == [m.MapPages(region, second, Span(0, 2))]
    settle(world)
    assert outcomes(world) == ["read", "read"]


def test_edge_page_is_mapped_though_one_of_its_units_was_evicted():
    """It stays whole while another of its units is resident: no load, and nobody is forgotten."""
    world, (first, second), region = world_with(LONG, n_clients=2)
    world.touch(first, region, 2)
    settle(world)
    world.evict(first, region, Span(0, 1))
    commands(world, m.Load)
    world.touch(second, region, 2)
    world.read_faults()
    assert world.log == [m.MapPages(region, second, Span(2, 3))]
    settle(world)
    assert outcomes(world) == ["read", "read"]


def test_thread_that_came_late_is_mapped_again():
    """Its page may have gone to swap between the install and the news of it."""
    world, (client,), region = world_with(PAGES)
    world.touch(client, region, 0)
    world.read_faults()
    load = world.loads[region, 0]
    world.install_body(load)
    world.memories[region].tables[client].clear()
    world.run()
    world.read_faults()
    world.end_load(load)
    settle(world)
    assert outcomes(world) == ["read"]


def test_unit_installed_by_a_client_that_left_is_everybodys():
    """What lies in the memory object does not go with the process that brought it."""
    world, (first, second), region = world_with(PAGES, n_clients=2)
    world.touch(first, region, 0)
    world.touch(second, region, 0)
    world.read_faults()
    load = world.loads[region, 0]
    world.install_body(load)
    world.exit(first)
    world.tell_exit(first)
    world.end_load(load)
    settle(world)
    assert outcomes(world) == ["read"]


def test_stranded_load_is_taken_up_for_who_else_waits():
    """The process whose memory it was meant for has died."""
    world, (first, second, third), region = world_with(PAGES, n_clients=3)
    for client in (first, second):
        world.touch(client, region, 0)
    world.read_faults()
    key = world.request(third, region, Span(0, 1))
    world.exit(first)
    settle(world)
    world.tell_exit(first)
    assert outcomes(world) == ["read"]
    assert world.answers[key] == ()


def test_stranded_load_leaves_no_page_behind():
    """The process died in the middle of the install, and nobody else wants the unit."""
    world, (first, _), region = world_with(LONG, n_clients=2)
    world.request(first, region, Span(0, 1))
    load = world.loads[region, 0]
    world.install_body(load)
    load.end = "stranded"
    world.exit(first)
    world.end_load(load)
    assert world.memories[region].memfd == {}


# --- requests ------------------------------------------------------------------------


def test_request_is_answered_once_when_its_last_unit_is_there():
    """Ranges may overlap, be empty, or reach beyond the array."""
    world, (client,), region = world_with(PAGES)
    key = world.request(client, region, Span(0, 2), Span(1, 3), Span(3, 3), Span(3, 99))
    for unit in (3, 0, 2):
        world.finish(region, unit)
        assert key not in world.answers
    world.finish(region, 1)
    assert world.answers[key] == ()


@pytest.mark.parametrize("units", [(), (Span(0, 0),), (Span(90, 99),), (Span(-5, 0),)])
def test_request_for_nothing_is_answered_at_once(units):
    """Nobody waits for units that do not exist."""
    world, (client,), region = world_with(PAGES)
    assert world.answers[world.request(client, region, *units)] == ()
    assert not world.loads


def test_request_for_an_unknown_region_is_answered_at_once():
    """It is gone, and so is what was in it."""
    machine = World(0).machine
    assert machine.handle(m.Requested(1, 5, 7, (Span(0, 1),))) == [m.Answer(1, 7)]
    assert machine.handle(m.EvictionAsked(1, 5, 8, Span(0, 1))) == [m.Answer(1, 8)]
    assert machine.handle(m.Detached(1, 5, 9)) == [m.Answer(1, 9)]


def test_failures_are_in_the_order_of_units():
    """Which of them is raised must not depend on which thread was first."""
    world, (client,), region = world_with(PAGES)
    world.request(client, region, Span(0, 4))
    failures = [m.Failure(f"chunk {unit}", {}) for unit in range(4)]
    world.finish(region, 1)
    for unit in (3, 0, 2):
        del world.loads[region, unit]
        world.do(m.LoadFailed(region, unit, client, failures[unit]))
    (answer,) = commands(world, m.Answer)
    assert answer.failures == (failures[0], failures[2], failures[3])


def test_answer_names_every_failure():
    """Units that could be had are there all the same."""
    world, (client,), region = world_with(PAGES)
    key = world.request(client, region, Span(0, 4))
    for unit in range(4):
        world.finish(region, unit, fail=unit % 2 == 1)
    assert world.answers[key] == (FAILURE, FAILURE)
    assert world.state(region).resident == {0, 2}


MANY = Geometry((16 * 5000,), (16,), 1, PAGE_NBYTES)  # five thousand units of one page


def count_steps(world: World) -> int:
    """Return how many steps the machine has left to do; none may command more than a slice."""
    n_steps = 0
    while world.machine.has_more:
        before = len(world.log)
        world.proceed()
        assert len(world.log) - before <= 3 * 256
        n_steps += 1
    return n_steps


def test_a_request_for_very_many_units_is_begun_a_slice_at_a_time():
    """Others are served in between, and it is answered when the last unit is there."""
    world, (client,), region = world_with(MANY)
    world.is_patient = True
    key = world.request(client, region, Span(0, 5000))
    assert len(world.loads) == 256
    world.touch(client, region, 4999)
    world.read_faults()
    assert (region, 4999) in world.loads
    assert count_steps(world) == 1
    assert len(world.loads) == 512 + 1
    most = 0
    while world.loads:
        world.finish(*min(world.loads))
        count_steps(world)
        most = max(most, len(world.loads))
    assert most <= 512 + 1
    assert world.answers == {key: ()}
    assert world.state(region).resident == set(range(5000))


def test_a_request_ends_when_too_much_of_it_has_failed():
    """Nobody reads more errors; those that are told are of the first units that failed."""
    world, (client,), region = world_with(MANY)
    key = world.request(client, region, Span(0, 5000))
    n_loads = 0
    while world.loads:
        world.finish(*min(world.loads), fail=True)
        n_loads += 1
    assert len(world.answers[key]) == 100
    assert n_loads < 1000


def test_very_many_units_are_evicted_a_slice_at_a_time():
    """Neighbours in one go, and as many units as there are, not as many as are named."""
    world, (client,), region = world_with(MANY)
    world.request(client, region, Span(0, 3000))
    settle_all(world)
    world.is_patient = True
    commands(world, m.Punch)
    key = world.evict(client, region, Span(0, 1 << 40))
    assert key not in world.answers
    assert count_steps(world) == -(-3000 // 256) - 1
    assert world.answers[key] == ()
    assert not world.state(region).resident
    assert len(commands(world, m.Punch)) <= -(-3000 // 256)


def test_a_lower_limit_is_kept_a_slice_at_a_time():
    """Until what is there fits."""
    world, (client,), region = world_with(MANY)
    world.request(client, region, Span(0, 3000))
    settle_all(world)
    world.is_patient = True
    world.do(m.LimitChanged(16 * 100))
    assert len(world.state(region).resident) == 3000 - 256
    count_steps(world)
    assert len(world.state(region).resident) == 100


def test_a_region_that_held_very_many_units_is_forgotten_at_once():
    """What was kept of its units goes a slice at a time, while others are served."""
    world, (client,), region = world_with(MANY)
    other = world.open(client, PAGES, shared=True)
    world.request(client, region, Span(0, 3000))
    settle_all(world)
    world.is_patient = True
    world.detach(client, region)
    assert region not in world.memories
    world.do(m.LimitChanged(20))
    key = world.request(client, other, Span(0, 4))
    settle_all(world)
    count_steps(world)
    assert world.answers[key] == ()
    assert world.machine.resident_nbytes <= 20


def settle_all(world: World) -> None:
    """Let every load end."""
    while world.loads:
        world.finish(*min(world.loads))
