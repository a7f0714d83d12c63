"""A handler that serves once, as other processes see it."""

from __future__ import annotations

import os
import signal

import pytest

from lazyarr.errors import KernelError
from lazyarr.kernel import arm_once, read_turns

SIGNAL = signal.SIGRTMIN + 9

SERVE_ONCE = """
import os, signal, sys
from lazyarr.kernel import arm_once, has_handler, is_armed
number, way = int(sys.argv[1]), sys.argv[2]
pid = os.getpid()
print(is_armed(pid, number))
signal.signal(number, lambda *_: print("handled"))
arm_once(number)
print(is_armed(pid, number))
if way == "blocked":
    signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    print(is_armed(pid, number), has_handler(pid, number), flush=True)
    os._exit(0)
if way == "replaced":
    signal.signal(number, lambda *_: print("replaced"))
os.kill(pid, number)
print(is_armed(pid, number), flush=True)
os.kill(pid, number)
print("lived")
"""


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
    ended = run_python(SERVE_ONCE, str(int(SIGNAL)), way)
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
