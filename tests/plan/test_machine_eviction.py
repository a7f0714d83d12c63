"""What the machine evicts, and when not."""

from __future__ import annotations

from lazyarr.layout.geometry import Geometry
from lazyarr.plan import messages as m
from lazyarr.units import Span
from tests.plan.memory_model import PAGE_NBYTES
from tests.plan.worlds import HALVES, LONG, PAGES, commands, outcomes, settle, world_with


def test_scan_stays_below_the_limit():
    """An array larger than the limit is read through, and the oldest unit goes each time."""
    world, (client,), region = world_with(PAGES, limit=40)
    for page in range(4):
        world.touch(client, region, page)
        settle(world)
        assert world.machine.resident_nbytes <= 40
    assert outcomes(world) == ["read"] * 4
    assert world.state(region).resident == {2, 3}


def test_unit_used_since_it_came_gets_a_second_chance():
    """A request for what is there keeps it there."""
    world, (client,), region = world_with(PAGES, limit=48)
    for unit in (0, 1, 2, 0, 3):
        world.request(client, region, Span(unit, unit + 1))
        settle(world)
    assert world.state(region).resident == {0, 2, 3}


def test_loads_in_a_queue_do_not_evict_what_has_just_come():
    """More threads wait than the limit has room for: each is served by its first load."""
    world, (client,), region = world_with(PAGES, limit=20)
    for page in range(4):
        world.touch(client, region, page)
    world.read_faults()
    settle(world)
    assert outcomes(world) == ["read"] * 4
    assert world.machine.counters["units_loaded"] == 4


def test_loads_in_a_queue_leave_half_of_the_limit_to_what_is_there():
    """Not one unit alone: a thread that was woken needs a moment to get to its page."""
    world, (client,), region = world_with(Geometry((160,), (16,), 1, PAGE_NBYTES), limit=64)
    world.request(client, region, Span(0, 10))
    for unit in range(3):
        world.finish(region, unit)
    assert world.state(region).resident == {1, 2}


def test_units_of_an_awaited_page_are_not_evicted():
    """Else two units that do not fit at once would take turns for ever."""
    world, (client,), region = world_with(LONG, limit=50)
    world.touch(client, region, 2)
    world.read_faults()
    world.finish(region, 0)
    assert world.answers[world.evict(client, region, Span(0, 9))] == ()
    assert world.state(region).resident == {0}
    settle(world)
    assert outcomes(world) == ["read"]
    assert world.machine.resident_nbytes <= 50


def test_page_is_punched_with_its_last_unit():
    """It holds bytes of a unit that is still resident until then."""
    world, (client,), region = world_with(HALVES)
    world.request(client, region, Span(0, 2))
    settle(world)
    world.evict(client, region, Span(0, 1))
    assert commands(world, m.Punch) == []
    world.evict(client, region, Span(1, 2))
    assert commands(world, m.Punch) == [m.Punch(region, Span(0, 1))]


def test_private_memory_is_never_evicted():
    """The process may have written there, and it is not counted."""
    world, (client,), region = world_with(PAGES, shared=False, limit=0)
    world.request(client, region, Span(0, 4))
    settle(world)
    world.evict(client, region, Span(0, 4))
    assert commands(world, m.Punch) == []
    assert world.state(region).resident == {0, 1, 2, 3}
    assert world.machine.resident_nbytes == 0


def test_shared_memory_gives_way_to_private_memory_up_to_a_half():
    """Private memory counts, and cannot go; shared memory keeps half of the limit."""
    world, (client,), shared = world_with(Geometry((160,), (16,), 1, PAGE_NBYTES), limit=128)
    world.request(client, shared, Span(0, 8))
    settle(world)
    private = world.open(client, PAGES, shared=False)
    for unit, left in ((0, 112), (1, 96), (2, 80), (3, 64)):
        world.request(client, private, Span(unit, unit + 1))
        settle(world)
        assert world.machine.resident_nbytes == left
    assert world.machine.private_nbytes == 64
    more = world.open(client, LONG, shared=False)
    world.request(client, more, Span(0, 3))
    settle(world)
    assert world.machine.resident_nbytes == 64
    for region in (private, more):
        world.detach(client, region)
    assert world.machine.private_nbytes == 0


def test_memory_to_decode_in_counts():
    """It is kept from unit to unit, so there is less for what is decoded."""
    world, (client,), region = world_with(PAGES, limit=64)
    world.request(client, region, Span(0, 4))
    settle(world)
    world.do(m.ScratchGrew(10))
    assert world.machine.resident_nbytes == 48
    world.do(m.ScratchGrew(-10))
    world.request(client, region, Span(0, 4))
    settle(world)
    assert world.machine.resident_nbytes == 64


