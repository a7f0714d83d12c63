"""The state of a client's main thread, which may be about to raise an exception."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lazyarr.memory_kind import MemoryKind
    from lazyarr.pager.memory.installer import Backing
    from lazyarr.plan.messages import Failure

__all__ = ["MainThread", "Zeros"]


class Zeros(NamedTuple):
    """Pages that the main thread reads as zeros for a moment."""

    address: int
    nbytes: int
    backing: Backing
    kind: MemoryKind


class MainThread:
    """The state of a client's main thread.

    Attributes
    ----------
    signal : int
        The signal that makes the main thread raise; 0 when it shall not.
    faults : dict of int to int
        The page for which each thread of the client has waited last, by the thread's kernel id.
    failure : Failure or None
        The error that the main thread is about to raise.
    since : float
        When `failure` was set, by the monotonic clock.
    failed : set of (int, int)
        Region and unit of each load that has failed since then.
    shown : Zeros or None
        The zeros that the main thread was shown last.
    n_repeats : int
        How often the main thread has faulted again on those zeros.
    n_raised : int
        How many exceptions the main thread has raised.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.faults: dict[int, int] = {}
        self.failure: Failure | None = None
        self.since = 0.0
        self.failed: set[tuple[int, int]] = set()
        self.shown: Zeros | None = None
        self.n_repeats = 0
        self.n_raised = 0

    def __repr__(self) -> str:
        return f"<MainThread: signal {self.signal}, {self.n_raised} exceptions raised>"

    def begin(self, failure: Failure) -> None:
        """Take down that the main thread is about to raise an exception."""
        self.failure, self.since = failure, time.monotonic()

    def end(self) -> Failure | None:
        """Take down that the main thread raises its exception now; return the failure."""
        # Units that have failed are tried again from now on.
        failure, self.failure, self.shown = self.failure, None, None
        self.failed.clear()
        self.n_raised += 1
        return failure
