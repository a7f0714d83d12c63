"""The retry policy as a function, and the store that follows it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.errors import StoreError
from lazyarr.store import RetryingStore, RetryPolicy, open_store
from lazyarr.testing import FaultyStore, Misbehaviour, random_plan


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.now = 1000.0
        self.slept = []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def faulty():
    store = FaultyStore(open_store("memory://retry", writable=True))
    store.write("a", b"data")
    return store


def retrying(inner, clock, *, jitter=1.0, on_retry=None, **policy):
    return RetryingStore(
        inner,
        RetryPolicy(**policy),
        sleep=clock.sleep,
        clock=clock,
        jitter=lambda: jitter,
        on_retry=on_retry,
    )


def test_delays_double_up_to_the_longest():
    """Without jitter's discount the delays are powers of two times the first."""
    policy = RetryPolicy(
        retries=9, timeout_seconds=1e9, first_delay_seconds=0.5, longest_delay_seconds=3
    )
    delays = [
        policy.delay_seconds(n, elapsed_seconds=0, transient=True, jitter=1) for n in range(1, 12)
    ]
    assert delays == [0.5, 1, 2, 3, 3, 3, 3, 3, 3, None, None]


@given(
    failures=st.integers(1, 10**6),
    elapsed=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
    timeout=st.floats(0, 1e6),
)
def test_no_attempt_begins_after_the_time_is_over(failures, elapsed, jitter, timeout):
    """Whatever the numbers, a delay is positive, at most the longest, and ends in time."""
    policy = RetryPolicy(retries=10**6, timeout_seconds=timeout)
    delay = policy.delay_seconds(failures, elapsed_seconds=elapsed, transient=True, jitter=jitter)
    assert delay is None or 0 < delay <= policy.longest_delay_seconds
    assert delay is None or elapsed + delay <= timeout


def test_a_permanent_failure_has_no_delay():
    """What will not pass is not tried again."""
    policy = RetryPolicy(retries=5, timeout_seconds=60)
    assert policy.delay_seconds(1, elapsed_seconds=0, transient=False, jitter=1) is None


def test_a_transient_failure_heals(faulty):
    """Two failures and a success are a success, after two delays."""
    clock = Clock()
    seen = []
    faulty.misbehave(Misbehaviour.UNAVAILABLE, times=2)
    store = retrying(faulty, clock, on_retry=lambda error, delay: seen.append((error, delay)))
    assert store.read("a") == b"data"
    assert clock.slept == [0.1, 0.2] == [delay for _, delay in seen]
    assert all("503" in str(error) for error, _ in seen)


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.read("a"),
        lambda s: s.read_range("a", 0, 2),
        lambda s: s.read_suffix("a", 2),
        lambda s: s.size("a"),
        lambda s: s.list_names(""),
        lambda s: s.write("a", b"new"),
        lambda s: s.delete("a"),
        lambda s: s.delete_prefix("a"),
        lambda s: s.exists_any("a"),
    ],
)
def test_every_call_is_tried_again(faulty, call):
    """All methods go through the policy."""
    clock = Clock()
    faulty.misbehave(Misbehaviour.DROPPED)
    call(retrying(faulty, clock))
    assert len(clock.slept) == 1


def test_retries_run_out(faulty):
    """After the last retry the store's own error is raised."""
    clock = Clock()
    faulty.misbehave(Misbehaviour.THROTTLED, times=None)
    with pytest.raises(StoreError, match="429") as caught:
        retrying(faulty, clock, retries=3).read("a")
    assert caught.value.transient
    assert len(clock.slept) == 3


def test_time_runs_out(faulty):
    """With retries to spare, the time-out ends the attempts."""
    clock = Clock()
    faulty.misbehave(Misbehaviour.BROKEN, times=None)
    with pytest.raises(StoreError, match="500"):
        retrying(faulty, clock, retries=10**6, timeout_seconds=5).read("a")
    assert 3 < sum(clock.slept) <= 5


def test_a_refusal_is_raised_at_once(faulty):
    """403 is not tried again."""
    clock = Clock()
    faulty.misbehave(Misbehaviour.FORBIDDEN)
    with pytest.raises(StoreError, match="403"):
        retrying(faulty, clock).read("a")
    assert clock.slept == []


def test_a_missing_object_is_not_tried_again(faulty):
    """None is an answer."""
    clock = Clock()
    assert retrying(faulty, clock).read("absent") is None
    assert clock.slept == []


def test_a_sleep_that_raises_ends_the_attempts(faulty):
    """Whoever gives the sleep can interrupt the wait."""

    def interrupted(seconds):
        raise InterruptedError

    faulty.misbehave(Misbehaviour.DROPPED, times=None)
    store = RetryingStore(faulty, RetryPolicy(), sleep=interrupted)
    with pytest.raises(InterruptedError):
        store.read("a")


def test_a_random_plan_of_transient_failures_heals(faulty):
    """Whatever transient failures come, each read gives the data."""
    plan = random_plan(7, 0.4, [Misbehaviour.DROPPED, Misbehaviour.THROTTLED])
    store = retrying(FaultyStore(faulty, plan=plan), Clock(), retries=50, timeout_seconds=1e9)
    assert [store.read("a") for _ in range(200)] == [b"data"] * 200
    assert len({call.misbehaviour for call in store.inner.calls}) == 3
