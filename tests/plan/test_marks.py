"""Marks on units."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from lazyarr.plan.marks import Marks


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1 << 14))))
def test_marks_are_a_set(steps):
    """A unit has a mark from when it gets it until that is taken off."""
    marks, model = Marks(), set()
    for is_added, unit in steps:
        if is_added:
            marks.add(unit)
            model.add(unit)
        else:
            assert marks.remove(unit) == (unit in model)
            model.discard(unit)
    assert repr(marks) == f"<Marks: {len(model)} units>"


def test_marks_take_bounded_memory():
    """Of units all over a huge array the first lose their marks, the last keep them."""
    marks = Marks()
    units = range(0, 1 << 40, 1 << 28)
    for unit in units:
        marks.add(unit)
    assert sum(sys.getsizeof(block) for block in marks._blocks.values()) < 1 << 20
    assert not marks.remove(units[0])
    assert marks.remove(units[-1])
