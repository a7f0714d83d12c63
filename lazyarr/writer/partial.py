"""The hidden directory in which a local store is written, and its removal after a writer's death.

It holds

- ``lock``: a file that the writer keeps locked while it lives, so that other writers can tell
  a living writer's directory from a dead one's;
- ``store``: the store that is being written;
- ``old``: the store that is being replaced, where the file system cannot exchange two
  directories.  If the writer dies in between, the next writer puts it back.

The directory's name holds random bytes, so that nobody can guess it, and only its user may
enter it.  An existing directory with such a name is touched only if the same user owns it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from lazyarr.store import files

__all__ = ["OLD", "STORE", "PartialDirectory", "clear_up"]

STORE, OLD, _LOCK = "store", "old", "lock"
_RANDOM_NBYTES = 12

# Record locks belong to the process (fcntl(2), "Advisory record locking"): it can lock a file
# that it has locked already, and closing any descriptor of the file unlocks it.  So the
# directories of this process's own writers are known by name, and never cleared up.
_own: set[str] = set()


class PartialDirectory:
    """A new hidden directory beside the place of a store, with its lock held.

    Parameters
    ----------
    parent : int
        Descriptor of the directory in which both lie; it must stay open.
    target : str
        The store's name in that directory.

    Attributes
    ----------
    name : str
        The hidden directory's name.
    fd : int
        Descriptor of the hidden directory; -1 after `remove`.
    store : int
        Descriptor of the directory in it that becomes the store; -1 before `make_store` and
        after `remove`.
    owner : int
        The user that owns new files here.  It is not the process's user where the file system
        maps users, as network file systems map root.
    """

    def __init__(self, parent: int, target: str) -> None:
        self._parent = parent
        self._target = target
        self.store = -1
        made = None
        while made is None:
            self.name = f"{_prefix(target)}{os.urandom(_RANDOM_NBYTES).hex()}"
            made = _make(self.name, parent)
        self.fd, self._lock = made
        self.owner = os.fstat(self._lock).st_uid
        if os.fstat(self.fd).st_uid != self.owner:
            self._close()
            raise PermissionError(
                errno.EPERM, f"another user has put a directory of its own in place of {self.name}"
            )

    def __repr__(self) -> str:
        return f"<PartialDirectory {self.name!r}, {'closed' if self.fd == -1 else 'open'}>"

    def make_store(self) -> tuple[int, int]:
        """Make the directory that becomes the store; return its device and inode."""
        # With the default mode, for this directory becomes the store that others see.
        os.mkdir(STORE, dir_fd=self.fd)
        self.store = os.open(STORE, files.LINKLESS_FLAGS, dir_fd=self.fd)
        status = os.fstat(self.store)
        return status.st_dev, status.st_ino

    def remove(self) -> None:
        """Remove the directory and all in it; put back an old store that is still there."""
        if self.fd == -1:
            return
        _remove(self.name, self.fd, self._parent, self._target)
        self._close()

    def _close(self) -> None:
        for fd in (self.store, self._lock, self.fd):
            if fd != -1:
                os.close(fd)
        self.store = self._lock = self.fd = -1
        _own.discard(self.name)


def clear_up(parent: int, target: str, *, owner: int) -> None:
    """Remove the directories of a user's dead writers; put back a store that one was replacing.

    Parameters
    ----------
    parent : int
        Descriptor of the directory in which the store lies.
    target : str
        The store's name in that directory.
    owner : int
        The user whose directories are removed.
    """
    for name in os.listdir(parent):
        if name.startswith(_prefix(target)) and name not in _own:
            # Another writer may be removing the same directory.
            with contextlib.suppress(OSError):
                _clear_up_one(name, parent, target, owner)


def _prefix(target: str) -> str:
    return f".{target}.partial-"


def _make(name: str, parent: int) -> tuple[int, int] | None:
    """Return descriptors of a new directory and its locked file.

    None where another writer, which is clearing up, has removed the directory meanwhile.
    """
    _own.add(name)
    os.mkdir(name, 0o700, dir_fd=parent)
    with contextlib.ExitStack() as undo:
        try:
            fd = os.open(name, files.LINKLESS_FLAGS, dir_fd=parent)
            undo.callback(os.close, fd)
            # Before the lock is held, a writer that clears up takes this directory for a dead
            # one's.  Then the lock file is that writer's, or is gone: both raise here.
            lock = os.open(_LOCK, files.CREATE_FLAGS, 0o600, dir_fd=fd)
            undo.callback(os.close, lock)
            _take(lock, without_locks=True)
            os.stat(_LOCK, dir_fd=fd, follow_symlinks=False)
        except (FileNotFoundError, FileExistsError, BlockingIOError):
            _own.discard(name)
            return None
        undo.pop_all()
    return fd, lock


def _take(lock: int, *, without_locks: bool) -> None:
    """Lock a file; raise BlockingIOError where another process has locked it.

    Parameters
    ----------
    lock : int
        Descriptor of the file.
    without_locks : bool
        Whether to go on where the file system has no locks.  A writer may.  Clearing up may
        not, because the directory could be a living writer's.
    """
    try:
        os.lockf(lock, os.F_TLOCK, 0)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise BlockingIOError(error.errno, error.strerror) from None
        if not without_locks:
            raise


def _clear_up_one(name: str, parent: int, target: str, owner: int) -> None:
    with contextlib.ExitStack() as stack:
        fd = os.open(name, files.LINKLESS_FLAGS, dir_fd=parent)
        stack.callback(os.close, fd)
        if os.fstat(fd).st_uid != owner:
            return
        lock = os.open(_LOCK, files.LOCK_FLAGS | os.O_CREAT, 0o600, dir_fd=fd)
        stack.callback(os.close, lock)
        if stat.S_ISREG(os.fstat(lock).st_mode):
            _take(lock, without_locks=False)
            _remove(name, fd, parent, target)


def _remove(name: str, fd: int, parent: int, target: str) -> None:
    with contextlib.suppress(OSError):
        if stat.S_ISDIR(os.stat(OLD, dir_fd=fd, follow_symlinks=False).st_mode):
            # Where the new store is in place already this fails, and the old one is removed below.
            os.rename(OLD, target, src_dir_fd=fd, dst_dir_fd=parent)
    # The lock file is removed last: without it, another writer could lock and clear up too.
    for entry in sorted(os.listdir(fd), key=lambda entry: entry == _LOCK):
        with contextlib.suppress(OSError):
            files.remove_tree(entry, dir_fd=fd)
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=parent)
