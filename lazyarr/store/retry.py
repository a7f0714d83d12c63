"""When to try again, and a store that does.

The decision is a value in, value out function; the store around it sleeps.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, TypeVar, cast

from lazyarr.errors import StoreError
from lazyarr.store.base import ANYTHING, list_directories
from lazyarr.store.local import LocalStore
from lazyarr.store.stamps import is_unchanged
from lazyarr.values import Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.store.base import (
        Answer,
        Arrived,
        AsyncStore,
        Expected,
        Parts,
        Store,
        WritableStore,
    )
    from lazyarr.store.descriptors import BorrowedFile

__all__ = ["RetryPolicy", "RetryingStore"]

_Result = TypeVar("_Result")


class RetryPolicy(Value):
    """How often and how long a failed call is tried again.

    Attributes
    ----------
    retries : int
        How many times after the first attempt.
    timeout_seconds : float
        No attempt begins later than this after the first one began.
    first_delay_seconds, longest_delay_seconds : float
        The delay doubles from the one up to the other.

    Examples
    --------
    >>> policy = RetryPolicy(retries=2, timeout_seconds=60)
    >>> policy.delay_seconds(1, elapsed_seconds=0, transient=True, jitter=1)
    0.1
    >>> policy.delay_seconds(2, elapsed_seconds=0.1, transient=True, jitter=1)
    0.2
    >>> policy.delay_seconds(3, elapsed_seconds=0.3, transient=True, jitter=1) is None
    True
    """

    retries: int = 5
    timeout_seconds: float = 60.0
    first_delay_seconds: float = 0.1
    longest_delay_seconds: float = 10.0

    def delay_seconds(
        self, failures: int, *, elapsed_seconds: float, transient: bool, jitter: float
    ) -> float | None:
        """Return how long to wait before the next attempt; None to give up.

        Parameters
        ----------
        failures : int
            How many attempts have failed so far, 1 or more.
        elapsed_seconds : float
            Since the first attempt began.
        transient : bool
            Whether the last failure may pass by itself.
        jitter : float
            Anything from 0 to 1.  It takes up to half of the delay away, so that
            many readers that were throttled together do not return together.
        """
        if not transient or failures > self.retries:
            return None
        # min() of the exponent: a float overflows at 2.0**1024.
        delay = self.first_delay_seconds * 2.0 ** min(failures - 1, 60)
        delay = min(delay, self.longest_delay_seconds) * (0.5 + 0.5 * jitter)
        if elapsed_seconds + delay > self.timeout_seconds:
            return None
        return delay


class RetryingStore:
    """A store around another that tries failed calls again.

    Parameters
    ----------
    inner : Store or WritableStore
        The store that does the work.  It is closed with this one.
    policy : RetryPolicy
        When to try again.
    sleep : callable, optional
        Takes seconds.  One that raises ends the attempts.
    clock : callable, optional
        Gives seconds.
    jitter : callable, optional
        Gives a number from 0 to 1 for each delay.
    on_retry : callable, optional
        Called before each delay with the error and the delay in seconds, from the
        thread that made the call.

    Notes
    -----
    Safe from several threads when `inner` is; it keeps no state of its own.
    The last error is raised as it came.
    """

    def __init__(
        self,
        inner: Store,
        policy: RetryPolicy,
        *,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] | None = None,
        on_retry: Callable[[StoreError, float], object] | None = None,
    ) -> None:
        self.inner = inner
        self.policy = policy
        self._sleep = sleep
        self._clock = clock
        self._jitter = jitter or _random_jitter
        self._on_retry = on_retry

    @property
    def url(self) -> str:
        """Where the inner store is, without credentials."""
        return self.inner.url

    def __repr__(self) -> str:
        return f"RetryingStore({self.inner!r}, retries={self.policy.retries})"

    def read(self, key: str, *, limit_nbytes: int | None = None) -> bytes | None:
        """Return a whole object; None when it does not exist."""
        return self._call(lambda: self.inner.read(key, limit_nbytes=limit_nbytes))

    def read_range(
        self, key: str, start: int, stop: int, *, into: memoryview | None = None
    ) -> memoryview | None:
        """Return exactly ``stop - start`` bytes; None when the object does not exist."""
        return self._call(lambda: self.inner.read_range(key, start, stop, into=into))

    def read_suffix(self, key: str, nbytes: int) -> tuple[bytes, int] | None:
        """Return the last `nbytes` and the object's size; None when it does not exist."""
        return self._call(lambda: self.inner.read_suffix(key, nbytes))

    def size(self, key: str) -> int | None:
        """Return an object's size in bytes; None when it does not exist."""
        return self._call(lambda: self.inner.size(key))

    def list_names(self, prefix: str) -> tuple[str, ...]:
        """Return the sorted names of what lies directly below a prefix."""
        return self._call(lambda: self.inner.list_names(prefix))

    def list_directories(self, prefix: str) -> tuple[str, ...]:
        """Return the sorted names of what lies directly below a prefix and is no object."""
        return self._call(lambda: list_directories(self.inner, prefix))

    def forget(self, key: str) -> None:
        """Read an object from now on as it is now, if it has been replaced."""
        self.inner.forget(key)

    def rest(self) -> None:
        """Let go of what can be opened again when it is needed: descriptors."""
        self.inner.rest()

    def borrow(self, key: str) -> BorrowedFile | None:
        """Return an object as a file, if it is one and open already, to be released; else None."""
        return self.inner.borrow(key)

    @property
    def local(self) -> LocalStore | None:
        """The directory that is read; None for stores of other kinds."""
        return self.inner if isinstance(self.inner, LocalStore) else None

    @property
    def pinned(self) -> dict[str, Any] | None:
        """Storage options that mean this very version of the store; None where there is one."""
        return getattr(self.inner, "pinned", None)

    @property
    def kind(self) -> str:
        """What the store is, for those who look at it; "" for one whose objects are as they are."""
        kind: str = getattr(self.inner, "kind", "")
        return kind

    def is_unchanged(self) -> bool:
        """Return whether every object that was read is certainly what it was."""
        return is_unchanged(self.inner)

    def write(self, key: str, data: Parts, *, expected: Expected = ANYTHING) -> str | None:
        """Put a whole object; putting it twice is the same as once."""
        return self._call(lambda: self._writable.write(key, data, expected=expected))

    def version(self, key: str) -> str | None:
        """Return what differs as soon as a byte of the object does."""
        return self._call(lambda: self._writable.version(key))

    def read_version(self, key: str) -> tuple[bytes, str] | None:
        """Return a whole object and its version; None when it does not exist."""
        return self._call(lambda: self._writable.read_version(key))

    def delete(self, key: str) -> None:
        """Take an object away; nothing happens when there is none."""
        self._call(lambda: self._writable.delete(key))

    def delete_prefix(self, prefix: str) -> None:
        """Take away the object at a prefix and everything below it."""
        self._call(lambda: self._writable.delete_prefix(prefix))

    def list_keys(self, prefix: str) -> tuple[str, ...]:
        """Return the sorted keys of all objects below a prefix, of stores that have no files."""
        inner: Any = self.inner
        return self._call(lambda: inner.list_keys(prefix))

    def exists_any(self, prefix: str) -> bool:
        """Return whether there is an object at a prefix or anywhere below it."""
        return self._call(lambda: self._writable.exists_any(prefix))

    def sync(self) -> None:
        """Let what was written before outlast a power failure."""
        self._call(lambda: self._writable.sync())

    def close(self) -> None:
        """Close the inner store."""
        self.inner.close()

    @property
    def _writable(self) -> WritableStore:
        if not hasattr(self.inner, "write"):
            message = f"cannot write to {self.url}: this kind of store is for reading only"
            raise StoreError(message, url=self.url, key=None, transient=False)
        return cast("WritableStore", self.inner)

    @property
    def is_asynchronous(self) -> bool:
        """Whether `fetch` may be used."""
        return getattr(self.inner, "is_asynchronous", False)

    async def fetch(
        self,
        key: str,
        start: int,
        stop: int | None,
        *,
        unless: str | None = None,
        limit_nbytes: int | None = None,
        arrived: Arrived | None = None,
    ) -> Answer | None:
        """Return ``object[start:stop]``; see `AsyncStore`."""
        # Imported here: opening a local store does not need it.
        import asyncio

        inner = cast("AsyncStore", self.inner)
        started, failures = self._clock(), 0
        while True:
            try:
                return await inner.fetch(
                    key, start, stop, unless=unless, limit_nbytes=limit_nbytes, arrived=arrived
                )
            except StoreError as error:
                failures += 1
                delay = self._delay_or_raise(error, failures, started)
            await asyncio.sleep(delay)

    def _call(self, attempt: Callable[[], _Result]) -> _Result:
        started, failures = self._clock(), 0
        while True:
            try:
                return attempt()
            except StoreError as error:
                failures += 1
                delay = self._delay_or_raise(error, failures, started)
            # Outside of the handler: the error and its frames are let go before the wait.
            self._sleep(delay)

    def _delay_or_raise(self, error: StoreError, failures: int, started: float) -> float:
        """Return how long to wait before the next attempt; raise the error to give up."""
        delay = self.policy.delay_seconds(
            failures,
            elapsed_seconds=self._clock() - started,
            transient=error.transient,
            jitter=self._jitter(),
        )
        if delay is None:
            raise error
        if self._on_retry is not None:
            self._on_retry(error, delay)
        return delay


def _random_jitter() -> float:
    # Nothing is imported for it: what failed may have failed for want of descriptors.
    return int.from_bytes(os.urandom(2)) / 0xFFFF
