from __future__ import annotations

import threading

import pytest

from lazyarr.writer.pump import Pump


@pytest.fixture
def pump():
    pump = Pump(3, 100, "test")
    yield pump
    pump.close()


def test_results_come_in_the_order_of_jobs(pump):
    """A job that ends first waits for those before it."""
    taken = []
    release = threading.Event()
    pump.submit(lambda: release.wait() and 0, taken.append, nbytes=10)
    pump.submit(lambda: 1, taken.append, nbytes=10)
    pump.submit(lambda: release.set() or 2, taken.append, nbytes=10)
    pump.drain()
    assert taken == [0, 1, 2]


def test_window_bounds_what_is_held(pump):
    """What was submitted and not taken never exceeds the window; one large job runs alone."""
    held = most = 0

    def finish(nbytes):
        nonlocal held
        held -= nbytes

    for nbytes in (40, 40, 40, 1, 99, 250, 30, 70, 1):
        pump.make_room(nbytes)
        held += nbytes
        most = max(most, held if nbytes <= 100 else 0)
        assert held == nbytes or held <= 100
        pump.submit(lambda nbytes=nbytes: nbytes, finish, nbytes=nbytes)
    pump.drain()
    assert held == 0
    assert most == 100


def test_jobs_run_at_the_same_time(pump):
    """Three jobs that wait for each other all end."""
    barrier = threading.Barrier(3, timeout=30)
    for _ in range(3):
        pump.submit(barrier.wait, lambda _: None, nbytes=1)
    pump.drain()


def test_first_error_is_raised_ever_after(pump):
    """A job that fails ends the pump: no later call pretends that all went well."""

    def fail():
        raise ZeroDivisionError("no")

    taken = []
    pump.submit(fail, taken.append, nbytes=1)
    pump.submit(lambda: 1, taken.append, nbytes=1)
    for call in (pump.drain, pump.drain, lambda: pump.make_room(1)):
        with pytest.raises(ZeroDivisionError):
            call()
    with pytest.raises(ZeroDivisionError):
        pump.submit(lambda: 1, taken.append, nbytes=1)
    assert taken == []


def test_close_drops_what_has_not_begun():
    """Closing waits for running jobs, starts no other, and leaves no thread."""
    pump = Pump(1, 100, "closing")
    started, release = threading.Event(), threading.Event()
    ran = []

    def first():
        started.set()
        release.wait(30)
        ran.append(1)

    pump.submit(first, lambda _: None, nbytes=1)
    pump.submit(lambda: ran.append(2), lambda _: None, nbytes=1)
    started.wait(30)
    threading.Timer(0.05, release.set).start()
    pump.close()
    assert ran == [1]
    assert not [t for t in threading.enumerate() if "lazyarr-closing" in t.name]
