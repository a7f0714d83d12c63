"""What loads and keeps units for all arrays of this process; renewed after fork."""

from __future__ import annotations

import itertools
import os
import queue
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

# Not when the first chunk is decoded, by whatever thread: a child that is forked while another
# thread imports a module finds that locked for ever.
import google_crc32c  # noqa: F401
import zstandard  # noqa: F401

from lazyarr import settings
from lazyarr.client.session.fork_hooks import around_fork
from lazyarr.copying.cache import UnitCache
from lazyarr.copying.loading_threads import LoadingThreads
from lazyarr.kernel import arrive, renew_in_child
from lazyarr.pager.log import report
from lazyarr.pager.measure import Measurements
from lazyarr.reading.read_queue import Urgency
from lazyarr.reading.workspace import Fetched, Workspace
from lazyarr.store import store_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lazyarr.reading.fetcher import Fetcher
    from lazyarr.reading.unit_reader import UnitReader
    from lazyarr.store import Store
    from lazyarr.store.cache import DiskCache, StoreCache
    from lazyarr.units import Span

__all__ = ["Loadable", "Loader", "loader"]


class Loadable(Protocol):
    """The units of one array, as a `Loader` has them loaded."""

    @property
    def is_remote(self) -> bool:
        """Whether loading a unit waits for a network."""
        ...

    @property
    def residency(self) -> memoryview:
        """One byte for each unit: whether it is kept."""
        ...

    def load(self, unit: int) -> object:
        """Return a unit, loaded if it was not kept."""
        ...


