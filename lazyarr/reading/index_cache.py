"""The shard indexes of one array, kept between reads."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.layout import ShardIndex

__all__ = ["IndexCache"]

_Default = TypeVar("_Default")


class _Fetch:
    """An index on its way, and the threads that wait for it."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.index: ShardIndex | None = None
        self.error: BaseException | None = None

    def result(self) -> ShardIndex | None:
        """Wait for the index, or for the error that it ended in."""
        self.ended.wait()
        if self.error is not None:
            raise self.error
        return self.index


class IndexCache:
    """Shard indexes, each fetched once, the least recently used dropped first.

    Safe to use from several threads.

    Parameters
    ----------
    limit_nbytes : int
        How much may be kept; the last one is in any case.
    """

    def __init__(self, limit_nbytes: int = 64 << 20) -> None:
        self._limit_nbytes = limit_nbytes
        self._lock = threading.Lock()
        self._indexes: OrderedDict[tuple[object, ...], ShardIndex | None] = OrderedDict()
        self._fetching: dict[tuple[object, ...], _Fetch] = {}
        self._nbytes = 0

    def __repr__(self) -> str:
        return f"<IndexCache: {len(self._indexes)} indexes, {self._nbytes} bytes>"

    @overload
    def known(self, key: tuple[object, ...]) -> ShardIndex | None: ...
    @overload
    def known(self, key: tuple[object, ...], default: _Default) -> ShardIndex | _Default | None: ...
    def known(self, key: tuple[object, ...], default: object = None) -> object:
        """Return an index that is here, or None if there is known to be none; else `default`."""
        with self._lock:
            if key in self._indexes:
                self._indexes.move_to_end(key)
            return self._indexes.get(key, default)

    def get(
        self, key: tuple[object, ...], fetch: Callable[[], ShardIndex | None]
    ) -> ShardIndex | None:
        """Return an index, fetched by one thread while others that want it wait.

        They share its error too: one after the other would each wait for a
        time-out of its own.
        """
        with self._lock:
            if key in self._indexes:
                self._indexes.move_to_end(key)
                return self._indexes[key]
            under_way = self._fetching.get(key)
            if under_way is None:
                mine = self._fetching[key] = _Fetch()
        if under_way is not None:
            return under_way.result()
        try:
            mine.index = fetch()
            self.put(key, mine.index)
        except BaseException as error:
            mine.error = error
            raise
        finally:
            with self._lock:
                del self._fetching[key]
            mine.ended.set()
        return mine.index

    def put(self, key: tuple[object, ...], index: ShardIndex | None) -> None:
        """Keep an index; None when it is known that there is none."""
        with self._lock:
            if key in self._indexes:
                self._nbytes -= _index_nbytes(self._indexes.pop(key))
            self._indexes[key] = index
            self._nbytes += _index_nbytes(index)
            while self._nbytes > self._limit_nbytes and len(self._indexes) > 1:
                _, dropped = self._indexes.popitem(last=False)
                self._nbytes -= _index_nbytes(dropped)

    def forget(self, key: tuple[object, ...]) -> None:
        """Forget an index, if it is here: its object has been replaced."""
        with self._lock:
            if key in self._indexes:
                self._nbytes -= _index_nbytes(self._indexes.pop(key))

    def clear(self) -> None:
        """Forget every index: one of them may be what is wrong."""
        with self._lock:
            self._indexes.clear()
            self._nbytes = 0


def _index_nbytes(index: ShardIndex | None) -> int:
    return 64 if index is None else 64 + index.nbytes
