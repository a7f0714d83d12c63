"""Reading without a thread that waits, where a store can.

fsspec keeps one event loop, in a thread of its own, on which its HTTP and S3 file systems
live.  To hand it a read from another thread and to wait there for the answer takes half as
much of the processor again as the read itself, so whoever has many reads under way does them on
that loop.  Stores that can only block are read from threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from lazyarr.store.base import Answer
from lazyarr.store.retry import RetryingStore

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Executor

    from lazyarr.store.base import Arrived, AsyncStore, Store

__all__ = ["event_loop", "fetch"]


def event_loop() -> asyncio.AbstractEventLoop:
    """Return the loop on which asynchronous stores are read; it runs in a thread of fsspec's."""
    from fsspec.asyn import get_loop

    loop: asyncio.AbstractEventLoop = get_loop()
    return loop


async def fetch(
    store: Store,
    key: str,
    start: int,
    stop: int | None,
    *,
    threads: Executor,
    retry: bool = True,
    unless: str | None = None,
    limit_nbytes: int | None = None,
    arrived: Arrived | None = None,
) -> Answer | None:
    """Return ``object[start:stop]`` of any store, as `AsyncStore.fetch` does.

    Parameters
    ----------
    store : Store
        Where from.
    key : str
        The object.
    start, stop : int, int or None
        As of `AsyncStore.fetch`.
    threads : Executor
        Where a store is read that can only block.
    retry : bool
        Whether a store that tries again may do so.
    unless, limit_nbytes, arrived : str, int, callable, optional
        As of `AsyncStore.fetch`.
    """
    while not retry and isinstance(store, RetryingStore):
        store = store.inner
    if getattr(store, "is_asynchronous", False):
        fetch_now = cast("AsyncStore", store).fetch
        return await fetch_now(
            key, start, stop, unless=unless, limit_nbytes=limit_nbytes, arrived=arrived
        )
    loop = event_loop()
    return await loop.run_in_executor(
        threads, _fetch_blocking, store, key, start, stop, limit_nbytes
    )


def _fetch_blocking(
    store: Store, key: str, start: int, stop: int | None, limit_nbytes: int | None
) -> Answer | None:
    if start < 0:
        suffix = store.read_suffix(key, -start)
        return None if suffix is None else Answer(*suffix)
    if stop is not None:
        part = store.read_range(key, start, stop)
        return None if part is None else Answer(part, None)
    whole = store.read(key, limit_nbytes=limit_nbytes)
    return None if whole is None else Answer(whole, len(whole))
