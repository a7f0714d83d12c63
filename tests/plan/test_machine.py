"""What the machine decides, case by case."""

from __future__ import annotations

import pytest

from lazyarr.plan import messages as m
from lazyarr.plan.geometry import Geometry
from lazyarr.units import Span
from tests.plan.memory_model import FAILURE, PAGE_NBYTES, POISON, World

PAGES = Geometry((64,), (16,), 1, PAGE_NBYTES)  # four units of one page
HALVES = Geometry((32,), (8,), 1, PAGE_NBYTES)  # four units, two in each page
LONG = Geometry((96,), (40,), 1, PAGE_NBYTES)  # units of several pages; page 2 has two units
PLENTY = 1 << 20


def world_with(geometry: Geometry, *, shared: bool = True, limit: int = PLENTY, n_clients: int = 1):
    """Return a world, its clients, and a region that all of them have."""
    world = World(limit)
    clients = [world.add_client() for _ in range(n_clients)]
    region = world.open(clients[0], geometry, shared=shared)
    for client in clients[1:]:
        world.attach(client, region)
    return world, clients, region


def commands(world: World, kind: type) -> list:
    """Return the commands of one kind since the last look, and forget all."""
    found = [command for command in world.log if isinstance(command, kind)]
    world.log.clear()
    return found


def settle(world: World) -> None:
    """Let every fault be read, every load end and every thread run, in turn."""
    for _ in range(100):
        world.run()
        world.read_faults()
        if world.loads:
            world.finish(*min(world.loads))
    assert not world.loads, "the same units are loaded again and again"
    assert not world.waiting | world.runnable, "somebody waits for ever"


def outcomes(world: World) -> list[str]:
    """Return how each touch has ended, in the order of their end."""
    return [end for _, end in world.served]


# --- loading ----------------------------------------------------------------------


def test_fault_loads_its_unit_and_no_other():
    """What is not touched is not read."""
    world, (client,), region = world_with(PAGES)
    world.touch(client, region, 2)
    world.read_faults()
    assert commands(world, m.Load) == [m.Load(region, 2, client, urgent=True, page=2)]
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
        m.Load(region, 0, client, urgent=True, page=1),
        m.Load(region, 1, client, urgent=True, page=None),
    ]


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


# --- requests ---------------------------------------------------------------------


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


def test_answer_names_every_failure():
    """Units that could be had are there all the same."""
    world, (client,), region = world_with(PAGES)
    key = world.request(client, region, Span(0, 4))
    for unit in range(4):
        world.finish(region, unit, fail=unit % 2 == 1)
    assert world.answers[key] == (FAILURE, FAILURE)
    assert world.state(region).resident == {0, 2}


# --- failures ---------------------------------------------------------------------


def test_thread_whose_unit_can_not_be_had_gets_sigbus():
    """And so do all that wait for a page of it, in every process; others do not."""
    world, (first, second), region = world_with(HALVES, n_clients=2)
    for client, page in ((first, 0), (second, 0), (second, 1)):
        world.touch(client, region, page)
    world.read_faults()
    world.finish(region, 1, fail=True)
    settle(world)
    assert sorted(outcomes(world)) == ["SIGBUS", "SIGBUS", "read"]


def test_failed_unit_is_not_tried_again_for_a_thread_that_got_its_signal():
    """The other unit of its page still comes, and starts nothing more."""
    world, (client,), region = world_with(HALVES)
    world.touch(client, region, 0)
    world.read_faults()
    world.finish(region, 0, fail=True)
    commands(world, m.Load)
    settle(world)
    assert commands(world, m.Load) == []


def test_unit_that_failed_is_tried_again_on_request():
    """A process may have survived, as a system call gets EFAULT for a signal."""
    world, (client,), region = world_with(PAGES)
    world.touch(client, region, 0)
    world.read_faults()
    world.finish(region, 0, fail=True)
    settle(world)
    world.request(client, region, Span(0, 1))
    settle(world)
    world.touch(client, region, 0)
    assert outcomes(world) == ["SIGBUS", "read"]


@pytest.mark.parametrize(("geometry", "page"), [(PAGES, 0), (HALVES, 0), (LONG, 2)])
def test_poison_is_healed_in_every_process(geometry, page):
    """It lies in one page table, where an install by another process does not reach."""
    world, (first, second), region = world_with(geometry, n_clients=2)
    world.touch(first, region, page)
    world.read_faults()
    world.finish(region, 0, fail=True)
    settle(world)
    assert world.memories[region].tables[first][page] == POISON
    world.request(second, region, Span(0, geometry.n_units))
    settle(world)
    world.touch(first, region, page)
    assert outcomes(world) == ["SIGBUS", "read"]


def test_failed_load_leaves_no_page_behind():
    """Part of it may have been installed, and nobody would ever take that out."""
    world, (client,), region = world_with(PAGES)
    world.request(client, region, Span(0, 1))
    world.install_body(world.loads[region, 0])
    world.finish(region, 0, fail=True)
    assert world.memories[region].memfd == {}


# --- eviction ---------------------------------------------------------------------


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


def test_lower_limit_holds_at_once():
    """What is too much goes when the limit is set, not with the next load."""
    world, (client,), region = world_with(PAGES)
    world.request(client, region, Span(0, 4))
    settle(world)
    world.do(m.LimitChanged(32))
    assert (world.machine.resident_nbytes, world.machine.limit_nbytes) == (32, 32)


