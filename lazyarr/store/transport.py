"""How bytes are asked of an fsspec file system: what every way can do, and the common one.

fsspec's `cat_file` leaves out what is needed to tell right from wrong: whether a
server gave the range or ignored it, and how large the object is.  So HTTP, S3 and
caches have ways of their own; everything else goes through `cat_file`.

Every method raises what the file system raised; FileNotFoundError means that
the object does not exist, as far as `failure.decode_failure` believes it.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from lazyarr.store.base import Answer
from lazyarr.store.failure import Fault, UnusableAnswerError, decode_failure, too_long

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lazyarr.store.base import Arrived

__all__ = [
    "Answer",
    "AsyncTransport",
    "ConditionalTransport",
    "FsspecTransport",
    "OtherVersionError",
    "Transport",
    "UnconditionalError",
    "class_names",
    "turn_of",
]


class Transport(Protocol):
    """One way to ask a file system for bytes; paths are the file system's own."""

    def fetch(
        self,
        path: str,
        start: int | None = None,
        stop: int | None = None,
        *,
        limit_nbytes: int | None = None,
    ) -> Answer:
        """Return a range of an object, or all of it; less where the object ends before.

        Not much more than `limit_nbytes` are read of an object of which all is asked for;
        with more there is an `UnusableAnswerError`.
        """
        ...

    def fetch_suffix(self, path: str, nbytes: int) -> Answer:
        """Return the last `nbytes` of an object, at least one, and its size."""
        ...

    def size(self, path: str) -> int:
        """Return an object's size in bytes."""
        ...

    def list_paths(self, path: str) -> list[str]:
        """Return the paths directly below a path; those of directories end in a slash."""
        ...


@runtime_checkable
class ConditionalTransport(Protocol):
    """A way that puts an object only where the store has a certain version of it."""

    def put_if(self, path: str, data: bytes, expected: str | None) -> str | None:
        """Put an object as `FsspecTransport.put` does, in place of a version, or of none.

        Raises
        ------
        OtherVersionError
            There is something else.
        UnconditionalError
            The server knows no conditions; nothing was put.
        """
        ...


class OtherVersionError(Exception):
    """The store has another version of an object than was expected."""


class UnconditionalError(Exception):
    """The server knows no conditions for what is put."""


@runtime_checkable
class AsyncTransport(Protocol):
    """A way that can also be gone without a thread that waits, on `asynchronous.event_loop`."""

    async def read(
        self,
        path: str,
        start: int,
        stop: int | None,
        *,
        unless: str | None = None,
        limit_nbytes: int | None = None,
        arrived: Arrived | None = None,
    ) -> Answer:
        """Return ``object[start:stop]``; ``(-n, None)`` are the last `n` bytes.

        `UNCHANGED` when all of it was asked for, unless it is still of a version, and it is.
        `limit_nbytes` as of `Transport.fetch`.  `arrived` may be told of parts of a range.
        """
        ...


# What file systems call what changes with an object, in what they say of it: a generation
# (gcsfs), a tag, a digest, times.
_VERSION_NAMES = (
    *("generation", "ETag", "etag", "md5Hash", "content_md5", "size"),
    *("created", "mtime", "modified", "last_modified", "LastModified", "updated"),
)


