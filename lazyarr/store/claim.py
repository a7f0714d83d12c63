"""The right to be the only writer of a local store."""

from __future__ import annotations

import contextlib
import os
import weakref

from lazyarr.errors import StoreError
from lazyarr.kernel import lock_holder, try_lock
from lazyarr.store import files
from lazyarr.store.directory import raise_store_error

__all__ = ["Claim", "claim_directory"]


class Claim:
    """A lock on a store's directory, held until it is closed or this process ends.

    No file is written for the lock, so none is left behind, and readers do not see it.  The
    lock is advisory: only lazyarr's writers look for it.  On a network file system it is known
    to the processes of one machine only.

    Parameters
    ----------
    fd : int
        A descriptor of the directory that only this lock uses.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        status = os.fstat(fd)
        self._identity = (status.st_dev, status.st_ino)
        _claims.add(self)

    def __repr__(self) -> str:
        return f"<Claim, {'closed' if self._fd == -1 else 'held'}>"

    def __del__(self) -> None:
        """Release the lock of a writer that was dropped without being closed."""
        self.close()

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode of the directory."""
        return self._identity

    def close(self) -> None:
        """Release the lock, so that another writer can have it."""
        fd, self._fd = self._fd, -1
        if fd != -1:
            os.close(fd)

    def leave_to_parent(self) -> None:
        """Close a forked child's copy of the descriptor; the parent keeps the lock."""
        fd, self._fd = self._fd, -1
        # A child may have closed what it does not know, and have something else there.
        with contextlib.suppress(OSError):
            status = os.fstat(fd)
            if (status.st_dev, status.st_ino) == self._identity:
                os.close(fd)


def claim_directory(directory: int, url: str) -> Claim:
    """Lock an open directory for its only writer.

    Raises
    ------
    StoreError
        When another writer holds the lock.  The message names its process; `transient` is
        false.
    """
    try:
        fd = os.open(".", files.DIRECTORY_FLAGS, dir_fd=directory)
    except OSError as error:
        raise_store_error(error, "write to", None, url)
    try:
        if try_lock(fd):
            return Claim(fd)
        message = f"cannot write to {url}: {_describe(lock_holder(fd))}"
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    raise StoreError(message, url=url, key=None, transient=False)


def _describe(pid: int | None) -> str:
    if pid == os.getpid():
        return "this process has a writer of it open; close that one first"
    who = "another process" if pid is None else f"process {pid}"
    return f"{who} is writing to it; wait until it has closed its writer, or end it"


_claims: weakref.WeakSet[Claim] = weakref.WeakSet()


def _leave_all_to_parent() -> None:
    # A lock of flock(2) ends with the last copy of its descriptor: a child that lives on
    # would keep it after its parent's death.
    for claim in list(_claims):
        claim.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all_to_parent)
