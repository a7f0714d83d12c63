"""What the machine does when a unit cannot be had, or memory is not what it should be."""

from __future__ import annotations

import pytest

from lazyarr.layout.geometry import Geometry
from lazyarr.plan import messages as m
from lazyarr.units import Span
from tests.plan.memory_model import PAGE_NBYTES, POISON
from tests.plan.worlds import HALVES, LONG, PAGES, commands, outcomes, settle, world_with

# --- failures ------------------------------------------------------------------------


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


# --- memory that is not what the record says -----------------------------------------


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
