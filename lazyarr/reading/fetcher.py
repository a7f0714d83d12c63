"""Chunks from remote stores: many at once, neighbours together.

A unit is asked for with `Fetcher.submit`, from any thread; all else happens on the event loop on
which asynchronous stores are read, in one thread.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from lazyarr.reading.read_queue import Backlog, OnFetched, Urgency, Wanted
from lazyarr.reading.scheduler import Dispatcher
from lazyarr.reading.store_reads import StoreReads
from lazyarr.store import event_loop

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from lazyarr.reading.unit_reader import UnitReader
    from lazyarr.reading.workspace import Fetched

__all__ = ["Fetcher", "Urgency"]


class Fetcher:
    """Fetches the encoded chunks of units over the network.

    Parameters
    ----------
    connections : int
        How many requests may be under way at once.
    failed : callable
        Told of an exception that must not happen; must not return before it has seen to it
        that nobody waits.
    on_retry : callable, optional
        Called when a read of several chunks has failed and each is read alone.
    backlog_nbytes : int
        How much may have come and not been released yet before no more is asked for.

    Notes
    -----
    Its methods may be called from any thread, and but for `close` never wait.
    """

    def __init__(
        self,
        connections: int,
        *,
        failed: Callable[[BaseException], None],
        on_retry: Callable[[], None] = lambda: None,
        backlog_nbytes: int = 256 << 20,
    ) -> None:
        self._failed = failed
        self._inbox: deque[Wanted] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reads = StoreReads()
        self._backlog = Backlog(backlog_nbytes)
        self._dispatcher = Dispatcher(
            self._reads, self._backlog, connections, failed=failed, on_retry=on_retry
        )

    def __repr__(self) -> str:
        return f"<Fetcher: {self._dispatcher!r}>"

    def submit(self, source: UnitReader, unit: int, done: OnFetched, *, urgency: Urgency) -> None:
        """Queue a unit, to be fetched after the next `flush`.

        Parameters
        ----------
        source : UnitReader
            Its array.
        unit : int
            Which one.
        done : callable
            Told of the chunks, or of the error, on the event loop: it must not wait.
            `release` must be called when what it was given is not needed any more.
        urgency : Urgency
            Whose turn is first.
        """
        self._inbox.append(Wanted(source, unit, urgency, done))

    def hasten(self, source: UnitReader, unit: int) -> None:
        """Let a unit that is on its way be urgent."""
        self._call(lambda: self._hasten(source, unit))

    def prepare(self, source: UnitReader) -> None:
        """Open a source's store, which may take longer than its first fault should wait."""
        self._call(lambda: self._dispatcher.open(source))

    def flush(self) -> None:
        """Begin to fetch what was submitted: what comes at once is read at once."""
        if self._inbox:
            self._call(self._take_in)

    def release(self, fetched: Fetched) -> None:
        """Take down that chunks are decoded, which may let others be fetched."""
        if self._backlog.release(fetched):
            self._call(self._dispatcher.pump)

    def resize(self, connections: int) -> None:
        """Have another number of requests under way at once."""
        self._dispatcher.connections = connections
        if self._loop is not None:
            self._call(self._dispatcher.pump)

    def close(self) -> None:
        """Let the threads go when they have done what they do; nothing may be under way."""
        self._reads.close()

    def _call(self, function: Callable[[], None]) -> None:
        """Have a function called on the loop, which is found first, in a thread.

        What is imported for that takes longer than a fault may wait.
        """
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._run, function)
            return
        self._reads.submit(lambda: self._begin(function))

    def _begin(self, function: Callable[[], None]) -> None:
        try:
            self._loop = event_loop()
        except BaseException as error:  # noqa: BLE001 - nobody else would hear of it
            self._failed(error)
            return
        self._call(function)

    def _run(self, function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - nobody else would hear of it
            self._failed(error)

    def _take_in(self) -> None:
        self._dispatcher.take_in(self._inbox)

    def _hasten(self, source: UnitReader, unit: int) -> None:
        self._take_in()
        self._dispatcher.hasten(source, unit)
