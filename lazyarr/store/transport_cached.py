"""``simplecache::``: whole objects kept as local files, never half of one."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from lazyarr.store import files
from lazyarr.store.failure import Fault, UnusableAnswerError
from lazyarr.store.transport import Answer

if TYPE_CHECKING:
    from lazyarr.store.transport import Transport

__all__ = ["CachedTransport"]


class CachedTransport:
    """Reads through the directory of an fsspec SimpleCacheFileSystem.

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

    def fetch(self, path: str, start: int | None = None, stop: int | None = None) -> Answer:
        """Return a range of an object, or all of it, after fetching all of it once."""
        data = self._read_cached(path, start, stop)
        if data is None:
            with self._lock:
                download = self._downloads.setdefault(path, threading.Lock())
            # The threads that wanted the same object meanwhile find it in the directory.
            with download:
                data = self._read_cached(path, start, stop)
                if data is None:
                    data = self._download(path)[start:stop]
            with self._lock:
                self._downloads.pop(path, None)
        return Answer(data, None)

    def fetch_suffix(self, path: str, nbytes: int) -> Answer:
        """Return the last bytes of an object and its size."""
        data = self.fetch(path).data
        return Answer(data[-nbytes:], len(data))

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

    def _read_cached(self, path: str, start: int | None, stop: int | None) -> bytes | None:
        cached = self._cached_file(path)
        if cached is None:
            return None
        try:
            fd = os.open(cached, files.READ_FLAGS)
        except FileNotFoundError:
            return None  # somebody has emptied the cache in between
        try:
            if stop is None:
                return files.read_to_end(fd)[start:]
            start = start or 0
            target = bytearray(max(0, min(stop, os.fstat(fd).st_size) - start))
            return bytes(target[: files.pread_into(fd, memoryview(target), start)])
        finally:
            os.close(fd)

    def _download(self, path: str) -> bytes:
        data = self._inner.fetch(path).data
        directory = self.fs.storage[-1]
        os.makedirs(directory, exist_ok=True)
        target = os.path.join(directory, self.fs._mapper(path))  # noqa: SLF001 - its naming
        temporary = f"{target}{files.TEMPORARY_PREFIX}{os.getpid()}-{os.urandom(4).hex()}"
        files.write_and_rename(temporary, target, data)
        return data

    def _cached_file(self, path: str) -> str | None:
        found = self.fs._check_file(path)  # noqa: SLF001 - there is no public way to ask
        return None if found is None else str(found)
