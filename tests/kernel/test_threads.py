"""A handler that serves once, as other processes see it."""

from __future__ import annotations

import os
import signal

import pytest

from lazyarr.errors import KernelError
from lazyarr.kernel import arm_once, read_turns
from tests.programs import kernel as programs

SIGNAL = signal.SIGRTMIN + 9


@pytest.mark.parametrize(
    ("way", "lines", "code"),
    [
        ("", ["False", "True", "handled", "False"], -SIGNAL),
        ("replaced", ["False", "True", "replaced", "True", "replaced", "lived"], 0),
        ("blocked", ["False", "True", "False", "True"], 0),
    ],
)
def test_a_handler_serves_once(run_python, way, lines, code):
    """It is gone when it has served; one that took its place is not, which tells them apart."""
    ended = run_python(programs.serves_once, str(int(SIGNAL)), way)
    assert ended.stderr == ""
    assert (ended.stdout.split(), ended.returncode) == (lines, code)


def test_no_such_signal():
    """The kernel's refusal is an error."""
    with pytest.raises(KernelError, match="signal 4000"):
        arm_once(4000)


def test_turns_are_counted():
    """A thread that gives the processor away is given it again."""
    pid = os.getpid()
    before = read_turns(pid, pid)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, b"x")
        os._exit(0)
    os.read(read, 1)
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)
    assert read_turns(pid, pid) > before
    with pytest.raises(OSError, match="No such"):
        read_turns(1 << 30, 1 << 30)
