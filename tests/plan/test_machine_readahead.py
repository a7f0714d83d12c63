"""What the machine reads ahead, and what becomes of it."""

from __future__ import annotations

import pytest

from lazyarr.layout.geometry import Geometry
from lazyarr.memory_kind import MemoryKind
from lazyarr.plan import messages as m
from lazyarr.plan.machine import Machine
from lazyarr.plan.readahead import Advice
from lazyarr.units import Span
from tests.plan.memory_model import PAGE_NBYTES, World
from tests.plan.worlds import PLENTY, commands, outcomes, settle, world_with

MANY = Geometry((100 * PAGE_NBYTES,), (PAGE_NBYTES,), 1, PAGE_NBYTES)  # 100 units of a page
UNEVEN = Geometry((1000,), (10,), 1, PAGE_NBYTES)  # 100 units; no page is that of one


def world_that_reads_ahead(
    geometry: Geometry = MANY, *, shared: bool = True, limit: int = PLENTY, n_clients: int = 1
) -> tuple[World, list[int], int]:
    """Return a world, its clients and their region; 16 units of a page may be read ahead."""
    world, clients, region = world_with(geometry, shared=shared, limit=limit, n_clients=n_clients)
    world.do(m.ReadaheadChanged(64 * PAGE_NBYTES))
    world.log.clear()
    return world, clients, region


def scan(world: World, client: int, region: int, pages: range) -> None:
    """Read pages in order, each when all that is on its way has come."""
    for page in pages:
        world.touch(client, region, page)
        settle(world)


def ahead(world: World) -> list[int]:
    """Return the units that were begun for nobody in particular since the last look."""
    return [load.unit for load in commands(world, m.Load) if not load.urgent]


def test_second_touch_in_order_reads_ahead():
    """One unit, which is marked; the touched one goes first."""
    world, (client,), region = world_that_reads_ahead()
    scan(world, client, region, range(2))
    assert commands(world, m.Load) == [
        m.Load(region, 0, client, urgent=True, awaited=Span(0, 1)),
        m.Load(region, 1, client, urgent=True, awaited=Span(1, 2)),
        m.Load(region, 2, client, urgent=False, mark=True),
    ]
    assert outcomes(world) == ["read", "read"]


def test_over_a_network_the_first_batch_is_a_part_of_the_window():
    """Doubling from one unit would take a round trip for each step."""
    machine = Machine(PLENTY)
    machine.handle(m.Attached(1, 7, PAGE_NBYTES, MANY, MemoryKind.SHARED, remote=True))
    machine.handle(m.ReadaheadChanged(64 * PAGE_NBYTES))
    machine.handle(m.Faulted(1, PAGE_NBYTES))
    found = machine.handle(m.Faulted(1, 2 * PAGE_NBYTES))
    assert [(load.unit, load.urgent) for load in found] == [
        (1, True),
        *((unit, False) for unit in range(2, 6)),
    ]


def test_touch_of_the_mark_is_heard_of_and_reads_on():
    """Without a load of its own: it is mapped, and the next units are asked for."""
    world, (client,), region = world_that_reads_ahead()
    scan(world, client, region, range(2))
    assert 2 not in world.memories[region].tables[client]
    world.log.clear()
    world.touch(client, region, 2)
    world.read_faults()
    assert world.log[0] == m.MapPages(region, client, Span(2, 3))
    assert ahead(world) == [3, 4]
    settle(world)
    assert outcomes(world) == ["read"] * 3


def test_scan_is_served_with_a_fault_for_each_window():
    """All units are loaded once, and a thread waits only for the first of them."""
    world, (client,), region = world_that_reads_ahead()
    scan(world, client, region, range(100))
    counted = world.machine.counters
    assert counted["units_loaded"] == 100
    assert counted["units_ahead"] == 98
    assert counted["ahead_read"] > 80, "what comes after the last mark is not heard of"
    assert counted["faults"] < 14


def test_thread_that_waits_for_a_marked_unit_is_mapped():
    """Bringing it into the memory object wakes nobody."""
    world, clients, region = world_that_reads_ahead(n_clients=2)
    for page in range(2):
        world.touch(clients[0], region, page)
        world.read_faults()
    for client in clients:
        world.touch(client, region, 2)
    world.read_faults()
    settle(world)
    assert outcomes(world) == ["read"] * 4


def test_unit_that_is_waited_for_now_is_promoted_once():
    """Whether in a fault or in a request."""
    world, (client,), region = world_that_reads_ahead()
    for page in range(2):
        world.touch(client, region, page)
        world.read_faults()
    for _ in range(2):
        world.touch(client, region, 2)
        world.read_faults()
        world.request(client, region, Span(2, 3))
    assert commands(world, m.Promote) == [m.Promote(region, 2)]
    settle(world)
    assert outcomes(world) == ["read"] * 4


def test_private_memory_has_no_marks():
    """What would be marked is left to the reader, who asks for the rest on coming there."""
    world, (client,), region = world_that_reads_ahead(shared=False)
    scan(world, client, region, range(100))
    counted = world.machine.counters
    assert not [load for load in commands(world, m.Load) if load.mark]
    assert counted["units_loaded"] == 100
    assert counted["units_ahead"] == 100 - counted["faults"] > 75


