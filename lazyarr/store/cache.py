"""Bytes of remote objects kept in a directory, from one run to the next.

fsspec has caching file systems, and where somebody names one in a URL it is used.  For shards they
do not fit: those that keep whole files fetch 64 MiB for one chunk, the one that keeps blocks does
so for each open file and reads in order, and none asks whether the object has changed without a
request of its own.  Here each chunk is an entry, named after the object's version.  The server
says which one that is in every answer: with the shard's index, which is asked for in each run
anyway, or by saying that a whole object is unchanged.

Several processes may use one directory.  An entry appears by rename, is checked when it is
read, and may go at any time; nobody holds a lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import struct
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from lazyarr.codecs.checksum import crc32c
from lazyarr.store.files import READ_FLAGS, write_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from lazyarr.store.base import Buffer

__all__ = ["DiskCache", "Kept", "StoreCache", "place_of"]

_MAGIC = b"lazyarr1"
_HEADER = struct.Struct("<8sIIQ")  # magic, crc32c of what follows, length of version, of data
_TEMPORARY = "new-"
_ABANDONED_SECONDS = 3600.0
# An entry's time is when it was used last; to write it down each time would be too dear.
_USED_SECONDS = 60.0
# What is left when entries had to go, so that not every new one begins to look for others.
_KEPT_SHARE = 0.9
# Other processes write too: how much is there is counted anew after such a part of the limit.
_COUNTED_SHARE = 1 / 16


class Kept(NamedTuple):
    """What was kept, and of which version it is."""

    data: memoryview
    version: str


class DiskCache:
    """A directory of entries, the least recently used of which go when there are too many.

    Safe to use from several threads and processes.

    Parameters
    ----------
    directory : str
        Where; made when something is kept, for its owner alone.
    limit_nbytes : int
        How much all entries may take, those of other processes included.
    complain : callable
        Told, once, why an entry could not be kept, unless it was too long.

    Notes
    -----
    A directory that others may write to is not used: what lies there is believed.
    """

    def __init__(
        self, directory: str, limit_nbytes: int, *, complain: Callable[[str], object]
    ) -> None:
        self.directory = directory
        self._complain = complain
        self._has_complained = False
        self.limit_nbytes = limit_nbytes
        self._lock = threading.Lock()
        self._nbytes = 0
        self._uncounted_nbytes = float("inf")
        self._unwritten_nbytes = 0

    def __repr__(self) -> str:
        return f"<DiskCache: {self.directory!r}, limit {self.limit_nbytes} bytes>"

    def get(self, name: str) -> Kept | None:
        """Return an entry; None when there is none, or it is not what was written."""
        path = self._path(name)
        try:
            fd = os.open(path, READ_FLAGS | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            status = os.fstat(fd)
            if status.st_uid != os.geteuid():
                return None
            content = memoryview(bytearray(status.st_size))
            n_read = os.preadv(fd, [content], 0)
            kept = _decode(content[:n_read])
            if kept is not None and time.time() - status.st_mtime > _USED_SECONDS:
                os.utime(fd)
        except OSError:
            return None
        finally:
            os.close(fd)
        return kept

    def put(self, name: str, data: Buffer, version: str) -> bool:
        """Keep an entry; return whether that was done."""
        content = _encode(data, version)
        nbytes = sum(len(part) for part in content)
        path = self._path(name)
        try:
            self._check_owner()
            if not self._make_room(nbytes):
                return False
            self._write(nbytes, content, path)
        except OSError as error:
            # No room, no right: what is fetched is given all the same.
            if not self._has_complained:
                self._has_complained = True
                self._complain(f"nothing can be kept in cache_dir {self.directory!r}: {error}")
            return False
        return True

    def _write(self, nbytes: int, content: tuple[bytes, bytes, memoryview], path: str) -> None:
        """Write an entry that there is room for, and put it in its place."""
        parent = os.path.dirname(path)
        temporary = os.path.join(parent, f"{_TEMPORARY}{os.getpid()}-{os.urandom(4).hex()}")
        try:
            os.makedirs(parent, mode=0o700, exist_ok=True)
            _write_file(temporary, content)
        except OSError:
            with self._lock:
                self._unwritten_nbytes -= nbytes
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        # Who counts finds an entry, or knows that it is about to come, and never both.
        with self._lock:
            self._unwritten_nbytes -= nbytes
            os.rename(temporary, path)

    def drop(self, name: str) -> None:
        """Take an entry away."""
        with contextlib.suppress(OSError):
            os.unlink(self._path(name))

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name[:2], name[2:])

    def _check_owner(self) -> None:
        """Make the directory if need be; raise OSError when it is not this user's alone."""
        try:
            status = os.stat(self.directory)
        except FileNotFoundError:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            status = os.stat(self.directory)
        mode = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if status.st_uid != os.geteuid() or mode:
            raise PermissionError(
                f"user {status.st_uid} has it, mode {stat.filemode(status.st_mode)}, and what lies "
                "there is believed; name a directory that nobody else can write to"
            )

    def _make_room(self, nbytes: int) -> bool:
        """Return whether there is room for an entry, after letting others go if need be."""
        with self._lock:
            if nbytes > self.limit_nbytes:
                return False
            is_counted = self._uncounted_nbytes < self.limit_nbytes * _COUNTED_SHARE
            if not is_counted or self._nbytes + nbytes > self.limit_nbytes:
                self._count(nbytes)
            if self._nbytes + nbytes > self.limit_nbytes:
                return False  # other threads are about to write that much
            self._nbytes += nbytes
            self._uncounted_nbytes += nbytes
            self._unwritten_nbytes += nbytes
            return True

    def _count(self, nbytes: int) -> None:
        """Look at what is there, and let the least recently used go if there is no room."""
        entries = sorted(self._entries())
        # What other threads are about to write may not be there yet.
        total = sum(size for _, size, _ in entries) + self._unwritten_nbytes
        if total + nbytes > self.limit_nbytes:
            allowed = min(self.limit_nbytes * _KEPT_SHARE, self.limit_nbytes - nbytes)
            for _, size, path in entries:
                if total <= allowed:
                    break
                with contextlib.suppress(OSError):
                    os.unlink(path)
                total -= size
        self._nbytes, self._uncounted_nbytes = total, 0

    def _entries(self) -> Iterator[tuple[float, int, str]]:
        """Yield time, size and path of each entry; remove what a dead writer has left."""
        for parent, _, names in os.walk(self.directory):
            for name in names:
                path = os.path.join(parent, name)
                try:
                    status = os.lstat(path)
                    age = time.time() - status.st_mtime
                    if name.startswith(_TEMPORARY) and age > _ABANDONED_SECONDS:
                        os.unlink(path)
                except OSError:
                    continue
                # One that is being written is none yet: its writer must find it.
                if not name.startswith(_TEMPORARY):
                    yield status.st_mtime, status.st_size, path


