"""A local store that is written beside its place, and put there in one step.

The directory ``.name.partial-1a2b3c4d`` beside the store ``name`` holds

- ``lock``: locked for as long as the writer lives, so that others can tell a
  writer that works from one that died;
- ``store``: what is being written;
- ``old``: the store that is being replaced, where the file system can not exchange two
  directories; whoever clears up after a writer that died in between puts it back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from typing import TYPE_CHECKING

from lazyarr.errors import KernelUnsupportedError
from lazyarr.kernel import exchange_paths
from lazyarr.store.base import METADATA_NAMES
from lazyarr.store.directory import raise_store_error
from lazyarr.store.local import LocalStore
from lazyarr.writer.place import StorePlace, refuse_existing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lazyarr.store import Buffer

__all__ = ["StagedDirectory"]

_BUFFER_NBYTES = 1 << 16

# Locks belong to processes: one that asks again gets its own, and closing any
# descriptor of the file gives it up (fcntl(2), "Advisory record locking").
_own: set[str] = set()


class StagedDirectory(StorePlace):
    """A new store, or one to take the place of another, on a local file system.

    Parameters
    ----------
    path : str
        Where the store is to be.  Directories above it are made.
    overwrite : bool
        Whether a store that is there may be replaced.  Nothing but a store, or an
        empty directory, ever is.

    Raises
    ------
    FileExistsError
        There is something, and it is no store or must not be replaced.
    StoreError
        The directory can not be made.

    Notes
    -----
    What dead writers left beside the same place is removed.  Nothing is forced to the
    disk: a store is safe from the death of its writer, not from a power failure.
    """

    def __init__(self, path: str, *, overwrite: bool) -> None:
        self._path = os.path.realpath(path)
        self._overwrite = overwrite
        self._pid = os.getpid()
        url = "file://" + path
        parent, name = os.path.split(self._path)
        prefix = os.path.join(parent, f".{name}.partial-")
        try:
            os.makedirs(parent, exist_ok=True)
            _clear_up(prefix, self._path)
            _refuse_others(self._path, url, overwrite=overwrite)
            self._partial, self._lock = _make_partial(prefix)
            self._root = os.path.join(self._partial, "store")
            os.mkdir(self._root)
        except FileExistsError:
            raise
        except OSError as error:
            raise_store_error(error, "write", None, url)
        super().__init__(LocalStore(self._root, writable=True))
        self.url = url
        self._made = {self._root}

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Put an object.  Nobody looks yet, so it is written where it stays."""
        path = os.path.join(self._root, key)
        try:
            directory = os.path.dirname(path)
            if directory not in self._made:
                os.makedirs(directory, exist_ok=True)
                self._made.add(directory)
            with open(path, "wb", buffering=_BUFFER_NBYTES) as file:
                file.writelines(parts)
        except OSError as error:
            raise_store_error(error, "write", key, self.url)

    def publish(self, *, exchange: Callable[[str, str], None] = exchange_paths) -> None:
        """Put the store in its place; what was there is gone then, or still there on an error.

        Parameters
        ----------
        exchange : callable, optional
            Gives each of two paths the other's directory, or raises `KernelUnsupportedError`.
        """
        try:
            self._move_into_place(exchange)
        except FileExistsError:
            raise
        except OSError as error:
            raise_store_error(error, "publish", None, self.url)
        self._remove()

    def abort(self) -> None:
        """Remove what was put and not published."""
        self._remove()

    def _move_into_place(self, exchange: Callable[[str, str], None]) -> None:
        # 1. nothing was there; 2. now somebody else's store is: rename(2) replaces
        # no directory that holds something, so this one is refused.
        if not (self._overwrite and os.path.isdir(self._path)):
            try:
                os.rename(self._root, self._path)
            except OSError:
                _refuse_others(self._path, self.url, overwrite=self._overwrite)
                raise
            return
        _refuse_others(self._path, self.url, overwrite=self._overwrite)
        try:
            exchange(self._root, self._path)
        except KernelUnsupportedError:
            # A reader that comes between the two finds no store; it is never half of one.
            os.rename(self._path, os.path.join(self._partial, "old"))
            os.rename(self._root, self._path)

    def _remove(self) -> None:
        # A forked child has a copy of this object, but the directory is its parent's.
        if self._lock == -1 or self._pid != os.getpid():
            return
        _put_back(self._partial, self._path)
        shutil.rmtree(self._partial, ignore_errors=True)
        _own.discard(self._partial)
        os.close(self._lock)
        self._lock = -1


def _refuse_others(path: str, url: str, *, overwrite: bool) -> None:
    is_store = False
    if os.path.isdir(path):
        names = os.listdir(path)
        is_store = any(name in METADATA_NAMES for name in names)
        if not names or (is_store and overwrite):
            return
    if os.path.lexists(path):
        raise refuse_existing(url, is_store=is_store)


def _make_partial(prefix: str) -> tuple[str, int]:
    """Return a new directory and the descriptor that holds its lock."""
    while True:
        path = prefix + os.urandom(4).hex()
        _own.add(path)
        os.mkdir(path)
        lock = _lock(path, without_locks=True)
        # Somebody who cleared up between the last two calls took it for a dead
        # writer's: its lock file is gone then.
        if lock is not None and os.path.exists(os.path.join(path, "lock")):
            return path, lock
        _own.discard(path)


def _lock(path: str, *, without_locks: bool) -> int | None:
    """Return a descriptor that holds a directory's lock; None when another process has it.

    Where the file system has no locks, `without_locks` says whether to go on: a
    writer does, but nobody takes away there what may be a living writer's.
    """
    try:
        fd = os.open(os.path.join(path, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        return None
    try:
        os.lockf(fd, os.F_TLOCK, 0)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN) and without_locks:
            return fd
        os.close(fd)
        return None
    return fd


def _clear_up(prefix: str, target: str) -> None:
    """Remove what dead writers left, and put back the store that one was about to replace."""
    parent, start = os.path.split(prefix)
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        if not name.startswith(start) or path in _own:
            continue
        lock = _lock(path, without_locks=False)
        if lock is not None:
            _put_back(path, target)
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _put_back(partial: str, target: str) -> None:
    # Refused, as it should be, where the new store is in place.
    with contextlib.suppress(OSError):
        os.rename(os.path.join(partial, "old"), target)
