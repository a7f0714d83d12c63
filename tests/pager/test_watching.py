"""Events that come together are handled in order, and each only while it is wanted."""

import os

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
    watch.add(ready[0], Rank.FAULT, lambda: None)
    watch.remove(ready[0])
    watch.remove(ready[0])
    assert repr(watch) == "<Watch: 0 descriptors>"
