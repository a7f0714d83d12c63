"""Worker processes of distributed: what they may have of lazyarr's memory.

distributed measures a worker by its resident memory, shared pages too.  It spills and pauses
workers that near their memory limit, and ends them above it.  A worker that reads much has the
pager's pages mapped, perhaps more than its limit.  They take no memory more: the pager has them
within a limit of its own, once for all workers.  So a worker lets go of its mappings in time.

Public: ``is_worker``, ``worker_memory_limit``, ``keep_small``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["is_worker", "keep_small", "worker_memory_limit"]

# Of a worker's memory limit.  distributed begins to spill at 0.7, unless it is told otherwise.
_FULL = 0.6
# Of a worker's memory limit: less than that is not worth the faults that map it again.
_WORTH_IT = 1 / 16
# distributed looks every 100 ms.  What a worker maps in this time should fit into the other 0.4.
_PAUSE_MS = 20.0


def is_worker() -> bool:
    """Return whether this process is a worker."""
    return bool(_workers())


def worker_memory_limit() -> int | None:
    """Return the memory limit of the worker that this process is; None for all other processes.

    Of the smallest, where there are several.
    """
    limits = (worker.memory_manager.memory_limit for worker in _workers())
    return min((limit for limit in limits if limit), default=None)


def keep_small(unmap_pages: Callable[[], None]) -> None:
    """Have this process let go of mapped pages in time, if it is a worker with a memory limit.

    Parameters
    ----------
    unmap_pages : callable
        Has no page of lazyarr's shared memory mapped any more.  Called in the worker's thread for
        events, so it waits for nothing.
    """
    for worker in _workers():
        limit = worker.memory_manager.memory_limit
        if limit:
            worker.loop.add_callback(_begin, worker, limit, unmap_pages)


def _begin(worker: Any, limit: int, unmap_pages: Callable[[], None]) -> None:
    from tornado.ioloop import PeriodicCallback

    def look() -> None:
        resident_nbytes, shared_nbytes = _measure()
        if resident_nbytes > _FULL * limit and shared_nbytes > _WORTH_IT * limit:
            unmap_pages()

    # The worker stops it when it closes.
    callback = worker.periodic_callbacks["lazyarr"] = PeriodicCallback(look, _PAUSE_MS)
    callback.start()


def _measure() -> tuple[int, int]:
    """Return how many bytes of this process are resident, and how many of these are of files.

    Memory objects are files, too (proc(5), statm).
    """
    with open("/proc/self/statm") as file:
        _, resident, shared, *_ = file.read().split()
    page_nbytes = os.sysconf("SC_PAGE_SIZE")
    return int(resident) * page_nbytes, int(shared) * page_nbytes


def _workers() -> list[Any]:
    """Return the workers in this process, also in threads that execute no task."""
    # References come out of pickles where `distributed.get_worker` knows of no worker.
    kind = getattr(sys.modules.get("distributed.worker"), "Worker", None)
    return list(getattr(kind, "_instances", ()))