class FsspecTransport:
    """The way that every file system has: `cat_file`, `info`, `ls`.

    Parameters
    ----------
    fs : fsspec.AbstractFileSystem
        The file system.
    timeout_seconds : float
        How long one call may take, where the file system is an asynchronous one; others
        have only the time-outs of their own.
    """

    def __init__(self, fs: Any, timeout_seconds: float) -> None:
        self.fs = fs
        # fsspec's mirrored methods take `timeout` for themselves; others would hand
        # it on to the file system.  The class is asked: caches pretend to be what they wrap.
        is_async = "AsyncFileSystem" in class_names(fs)
        self._limit = {"timeout": timeout_seconds} if is_async else {}
        self._turn = turn_of(fs)

    def fetch(
        self,
        path: str,
        start: int | None = None,
        stop: int | None = None,
        *,
        limit_nbytes: int | None = None,
    ) -> Answer:
        """Return a range of an object, or all of it."""
        if stop is None and limit_nbytes is not None:
            return self._fetch_within(path, limit_nbytes)
        with self._turn:
            data = self.fs.cat_file(path, start=start, end=stop, **self._limit)
        return Answer(data, len(data) if stop is None else None)

    def _fetch_within(self, path: str, limit_nbytes: int) -> Answer:
        """Return all of an object, of which no more is asked for than one byte too many."""
        try:
            with self._turn:
                data = self.fs.cat_file(path, start=0, end=limit_nbytes + 1, **self._limit)
        except Exception as error:
            # An empty object has no first byte that a range could begin with.
            if decode_failure(error).fault is not Fault.RANGE or self.size(path):
                raise
            data = b""
        if len(data) > limit_nbytes:
            raise too_long(limit_nbytes)
        return Answer(data, len(data))

    def fetch_suffix(self, path: str, nbytes: int) -> Answer:
        """Return the last bytes of an object, in two calls: size, then range."""
        total = self.size(path)
        start = max(0, total - nbytes)
        return Answer(self.fetch(path, start, total).data if total else b"", total)

    def size(self, path: str) -> int:
        """Return an object's size in bytes."""
        # A listing that fsspec has kept may be older than the object.
        with self._turn:
            self.fs.invalidate_cache(path)
            info = self.fs.info(path, **self._limit)
        if info.get("type") == "directory":
            raise UnusableAnswerError("it is a directory", Fault.DIRECTORY)
        size = info.get("size")
        if not isinstance(size, int):
            found = f"the store does not say how large the object is, it says {size!r}"
            raise UnusableAnswerError(found)
        return size

    def version(self, path: str) -> str:
        """Return what the store tells of an object that differs when its bytes do."""
        with self._turn:
            self.fs.invalidate_cache(path)
            info = self.fs.info(path, **self._limit)
        if info.get("type") == "directory":
            raise UnusableAnswerError("it is a directory", Fault.DIRECTORY)
        return repr([str(info[name]) for name in _VERSION_NAMES if info.get(name) is not None])

    def put(self, path: str, data: bytes) -> str | None:
        """Put a whole object; return its version where that comes without asking."""
        with self._turn:
            self.fs.pipe_file(path, data)
        return None

    def list_paths(self, path: str) -> list[str]:
        """Return the paths directly below a path, as the store knows them now."""
        with self._turn:
            self.fs.invalidate_cache(path)
            entries = self.fs.ls(path, detail=True, **self._limit)
        return [
            str(found["name"]).rstrip("/") + ("/" if found.get("type") == "directory" else "")
            for found in entries
        ]


def class_names(fs: Any) -> frozenset[str]:
    """Return the names of a file system's class and of all its bases, by which it is known."""
    return frozenset(cls.__name__ for cls in type(fs).__mro__)


# Each call opens a file of its own, or takes a lock.
_SAFE = frozenset({"LocalFileSystem", "MemoryFileSystem"})


def turn_of(fs: Any) -> AbstractContextManager[object]:
    """Return what is held during a call of a file system that serves one thread at a time.

    Few of the synchronous ones say whether several threads may call them.  The members of an
    archive share one open file: tarfile moves its position without a lock, and so does zipfile of
    Python 3.13.0 when it seeks.  Then one thread gets the bytes of another, which nothing
    notices where chunks have no checksum.  FTP has one connection.  So each of them is called
    by one thread at a time.  The cost is that requests to such a store do not overlap.

    Parameters
    ----------
    fs : fsspec.AbstractFileSystem
        The file system.  Those that it asks for bytes are found through it.
    """
    # The lock belongs to the file system that needs it, since several may lie around one.
    # fsspec gives one instance to all who use the same options; a child of fork makes its
    # own, so nobody there waits for a thread of the parent.
    slow = (each for each in _chain(fs) if not _is_safe(each))
    locks = {_own(each).setdefault("_lazyarr_turn", threading.RLock()) for each in slow}
    if len(locks) > 1:
        return _AllOf(locks)
    # A lock itself, and no class around it: a signal's handler that raises in between would
    # leave it locked.
    return next(iter(locks), nullcontext())


class _AllOf:
    """Several locks as one, for a file system that asks several (`ReferenceFileSystem`)."""

    def __init__(self, locks: Iterable[threading.RLock]) -> None:
        # In one order everywhere, or two threads could wait for each other.
        self._locks = tuple(sorted(locks, key=id))

    def __enter__(self) -> None:
        for lock in self._locks:
            lock.acquire()

    def __exit__(self, *_: object) -> None:
        for lock in self._locks:
            lock.release()


def _chain(fs: Any) -> Iterator[Any]:
    """Yield a file system and those that it asks for bytes."""
    yield fs
    inner, several = _own(fs).get("fs"), _own(fs).get("fss")
    for each in (inner, *(several.values() if isinstance(several, dict) else ())):
        if each is not None and each is not fs and "AbstractFileSystem" in class_names(each):
            yield from _chain(each)


def _is_safe(fs: Any) -> bool:
    names = class_names(fs)
    return "AsyncFileSystem" in names or not _SAFE.isdisjoint(names)


def _own(fs: Any) -> dict[str, Any]:
    """Return a file system's own attributes; caches pretend to have those of what they wrap."""
    own: dict[str, Any] = object.__getattribute__(fs, "__dict__")
    return own
