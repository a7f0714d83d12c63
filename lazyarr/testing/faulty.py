"""A store that misbehaves, around one that does not."""

from __future__ import annotations

import enum
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from lazyarr.errors import StoreError
from lazyarr.store.base import ANYTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lazyarr.store import WritableStore
    from lazyarr.store.base import Expected, Parts

__all__ = ["Call", "FaultyStore", "Misbehaviour", "random_plan"]


class Misbehaviour(enum.Enum):
    """What can go wrong with one call on a store."""

    SLOW = "slow"  # the right answer, after `slow_seconds`
    DROPPED = "dropped"  # a transient error: the connection broke
    SHORT = "short"  # a read gives one byte less, which no proper store does
    WRONG = "wrong"  # a read gives as many bytes as asked for, the first one flipped
    EMPTY = "empty"  # a read gives no bytes, which no proper store does
    FORBIDDEN = "403"  # a permanent error
    MISSING = "404"  # the store says that there is no such object
    THROTTLED = "429"  # a transient error
    BROKEN = "500"  # a transient error
    UNAVAILABLE = "503"  # a transient error


_ERRORS = {
    Misbehaviour.DROPPED: ("the connection was dropped", True),
    Misbehaviour.FORBIDDEN: ("HTTP 403: forbidden", False),
    Misbehaviour.THROTTLED: ("HTTP 429: too many requests", True),
    Misbehaviour.BROKEN: ("HTTP 500: internal server error", True),
    Misbehaviour.UNAVAILABLE: ("HTTP 503: service unavailable", True),
}


class Call(NamedTuple):
    """One call on a store, and how it was made to go wrong."""

    method: str
    key: str
    misbehaviour: Misbehaviour | None


class _Command:
    def __init__(self, how: Misbehaviour, times: int | None, key: str | None) -> None:
        self.how = how
        self.times = times
        self.key = key


