"""Events that come together are handled in order, and each only while it is wanted."""

import os
import time

import pytest

from lazyarr.pager.watching import Rank, Watch


@pytest.fixture
def watch():
    watch = Watch()
    yield watch
    watch.close()


@pytest.fixture
def ready():
    """Descriptors that are readable."""
    descriptors = [os.eventfd(1) for _ in range(3)]
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


def test_messages_come_before_faults_and_exits_last(watch, ready):
    """Whatever order they were added in."""
    heard = []
    for descriptor, rank in zip(ready, (Rank.EXIT, Rank.FAULT, Rank.MESSAGE), strict=True):
        watch.add(descriptor, rank, lambda rank=rank: heard.append(rank))
    watch.listen()
    assert heard == [Rank.MESSAGE, Rank.FAULT, Rank.EXIT]


def test_what_one_event_ends_is_not_handled(watch, ready):
    """A descriptor that is removed while events are handled is not heard of any more."""
    heard = []
    watch.add(ready[0], Rank.FAULT, lambda: heard.append("fault"))
    watch.add(ready[1], Rank.MESSAGE, lambda: watch.remove(ready[0]))
    watch.listen()
    assert heard == []


def test_removing_twice_is_once(watch, ready):
    """What is not watched is left alone."""
    before = repr(watch)
    watch.add(ready[0], Rank.FAULT, lambda: None)
    assert repr(watch) != before
    watch.remove(ready[0])
    watch.remove(ready[0])
    assert repr(watch) == before


def test_what_rests_is_heard_later(watch, ready):
    """What came meanwhile waits; others are heard."""
    heard = []
    for number, descriptor in enumerate(ready[:2]):
        watch.add(descriptor, Rank.FAULT, lambda number=number: heard.append(number))
    watch.rest(ready[0], 0.05)
    watch.rest(ready[0], 0.05)
    watch.listen()
    assert heard == [1]
    watch.remove(ready[1])
    while len(heard) < 2:
        watch.listen()
    assert heard == [1, 0]


def test_what_is_removed_while_it_rests_is_not_heard(watch, ready):
    """Its number may be another descriptor's by then, which is watched by itself."""
    heard = []
    watch.add(ready[0], Rank.FAULT, lambda: heard.append("old"))
    watch.rest(ready[0], 0.01)
    watch.remove(ready[0])
    watch.add(ready[0], Rank.FAULT, lambda: heard.append("new"))
    done = []
    watch.after(0.05, lambda: done.append(True))
    while not done:
        watch.listen()
    assert set(heard) == {"new"}


def test_things_are_done_when_their_time_has_come(watch):
    """In that order, whatever order they were asked for in; also what they ask for in turn."""
    done = []
    begin = time.monotonic()
    for seconds in (0.06, 0.02, 0.04):
        watch.after(seconds, lambda seconds=seconds: done.append(seconds))
    watch.after(0.03, lambda: watch.after(0.0, lambda: done.append("then")))
    while len(done) < 4:
        watch.listen()
    assert done == [0.02, "then", 0.04, 0.06]
    assert time.monotonic() - begin >= 0.06
