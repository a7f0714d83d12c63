"""The short way: what `Faulted`, `Load` and `Loaded` do for one unit that nobody else wants.

It is the same, without the events and commands between, which for a small unit cost
several times what the unit does; and has a test that says so.
"""

from __future__ import annotations

from typing import NamedTuple

from lazyarr.plan import messages as m
from lazyarr.plan.members import Members
from lazyarr.plan.memory import Memory
from lazyarr.plan.regions import Loading
from lazyarr.plan.requests import Requests
from lazyarr.units import Span

__all__ = ["Quick", "ShortWay"]


class Quick(NamedTuple):
    """A unit that can be brought in one step: for whom, and where it goes."""

    client: int
    region: int
    unit: int
    page: int
    address: int
    nbytes: int


class ShortWay:
    """Plans and takes down what is brought in one step.

    Parameters
    ----------
    memory, members, requests
        The machine's.
    """

    def __init__(self, memory: Memory, members: Members, requests: Requests) -> None:
        self._memory = memory
        self._members = members
        self._requests = requests

    def __repr__(self) -> str:
        return f"<ShortWay: {self._memory!r}>"

    def plan(self, client: int, address: int) -> Quick | None:
        """Return the unit that a fault needs, when it can be brought in one step; else None.

        That is: it is whole pages, nobody has it or loads it, nothing must be evicted for
        it, and no page of its array is poisoned.  What must follow at once, before any
        event, is `take_down`, or `begin`, or nothing at all.
        """
        place = self._members.find(client, address)
        if place is None:
            return None
        region, page = place
        state = self._memory.regions[region]
        geometry = state.geometry
        if not geometry.unit_pages or state.poisoned:
            return None
        unit = page // geometry.unit_pages
        nbytes = geometry.unit_nbytes
        if unit in state.resident or unit in state.loading or unit >= state.n_plain_units:
            return None
        if nbytes > self._memory.room.free_nbytes or unit in state.left:
            return None
        return Quick(client, region, unit, page, state.addresses[client] + unit * nbytes, nbytes)

    def take_down(self, quick: Quick) -> None:
        """Take down that a unit of `plan` is resident."""
        self._memory.counters["faults"] += 1
        self._memory.enter(quick.region, self._memory.regions[quick.region], quick.unit)

    def begin(self, quick: Quick) -> list[m.Command]:
        """Take down that a unit of `plan` is on its way; return what to do besides.

        What ends it is `end`, or an event that ends a `Load`.
        """
        self._memory.counters["faults"] += 1
        state = self._memory.regions[quick.region]
        loading = state.loading[quick.unit] = Loading(quick.client)
        loading.faults.add((quick.client, quick.page))
        if state.shared:
            self._memory.room.loading_nbytes += quick.nbytes
        commands = self._memory.commands = []
        units = Span(quick.unit, quick.unit + 1)
        self._memory.look_ahead(quick.region, state, quick.client, units, is_lost=True)
        if commands:
            self._memory.make_room(self._requests.asked_nbytes)
        return commands

    def end(self, quick: Quick) -> bool:
        """Take down that a unit is resident, and return True; False if `Loaded` must do it.

        It must where something has happened meanwhile.
        """
        state = self._memory.regions[quick.region]
        loading = state.loading[quick.unit]
        is_alone = len(loading.faults) == 1 and not (loading.requests or loading.late)
        if not is_alone or state.leaving or quick.client not in state.addresses:
            return False
        del state.loading[quick.unit]
        if state.shared:
            self._memory.room.loading_nbytes -= quick.nbytes
        self._memory.enter(quick.region, state, quick.unit)
        return True