def test_pages_that_stay_for_another_unit_count():
    """One unit of many in each page keeps the page: the limit is for pages, not for units."""
    world, (client,), region = world_with(Geometry((640,), (4,), 1, PAGE_NBYTES), limit=160)
    for page in range(40):
        world.request(client, region, Span(4 * page, 4 * page + 4))
        settle(world)
        world.evict(client, region, Span(4 * page, 4 * page + 3))
    assert len(world.memories[region].memfd) == 10
    assert world.machine.resident_nbytes == 40


def test_what_a_request_waits_for_is_there_when_it_is_answered():
    """Though it is more than what new units have room for, and memory is full."""
    world, (client,), region = world_with(Geometry((1600,), (16,), 1, PAGE_NBYTES), limit=640)
    world.request(client, region, Span(0, 40))
    settle(world)
    world.request(client, region, Span(50, 80))
    settle(world)
    assert world.state(region).resident >= set(range(50, 80))


def test_lower_limit_holds_at_once():
    """What is too much goes when the limit is set, not with the next load."""
    world, (client,), region = world_with(PAGES)
    world.request(client, region, Span(0, 4))
    settle(world)
    world.do(m.LimitChanged(32))
    assert (world.machine.resident_nbytes, world.machine.limit_nbytes) == (32, 32)


def test_units_that_come_back_for_want_of_room_are_counted():
    """A first load is none of them, nor one after somebody wanted the unit out."""
    world, (client,), region = world_with(PAGES, limit=40)
    for unit in (0, 1, 2, 3, 0, 1):
        world.request(client, region, Span(unit, unit + 1))
        settle(world)
    state = world.state(region)
    n_back = 6 - len({0, 1, 2, 3})
    assert (state.n_loaded, state.n_reloaded) == (6, n_back)
    assert world.machine.counters["units_reloaded"] == n_back
    world.evict(client, region, Span(0, 4))
    world.request(client, region, Span(1, 2))
    settle(world)
    assert (state.n_loaded, state.n_reloaded) == (7, n_back)


def test_touching_what_has_gone_again_and_again_is_told_of_once():
    """What is asked for again and again is not: whoever asks computes on all of it."""
    world, (client,), region = world_with(PAGES, limit=40)
    for _ in range(400):
        for unit in range(4):
            world.request(client, region, Span(unit, unit + 1))
            settle(world)
    assert world.state(region).n_reloaded > 1000
    assert world.machine.take_thrashing() == []
    n_told = 0
    while world.state(region).n_reloaded < 8000:
        for page in (3, 0, 2, 1):
            world.touch(client, region, page)
            settle(world)
        n_told += len(world.machine.take_thrashing())
    assert n_told == 1


def test_picking_here_and_there_again_and_again_is_told_of_once():
    """A shuffle that has no room loads a unit for each row; scans do not, however many."""
    world, (client,), region = world_with(
        Geometry((16 * PAGE_NBYTES,), (PAGE_NBYTES,), 1, PAGE_NBYTES), limit=5 * PAGE_NBYTES
    )
    halves = [[Span(k, k + 1) for k in range(start, 16, 2)] for start in (0, 1)]
    while world.state(region).n_reloaded < 1100:
        for unit in range(16):
            world.request(client, region, Span(unit, unit + 1))
            settle(world)
    assert not world.machine.take_thrashing()
    for _ in range(20):
        for half in halves:
            world.request(client, region, *half)
            settle(world)
    assert [number for number, _ in world.machine.take_thrashing()] == [region]
    assert world.state(region).is_shuffled
    for half in halves:
        world.request(client, region, *half)
        settle(world)
    assert not world.machine.take_thrashing()


def test_picking_large_units_here_and_there_is_told_of_too():
    """Of them only a few are in one part of a batch."""
    world, (client,), region = world_with(
        Geometry((16 * PAGE_NBYTES,), (PAGE_NBYTES,), 1, PAGE_NBYTES), limit=5 * PAGE_NBYTES
    )
    n_told = 0
    while world.state(region).n_reloaded < 1500:
        for unit in range(8):
            world.request(client, region, Span(unit, unit + 1), Span(unit + 8, unit + 9))
            settle(world)
        n_told += len(world.machine.take_thrashing())
    assert n_told == 1
