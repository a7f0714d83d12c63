"""Running programs that fault, in processes of their own."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.programs.support import stop, wait_until

__all__ = [
    "children",
    "command_of",
    "decoders",
    "end_program",
    "ended_by",
    "family",
    "pagers",
    "parent_of",
    "run_program",
    "start_program",
    "stop",
    "wait_until",
]

_numbers = itertools.count()


def start_program(
    program: Callable[..., object], *arguments: object, wrapper: Sequence[str] = ()
) -> tuple[subprocess.Popen[str], str]:
    """Start a function of `tests.programs` in a process; return that and its pagers' mark."""
    mark = f"LAZYARR_TEST_MARK={os.getpid()}-{next(_numbers)}"
    name, value = mark.split("=")
    process = subprocess.Popen(
        [*wrapper, sys.executable, "-W", "error", *command_of(program, *arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # The same processes on every machine, unless a test wants others.
        env={**os.environ, "LAZYARR_THREADS": "2", name: value},
    )
    return process, mark


def command_of(program: Callable[..., object], *arguments: object) -> list[str]:
    """Return what an interpreter is given to run a function of `tests.programs`."""
    module = program.__module__.removeprefix("tests.programs.")
    place = f"{module}:{program.__qualname__}"
    return ["-m", "tests.programs", place, *map(str, arguments)]


def end_program(process: subprocess.Popen[str]) -> None:
    """End a program, however far it is: nothing of it is left for the tests that follow."""
    process.kill()
    with process:  # waits, and closes its pipes
        pass


def run_program(
    program: Callable[..., object],
    *arguments: object,
    seconds: float = 200,
    wrapper: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Return how a program ended; fails when its pager outlives it."""
    process, mark = start_program(program, *arguments, wrapper=wrapper)
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    finally:
        end_program(process)
    assert wait_until(lambda: not pagers(mark)), f"pagers left behind: {pagers(mark)}"
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
    supervisor = parent_of(worker)
    (sentinel,) = set(pagers(mark)) - {supervisor, worker}
    return supervisor, sentinel


def parent_of(pid: int) -> int:
    """Return the process that has started another one."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children(supervisor: int) -> set[int]:
    """Return what a supervisor has started."""
    path = Path(f"/proc/{supervisor}/task/{supervisor}/children")
    return {int(pid) for pid in path.read_text().split()}


def decoders(worker: int) -> set[int]:
    """Return the processes that decode for a worker: they alone have its parent, and threads."""
    supervisor = parent_of(worker)
    others = children(supervisor) - {worker}
    return {pid for pid in others if len(list(Path(f"/proc/{pid}/task").iterdir())) > 1}


def ended_by(process: subprocess.CompletedProcess[str]) -> str:
    """Return the name of the signal that ended a process, or its exit code."""
    code = process.returncode
    return signal.Signals(-code).name if code < 0 else str(code)
