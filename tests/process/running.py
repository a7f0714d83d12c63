"""Running programs that fault, in processes of their own."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = [
    "PRELUDE",
    "children",
    "decoders",
    "end_program",
    "ended_by",
    "family",
    "pagers",
    "run_program",
    "start_program",
    "stop",
    "wait_until",
]

PRELUDE = """
import faulthandler; faulthandler.enable(); faulthandler.dump_traceback_later(60, exit=True)
import ctypes, os, signal, sys, threading, time
import numpy as np, lazyarr
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where a shell's job says so
def read_all(array):
    "Return the bytes through a raw pointer, with no lazyarr in the way."
    raw = np.asarray(array)
    return ctypes.string_at(raw.ctypes.data, raw.nbytes)
def stop(pid):
    "Stop a process, and wait until all of its threads stand still: they go on for a moment."
    from tests.process.running import stop
    stop(pid)
def settled():
    "Return the statistics once nothing is on its way: a page is there before it is counted."
    while (stats := lazyarr.stats())["units_loading"]:
        os.sched_yield()
    return stats
def in_child(function):
    "Return how a forked child ended that ran a function."
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        except BaseException:
            import traceback; traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""

_numbers = itertools.count()


def start_program(
    program: str, *arguments: object, wrapper: Sequence[str] = ()
) -> tuple[subprocess.Popen[str], str]:
    """Start a program with lazyarr and numpy imported; return it and its pagers' mark."""
    mark = f"LAZYARR_TEST_MARK={os.getpid()}-{next(_numbers)}"
    name, value = mark.split("=")
    process = subprocess.Popen(
        [*wrapper, sys.executable, "-W", "error", "-c", PRELUDE + textwrap.dedent(program)]
        + [str(argument) for argument in arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # The same processes on every machine, unless a test wants others.
        env={**os.environ, "LAZYARR_THREADS": "2", name: value},
    )
    return process, mark


def end_program(process: subprocess.Popen[str]) -> None:
    """End a program, however far it is: nothing of it is left for the tests that follow."""
    process.kill()
    with process:  # waits, and closes its pipes
        pass


def stop(*pids: int) -> None:
    """Stop processes, and wait until all of their threads stand still."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    tasks = [task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]
    # proc(5): the state comes after the name, which stands in brackets.
    stats = (task / "stat" for task in tasks)
    assert all(wait_until(lambda s=s: s.read_text().rpartition(")")[2][1] == "T") for s in stats)


def run_program(
    program: str, *arguments: object, seconds: float = 90, wrapper: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Return how a program ended; fails when its pager outlives it by a second."""
    process, mark = start_program(program, *arguments, wrapper=wrapper)
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    finally:
        end_program(process)
    assert wait_until(lambda: not pagers(mark), 1.0), f"pagers left behind: {pagers(mark)}"
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def pagers(mark: str) -> list[int]:
    """Return the pager processes of programs with a mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if b"pager/__main__.py" in command and mark.encode() in environment.split(b"\0"):
                found.append(int(entry.name))
    return found


def family(mark: str, worker: int) -> tuple[int, int]:
    """Return supervisor and sentinel of the pager that a worker belongs to."""
    assert wait_until(lambda: len(pagers(mark)) == 3)
    supervisor = _parent_of(worker)
    (sentinel,) = set(pagers(mark)) - {supervisor, worker}
    return supervisor, sentinel


def _parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children(supervisor: int) -> set[int]:
    """Return what a supervisor has started."""
    path = Path(f"/proc/{supervisor}/task/{supervisor}/children")
    return {int(pid) for pid in path.read_text().split()}


def decoders(worker: int) -> set[int]:
    """Return the processes that decode for a worker: they alone have its parent, and threads."""
    supervisor = _parent_of(worker)
    others = children(supervisor) - {worker}
    return {pid for pid in others if len(list(Path(f"/proc/{pid}/task").iterdir())) > 1}


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> bool:
    """Return whether a condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        os.sched_yield()
    return True


def ended_by(process: subprocess.CompletedProcess[str]) -> str:
    """Return the name of the signal that ended a process, or its exit code."""
    code = process.returncode
    return signal.Signals(-code).name if code < 0 else str(code)
