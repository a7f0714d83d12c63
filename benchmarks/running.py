"""How a part is run: how much of it, and its work in fresh processes that take turns."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

__all__ = ["Run", "in_turn", "run_job", "tell"]

_TIMEOUT_SECONDS = 600


class _Plan(Protocol):
    @property
    def repeats(self) -> int: ...


_P = TypeVar("_P", bound=_Plan)


@dataclass(frozen=True, slots=True)
class Run:
    """What the command line asks for.

    Attributes
    ----------
    is_quick : bool
        Tiny sizes: shows that it works, says nothing of speed.
    repeats : int or None
        How often each figure is measured; None leaves that to each part.
    """

    is_quick: bool
    repeats: int | None = None

    def plan(self, full: _P, quick: _P) -> _P:
        """Return one of two plans of a part, with the repeats that were asked for."""
        plan: Any = quick if self.is_quick else full
        chosen: _P = dataclasses.replace(plan, repeats=self.repeats or plan.repeats)
        return chosen


def in_turn(names: Sequence[str], number: int) -> list[str]:
    """Return all names, beginning with another one for each number."""
    turn = number % len(names)
    return [*names[turn:], *names[:turn]]


def run_job(module: str, job: dict[str, Any]) -> Any:
    """Return what ``python -m benchmarks.MODULE JOB`` prints, in JSON.

    Raises
    ------
    RuntimeError
        It failed: what it was, and the last line that it wrote.
    """
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", json.dumps(job)],
        check=False,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_SECONDS,
    )
    sys.stderr.write(done.stderr)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        whose = job.get("contestant", module)
        raise RuntimeError(f"{module} of {whose} ended with {done.returncode}: {last}")
    return json.loads(done.stdout)


def tell(*fields: object) -> None:
    """Show what was found just now: a full run takes a while."""
    print(*fields, file=sys.stderr, flush=True)
