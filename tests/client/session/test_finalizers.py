"""The thread that does what finalizers may not, in a copy of its module.

What is open in this process has work of its own in the module itself.
"""

from __future__ import annotations

import importlib.util
import signal
import threading
from collections.abc import Iterator
from types import ModuleType

import pytest

from lazyarr.errors import LazyarrError

SECONDS = 20


@pytest.fixture
def finalizers() -> Iterator[ModuleType]:
    """A copy of the module whose thread, where nothing is open, ends at once."""
    spec = importlib.util.find_spec("lazyarr.client.session.finalizers")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module._IDLE_SECONDS = 0
    yield module
    module.stop()


def wait_for(event: threading.Event) -> None:
    assert event.wait(SECONDS), "the thread did not do it"


def ended(thread: threading.Thread) -> bool:
    thread.join(SECONDS)
    return not thread.is_alive()


def test_work_is_done_in_its_order_by_another_thread(finalizers):
    """A finalizer itself may hold what its work needs."""
    done, is_over = [], threading.Event()
    finalizers.expect()
    thread = finalizers._thread
    for number in range(3):
        finalizers.defer(lambda n=number: done.append((n, threading.current_thread())))
    finalizers.defer(is_over.set)
    wait_for(is_over)
    assert done == [(number, thread) for number in range(3)]


def test_the_thread_stays_until_all_that_was_expected_has_ended(finalizers):
    """And not longer: a program without arrays has no thread of lazyarr's."""
    finalizers.expect()
    finalizers.expect()
    thread, has_ended = finalizers._thread, threading.Event()
    finalizers.defer(has_ended.set, is_end=True)
    wait_for(has_ended)
    is_done = threading.Event()
    finalizers.defer(is_done.set)
    wait_for(is_done)
    assert thread.is_alive()
    finalizers.defer(lambda: None, is_end=True)
    assert ended(thread)
    assert finalizers._thread is None


def test_a_thread_that_has_ended_is_started_again(finalizers):
    """By what is opened next, or by `start`."""
    finalizers.expect()
    first = finalizers._thread
    finalizers.defer(lambda: None, is_end=True)
    assert ended(first)
    is_done = threading.Event()
    finalizers.defer(is_done.set)
    finalizers.start()
    wait_for(is_done)


@pytest.mark.parametrize("error", [LazyarrError("example"), OSError("example")])
def test_work_that_fails_ends_itself_alone(finalizers, error):
    """It counts as an end all the same."""

    def fail() -> None:
        raise error

    finalizers.expect()
    finalizers.expect()
    thread, is_done = finalizers._thread, threading.Event()
    finalizers.defer(fail, is_end=True)
    finalizers.defer(is_done.set, is_end=True)
    wait_for(is_done)
    assert ended(thread)


def test_no_signal_is_for_the_thread(finalizers):
    """Its handler would run in the main thread, which would sleep on; but for those of faults."""
    held = []
    is_done = threading.Event()
    finalizers.expect()
    finalizers.defer(lambda: held.append(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    finalizers.defer(is_done.set)
    wait_for(is_done)
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD} <= held[0]
    assert not {signal.SIGBUS, signal.SIGSEGV} & held[0]


def test_stopping_does_what_waits_first(finalizers):
    """With a thread or without one, and the next thing that is opened has one again."""
    done = []
    finalizers.defer(lambda: done.append("without"))
    finalizers.stop()
    assert done == ["without"]
    finalizers.expect()
    thread = finalizers._thread
    finalizers.defer(lambda: done.append("with"))
    finalizers.stop()
    assert done == ["without", "with"]
    assert not thread.is_alive()
    finalizers.expect()
    assert finalizers._thread not in (None, thread)


def test_without_a_thread_what_waits_is_done_by_the_next_call(finalizers, monkeypatch):
    """Where a thread would abort the process."""
    monkeypatch.setattr(finalizers, "may_start_threads", lambda: False)
    done = []
    finalizers.expect()
    finalizers.defer(lambda: done.append(threading.current_thread()), is_end=True)
    assert done == []
    finalizers.start()
    assert done == [threading.current_thread()]
    assert finalizers._thread is None


@pytest.mark.parametrize("is_open", [True, False])
def test_a_child_does_what_waited_at_the_fork(finalizers, is_open):
    """By a thread of its own, in the parent's order; where the parent had none, when asked."""
    queue, is_busy, gate = finalizers._queue, threading.Event(), threading.Event()
    if is_open:
        finalizers.expect()
        finalizers.defer(lambda: (is_busy.set(), gate.wait(SECONDS)))
        wait_for(is_busy)
    parent, done, is_done = finalizers._thread, [], threading.Event()
    for number in range(3):
        finalizers.defer(lambda n=number: done.append((n, threading.current_thread())))
    finalizers.defer(is_done.set)
    finalizers.after_fork_in_child()
    child = finalizers._thread
    assert (child is not None) is is_open
    assert (queue.empty(), child is parent) == (True, not is_open)
    finalizers.start()
    wait_for(is_done)
    assert [number for number, _ in done] == [0, 1, 2]
    assert parent not in {thread for _, thread in done}
    gate.set()
    queue.put(None)
    assert parent is None or ended(parent)


def test_an_error_that_nobody_expects_is_told_and_does_not_end_the_thread(finalizers, monkeypatch):
    """What is deferred after it would never be done."""
    told, is_over = [], threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_value))
    finalizers.expect()

    def fail():
        raise ZeroDivisionError("of an extension")

    finalizers.defer(fail)
    finalizers.defer(is_over.set)
    wait_for(is_over)
    assert [str(error) for error in told] == ["of an extension"]
