"""Threads that cannot be let write die of SIGBUS; none waits for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from lazyarr.kernel import Fault
from lazyarr.pager.onerror.refusals import Refusals

ADDRESS = 0x1000
_PROGRAM = """
import signal, sys
signal.signal(signal.SIGBUS, {})
print("ready", flush=True)
while True: signal.pause()
"""


def fault(thread: int) -> Fault:
    return Fault(address=ADDRESS, write=True, wp=True, minor=False, thread_id=thread)


@pytest.fixture
def start():
    """Start processes that wait for signals, with a handler of SIGBUS as a text."""
    started = []

    def start(handler="signal.SIG_DFL"):
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM.format(handler)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "ready\n"
        client = SimpleNamespace(number=1, pid=process.pid, pidfd=os.pidfd_open(process.pid))
        started.append((process, client.pidfd))
        return process, client

    yield start
    for process, pidfd in started:
        process.kill()
        with process:
            os.close(pidfd)


@pytest.mark.parametrize("is_known", [False, True])
def test_a_thread_that_cannot_write_gets_sigbus(start, is_known):
    """Or its process, where nobody knows which thread it is."""
    process, client = start()
    refusals = Refusals()
    if is_known:
        refusals.note(1, [fault(process.pid)])
    refusals.refuse(client, lambda address: address == ADDRESS)
    assert process.wait(20) == -signal.SIGBUS


def test_a_process_that_ignores_it_is_killed(start, capfd):
    """A thread of it would wait for ever."""
    process, client = start("signal.SIG_IGN")
    refusals = Refusals()
    refusals.note(1, [fault(process.pid)])
    refusals.refuse(client, lambda _: True)
    assert process.wait(20) == -signal.SIGKILL
    assert "takes no SIGBUS" in capfd.readouterr().err


@pytest.mark.parametrize("is_let_in", [False, True])
def test_a_thread_that_comes_again_is_killed_unless_it_was_let_in(start, is_let_in):
    """Its handler has returned to the same write."""
    process, client = start("lambda *_: print('handled', flush=True)")
    refusals = Refusals()
    for number in range(2):
        refusals.note(1, [fault(process.pid)])
        refusals.refuse(client, lambda _: True)
        if number == 0 or is_let_in:
            assert process.stdout.readline() == "handled\n"
        if is_let_in:
            refusals.let_in(1)
    if is_let_in:
        assert process.poll() is None
    else:
        assert process.wait(20) == -signal.SIGKILL


def test_others_are_not_meant(start):
    """Who waits elsewhere, and whoever wants only to read."""
    process, client = start("lambda *_: print('handled', flush=True)")
    refusals = Refusals()
    refusals.note(1, [fault(process.pid), fault(7)._replace(address=2 * ADDRESS)])
    refusals.note(2, [fault(8)])
    refusals.note(1, [fault(9)._replace(write=False)])
    refusals.refuse(client, lambda address: address == ADDRESS)
    assert process.stdout.readline() == "handled\n"
    assert repr(refusals) == "<Refusals: 2 threads>"
    refusals.forget(1)
    assert repr(refusals) == "<Refusals: 1 threads>"
