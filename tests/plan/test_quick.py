"""The short way of the machine is the long way in one step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lazyarr.plan import messages as m
from lazyarr.plan.geometry import Geometry
from lazyarr.plan.machine import Machine

ADDRESS = 1 << 30
GEOMETRY = Geometry((50, 64), (1, 64), itemsize=1, page_nbytes=16)


def _machine(limit_nbytes):
    machine = Machine(limit_nbytes)
    machine.handle(m.Attached(1, 7, ADDRESS, GEOMETRY, shared=True))
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
        quick = short.plan_quick(1, fault.address)
        if quick is None:
            loads = [c for c in short.handle(fault) if isinstance(c, m.Load)]
            for load in loads:
                short.handle(m.Loaded(7, load.unit, 1, ()))
        else:
            assert quick.address == ADDRESS + quick.unit * 64
            if quick.unit % 2:
                short.take_down_quick(quick)
            else:
                short.begin_quick(quick)
                assert short.end_quick(quick)
        for command in list(long.handle(fault)):
            if isinstance(command, m.Load):
                assert quick is None or command.unit == quick.unit
                long.handle(m.Loaded(7, command.unit, 1, ()))
        assert _state(short) == _state(long)
