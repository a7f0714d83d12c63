"""Worlds to begin a test in, and what is looked at in them."""

from __future__ import annotations

from lazyarr.layout.geometry import Geometry
from tests.plan.memory_model import PAGE_NBYTES, World

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
