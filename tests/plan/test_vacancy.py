"""What is neither there nor on its way, as the machine knows it."""

from __future__ import annotations

from lazyarr.units import Span
from tests.plan.worlds import HALVES, LONG, settle, world_with


def test_pages_of_one_unit_from_an_address_on():
    """Up to the end of what the unit fills alone; a page that it shares is alone."""
    world, (client,), region = world_with(LONG)

    def find(page):
        return world.machine.find_vacancy(client, world.address(client, region, page))

    assert find(1)[1:] == (0, Span(1, 2))
    assert find(2)[1:] == (0, Span(2, 3))
    assert find(3)[1:] == (1, Span(3, 5))
    assert world.machine.find_vacancy(client, 5) is None
    assert world.machine.find_vacancy(client + 1, world.address(client, region, 0)) is None


def test_what_is_there_or_on_its_way_is_not_vacant():
    """A page that several units fill is, until all of them are there."""
    world, (client,), region = world_with(LONG)

    def find(page):
        return world.machine.find_vacancy(client, world.address(client, region, page))

    world.touch(client, region, 3)
    world.read_faults()
    assert find(4) is None
    settle(world)
    assert find(3) is find(4) is None
    assert find(2) is not None
    world.request(client, region, Span(0, 1))
    settle(world)
    assert find(1) is find(2) is None
    world.evict(client, region, Span(1, 2))
    assert find(3) is not None


def test_private_memory_is_never_vacant():
    """What is put there cannot be taken out."""
    world, (client,), region = world_with(HALVES, shared=False)
    assert world.machine.find_vacancy(client, world.address(client, region, 0)) is None
