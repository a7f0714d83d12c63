"""The table of transitions at the top of `lazyarr.plan.machine`, read as what it promises."""

from __future__ import annotations

import re
from typing import NamedTuple

from lazyarr.plan import machine
from lazyarr.plan.regions import RegionState

__all__ = ["STATES", "TABLE", "Row", "allows", "events_in", "state_of"]

_DIRTY = ("DIRTY", "COPYING", "WRITING", "REDIRTIED")
STATES = ("ABSENT", "LOADING", "AWAITED", "DROPPED", "RESIDENT", "LEFT", *_DIRTY)
_LOADS = ("LOADING", "AWAITED", "DROPPED")
_GROUPS = {"any load": _LOADS, "any dirty": _DIRTY, "any": STATES}
# What happens to units that an event does not speak of: they are read ahead, or there is no room.
_AT_THE_END = ("readahead", "no room")
_BESIDE = (*_AT_THE_END, "its turn")


class Row(NamedTuple):
    """One row: from which states which events lead to which states."""

    states: tuple[str, ...]
    events: str
    commands: str
    next_states: tuple[str, ...]


def _read_table(text: str) -> list[Row]:
    """Return the rows; what goes on in a second line belongs to the row above it."""
    lines = text.splitlines()
    rulers = [number for number, line in enumerate(lines) if line.startswith("=========  ==")]
    lines = lines[rulers[1] + 1 : rulers[2]]
    cells: list[list[str]] = []
    for line in lines:
        columns = [line[:11], line[11:36], line[36:79], line[79:]]
        if columns[0].strip():
            cells.append([""] * 4)
        for number, column in enumerate(columns):
            cells[-1][number] = f"{cells[-1][number]} {column.strip()}".strip()
    rows = []
    for state, events, commands, after in cells:
        states = _GROUPS.get(state, (state,))
        next_states = tuple(re.findall("[A-Z]{4,}", after))
        rows.append(Row(states, events, commands, next_states))
    return rows


TABLE = _read_table(machine.__doc__ or "")


def state_of(state: RegionState, unit: int) -> str:
    """Return the state of a unit, as the table calls it."""
    loading = state.loading.get(unit)
    if loading is not None:
        if loading.is_dropped:
            return "DROPPED"
        return "LOADING" if loading.is_for_nobody else "AWAITED"
    if unit in state.dirty:
        dirty = state.dirty[unit]
        if dirty.is_again:
            return "REDIRTIED"
        return {"copying": "COPYING", "writing": "WRITING"}.get(dirty.stage.value, "DIRTY")
    if unit in state.resident:
        return "RESIDENT"
    return "LEFT" if unit in state.left else "ABSENT"


def events_in(text: str) -> set[str]:
    """Return the names of events in a cell."""
    return set(re.findall("[A-Z][a-z]+(?:[A-Z][a-z]+)*", text))


def allows(before: str, event: str, after: str) -> bool:
    """Return whether the table has a way from one state to another, in one row or two.

    The first row is of the event, or of what happens beside it.  A second one is of what
    happens beside it: a unit that has come may have to go at once, for want of room, and one
    whose load has failed may be loaded again for whoever has come since.  Turns are taken before
    room is made: what went for want of room is not loaded for a writer in the same step.
    """
    by_event = _reached(before, event)
    first = by_event | _reached(before, "", *_BESIDE)
    second = {after for state in by_event for after in _reached(state, "", *_BESIDE)}
    third = {after for state in first | second for after in _reached(state, "", *_AT_THE_END)}
    return after in first | second | third


def _reached(before: str, event: str, *beside: str) -> set[str]:
    """Return the states that rows of an event, or of what happens beside it, lead to."""
    found = {before}
    for row in TABLE:
        is_meant = event in events_in(row.events) or any(each in row.events for each in beside)
        if before in row.states and is_meant:
            found.update(row.next_states)
    return found