class FaultyStore:
    r"""A store that misbehaves on command, or by a plan.

    Parameters
    ----------
    inner : WritableStore
        The store that answers when nothing goes wrong.
    plan : callable, optional
        Takes a method's name and a key; gives what goes wrong, or None.  See `random_plan`.
        Commands come first.
    slow_seconds : float
        How long `Misbehaviour.SLOW` takes.
    sleep : callable, optional
        What waits.

    Attributes
    ----------
    calls : list of Call
        Every call so far.

    Examples
    --------
    >>> from lazyarr.store import open_store
    >>> store = FaultyStore(open_store("memory://faulty", writable=True))
    >>> store.write("a", b"data")
    >>> store.misbehave(Misbehaviour.WRONG)
    >>> store.read("a"), store.read("a")
    (b'\x9bata', b'data')
    """

    def __init__(
        self,
        inner: WritableStore,
        *,
        plan: Callable[[str, str], Misbehaviour | None] | None = None,
        slow_seconds: float = 0.05,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.inner = inner
        self.calls: list[Call] = []
        self._plan = plan
        self._slow_seconds = slow_seconds
        self._sleep = sleep
        self._lock = threading.Lock()
        self._commands: list[_Command] = []

    @property
    def url(self) -> str:
        """Where the inner store is."""
        return self.inner.url

    def __repr__(self) -> str:
        return f"FaultyStore({self.inner!r}, n_calls={len(self.calls)})"

    def misbehave(
        self, how: Misbehaviour, *, times: int | None = 1, key: str | None = None
    ) -> None:
        """Let the next calls go wrong, after those that were commanded before.

        Parameters
        ----------
        how : Misbehaviour
            What goes wrong.
        times : int or None
            For how many calls; None for all, until `behave`.
        key : str, optional
            Only calls for this key or prefix.
        """
        with self._lock:
            self._commands.append(_Command(how, times, key))

    def behave(self) -> None:
        """Take back all commands, and the plan."""
        with self._lock:
            self._commands.clear()
            self._plan = None

    def read(self, key: str, *, limit_nbytes: int | None = None) -> bytes | None:
        """Return a whole object, or what goes wrong."""
        how = self._begin("read", key)
        data = None
        if how is not Misbehaviour.MISSING:
            data = self.inner.read(key, limit_nbytes=limit_nbytes)
        return None if data is None else _spoil(data, how)

    def read_range(
        self, key: str, start: int, stop: int, *, into: memoryview | None = None
    ) -> memoryview | None:
        """Return a range, or what goes wrong."""
        how = self._begin("read_range", key)
        if how is Misbehaviour.MISSING:
            return None
        view = self.inner.read_range(key, start, stop, into=into)
        if view is None or how is None:
            return view
        data = _spoil(bytes(view), how)
        target = memoryview(bytearray(data)) if into is None else view[: len(data)]
        target[:] = data
        return target

    def read_suffix(self, key: str, nbytes: int) -> tuple[bytes, int] | None:
        """Return a suffix, or what goes wrong."""
        how = self._begin("read_suffix", key)
        found = None if how is Misbehaviour.MISSING else self.inner.read_suffix(key, nbytes)
        return None if found is None else (_spoil(found[0], how), found[1])

    def size(self, key: str) -> int | None:
        """Return an object's size, or what goes wrong."""
        how = self._begin("size", key)
        return None if how is Misbehaviour.MISSING else self.inner.size(key)

    def list_names(self, prefix: str) -> tuple[str, ...]:
        """Return names, or what goes wrong."""
        how = self._begin("list_names", prefix)
        return () if how is Misbehaviour.MISSING else self.inner.list_names(prefix)

    def forget(self, key: str) -> None:
        """Read an object from now on as it is now, if it has been replaced."""
        self.inner.forget(key)

    def rest(self) -> None:
        """Let go of what can be opened again when it is needed."""
        self.inner.rest()

    def borrow(self, key: str) -> None:
        """Return None: an object is no open file here."""

    def write(self, key: str, data: Parts, *, expected: Expected = ANYTHING) -> str | None:
        """Put an object, unless that goes wrong."""
        self._begin("write", key)
        return self.inner.write(key, data, expected=expected)

    def version(self, key: str) -> str | None:
        """Return the version of an object."""
        self._begin("version", key)
        return self.inner.version(key)

    def read_version(self, key: str) -> tuple[bytes, str] | None:
        """Return an object and its version."""
        self._begin("read_version", key)
        return self.inner.read_version(key)

    def delete(self, key: str) -> None:
        """Take an object away, unless that goes wrong."""
        self._begin("delete", key)
        self.inner.delete(key)

    def delete_prefix(self, prefix: str) -> None:
        """Take objects away, unless that goes wrong."""
        self._begin("delete_prefix", prefix)
        self.inner.delete_prefix(prefix)

    def sync(self) -> None:
        """Let what was written outlast a power failure."""
        self.inner.sync()

    def exists_any(self, prefix: str) -> bool:
        """Return whether there is an object, or what goes wrong."""
        how = self._begin("exists_any", prefix)
        return how is not Misbehaviour.MISSING and self.inner.exists_any(prefix)

    def close(self) -> None:
        """Close the inner store."""
        self.inner.close()

    def _begin(self, method: str, key: str) -> Misbehaviour | None:
        with self._lock:
            how = self._commanded(key)
            if how is None and self._plan is not None:
                how = self._plan(method, key)
            self.calls.append(Call(method, key, how))
        if how is Misbehaviour.SLOW:
            self._sleep(self._slow_seconds)
        if how in _ERRORS:
            found, transient = _ERRORS[how]
            message = f"cannot {method} {key!r} in {self.url}: {found}; this is a test"
            raise StoreError(message, url=self.url, key=key, transient=transient)
        return how

    def _commanded(self, key: str) -> Misbehaviour | None:
        for command in self._commands:
            if command.key in (None, key):
                if command.times is not None:
                    command.times -= 1
                    if command.times == 0:
                        self._commands.remove(command)
                return command.how
        return None


def random_plan(
    seed: int, probability: float, among: Sequence[Misbehaviour]
) -> Callable[[str, str], Misbehaviour | None]:
    """Return a plan for `FaultyStore`: each call goes wrong with a probability.

    Parameters
    ----------
    seed : int
        The same seed and the same order of calls give the same failures.
    probability : float
        From 0 to 1.
    among : sequence of Misbehaviour
        What goes wrong, each as often as the others.

    Examples
    --------
    >>> plan = random_plan(1, 1.0, [Misbehaviour.DROPPED])
    >>> plan("read", "a")
    <Misbehaviour.DROPPED: 'dropped'>
    """
    import random

    generator = random.Random(seed)  # noqa: S311 - it is to be repeatable

    def plan(_method: str, _key: str) -> Misbehaviour | None:
        return generator.choice(among) if generator.random() < probability else None

    return plan


def _spoil(data: bytes, how: Misbehaviour | None) -> bytes:
    if how is Misbehaviour.SHORT:
        return data[:-1]
    if how is Misbehaviour.EMPTY:
        return b""
    if how is Misbehaviour.WRONG and data:
        return bytes([data[0] ^ 0xFF]) + data[1:]
    return data
