"""Reads of an array's store on the event loop, and of what was kept of it on disk."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from lazyarr.store import METADATA_LIMIT_NBYTES, UNCHANGED, event_loop, fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import ThreadPoolExecutor

    from lazyarr.reading.locator import ObjectRange
    from lazyarr.reading.unit_reader import UnitReader
    from lazyarr.store import Answer, Arrived
    from lazyarr.store.cache import Kept

__all__ = ["StoreReads"]


class StoreReads:
    """What a fetcher asks stores and caches; all but `submit` and `close` on the event loop.

    Stores that can only block, and files, are read in threads.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._confirming: dict[UnitReader, asyncio.Task[bool]] = {}

    def __repr__(self) -> str:
        return f"<StoreReads: {'no' if self._pool is None else 'some'} threads>"

    @property
    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            # Imported here: pagers of local stores do without.
            from concurrent.futures import ThreadPoolExecutor

            # Threads are started one by one when there is work for them: never more than
            # there are requests under way.
            self._pool = ThreadPoolExecutor(1 << 16, "pager-fetch")
        return self._pool

    def submit(self, function: Callable[[], None]) -> None:
        """Have a thread do something, from any thread."""
        self._threads.submit(function)

    def close(self) -> None:
        """Wait for the threads to end; nothing may be under way."""
        if self._pool is not None:
            self._pool.shutdown()

    async def open(self, source: UnitReader) -> None:
        """Open a source's store; raises what that raises."""
        await event_loop().run_in_executor(self._threads, source.open)

    async def fetch(
        self,
        source: UnitReader,
        place: ObjectRange,
        *,
        retry: bool = True,
        unless: str | None = None,
        arrived: Arrived | None = None,
    ) -> Answer | None:
        """Ask the store, and take down of which version its answer is; None for no object."""
        begun = source.link.begin(time.monotonic())
        answer = await fetch(
            source.store,
            *place,
            threads=self._threads,
            retry=retry,
            unless=unless,
            limit_nbytes=source.finder.limit_nbytes,
            arrived=arrived,
        )
        nbytes = answer.fetched_nbytes if answer is not None else 0
        source.link.end(begun, nbytes, time.monotonic())
        if answer is None:
            await self._confirm(source)
        if source.cache is not None and answer is not UNCHANGED:
            source.cache.note(place.key, None if answer is None else answer.version)
        return answer

    async def _confirm(self, source: UnitReader) -> None:
        """Raise StoreError when not only a chunk is missing (see `ChunkReader`)."""
        stored = source.stored
        if stored.is_confirmed:
            return
        confirming = self._confirming.get(source)
        if confirming is None:
            confirming = self._confirming[source] = event_loop().create_task(self._look(source))
        if not await asyncio.shield(confirming):
            raise stored.vanished()

    async def _look(self, source: UnitReader) -> bool:
        """Return whether the store has the array."""
        try:
            for key in source.stored.witnesses:
                document = await fetch(
                    source.store,
                    *(key, 0, None),
                    threads=self._threads,
                    limit_nbytes=METADATA_LIMIT_NBYTES,
                )
                if document is not None:
                    source.stored.confirm()
                    return True
            return False
        finally:
            del self._confirming[source]

    async def read_disk_cache(
        self, source: UnitReader, places: Sequence[ObjectRange]
    ) -> list[Kept | None]:
        """Return what was kept on disk of some places, None for each of which nothing was."""
        cache = source.cache
        if cache is None:
            return [None] * len(places)
        return await event_loop().run_in_executor(
            self._threads, lambda: [cache.recall(*place) for place in places]
        )

    async def write_disk_cache(
        self,
        source: UnitReader,
        chunks: Sequence[tuple[ObjectRange, memoryview]],
        version: str | None,
    ) -> None:
        """Write to disk what was fetched, if its version is known."""
        cache = source.cache
        if cache is None or version is None:
            return

        def write() -> None:
            for place, data in chunks:
                cache.keep(*place, data, version)

        await event_loop().run_in_executor(self._threads, write)
