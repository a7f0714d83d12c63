"""fsspec's caches: ``simplecache::``, which keeps whole objects as local files, and others."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from lazyarr.store import files
from lazyarr.store.failure import Fault, UnusableAnswerError, too_long
from lazyarr.store.transport import Answer, FsspecTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.store.transport import Transport

    _Choice = Callable[[int], tuple[int, int]]
    """From an object's size to the range of it that is wanted."""

__all__ = ["CachedTransport", "CachingTransport"]


class CachedTransport:
    """Reads through the directory of an fsspec SimpleCacheFileSystem, never half of an object.

    fsspec downloads straight into the file that it later takes for the
    whole object, so a connection that drops leaves half an object in the cache for
    good, and another thread reads it while it grows.  Before, it asks `exists`,
    which answers no to whatever goes wrong (fsspec 2026.9,
    `SimpleCacheFileSystem._open`).  Here the object is fetched by the inner
    transport, written beside, and renamed: the same files, also for others that use
    the directory.

    Parameters
    ----------
    fs : fsspec.implementations.cached.SimpleCacheFileSystem
        Whose names and directories are used.
    inner : Transport
        Where objects come from.
    """

    def __init__(self, fs: Any, inner: Transport) -> None:
        self.fs = fs
        self._inner = inner
        self._lock = threading.Lock()
        self._downloads: dict[str, threading.Lock] = {}

    def fetch(
        self,
        path: str,
        start: int | None = None,
        stop: int | None = None,
        *,
        limit_nbytes: int | None = None,
    ) -> Answer:
        """Return a range of an object, or all of it, after fetching all of it once."""

        def choose(total: int) -> tuple[int, int]:
            if stop is None and limit_nbytes is not None and total > limit_nbytes:
                raise too_long(limit_nbytes)
            return start or 0, total if stop is None else stop

        data = self._read(path, choose, limit_nbytes if stop is None else None).data
        # How long the copy is, is no proof of how long the object is.
        return Answer(data, None)

    def fetch_suffix(self, path: str, nbytes: int) -> Answer:
        """Return the last bytes of an object and its size."""
        return self._read(path, lambda total: (max(0, total - nbytes), total))

    def size(self, path: str) -> int:
        """Return an object's size in bytes, as the store says it.

        Raises
        ------
        UnusableAnswerError
            When the cached copy is shorter; the copy is removed.
        """
        total = self._inner.size(path)
        cached = self._cached_file(path)
        if cached is not None and os.stat(cached).st_size < total:
            os.unlink(cached)
            found = f"the copy in the cache was shorter than the object's {total} bytes"
            raise UnusableAnswerError(found, Fault.TRANSIENT)
        return total

    def list_paths(self, path: str) -> list[str]:
        """Return the paths directly below a path; listings are not cached."""
        return self._inner.list_paths(path)

    def _read(self, path: str, choose: _Choice, limit_nbytes: int | None = None) -> Answer:
        answer = self._read_cached(path, choose)
        if answer is not None:
            return answer
        with self._lock:
            download = self._downloads.setdefault(path, threading.Lock())
        # The threads that wanted the same object meanwhile find it in the directory.
        with download:
            answer = self._read_cached(path, choose)
            if answer is None:
                data = self._download(path, limit_nbytes)
                start, stop = choose(len(data))
                answer = Answer(data[start:stop], len(data))
        with self._lock:
            self._downloads.pop(path, None)
        return answer

    def _read_cached(self, path: str, choose: _Choice) -> Answer | None:
        cached = self._cached_file(path)
        if cached is None:
            return None
        try:
            fd = os.open(cached, files.READ_FLAGS)
        except FileNotFoundError:
            return None  # somebody has emptied the cache in between
        try:
            total = os.fstat(fd).st_size
            start, stop = choose(total)
            target = bytearray(max(0, min(stop, total) - start))
            n_read = files.pread_into(fd, memoryview(target), start)
            return Answer(bytes(target[:n_read]), total)
        finally:
            os.close(fd)

    def _download(self, path: str, limit_nbytes: int | None) -> bytes:
        data = bytes(self._inner.fetch(path, limit_nbytes=limit_nbytes).data)
        directory = self.fs.storage[-1]
        os.makedirs(directory, exist_ok=True)
        target = os.path.join(directory, self.fs._mapper(path))  # noqa: SLF001 - its naming
        temporary = f"{target}{files.TEMPORARY_PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
        files.write_and_rename(temporary, target, data)
        return data

    def _cached_file(self, path: str) -> str | None:
        found = self.fs._check_file(path)  # noqa: SLF001 - there is no public way to ask
        return None if found is None else str(found)


class CachingTransport(FsspecTransport):
    """Through fsspec's other caches, whose word on what is missing is not taken.

    They ask `exists` first, and that says no to whatever goes wrong
    (fsspec 2026.9, `WholeFileCacheFileSystem._open`).  They are not safe from several
    threads either, and keep half a download as if it were whole.

    Parameters
    ----------
    fs : fsspec.implementations.cached.CachingFileSystem
        Which reads, and keeps what was read.
    inner : Transport
        Tells which objects there are, and how large each is.
    timeout_seconds : float
        As of `FsspecTransport`.
    """

    def __init__(self, fs: Any, inner: Transport, timeout_seconds: float) -> None:
        super().__init__(fs, timeout_seconds)
        self._inner = inner
        self._lock = threading.Lock()

    def fetch(
        self,
        path: str,
        start: int | None = None,
        stop: int | None = None,
        *,
        limit_nbytes: int | None = None,
    ) -> Answer:
        """Return a range of an object, or all of it, through the cache."""
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
        """Return an object's size in bytes, as the store says it."""
        return self._inner.size(path)

    def list_paths(self, path: str) -> list[str]:
        """Return the paths directly below a path; listings are not cached."""
        return self._inner.list_paths(path)
