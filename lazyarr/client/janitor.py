"""A thread that unmaps what nobody refers to any more."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.client.region import Region

__all__ = ["Janitor"]


class Janitor:
    """Unmaps dropped regions, after the pager has let go of them.

    A finalizer may run anywhere, also where this thread's own locks are held, so
    it only puts the region in a queue that is made for that (`queue.SimpleQueue`:
    put is reentrant).

    Parameters
    ----------
    let_go : callable
        Unmaps one region.
    starter_pid : int or None
        A child process that ends at once, and is waited for here.
    """

    def __init__(self, let_go: Callable[[Region], None], starter_pid: int | None) -> None:
        self._let_go = let_go
        self._starter_pid = starter_pid
        self._queue: SimpleQueue[Region] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="lazyarr-janitor", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Janitor: {self._queue.qsize()} regions to unmap>"

    @property
    def drop(self) -> Callable[[Region], None]:
        """What a finalizer calls."""
        return self._queue.put

    def _run(self) -> None:
        if self._starter_pid is not None:
            # Somebody's os.wait() may have been faster.
            with suppress(ChildProcessError):
                os.waitpid(self._starter_pid, 0)
        while True:
            self._let_go(self._queue.get())
