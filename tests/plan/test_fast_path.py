"""The short way of the machine is the long way in one step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.layout.geometry import Geometry
from lazyarr.memory_kind import MemoryKind
from lazyarr.plan import messages as m
from lazyarr.plan.machine import Machine
from lazyarr.units import Span

ADDRESS = 1 << 30
GEOMETRY = Geometry((50, 64), (1, 64), itemsize=1, page_nbytes=16)


def _machine(limit_nbytes):
    machine = Machine(limit_nbytes)
    machine.handle(m.Attached(1, 7, ADDRESS, GEOMETRY, MemoryKind.SHARED))
    return machine


def _state(machine):
    state = machine.region(7)
    return sorted(state.resident), machine.resident_nbytes, dict(machine.counters)


@given(st.lists(st.integers(0, 50 * 64 - 1), max_size=60), st.integers(64, 2000))
def test_short_way_leaves_what_the_long_way_leaves(offsets, limit_nbytes):
    """Whatever is touched, under any limit, both ways end with the same record."""
    long, short = _machine(limit_nbytes), _machine(limit_nbytes)
    for offset in offsets:
        fault = m.Faulted(1, ADDRESS + offset)
        quick = short.fast_path.plan(1, fault.address)
        if quick is None:
            loads = [c for c in short.handle(fault) if isinstance(c, m.Load)]
            for load in loads:
                short.handle(m.Loaded(7, load.unit, 1, ()))
        else:
            assert quick.address == ADDRESS + quick.unit * 64
            if quick.unit % 2:
                short.fast_path.take_down(quick)
            else:
                short.fast_path.begin(quick)
                assert short.fast_path.end(quick)
        for command in list(long.handle(fault)):
            if isinstance(command, m.Load):
                assert quick is None or command.unit == quick.unit
                long.handle(m.Loaded(7, command.unit, 1, ()))
        assert _state(short) == _state(long)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (m.Requested(1, 7, 5, (Span(2, 3),)), m.Answer(1, 5)),
        (m.Faulted(1, ADDRESS + 129), m.MapPages(7, 1, Span(8, 9))),
        (m.Faulted(2, 2 * ADDRESS + 150), m.MapPages(7, 2, Span(8, 12))),
        (m.Detached(1, 7, 9), m.Answer(1, 9)),
        (m.ClientLeft(1), None),
    ],
    ids=["request", "late fault", "fault elsewhere", "detached", "left"],
)
def test_who_comes_meanwhile_is_served(event, expected):
    """The long way ends a load that somebody else has come to wait for."""
    machine = _machine(10_000)
    machine.handle(m.Attached(2, 7, 2 * ADDRESS, GEOMETRY, MemoryKind.SHARED))
    quick = machine.fast_path.plan(1, ADDRESS + 130)
    assert quick is not None
    machine.fast_path.begin(quick)
    assert machine.fast_path.plan(2, 2 * ADDRESS + 130) is None
    machine.handle(event)
    assert not machine.fast_path.end(quick)
    commands = machine.handle(m.Loaded(7, 2, 1, ()))
    assert m.Publish(7, 2, resident=True) in commands
    assert expected is None or expected in commands
    assert machine.region(7).resident == {2}
    assert not machine.region(7).loading
