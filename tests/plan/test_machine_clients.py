"""How clients leave the machine, and what of them stays."""

from __future__ import annotations

import pytest

from lazyarr.memory_kind import MemoryKind
from lazyarr.plan import messages as m
from lazyarr.units import Span
from tests.plan.worlds import HALVES, PAGES, commands, outcomes, settle, world_with


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


def test_region_waits_for_a_child_that_is_being_forked():
    """Its parent may let go before it has come; what is there it finds, and brings no other."""
    world, (parent,), region = world_with(PAGES)
    world.request(parent, region, Span(0, 2))
    world.finish(region, 0)
    child = world.fork(parent)
    detached = world.detach(parent, region)
    world.finish(region, 1)
    assert detached in world.answers
    world.attach(child, region)
    commands(world, m.Load)
    world.touch(child, region, 0)
    world.read_faults()
    assert commands(world, m.Load) == []
    world.run()
    assert outcomes(world) == ["read"]


def test_region_that_nobody_has_yet_is_kept_for_a_child():
    """A machine that takes over knows it, though the parent has let go before."""
    world, (parent,), region = world_with(PAGES)
    heir = world_with(PAGES)[0].machine
    child = world.fork(parent)
    heir.handle(m.Opened(region + 100, PAGES, MemoryKind.SHARED))
    heir.handle(m.Reserved(child, (region + 100,)))
    assert heir.region(region + 100) is not None
    assert heir.handle(m.ClientLeft(child)) == [m.Forget(region + 100)]


def test_region_waits_for_a_client_that_it_was_promised_to():
    """Until that has mapped it, or does not want it after all."""
    world, (first,), region = world_with(PAGES)
    second = world.add_client()
    world.promise(second, region)
    world.detach(first, region)
    assert world.machine.region(region) is not None
    assert world.answers[world.decline(second, region)] == ()
    assert world.machine.region(region) is None


def test_region_does_not_wait_for_a_child_that_never_came():
    """The fork has failed, or the child has died at once."""
    world, (parent,), region = world_with(PAGES)
    child = world.fork(parent)
    world.detach(parent, region)
    assert world.machine.region(region) is not None
    world.exit(child)
    world.tell_exit(child)
    assert world.machine.region(region) is None


def test_repr_says_what_is_held():
    """For whoever looks at a pager that misbehaves."""
    world, (client,), region = world_with(PAGES)
    world.request(client, region, Span(0, 2))
    world.finish(region, 0)
    assert repr(world.machine) == "<Machine: 1 regions, 1 clients, 16 of 1048576 bytes>"
    assert repr(world.state(region)) == (
        "<RegionState: 1 of 4 units resident, 1 loading, 1 clients>"
    )
