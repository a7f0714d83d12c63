"""Units in the order of first touches, in bounded memory."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from lazyarr.layout.geometry import Geometry
from lazyarr.plan.recorder import Recorder
from lazyarr.units import Span

GEOMETRY = Geometry((50,), (7,), 1, 16)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 7), st.integers(1, 3))))
def test_runs_are_first_touches_in_order(touches):
    """Each unit once, however often it is come to, and neighbours together."""
    recorder, expected = Recorder(), []
    for region, first, size in touches:
        units = Span(first, min(first + size, 8))
        recorder.note(region, GEOMETRY, units)
        expected += [(region, u) for u in range(*units) if (region, u) not in expected]
    runs = recorder.runs(0, len(recorder))
    found = [
        (recorder.regions[place][0], unit)
        for place, span in runs
        for unit in range(*GEOMETRY.units_of_bytes(span))
    ]
    assert found == expected
    pairs = itertools.pairwise(runs)
    assert not any(a[0] == b[0] and a[1].stop == b[1].start for a, b in pairs)
    assert all(region in recorder for region, _ in expected)
    assert recorder.runs(1, 3) == runs[1:3]


def test_what_there_is_no_room_for_is_counted():
    """Neighbours of the last run take no room."""
    recorder = Recorder(max_runs=2)
    for unit in (0, 4, 5, 2, 1, 4):
        recorder.note(1, GEOMETRY, Span(unit, unit + 1))
    assert recorder.runs(0, 9) == [(0, Span(0, 7)), (0, Span(28, 42))]
    assert recorder.n_left_out == 2
    assert repr(recorder) == "<Recorder: 2 runs of 1 arrays>"