class Loader:
    """The cache, the threads, the buffers and the counts of this process.

    Safe to use from several threads.

    Attributes
    ----------
    generation : int
        Goes up with each fork: what has locks and was made before is not to be used.
    lock : threading.Lock
        For what is made when it is first needed; never held for long.
    """

    def __init__(self) -> None:
        self.cache = UnitCache()
        self.generation = 0
        self._begin = time.monotonic()
        self._renew()

    def __repr__(self) -> str:
        return f"<Loader: {self.cache!r}, {self._threads!r}>"

    def _renew(self) -> None:
        self._threads = LoadingThreads()
        self.measurements = Measurements()
        # Appending and popping are atomic.
        self._workspaces: deque[Workspace] = deque()
        self._fetcher: Fetcher | None = None
        self._disk: DiskCache | None = None
        self._fetching: set[queue.SimpleQueue[Any]] = set()
        self.lock = threading.Lock()

    @contextmanager
    def fetched(self, source: UnitReader, unit: int) -> Iterator[Fetched]:
        """Lend the encoded chunks of a unit of a remote store.

        Raises
        ------
        ChunkError
            When one of them cannot be had.
        """
        answers: queue.SimpleQueue[Fetched | BaseException] = queue.SimpleQueue()
        with self.lock:
            fetcher = self._fetcher = self._fetcher or self._make_fetcher()
            self._fetching.add(answers)

        def give(answer: Fetched | BaseException) -> None:
            answers.put(answer)
            if answers not in self._fetching:
                _give_back(fetcher, answers)

        try:
            fetcher.submit(source, unit, give, urgency=Urgency.REQUEST)
            fetcher.flush()
            answer = answers.get()
        finally:
            with self.lock:
                self._fetching.discard(answers)
            # What comes when the wait was interrupted still counts as on its way.
            _give_back(fetcher, answers)
        if isinstance(answer, BaseException):
            raise answer
        try:
            yield answer
        finally:
            fetcher.release(answer)

    def cache_of(self, store: Store) -> StoreCache | None:
        """Return what is kept on disk of a store, if a directory is named for that."""
        current = settings.current()
        if current.cache_dir is None or not getattr(store, "is_asynchronous", False):
            return None
        if not hasattr(os, "geteuid"):
            return None  # on Windows nobody can tell whether a directory is the user's alone
        from lazyarr.store.cache import DiskCache, StoreCache, place_of
        from lazyarr.store.remote import FsspecStore

        if not isinstance(getattr(store, "inner", store), FsspecStore):
            return None  # references do not tell the versions of what they lead to

        if self._disk is None or self._disk.directory != current.cache_dir:
            self._disk = DiskCache(current.cache_dir, current.cache_limit, complain=report)
        self._disk.limit_nbytes = current.cache_limit
        description = store_reference(store).description
        return StoreCache(self._disk, place_of(description["url"], description["storage_options"]))

    def _make_fetcher(self) -> Fetcher:
        from lazyarr.reading.fetcher import Fetcher

        return Fetcher(
            settings.current().connections,
            failed=self._fail_all,
            on_retry=lambda: self.measurements.count("retries", 1),
        )

    def _fail_all(self, error: BaseException) -> None:
        """Tell everybody who waits of what must not happen."""
        with self.lock:
            for answers in self._fetching:
                answers.put(error)

    @contextmanager
    def workspace(self) -> Iterator[Workspace]:
        """Lend buffers to decode in, those that were used last."""
        try:
            lent = self._workspaces.pop()
        except IndexError:
            lent = Workspace()
        yield lent
        # After an error it is dropped: somebody may hold on to what is in it.
        if len(self._workspaces) < settings.current().threads:
            self._workspaces.append(lent)

    def count_request(self) -> None:
        """Count one reading, of any number of units."""
        arrive()
        self.measurements.count("requests", 1)

    def run(self, stored: Loadable, items: Iterator[Any], do: Callable[[Any], object]) -> None:
        """Do something for items that need units to be loaded, on as many threads as is allowed."""
        first = next(items, None)
        if first is None:
            return
        second = next(items, None)
        if second is None:
            do(first)
            return
        n_threads = settings.current().threads
        if stored.is_remote:
            n_threads = max(n_threads, settings.current().connections)
        self._threads.run(itertools.chain((first, second), items), do, n_threads=n_threads)

    def request(self, stored: Loadable, units: Sequence[Span], /) -> None:
        """Have units loaded, and kept as far as there is room; wait for them.

        Raises
        ------
        ChunkError
            For the first unit that cannot be had; the others are in its notes.
        """
        self.count_request()
        wanted = (unit for span in units for unit in range(*span))
        absent = (unit for unit in wanted if not stored.residency[unit])
        self.run(stored, absent, stored.load)

    def begin_request(self, stored: Loadable, units: Sequence[Span], /) -> None:
        """Load nothing: without a pager no process does it while this one goes on."""

    def statistics(self) -> dict[str, Any]:
        """Return what was counted, as `lazyarr.stats` has it."""
        return {
            "faults": 0,
            "requests": 0,
            **self.cache.counters,
            **self.measurements.counters,
            "resident_bytes": self.cache.resident_nbytes,
            "units_dirty": self.cache.n_dirty,
            "bytes_dirty": self.cache.dirty_nbytes,
            "memory_limit": settings.current().memory_limit,
            "clients": 1,
            "regions": self.cache.n_shelves,
            "pid": os.getpid(),
            "workers_lost": 0,
            "uptime_seconds": time.monotonic() - self._begin,
            "steps": self.measurements.document(),
        }

    def configure(self, changed: settings.Settings) -> None:
        """Keep to settings that have changed."""
        self.cache.trim(changed.memory_limit)
        if self._fetcher is not None:
            self._fetcher.resize(changed.connections)

    def shutdown(self) -> None:
        """End the threads; what is kept stays."""
        self._threads.stop()
        with self.lock:
            fetcher, self._fetcher = self._fetcher, None
        if fetcher is not None:
            fetcher.close()

    def after_fork_in_child(self) -> None:
        """Begin anew: of all threads of the parent the child has one."""
        self.generation += 1
        self.cache.after_fork_in_child()
        self._renew()


def _give_back(fetcher: Fetcher, answers: queue.SimpleQueue[Fetched | BaseException]) -> None:
    """Let go of an answer that nobody has taken."""
    with suppress(queue.Empty):
        answer = answers.get_nowait()
        if not isinstance(answer, BaseException):
            fetcher.release(answer)


loader = Loader()


settings.subscribe(loader.configure)
around_fork(loader.cache.before_fork, loader.cache.after_fork_in_parent)
renew_in_child(loader.after_fork_in_child)
