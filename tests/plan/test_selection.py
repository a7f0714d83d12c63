"""Byte runs of strided views, against NumPy's own addresses."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazyarr.plan.selection import byte_runs, merge_spans
from lazyarr.units import Span

slices = st.builds(
    slice,
    st.none() | st.integers(-8, 8),
    st.none() | st.integers(-8, 8),
    st.integers(-4, 4).filter(bool),
)


@st.composite
def views(draw) -> tuple[np.ndarray, np.ndarray]:
    """An array that owns its memory, and a view into it: sliced, transposed, broadcast."""
    shape = draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    dtype = draw(st.sampled_from(("u1", "u2", "V3", "f8")))
    base = np.zeros(shape, dtype)
    view = base[tuple(draw(slices | st.integers(0, n - 1)) for n in shape)]
    view = np.asarray(view if isinstance(view, np.ndarray) else base)
    view = view.transpose(draw(st.permutations(range(view.ndim))))
    if draw(st.booleans()):
        view = np.broadcast_to(view, (draw(st.integers(1, 3)), *view.shape))
    return base, view


def start_of(view: np.ndarray, base: np.ndarray) -> int:
    """Return the offset of a view's first element."""
    return view.__array_interface__["data"][0] - base.__array_interface__["data"][0]


def touched(view: np.ndarray, start: int) -> set[int]:
    """Return the offset of every byte of a view, element by element."""
    return {
        start + byte + sum(i * stride for i, stride in zip(index, view.strides, strict=True))
        for index in np.ndindex(*view.shape)
        for byte in range(view.itemsize)
    }


@given(views(), st.integers(0, 20), st.sampled_from((1, 2, 5, 4096)))
@settings(max_examples=150)
def test_runs_hold_every_byte_of_a_view(pair, gap_nbytes, max_runs):
    """In order, apart from one another, few, and inside of what the view spans."""
    base, view = pair
    if view.size == 0:
        start = 0
        assert byte_runs(start, view.shape, view.strides, view.itemsize, gap_nbytes=0) == []
        return
    start = start_of(view, base)
    runs = byte_runs(
        start, view.shape, view.strides, view.itemsize, gap_nbytes=gap_nbytes, max_runs=max_runs
    )
    wanted = touched(view, start)
    assert wanted <= {byte for run in runs for byte in range(*run)}
    assert (runs[0].start, runs[-1].stop) == (min(wanted), max(wanted) + 1)
    assert all(a.stop < b.start for a, b in itertools.pairwise(runs))
    assert len(runs) <= max_runs


@given(views())
@settings(max_examples=100)
def test_runs_hold_nothing_else_where_no_gap_is_allowed(pair):
    """A row of a matrix does not bring the rows beside it, a column does not bring the matrix."""
    base, view = pair
    if view.size:
        start = start_of(view, base)
        runs = byte_runs(start, view.shape, view.strides, view.itemsize, gap_nbytes=0)
        assert {byte for run in runs for byte in range(*run)} == touched(view, start)


def test_gap_joins_runs_that_are_near():
    """Rows 4 bytes apart are one run where 4 bytes may lie between, and several where 3 may."""
    assert byte_runs(0, (3, 6), (10, 1), 1, gap_nbytes=4) == [Span(0, 26)]
    assert len(byte_runs(0, (3, 6), (10, 1), 1, gap_nbytes=3)) == 3


def test_too_many_runs_become_fewer_by_holding_more():
    """A column of a tall matrix does not make a list as long as the matrix."""
    runs = byte_runs(0, (1 << 40,), (1 << 13,), 1, gap_nbytes=4096)
    assert runs == [Span(0, ((1 << 40) - 1 << 13) + 1)]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(-2, 8))))
@settings(max_examples=100)
def test_merged_spans_are_the_union(pairs):
    """Sorted, disjoint, never empty, no two of them neighbours."""
    spans = [Span(start, start + size) for start, size in pairs]
    merged = merge_spans(spans)
    assert {i for span in merged for i in range(*span)} == {i for s in spans for i in range(*s)}
    assert all(a.stop < b.start for a, b in itertools.pairwise(merged))
    assert all(span.size for span in merged)


@pytest.mark.parametrize(
    ("start", "strides", "wanted"),
    [(0, (4,), Span(0, 12)), (8, (-4,), Span(0, 12)), (0, (0,), Span(0, 4))],
)
def test_direction_does_not_matter(start, strides, wanted):
    """A reversed view covers what its reverse does, a broadcast one its one element."""
    assert byte_runs(start, (3,), strides, 4, gap_nbytes=0) == [wanted]
