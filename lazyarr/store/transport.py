"""How bytes are asked of an fsspec file system, and which way suits which one.

fsspec's `cat_file` leaves out what is needed to tell right from wrong: whether a
server gave the range or ignored it, and how large the object is.  So HTTP, S3 and
whole-file caches have ways of their own; everything else goes through `cat_file`.

Every method raises what the file system raised; FileNotFoundError means that
the object does not exist, as far as `failure.decode_failure` believes it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from lazyarr.store.base import Answer
from lazyarr.store.failure import Fault, UnusableAnswerError, decode_failure, too_long

if TYPE_CHECKING:
    from lazyarr.store.base import Arrived

__all__ = ["Answer", "AsyncTransport", "FsspecTransport", "Transport", "choose_transport"]


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
        """Return the paths directly below a path."""
        ...


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
        is_async = "AsyncFileSystem" in _class_names(fs)
        self._limit = {"timeout": timeout_seconds} if is_async else {}

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
        data = self.fs.cat_file(path, start=start, end=stop, **self._limit)
        return Answer(data, len(data) if stop is None else None)

    def _fetch_within(self, path: str, limit_nbytes: int) -> Answer:
        """Return all of an object, of which no more is asked for than one byte too many."""
        try:
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
        self.fs.invalidate_cache(path)
        info = self.fs.info(path, **self._limit)
        if info.get("type") == "directory":
            raise FileNotFoundError(path)
        size = info.get("size")
        if not isinstance(size, int):
            found = f"the store does not say how large the object is, it says {size!r}"
            raise UnusableAnswerError(found)
        return size

    def list_paths(self, path: str) -> list[str]:
        """Return the paths directly below a path, as the store knows them now."""
        self.fs.invalidate_cache(path)
        return [str(p) for p in self.fs.ls(path, detail=False, **self._limit)]


class _CachingTransport(FsspecTransport):
    """Through fsspec's other caches, whose word on what is missing is not taken.

    They ask `exists` first, and that says no to whatever goes wrong
    (fsspec 2026.9, `WholeFileCacheFileSystem._open`).  They are not safe from several
    threads either, and keep half a download as if it were whole.
    """

    def __init__(self, fs: Any, timeout_seconds: float) -> None:
        super().__init__(fs, timeout_seconds)
        self._inner = choose_transport(fs.fs, timeout_seconds)
        self._lock = threading.Lock()

    def fetch(
        self,
        path: str,
        start: int | None = None,
        stop: int | None = None,
        *,
        limit_nbytes: int | None = None,
    ) -> Answer:
        with self._lock:
            wanted = self._inner.size(path) if stop is None else stop - (start or 0)
            # Before the cache downloads it: fsspec would not stop before its end.
            if stop is None and limit_nbytes is not None and wanted > limit_nbytes:
                raise too_long(limit_nbytes)
            try:
                answer = super().fetch(path, start, stop)
                if len(answer.data) < wanted:
                    self.fs.pop_from_cache(path)
            except FileNotFoundError:
                # Raises FileNotFoundError when it is true.
                self._inner.size(path)
                found = "the cache in between says that there is no such object, the store has it"
                raise UnusableAnswerError(found, Fault.TRANSIENT) from None
        return answer

    def size(self, path: str) -> int:
        return self._inner.size(path)

    def list_paths(self, path: str) -> list[str]:
        return self._inner.list_paths(path)


def choose_transport(fs: Any, timeout_seconds: float) -> Transport:
    """Return the way that suits a file system, known by its classes' names."""
    names = _class_names(fs)
    if "AsyncFileSystem" in names and "HTTPFileSystem" in names:
        from lazyarr.store.transport_http import HttpTransport

        return HttpTransport(fs, timeout_seconds)
    if "S3FileSystem" in names:
        from lazyarr.store.transport_s3 import S3Transport

        return S3Transport(fs, timeout_seconds)
    if "SimpleCacheFileSystem" in names and not fs.compression:
        from lazyarr.store.transport_cached import CachedTransport

        return CachedTransport(fs, choose_transport(fs.fs, timeout_seconds))
    if "CachingFileSystem" in names:
        return _CachingTransport(fs, timeout_seconds)
    return FsspecTransport(fs, timeout_seconds)


def _class_names(fs: Any) -> frozenset[str]:
    return frozenset(cls.__name__ for cls in type(fs).__mro__)
