"""One load that several threads do together: each decodes some tiles of the unit."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import TypeAlias

from lazyarr.reading.workspace import Workspace

__all__ = ["SharedLoad", "Work"]

Work: TypeAlias = Callable[[int, Workspace], None]
"""Does one part of a load, by its number, in a thread's workspace."""


class SharedLoad:
    """The parts of a load, which threads take one by one.

    Parameters
    ----------
    n_parts : int
        Number of parts.
    work : callable
        Does one part.
    """

    def __init__(self, n_parts: int, work: Work) -> None:
        self._n_parts = n_parts
        self._work = work
        self._next = itertools.count()
        self._condition = threading.Condition()
        self._n_helping = 0
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        return f"<SharedLoad: {self._n_parts} parts, {self._n_helping} threads>"

    def help(self, workspace: Workspace) -> None:
        """Do parts until all are taken, or one has failed."""
        # One by one, not in equal shares: a tile that is missing takes no time, and a helper may
        # come late.
        with self._condition:
            self._n_helping += 1
        try:
            # next() of a count is one step of the interpreter: no part is taken twice.
            while self._error is None and (part := next(self._next)) < self._n_parts:
                self._work(part, workspace)
        except BaseException as error:  # noqa: BLE001 - raised where the load is done
            self._error = self._error or error
        finally:
            with self._condition:
                self._n_helping -= 1
                self._condition.notify_all()

    def finish(self, workspace: Workspace) -> None:
        """Do parts as `help` does, wait for the other threads, and raise the first error."""
        # This thread does parts itself, so the load ends though nobody comes to help.  A thread
        # that comes later finds all parts taken.
        self.help(workspace)
        with self._condition:
            # The unit is not decoded before the last helper has returned, though all parts are
            # taken.
            while self._n_helping:
                self._condition.wait()
        if self._error is not None:
            raise self._error
