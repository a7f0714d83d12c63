"""The settings of a pager, applied to its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazyarr.pager.checking import Limits, read_settings
from lazyarr.pager.log import report
from lazyarr.pager.service.region_opening import open_region
from lazyarr.plan import messages as m
from lazyarr.reading.rotation import Rotation

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.layout.geometry import Geometry
    from lazyarr.pager.measure import Measurements
    from lazyarr.pager.memory.clients import Arena, Region
    from lazyarr.pager.service.neighbours import Neighbours
    from lazyarr.pager.work.executor import Executor
    from lazyarr.reading.fetcher import Fetcher
    from lazyarr.store.cache import DiskCache
    from lazyarr.wire.messages import OpenRegion

__all__ = ["Policy"]


class Policy:
    """The settings that were set last, which hold for all clients of a pager.

    Parameters
    ----------
    executor : Executor
        Gets the limits of memory, threads and connections.
    measurements : Measurements
        Counts bytes that regions fetch, and reads that they repeat.
    failed : callable
        Is given an error after which a fetcher cannot go on.

    Attributes
    ----------
    settings : dict
        The settings as a client has sent them; empty until one has.
    """

    def __init__(
        self,
        executor: Executor,
        measurements: Measurements,
        *,
        failed: Callable[[BaseException], None],
    ) -> None:
        self.settings: dict[str, Any] = {}
        self._executor = executor
        self._measurements = measurements
        self._failed = failed
        self._rotation = Rotation()
        self._connections = 1
        self._timeout_seconds = 60.0
        self._retries = 0
        self._cache: DiskCache | None = None
        self._own_limit = self._shared_limit = 0
        self._neighbours: Neighbours | None = None

    def __repr__(self) -> str:
        return f"<Policy: {self.settings}>"

    @property
    def limits(self) -> tuple[object, ...]:
        """The settings under which a region is opened now."""
        # A region keeps the settings that it was opened under.  So an opening under others
        # does not share it: its errors would come after another time-out.
        return self._timeout_seconds, self._retries, self._cache

    def apply(self, settings: dict[str, Any]) -> Limits:
        """Let settings hold for all clients from now on; return them, checked."""
        # Raises before anything is changed.
        limits = read_settings(settings)
        self.settings = settings
        self._timeout_seconds = limits.timeout_seconds
        self._retries = limits.retries
        limit = m.LimitChanged(limits.memory_limit)
        self._executor.handle([limit, m.ReadaheadChanged(limits.readahead)])
        self._own_limit, self._shared_limit = limits.memory_limit, limits.shared_limit
        self._executor.loads.threads.resize(limits.threads)
        self._executor.loads.decoders.resize(limits.threads)
        self._connections = limits.connections
        self._executor.loads.resize_fetcher(limits.connections)
        if limits.cache_dir is None:
            self._cache = None
        else:
            # Imported here: most pagers have no cache on disk.
            from lazyarr.store.cache import DiskCache

            # The same object as long as the directory is the same: `limits` compares
            # it, and regions that were opened before go on to be shared.
            if self._cache is None or self._cache.directory != limits.cache_dir:
                self._cache = DiskCache(limits.cache_dir, limits.cache_limit, complain=report)
            self._cache.limit_nbytes = limits.cache_limit
        return limits

    def update_shared_limit(self) -> None:
        """Let this pager hold its part of the memory that all pagers of this user share.

        Called often; looks at the other pagers only now and then.
        """
        if self._neighbours is None:
            # Imported here: the first fault does not wait for it.
            from lazyarr.pager.service.neighbours import Neighbours

            self._neighbours = Neighbours()
        if self._neighbours.begin():
            # A job of the threads: reading /proc takes milliseconds, in which nobody
            # would listen.
            self._executor.loads.threads.add(lambda _: self._apply_share(), urgent=False)

    def _apply_share(self) -> None:
        """Find out this pager's part of the shared limit, and make it the machine's limit."""
        assert self._neighbours is not None
        shared_nbytes, held_nbytes = self._shared_limit, self._executor.machine.held_nbytes
        part_nbytes = self._neighbours.part_of(shared_nbytes, held_nbytes)
        # A client may have set another limit while /proc was read.
        if shared_nbytes and shared_nbytes == self._shared_limit:
            self._executor.handle([m.LimitChanged(min(part_nbytes, self._own_limit))])

    def make_fetcher(self) -> Fetcher:
        """Return a fetcher, which reads from remote stores."""
        # Imported here: the first fault of a local array would wait for it.
        from lazyarr.reading.fetcher import Fetcher

        def count() -> None:
            self._measurements.count("retries", 1)

        return Fetcher(self._connections, failed=self._failed, on_retry=count)

    def spare_descriptors(self) -> None:
        """Close the files that are kept open for later reads; they are opened again when needed."""
        self._rotation.rest_all()

    def open_region(
        self, message: OpenRegion, descriptors: tuple[int, ...], arena: Arena
    ) -> tuple[Region, Geometry]:
        """Open a region as `region_opening.open_region` does, under the settings that hold now."""
        return open_region(
            message,
            descriptors,
            arena,
            timeout_seconds=self._timeout_seconds,
            retries=self._retries,
            count=self._measurements.count,
            share=self._executor.loads.share,
            rotation=self._rotation,
            cache=self._cache,
        )