def test_units_that_share_pages_are_read_ahead():
    """No page is that of one unit alone, so none can be marked."""
    world, (client,), region = world_that_reads_ahead(UNEVEN)
    scan(world, client, region, range(UNEVEN.n_pages))
    assert world.machine.counters["units_loaded"] == 100
    assert world.machine.counters["units_ahead"] > 40


@pytest.mark.parametrize("limit", [6, 10, 20, 50])
def test_readahead_keeps_to_the_limit_and_is_read(limit):
    """Nothing that was read ahead is evicted unread, and nothing is loaded twice."""
    world, (client,), region = world_that_reads_ahead(limit=limit * PAGE_NBYTES)
    for page in range(100):
        scan(world, client, region, range(page, page + 1))
        assert len(world.memories[region].memfd) <= limit
    counted = world.machine.counters
    assert (counted["units_loaded"], counted["ahead_evicted"]) == (100, 0)
    assert counted["units_ahead"] > 30
    assert counted["ahead_read"] > counted["units_ahead"] - 16


def test_readahead_that_turns_out_wrong_is_counted():
    """A reader stops in the middle of its window, and others fill the memory."""
    world, (client,), region = world_that_reads_ahead(limit=30 * PAGE_NBYTES)
    world.request(client, region, Span(50, 80), Span(0, 0))
    settle(world)
    scan(world, client, region, range(12))
    assert world.machine.counters["ahead_evicted"] == 0
    for unit in range(80, 100):
        world.request(client, region, Span(unit, unit + 1), Span(0, 0))
        settle(world)
    assert world.machine.counters["ahead_evicted"] > 0
    assert world.machine._units.lookahead.unread_nbytes == 0


def test_reader_that_stopped_does_not_keep_others_from_reading_ahead():
    """What it has not read counts no more when as much has come after it as may."""
    world, (client,), region = world_that_reads_ahead(limit=60 * PAGE_NBYTES)
    scan(world, client, region, range(20))
    world.request(client, region, Span(40, 85), Span(0, 0))
    settle(world)
    n_before = world.machine.counters["units_ahead"]
    scan(world, client, region, range(99, 84, -1))
    assert world.machine.counters["units_ahead"] > n_before + 4


def test_requests_in_order_are_read_ahead():
    """The first batch is as long as a request."""
    world, (client,), region = world_that_reads_ahead()
    for start in (0, 8):
        world.request(client, region, Span(start, start + 8))
        settle(world)
    assert ahead(world) == list(range(16, 24))


def test_requests_for_units_here_and_there_are_not():
    """Who asks so knows what is wanted."""
    world, (client,), region = world_that_reads_ahead()
    for start in (0, 10):
        world.request(client, region, *(Span(u, u + 1) for u in range(start, start + 10, 2)))
        settle(world)
    assert ahead(world) == []


def test_evicted_unit_that_is_on_its_way_is_dropped():
    """Unless somebody has come to wait for it since."""
    world, (client,), region = world_that_reads_ahead()
    scan(world, client, region, range(3))
    world.touch(client, region, 3)
    world.read_faults()
    waiting, dropped = sorted(unit for _, unit in world.loads)[:2]
    world.evict(client, region, Span(0, 100))
    world.touch(client, region, waiting)
    settle(world)
    assert waiting in world.state(region).resident
    assert dropped not in world.state(region).resident
    assert dropped not in world.memories[region].memfd


def test_failure_of_what_was_read_ahead_is_nobodys():
    """No page is poisoned; whoever comes there tries again."""
    world, (client,), region = world_that_reads_ahead()
    for page in range(2):
        world.touch(client, region, page)
        world.read_faults()
    world.finish(region, 2, fail=True)
    assert commands(world, m.Poison) == []
    assert world.machine._units.lookahead.unread_nbytes == 0
    scan(world, client, region, range(2, 3))
    assert outcomes(world) == ["read"] * 3


def test_advice_is_followed():
    """Random: nothing is read ahead; sequential: from the first touch on."""
    world, (client,), region = world_that_reads_ahead()
    assert world.answers[world.advise(client, region, Span(0, 100), Advice.RANDOM)] == ()
    scan(world, client, region, range(10))
    assert ahead(world) == []
    world.advise(client, region, Span(50, 100), Advice.SEQUENTIAL)
    scan(world, client, region, range(60, 61))
    assert ahead(world) == [61, 62, 63, 64]
    assert world.machine.handle(m.Advised(client, 99, 1, Span(0, 1), Advice.RANDOM)) == [
        m.Answer(client, 1)
    ]


def test_nothing_is_read_ahead_unless_it_is_wanted():
    """A window of 0 turns it off, also for readers that are known."""
    world, (client,), region = world_that_reads_ahead()
    scan(world, client, region, range(10))
    world.do(m.ReadaheadChanged(0))
    world.log.clear()
    scan(world, client, region, range(10, 50))
    assert ahead(world) == []


def test_short_way_reads_ahead_too():
    """The commands are handed out with the load."""
    world, (client,), region = world_that_reads_ahead()
    for page in range(3):
        world.touch(client, region, page)
        while world.faults:
            world.begin_fault_quickly()
        settle(world)
    assert ahead(world) == [2, 3, 4]
    assert outcomes(world) == ["read"] * 3
