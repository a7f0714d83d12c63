"""The half-open range."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lazyarr.units import Span

spans = st.builds(Span, st.integers(-20, 20), st.integers(-20, 20))


@given(spans)
def test_size_is_how_many_there_are(span):
    """Never negative, also where stop lies before start."""
    assert span.size == len(range(*span))


@given(spans, st.integers(-25, 25))
def test_span_contains_what_its_range_does(span, index):
    """And no number that is not whole."""
    assert (index in span) == (index in range(*span))
    assert index + 0.5 not in span
    assert str(index) not in span


@given(spans, spans)
def test_intersection_holds_what_both_hold(a, b):
    """Whichever way round; empty ones are empty ranges."""
    both = set(range(*a)) & set(range(*b))
    assert set(range(*(a & b))) == both
    assert (a & b).size == (b & a).size == len(both)


@given(st.lists(spans))
def test_spans_sort_by_start_then_stop(unsorted):
    """Which is what merging relies on."""
    assert sorted(unsorted) == sorted(unsorted, key=lambda span: (span.start, span.stop))
