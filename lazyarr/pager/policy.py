"""The settings that a pager goes by, and what follows from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazyarr.loading.rotation import Rotation
from lazyarr.pager.checking import Limits, read_settings
from lazyarr.pager.log import report
from lazyarr.pager.opening import open_region
from lazyarr.plan import messages as m

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.loading.fetching import Fetcher
    from lazyarr.pager.clients import Arena, Region
    from lazyarr.pager.executor import Executor
    from lazyarr.pager.measure import Measurements
    from lazyarr.plan.geometry import Geometry
    from lazyarr.store.cache import DiskCache
    from lazyarr.wire.messages import OpenRegion

__all__ = ["Policy"]


class Policy:
    """What holds for all clients of a pager: what was set last.

    Parameters
    ----------
    executor : Executor
        Is told of limits; its crew too.
    measurements : Measurements
        Counts what regions fetch and try again.
    failed : callable
        Is given what a fetcher can not go on after.

    Attributes
    ----------
    settings : dict
        As a client has sent them; empty until one has.
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

    def __repr__(self) -> str:
        return f"<Policy: {self.settings}>"

    @property
    def limits(self) -> tuple[object, ...]:
        """What a region that is opened now is opened under."""
        return self._timeout_seconds, self._retries, self._cache

    def go_by(self, settings: dict[str, Any]) -> Limits:
        """Let settings hold for all clients from now on; return them, checked."""
        limits = read_settings(settings)
        self.settings = settings
        self._timeout_seconds = limits.timeout_seconds
        self._retries = limits.retries
        limit = m.LimitChanged(limits.memory_limit)
        self._executor.handle([limit, m.ReadaheadChanged(limits.readahead)])
        self._executor.loads.crew.resize(limits.threads)
        self._executor.loads.decoders.resize(limits.threads)
        self._connections = limits.connections
        self._executor.loads.resize_fetcher(limits.connections)
        if limits.cache_dir is None:
            self._cache = None
        else:
            # Imported here: most pagers keep nothing.
            from lazyarr.store.cache import DiskCache

            if self._cache is None or self._cache.directory != limits.cache_dir:
                self._cache = DiskCache(limits.cache_dir, limits.cache_limit, complain=report)
            self._cache.limit_nbytes = limits.cache_limit
        return limits

    def make_fetcher(self) -> Fetcher:
        """Return what fetches from remote stores."""
        # Not at the top: the first fault of a local array would wait for it.
        from lazyarr.loading.fetching import Fetcher

        def count() -> None:
            self._measurements.count("retries", 1)

        return Fetcher(self._connections, failed=self._failed, on_retry=count)

    def open_region(
        self, message: OpenRegion, descriptors: tuple[int, ...], arena: Arena
    ) -> tuple[Region, Geometry]:
        """Return a region as `opening.open_region` does, under what holds now."""
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