class StoreCache:
    """What a cache holds of the objects of one store.

    Safe to use from several threads.

    Parameters
    ----------
    disk : DiskCache
        Where it is kept.
    place : str
        What names the store; see `place_of`.
    """

    def __init__(self, disk: DiskCache, place: str) -> None:
        self._disk = disk
        self._place = place
        self._versions: dict[str, str | None] = {}

    def __repr__(self) -> str:
        return f"<StoreCache: {len(self._versions)} objects, {self._disk!r}>"

    def note(self, key: str, version: str | None) -> None:
        """Take down of which version an object is, as the server has just said."""
        self._versions[key] = version

    def is_known(self, key: str) -> bool:
        """Return whether the server has said of which version an object is."""
        return self._versions.get(key) is not None

    def recall(self, key: str, start: int, stop: int | None) -> Kept | None:
        """Return ``object[start:stop]`` if it was kept.

        A part is of the version that the object has.  All of it, ``(0, None)``, is of the
        version that it had, and the server has to be asked whether it still has.
        """
        name = self._name(key, start, stop)
        return None if name is None else self._disk.get(name)

    def keep(
        self, key: str, start: int, stop: int | None, data: Buffer, version: str | None
    ) -> None:
        """Keep ``object[start:stop]`` of a version; nothing is kept of an unknown one."""
        if version is not None and (stop is None or version == self._versions.get(key)):
            name = self._name(key, start, stop)
            if name is not None:
                self._disk.put(name, data, version)

    def drop(self, key: str, start: int, stop: int | None) -> None:
        """Forget what is not what it should be."""
        name = self._name(key, start, stop)
        if name is not None:
            self._disk.drop(name)

    def _name(self, key: str, start: int, stop: int | None) -> str | None:
        parts = [self._place, key]
        if stop is not None:
            version = self._versions.get(key)
            if version is None:
                return None
            parts += [version, f"{start}-{stop}"]
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def place_of(url: str, options: Mapping[str, Any]) -> str:
    """Return what names a store: its URL without credentials, and the endpoint it is asked at."""
    from lazyarr.store.urls import without_credentials

    client = options.get("client_kwargs")
    endpoints = (options.get("endpoint_url"), client.get("endpoint_url") if client else None)
    return "\0".join([without_credentials(url), *(str(e) for e in endpoints if e)])


def _encode(data: Buffer, version: str) -> tuple[bytes, bytes, memoryview]:
    label, view = version.encode(), memoryview(data).cast("B")
    checksum = crc32c(label) ^ crc32c(view)
    return _HEADER.pack(_MAGIC, checksum, len(label), len(view)), label, view


def _decode(content: memoryview) -> Kept | None:
    """Return what a file holds; None when it is not what `_encode` has made."""
    if len(content) < _HEADER.size:
        return None
    magic, checksum, label_nbytes, nbytes = _HEADER.unpack(content[: _HEADER.size])
    label = content[_HEADER.size : _HEADER.size + label_nbytes]
    data = content[_HEADER.size + label_nbytes :]
    if magic != _MAGIC or len(label) != label_nbytes or len(data) != nbytes:
        return None
    if crc32c(label) ^ crc32c(data) != checksum:
        return None
    return Kept(data, str(label, "utf-8", "replace"))


def _write_file(path: str, content: tuple[bytes, bytes, memoryview]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_parts(fd, content)
    finally:
        os.close(fd)
