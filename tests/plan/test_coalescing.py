"""Which ranges are read together, and in which order."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.plan.coalescing import RangeQueue, coalesce
from lazyarr.units import Span

SPANS = st.tuples(st.integers(0, 200), st.integers(1, 40)).map(lambda p: Span(p[0], p[0] + p[1]))
LIMITS = {"max_gap_nbytes": st.integers(0, 30), "max_nbytes": st.integers(1, 150)}


@given(st.lists(SPANS, max_size=30), *LIMITS.values())
def test_groups_hold_every_range_once_and_keep_to_the_limits(ranges, max_gap_nbytes, max_nbytes):
    """No group is too long but one of a single range, and none reads too much that nobody wants."""
    groups = coalesce(ranges, max_gap_nbytes=max_gap_nbytes, max_nbytes=max_nbytes)
    assert sorted(place for group in groups for place in group) == list(range(len(ranges)))
    for group in groups:
        spans = [ranges[place] for place in group]
        start, stop = spans[0].start, max(span.stop for span in spans)
        assert len(group) == 1 or stop - start <= max_nbytes
        assert spans == sorted(spans)
        wanted = {byte for span in spans for byte in range(*span)}
        gap = 0
        for byte in range(start, stop):
            gap = 0 if byte in wanted else gap + 1
            assert gap <= max_gap_nbytes


@given(st.lists(SPANS, min_size=1, max_size=30), *LIMITS.values())
def test_neighbours_are_apart_only_where_they_must_be(ranges, max_gap_nbytes, max_nbytes):
    """The first range of a group would have been too far from the group before it, or too much."""
    groups = coalesce(ranges, max_gap_nbytes=max_gap_nbytes, max_nbytes=max_nbytes)
    for before, after in itertools.pairwise(groups):
        stop = max(ranges[place].stop for place in before)
        first = ranges[after[0]]
        is_far = first.start - stop > max_gap_nbytes
        assert is_far or max(stop, first.stop) - ranges[before[0]].start > max_nbytes


def pop_all(queue, max_nbytes=100):
    found = []
    while queue:
        found.append(queue.pop(max_nbytes))
    return found


def test_ranges_that_wait_together_are_read_together():
    """Whenever they came, object after object in the order of their coming."""
    queue = RangeQueue(max_gap_nbytes=5)
    for key, start, stop in [("a", 20, 30), ("b", 0, 10), ("a", 0, 10), ("a", 12, 18)]:
        queue.add(key, Span(start, stop), f"{key}{start}")
    assert queue.nbytes == 36
    first, second = pop_all(queue)
    assert (first.key, first.span) == ("a", Span(0, 30))
    assert [item for _, item in first.items] == ["a0", "a12", "a20"]
    assert (second.key, second.span, second.items) == ("b", Span(0, 10), ((Span(0, 10), "b0"),))
    assert (queue.nbytes, bool(queue)) == (0, False)


def test_what_comes_while_neighbours_wait_joins_them():
    """Also when the object's ranges were grouped before."""
    queue = RangeQueue(max_gap_nbytes=0)
    for start in (0, 50, 200):
        queue.add("a", Span(start, start + 50), start)
    assert queue.pop(60).span == Span(0, 50)
    queue.add("a", Span(100, 150), 100)
    assert [group.span for group in pop_all(queue)] == [Span(50, 150), Span(200, 250)]


def test_ranges_of_some_items_are_taken_out():
    """Of those that were grouped and of those that were not; the others stay."""
    queue = RangeQueue(max_gap_nbytes=0)
    for start in (0, 50, 200):
        queue.add("a", Span(start, start + 50), start)
    queue.pop(60)
    queue.add("a", Span(100, 150), 100)
    queue.add("b", Span(0, 10), 7)
    assert queue.take(lambda item: item in (7, 50)) == [
        ("a", Span(50, 100), 50),
        ("b", Span(0, 10), 7),
    ]
    assert queue.nbytes == 100
    assert [group.span for group in pop_all(queue)] == [Span(100, 150), Span(200, 250)]
    assert queue.take(lambda _: True) == []


def test_an_empty_queue_has_nothing_to_read():
    """It says so."""
    queue = RangeQueue(max_gap_nbytes=0)
    assert repr(queue) == "<RangeQueue: 0 bytes of 0 objects>"
    with pytest.raises(LookupError):
        queue.pop(10)


@given(st.lists(st.tuples(st.sampled_from("ab"), SPANS) | st.none(), max_size=40))
def test_everything_that_is_added_is_popped_once(steps):
    """In whatever order it is added and popped."""
    queue = RangeQueue(max_gap_nbytes=3)
    added, found = [], []
    for number, step in enumerate(steps):
        if step is not None:
            queue.add(*step, number)
            added.append((step[0], step[1], number))
        elif queue:
            group = queue.pop(60)
            found += [(group.key, span, number) for span, number in group.items]
    for group in pop_all(queue):
        found += [(group.key, span, number) for span, number in group.items]
    assert sorted(found) == sorted(added)
    assert queue.nbytes == 0
