"""Signals that need no Python to run."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import subprocess
from collections.abc import Callable

import pytest

from lazyarr.errors import KernelError
from lazyarr.kernel import arm_lifeline, pidfd_open
from tests.programs import kernel as programs


@pytest.fixture
def start_child(start_python):
    """Start a program that has one end of a socket pair, and return it with the other."""
    children = []

    def start(program: Callable[..., object]):
        mine, theirs = socket.socketpair()
        with theirs:
            child = start_python(program, str(theirs.fileno()), pass_fds=(theirs.fileno(),))
        children.append((child, mine))
        assert child.stdout is not None
        assert child.stdout.readline() == "armed\n"
        return child, mine

    yield start
    for child, mine in children:
        mine.close()
        child.kill()
        child.communicate()


def test_closing_the_other_end_signals(start_child):
    """The client dies at once, with a traceback."""
    child, mine = start_child(programs.armed)
    mine.close()
    out, err = child.communicate(timeout=20)
    assert child.returncode == -signal.SIGBUS
    assert out == ""
    assert "Bus error" in err


def test_disarmed_lifeline_is_silent(start_child):
    """An orderly end is only end of file."""
    child, mine = start_child(programs.disarmed)
    mine.close()
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out, err) == (0, "end of file\n", "")


def test_arming_after_the_end_is_an_error():
    """A signal that would never come is not waited for."""
    mine, theirs = socket.socketpair()
    theirs.close()
    with mine, pytest.raises(KernelError, match="closed") as caught:
        arm_lifeline(mine.fileno(), signal.SIGURG)
    assert caught.value.errno == errno.EPIPE


def test_signal_reaches_a_thread_that_waits_for_a_page(start_child):
    """With the GIL held, nobody to serve the fault, and a descriptor that stays open."""
    child, mine = start_child(programs.stuck)
    mine.close()
    out, err = child.communicate(timeout=20)
    assert child.returncode == -signal.SIGBUS
    assert out == ""
    assert "Bus error" in err


def test_pidfd_tells_the_end_of_a_process():
    """It polls readable then, and not before."""
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    fd = pidfd_open(child.pid)
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    assert poll.poll(0) == []
    assert child.stdin is not None
    child.stdin.close()
    assert poll.poll(20_000)
    child.wait()
    os.close(fd)


def test_pidfd_of_no_process_is_refused():
    """The error names the process."""
    child = subprocess.Popen(["true"])
    child.wait()
    with pytest.raises(KernelError, match=str(child.pid)) as caught:
        pidfd_open(child.pid)
    assert caught.value.errno == errno.ESRCH
