"""Holding another process's threads still: none of them runs, and then all do."""

from __future__ import annotations

import mmap
import os
import signal
import time

import pytest

from lazyarr.kernel import hold_still
from tests.programs import kernel as programs


class Counting:
    """A process whose threads count, and what they have counted."""

    def __init__(self, process, memory):
        self.process, self.memory = process, memory

    def read(self):
        return [int.from_bytes(self.memory[64 * i : 64 * i + 8], "little") for i in range(8)]

    def go_on(self):
        """Wait until every thread has counted on."""
        before = self.read()
        deadline = time.monotonic() + 20
        while any(now == then for now, then in list(zip(self.read(), before, strict=True))[:6]):
            assert time.monotonic() < deadline, (before, self.read())


@pytest.fixture
def counting(start_python):
    memfd = os.memfd_create("counters")
    os.ftruncate(memfd, 4096)
    with mmap.mmap(memfd, 4096) as memory:
        process = start_python(programs.counts, str(memfd), pass_fds=(memfd,))
        assert process.stdout.readline() == "ready\n"
        yield Counting(process, memory)
        process.kill()
        process.communicate()
    os.close(memfd)


def test_all_but_one_stand_still(counting):
    """Whatever they were doing, and they go on with it afterwards, and get their signals."""
    seen = []

    def act():
        first = counting.read()
        for _ in range(50):
            time.sleep(0)
        seen.append((first[1:6], counting.read()[1:6]))

    pid = counting.process.pid
    for i in range(30):
        counting.process.send_signal(signal.SIGUSR1)
        assert hold_still(pid, pid, act, seconds=5)
        assert len(seen) == i + 1
        assert seen[-1][0] == seen[-1][1]
        counting.go_on()
    assert counting.read()[7] > 0
    assert counting.process.poll() is None


def test_an_exception_lets_go(counting):
    """What goes wrong meanwhile is raised, and nobody stands still for ever."""

    def act():
        raise ZeroDivisionError

    pid = counting.process.pid
    with pytest.raises(ZeroDivisionError):
        hold_still(pid, pid, act, seconds=5)
    counting.go_on()


def test_no_time(counting):
    """Threads that do not stop in time are let go, and nothing is done."""
    pid = counting.process.pid
    assert not hold_still(pid, pid, lambda: pytest.fail("done"), seconds=0)
    counting.go_on()


def test_somebody_else_traces(counting):
    """A process with a debugger is not held; when that is gone it can be."""
    pid = counting.process.pid
    outcome = []
    hold_still(
        pid,
        pid,
        lambda: outcome.append(hold_still(pid, pid, lambda: pytest.fail("done"), seconds=1)),
        seconds=5,
    )
    assert outcome == [False]
    counting.go_on()
    assert hold_still(pid, pid, lambda: None, seconds=5)


def test_nobody_there():
    """A process that has ended cannot be held."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert not hold_still(pid, pid, lambda: pytest.fail("done"), seconds=1)


def test_who_holds_is_killed(counting):
    """Then who was held is killed, too: it must not see what was not cleaned up."""
    pid = counting.process.pid
    holder = os.fork()
    if holder == 0:
        hold_still(pid, pid, lambda: os.kill(os.getpid(), signal.SIGKILL), seconds=5)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(holder, 0)[1]) == -signal.SIGKILL
    assert counting.process.wait(10) == -signal.SIGKILL
