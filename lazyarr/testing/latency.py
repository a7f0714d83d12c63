"""A store whose every answer takes longer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lazyarr.store.base import ANYTHING

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.store import WritableStore
    from lazyarr.store.base import Expected, Parts

__all__ = ["LatencyStore"]


class LatencyStore:
    """A store whose every answer takes longer.

    Parameters
    ----------
    inner : WritableStore
        The store that answers.
    seconds : float
        How much longer.
    sleep : callable, optional
        What waits.

    Examples
    --------
    >>> from lazyarr.store import open_store
    >>> store = LatencyStore(open_store("memory://latency"), seconds=0.01)
    >>> store.read("not-there") is None
    True
    """

    def __init__(
        self,
        inner: WritableStore,
        *,
        seconds: float,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.inner = inner
        self.seconds = seconds
        self._sleep = sleep

    @property
    def url(self) -> str:
        """Where the inner store is."""
        return self.inner.url

    def __repr__(self) -> str:
        return f"LatencyStore({self.inner!r}, seconds={self.seconds})"

    def read(self, key: str, *, limit_nbytes: int | None = None) -> bytes | None:
        """Return a whole object, later."""
        self._sleep(self.seconds)
        return self.inner.read(key, limit_nbytes=limit_nbytes)

    def read_range(
        self, key: str, start: int, stop: int, *, into: memoryview | None = None
    ) -> memoryview | None:
        """Return a range, later."""
        self._sleep(self.seconds)
        return self.inner.read_range(key, start, stop, into=into)

    def read_suffix(self, key: str, nbytes: int) -> tuple[bytes, int] | None:
        """Return a suffix, later."""
        self._sleep(self.seconds)
        return self.inner.read_suffix(key, nbytes)

    def size(self, key: str) -> int | None:
        """Return an object's size, later."""
        self._sleep(self.seconds)
        return self.inner.size(key)

    def list_names(self, prefix: str) -> tuple[str, ...]:
        """Return names, later."""
        self._sleep(self.seconds)
        return self.inner.list_names(prefix)

    def forget(self, key: str) -> None:
        """Read an object from now on as it is now, if it has been replaced."""
        self.inner.forget(key)

    def rest(self) -> None:
        """Let go of what can be opened again when it is needed."""
        self.inner.rest()

    def borrow(self, key: str) -> None:
        """Return None: an object is no open file here."""

    def write(self, key: str, data: Parts, *, expected: Expected = ANYTHING) -> str | None:
        """Put an object, later."""
        self._sleep(self.seconds)
        return self.inner.write(key, data, expected=expected)

    def version(self, key: str) -> str | None:
        """Return the version of an object."""
        self._sleep(self.seconds)
        return self.inner.version(key)

    def read_version(self, key: str) -> tuple[bytes, str] | None:
        """Return an object and its version."""
        self._sleep(self.seconds)
        return self.inner.read_version(key)

    def delete(self, key: str) -> None:
        """Take an object away, later."""
        self._sleep(self.seconds)
        self.inner.delete(key)

    def delete_prefix(self, prefix: str) -> None:
        """Take objects away, later."""
        self._sleep(self.seconds)
        self.inner.delete_prefix(prefix)

    def sync(self) -> None:
        """Let what was written outlast a power failure."""
        self.inner.sync()

    def exists_any(self, prefix: str) -> bool:
        """Return whether there is an object, later."""
        self._sleep(self.seconds)
        return self.inner.exists_any(prefix)

    def close(self) -> None:
        """Close the inner store."""
        self.inner.close()
