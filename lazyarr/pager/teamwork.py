"""One load, done by several threads: the tiles of a unit."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import TypeAlias

from lazyarr.loading.workspace import Workspace

__all__ = ["Teamwork", "Work"]

Work: TypeAlias = Callable[[int, Workspace], None]
"""Does one part of a load, by its number, in the memory of the thread that does it."""


class Teamwork:
    """The parts of a load, taken one by one by whoever helps.

    Parameters
    ----------
    n_parts : int
        How many there are.
    work : callable
        Does one of them.
    """

    def __init__(self, n_parts: int, work: Work) -> None:
        self._n_parts = n_parts
        self._work = work
        self._next = itertools.count()
        self._condition = threading.Condition()
        self._n_helping = 0
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Teamwork: {self._n_parts} parts, {self._n_helping} threads>"

    def help(self, workspace: Workspace) -> None:
        """Do parts until all are taken, or one has failed."""
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
        """Do parts as `help` does, wait for the other threads, and raise what went wrong.

        Who comes to help later finds nothing to do.
        """
        self.help(workspace)
        with self._condition:
            while self._n_helping:
                self._condition.wait()
        if self._error is not None:
            raise self._error
