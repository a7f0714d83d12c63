"""The table of transitions names what there is; `World` checks each step of the machine by it."""

from __future__ import annotations

import re

import pytest

from lazyarr.layout.geometry import Geometry
from lazyarr.plan import messages as m
from lazyarr.plan.machine import Machine
from lazyarr.units import Span
from tests.plan.memory_model import PAGE_NBYTES, World
from tests.plan.transitions import STATES, TABLE, allows, events_in

# They change what holds for the machine or for a region, and a unit only by what follows.
_OF_NO_UNIT = {
    "Advised",
    "Attached",
    "LimitChanged",
    "LinkMeasured",
    "Opened",
    "ReadaheadChanged",
    "RecordingBegan",
    "RecordingEnded",
    "Reserved",
    "Scheduled",
    "ScratchGrew",
}


def test_the_table_names_states_events_and_commands_that_there_are():
    """And all of the states, from which and to which there is a way."""
    assert {state for row in TABLE for state in row.states} == set(STATES)
    assert {state for row in TABLE for state in row.next_states} == set(STATES)
    commands = {name for row in TABLE for name in re.findall(r"\b[A-Z][a-zA-Z]+", row.commands)}
    assert all(hasattr(m, name) for name in commands), commands
    assert all(hasattr(m, name) for row in TABLE for name in events_in(row.events))


def test_every_event_of_a_unit_is_in_the_table():
    """An event that the machine takes and the table does not know is a hole in the table."""
    taken = {event.__name__ for event in Machine(0)._handlers}
    assert {name for row in TABLE for name in events_in(row.events)} == taken - _OF_NO_UNIT


@pytest.mark.parametrize(
    ("before", "event", "after"),
    [
        ("ABSENT", "Faulted", "RESIDENT"),
        ("RESIDENT", "Loaded", "AWAITED"),
        ("AWAITED", "EvictionAsked", "DROPPED"),
        ("DROPPED", "Loaded", "RESIDENT"),
        ("LOADING", "Arrived", "RESIDENT"),
    ],
)
def test_the_table_does_not_allow_everything(before, event, after):
    """Or no step could be wrong."""
    assert not allows(before, event, after)


def test_a_step_that_the_table_does_not_know_is_seen():
    """A machine that takes a unit for resident while its load is on its way."""
    world = World(1000)
    client = world.add_client()
    region = world.open(client, Geometry((64,), (16,), 1, PAGE_NBYTES), shared=True)
    world.do(m.Requested(client, region, 1, (Span(0, 1),)))
    handle = world.machine.handle

    def forget(event: m.Event) -> list[m.Command]:
        commands = handle(event)
        del world.state(region).loading[0]
        world.state(region).resident.add(0)
        return commands

    world.machine.handle = forget
    with pytest.raises(AssertionError, match="AWAITED -> RESIDENT by LimitChanged"):
        world.handle(m.LimitChanged(2000))