# --- memory that is not what the record says ----------------------------------------


def test_hole_in_the_memory_object_is_loaded_again():
    """Somebody punched it; the thread waits for a load, and not for ever."""
    world, (first, second), region = world_with(LONG, n_clients=2)
    world.request(first, region, Span(0, 3))
    settle(world)
    for page in range(5):
        world.take_out(region, page)
        world.touch(second, region, page)
    settle(world)
    assert outcomes(world) == ["read"] * 5


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_thread_waits_on_when_a_unit_of_its_page_is_lost_meanwhile(ends):
    """A hole in the page before took the unit that both share; its new load decides for both."""
    world, (first, second), region = world_with(Geometry((50,), (7,), 1, PAGE_NBYTES), n_clients=2)
    world.request(first, region, Span(0, 3))
    settle(world)
    world.touch(second, region, 1)  # units 2 to 4, of which 2 is there
    world.read_faults()
    world.take_out(region, 0)
    world.touch(first, region, 0)  # units 0 to 2
    world.read_faults()
    assert {unit for _, unit in world.loads} == {0, 1, 2, 3, 4}
    for unit in (3, 4):
        world.finish(region, unit)
    world.finish(region, 2, fail=ends == "badly")
    settle(world)
    assert outcomes(world) == ["read" if ends == "well" else "SIGBUS"] * 2


@pytest.mark.parametrize("geometry", [PAGES, HALVES, LONG])
def test_private_page_given_back_with_madvise_is_loaded_again(geometry):
    """The first fault may be old news, the second one is not."""
    world, (client,), region = world_with(geometry, shared=False)
    world.request(client, region, Span(0, geometry.n_units))
    settle(world)
    world.memories[region].tables[client].clear()
    for page in range(geometry.n_pages):
        world.touch(client, region, page)
    settle(world)
    assert outcomes(world) == ["read"] * geometry.n_pages


def test_old_news_of_a_private_page_loads_nothing():
    """A second thread's message that is read after the page has come."""
    world, (client,), region = world_with(PAGES, shared=False)
    for _ in range(2):
        world.touch(client, region, 0)
    world.do(m.Faulted(*world.faults.pop()))
    world.finish(region, 0)
    commands(world, m.Load)
    settle(world)
    assert commands(world, m.Load) == []
    assert outcomes(world) == ["read", "read"]


# --- leaving ----------------------------------------------------------------------


def test_detach_is_answered_when_nothing_is_on_its_way():
    """The address could come to mean something else while a load still writes there."""
    world, (client,), region = world_with(PAGES)
    request = world.request(client, region, Span(0, 2))
    detach = world.detach(client, region)
    world.finish(region, 0)
    assert detach not in world.answers
    world.finish(region, 1)
    assert world.answers[request] == world.answers[detach] == ()
    assert commands(world, m.Forget) == [m.Forget(region)]
    assert world.machine.region(region) is None


def test_detach_does_not_wait_for_loads_of_others():
    """Those are installed elsewhere."""
    world, (first, second), region = world_with(PAGES, n_clients=2)
    world.request(first, region, Span(0, 1))
    assert world.answers[world.detach(second, region)] == ()
    settle(world)
    assert world.state(region).resident == {0}


def test_thread_that_waits_in_memory_that_is_unmapped_is_woken():
    """It is a bug of the client's, which must end in SIGSEGV and not in a wait without end."""
    world, (first, second), region = world_with(PAGES, n_clients=2)
    for client in (first, second):
        world.touch(client, region, 0)
    world.read_faults()
    world.detach(second, region)
    settle(world)
    assert sorted(outcomes(world)) == ["SIGSEGV", "read"]


@pytest.mark.parametrize("geometry", [PAGES, HALVES])
def test_unit_that_comes_when_nobody_is_left_is_not_kept(geometry):
    """A process that attaches meanwhile finds the region empty, not half full."""
    world, (first, second), region = world_with(geometry, n_clients=2)
    world.request(first, region, Span(0, 2))
    for unit in (0, 1):
        world.install_body(world.loads[region, unit])
    world.detach(first, region)
    world.detach(second, region)
    world.end_load(world.loads[region, 0])
    assert 0 not in world.memories[region].memfd
    third = world.add_client()
    world.attach(third, region)
    world.touch(third, region, 0)
    settle(world)
    assert outcomes(world) == ["read"]


def test_region_is_forgotten_with_its_last_client():
    """And its bytes do not count any more."""
    world, clients, region = world_with(PAGES, n_clients=2)
    world.request(clients[0], region, Span(0, 4))
    settle(world)
    for client in clients:
        assert world.machine.region(region) is not None
        world.exit(client)
        world.tell_exit(client)
    assert world.machine.region(region) is None
    assert world.machine.resident_nbytes == 0


def test_repr_says_what_is_held():
    """For whoever looks at a pager that misbehaves."""
    world, (client,), region = world_with(PAGES)
    world.request(client, region, Span(0, 2))
    world.finish(region, 0)
    assert repr(world.machine) == "<Machine: 1 regions, 1 clients, 16 of 1048576 bytes>"
    assert repr(world.state(region)) == (
        "<RegionState: 1 of 4 units resident, 1 loading, 1 clients>"
    )
