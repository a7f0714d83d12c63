"""The hidden directory in which a local store or file is written; its removal after a death.

It holds

- ``lock``: a file that the writer keeps locked while it lives, so that other writers can tell
  a living writer's directory from a dead one's;
- ``store``: the store that is being written, or a directory with the file;
- ``plan``: what is being written, where a writer that comes later can go on with it; it names the
  directory ``store`` by its inode, for the store that was replaced may lie there in its place;
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
from typing import TYPE_CHECKING

from lazyarr.store import files

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OLD", "STORE", "PartialDirectory", "start"]

STORE, OLD, _LOCK, _PLAN = "store", "old", "lock", "plan"
_MAX_PLAN_NBYTES = 1 << 16
_RANDOM_NBYTES = 12

# Record locks belong to the process (fcntl(2), "Advisory record locking"): it can lock a file
# that it has locked already, and closing any descriptor of the file unlocks it.  So the
# directories of this process's own writers are known by name, and never cleared up.
_own: set[str] = set()


class PartialDirectory:
    """A hidden directory beside the place of a store, with its lock held.

    Parameters
    ----------
    parent : int
        Descriptor of the directory in which both lie; it must stay open.
    target : str
        The store's name in that directory.
    left : tuple of (str, int, int), optional
        Name of a directory that a dead writer left, and descriptors of it and of its lock, which
        is held; a new one is made without.

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

    def __init__(self, parent: int, target: str, left: tuple[str, int, int] | None = None) -> None:
        self._parent = parent
        self._target = target
        self.store = -1
        made = None
        if left is not None:
            self.name, made = left[0], left[1:]
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
        return self.open_store()

    def open_store(self) -> tuple[int, int]:
        """Open the directory that becomes the store; return its device and inode."""
        self.store = os.open(STORE, files.LINKLESS_FLAGS, dir_fd=self.fd)
        status = os.fstat(self.store)
        return status.st_dev, status.st_ino

    def keep_plan(self, plan: bytes) -> None:
        """Let a writer that comes after this one's death go on, if it has the same plan."""
        data = b"%d\n%b" % (os.fstat(self.store).st_ino, plan)
        files.write_and_rename(f"{_PLAN}.new", _PLAN, data, dir_fd=self.fd, sync=True)

    def remove(self) -> None:
        """Remove the directory and all in it; put back an old store that is still there."""
        if self.fd == -1:
            return
        _remove(self.name, self.fd, self._parent, self._target)
        self.leave()

    def leave(self) -> None:
        """Let go of the directory as a writer does that dies."""
        self._close()

    def _close(self) -> None:
        for fd in (self.store, self._lock, self.fd):
            if fd != -1:
                os.close(fd)
        self.store = self._lock = self.fd = -1
        _own.discard(self.name)


def start(
    parent: int, target: str, *, is_wanted: Callable[[bytes], bool] | None
) -> tuple[PartialDirectory, bool]:
    """Return the directory to write in, and whether a dead writer has left it with its work.

    All other directories of this user's dead writers are removed.

    Parameters
    ----------
    parent : int
        Descriptor of the directory in which the store is to be.
    target : str
        The store's name in that directory.
    is_wanted : callable, optional
        Says of the plan that a dead writer kept whether its work is gone on with; what it raises
        is raised.  None where nothing is gone on with.
    """
    made = PartialDirectory(parent, target)
    with contextlib.ExitStack() as undo:
        undo.callback(made.remove)
        left = is_wanted and _take_over(parent, target, owner=made.owner, is_wanted=is_wanted)
        if left:
            undo.pop_all()
            undo.callback(left.leave)
            made.remove()
        _clear_up(parent, target, owner=made.owner)
        undo.pop_all()
    return left or made, bool(left)


def _clear_up(parent: int, target: str, *, owner: int) -> None:
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


def _take_over(
    parent: int, target: str, *, owner: int, is_wanted: Callable[[bytes], bool]
) -> PartialDirectory | None:
    """Return the directory of a dead writer whose work can be gone on with; None without one.

    Parameters
    ----------
    parent : int
        Descriptor of the directory in which the store lies.
    target : str
        The store's name in that directory.
    owner : int
        The user whose directories may be taken.
    is_wanted : callable
        Says so of the plan that a dead writer kept; what it raises is raised.
    """
    for name in sorted(os.listdir(parent)):
        if name.startswith(_prefix(target)) and name not in _own:
            with contextlib.ExitStack() as undo:
                try:
                    fd = os.open(name, files.LINKLESS_FLAGS, dir_fd=parent)
                    undo.callback(os.close, fd)
                    lock = os.open(_LOCK, files.LOCK_FLAGS, dir_fd=fd)
                    undo.callback(os.close, lock)
                    plan = _read_plan(fd, lock, owner)
                except OSError:  # it is a living writer's, or another one is removing it
                    continue
                if plan is None or not is_wanted(plan):
                    continue
                with contextlib.suppress(OSError):
                    os.rename(OLD, target, src_dir_fd=fd, dst_dir_fd=parent)
                undo.pop_all()
                _own.add(name)
                return PartialDirectory(parent, target, (name, fd, lock))
    return None


def _read_plan(fd: int, lock: int, owner: int) -> bytes | None:
    """Return the plan of a dead writer; None where it kept none, or its store is not there."""
    if {os.fstat(fd).st_uid, os.fstat(lock).st_uid} != {owner}:
        return None
    if not stat.S_ISREG(os.fstat(lock).st_mode):
        return None
    _take(lock, without_locks=False)
    status = os.stat(STORE, dir_fd=fd, follow_symlinks=False)
    kept = os.open(_PLAN, files.READ_FLAGS | os.O_NOFOLLOW, dir_fd=fd)
    try:
        inode, _, plan = os.read(kept, _MAX_PLAN_NBYTES).partition(b"\n")
    finally:
        os.close(kept)
    is_its_store = stat.S_ISDIR(status.st_mode) and inode == b"%d" % status.st_ino
    return plan if is_its_store else None


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
