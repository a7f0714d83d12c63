"""Threads that load units for whoever reads, beside the reader's own."""

from __future__ import annotations

import threading
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

from lazyarr.client.session.failures import raise_together
from lazyarr.errors import ChunkError
from lazyarr.kernel import may_start_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["LoadingThreads"]

_T = TypeVar("_T")


class LoadingThreads:
    """Helpers, started when they are first needed; the process does not wait for them at its end.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._helpers: list[threading.Thread] = []

    def __repr__(self) -> str:
        return f"<LoadingThreads: {len(self._helpers)} helpers>"

    def stop(self) -> None:
        """End the helpers when they have done what they do; more are started when needed."""
        with self._lock:
            helpers, self._helpers = self._helpers, []
        for _ in helpers:
            self._calls.put(_end)
        for helper in helpers:
            helper.join()

    def run(self, items: Iterator[_T], do: Callable[[_T], object], *, n_threads: int) -> None:
        """Do something for each item, on this thread and on helpers, and wait for the end.

        Parameters
        ----------
        items : iterator
            Asked by one thread at a time.
        do : callable
            Done for several items at once.
        n_threads : int
            On how many threads.

        Raises
        ------
        ChunkError
            The first by the order of items; the others become its notes.  All else ends
            it at once.
        """
        work = _Work(items, do)
        self._grow(n_threads - 1)
        for _ in range(n_threads - 1):
            self._calls.put(work.join_in)
        try:
            work.join_in()
            work.wait()
        finally:
            work.stop()
        work.raise_errors()

    def _grow(self, n_helpers: int) -> None:
        """Have so many helpers, or as many as can be had: the caller works too.

        Python 3.12 and later start no threads when the interpreter ends.
        """
        with self._lock, suppress(RuntimeError):
            while len(self._helpers) < n_helpers and may_start_threads():
                helper = threading.Thread(
                    target=_help, args=(self._calls,), name="lazyarr-load", daemon=True
                )
                helper.start()
                self._helpers.append(helper)


def _help(calls: SimpleQueue[Callable[[], None]]) -> None:
    while (call := calls.get()) is not _end:
        # What went wrong is with the work, for the thread that waits for it.
        with suppress(BaseException):
            call()
        del call  # it refers to an array, which would stay until the next one


def _end() -> None:
    """Stand for the end of a helper."""


class _Work(Generic[_T]):
    """Items that several threads take one by one."""

    def __init__(self, items: Iterator[_T], do: Callable[[_T], object]) -> None:
        self._items = enumerate(items)
        self._do = do
        self._changed = threading.Condition()
        self._n_busy = 0
        self._has_ended = False
        self._failed: list[tuple[int, ChunkError]] = []
        self._error: BaseException | None = None

    def join_in(self) -> None:
        """Do items until there are no more."""
        try:
            while (taken := self._take()) is not None:
                place, item = taken
                try:
                    self._do(item)
                except ChunkError as error:
                    self._failed.append((place, error))
                finally:
                    with self._changed:
                        self._n_busy -= 1
                        self._changed.notify_all()
        except BaseException as error:
            self._error = error
            self.stop()
            raise

    def _take(self) -> tuple[int, _T] | None:
        with self._changed:
            taken = None if self._has_ended else next(self._items, None)
            if taken is None:
                self._has_ended = True
            else:
                self._n_busy += 1
            return taken

    def stop(self) -> None:
        """Have no more taken."""
        self._has_ended = True

    def wait(self) -> None:
        """Wait until nobody is at work."""
        with self._changed:
            self._changed.wait_for(lambda: self._n_busy == 0)

    def raise_errors(self) -> None:
        """Raise what went wrong."""
        if self._error is not None:
            raise self._error
        raise_together([error for _, error in sorted(self._failed, key=lambda f: f[0])])
