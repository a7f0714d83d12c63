"""Work on several threads, with its results in order and so much of it at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

__all__ = ["Pump"]

_Result = TypeVar("_Result")


class _Job(NamedTuple):
    future: Future[Any]
    nbytes: int
    finish: Callable[[Any], None]


class Pump:
    """Runs jobs on threads and takes their results in the order they came.

    Parameters
    ----------
    n_threads : int
        How many jobs run at once.
    window_nbytes : int
        How much the jobs that have not been taken may hold together.  One job that
        is larger runs alone.
    name : str
        Of the threads.

    Notes
    -----
    Belongs to one thread at a time: results are taken by whoever calls `submit`,
    `make_room` and `drain`.  The first job that fails ends it: its error is raised
    there, then and ever after.
    """

    def __init__(self, n_threads: int, window_nbytes: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(n_threads, thread_name_prefix=f"lazyarr-{name}")
        self._window_nbytes = window_nbytes
        self._jobs: deque[_Job] = deque()
        self._nbytes = 0
        self._error: BaseException | None = None

    def __repr__(self) -> str:
        return f"<Pump of {len(self._jobs)} jobs, {self._nbytes} bytes>"

    def submit(
        self, job: Callable[[], _Result], finish: Callable[[_Result], None], *, nbytes: int
    ) -> None:
        """Have a job run on some thread, and its result given to `finish` on this one."""
        self.make_room(nbytes)
        self._jobs.append(_Job(self._threads.submit(job), nbytes, finish))
        self._nbytes += nbytes

    def make_room(self, nbytes: int) -> None:
        """Wait until so much more may be held."""
        self._raise_error()
        while self._jobs and self._nbytes + nbytes > self._window_nbytes:
            self._take()

    def drain(self) -> None:
        """Wait for all jobs."""
        self._raise_error()
        while self._jobs:
            self._take()

    def close(self) -> None:
        """Drop the jobs that have not begun, and wait for those that have."""
        self._jobs.clear()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _take(self) -> None:
        job = self._jobs.popleft()
        self._nbytes -= job.nbytes
        try:
            job.finish(job.future.result())
        except BaseException as error:
            # Also for KeyboardInterrupt: the result is lost, so nothing after it is whole.
            self._error = error
            raise

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
