"""The right to be the only writer of a local store, or of a name where one is to be."""

from __future__ import annotations

import contextlib
import os
import time
import weakref

from lazyarr.errors import StoreError
from lazyarr.kernel import lock_holder, lock_taker, try_lock
from lazyarr.store import files
from lazyarr.store.directory import raise_store_error

__all__ = ["Claim", "claim_directory", "claim_name", "release_name"]

_NAME_MODE = 0o644
"""Other users can see by it that somebody writes; there is nothing in the file."""

_PAGER = b"/lazyarr/pager/"
"""In the command of each process of a pager: the program that it was started with."""

_MAX_COMMAND_NBYTES = 1 << 16


# So long a process waits for what its pager is about to let go of.
_PATIENCE_SECONDS = 2.0
# And so long for a claim of its own, of which the last array may have gone just now.
_OWN_SECONDS = 0.3
_PAUSE_SECONDS = 0.005


class Claim:
    """A lock on a store's directory or on a file, held until it is closed or this process ends.

    No file is written for the lock on a directory, so none is left behind, and readers do not
    see it.  The lock is advisory: only lazyarr's writers look for it.  On a network file system
    it may be known to the processes of one machine only.

    It belongs to the open file: a process that gets a copy of the descriptor (`fileno`) holds the
    same lock, which ends when the last of them has closed it.

    Parameters
    ----------
    fd : int
        A descriptor of the directory or file that only this lock uses.
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

    @classmethod
    def received(cls, fd: int, url: str) -> Claim:
        """Return the claim whose descriptor another process has handed on.

        Parameters
        ----------
        fd : int
            The descriptor, which the claim closes.
        url : str
            What is claimed, for messages.

        Raises
        ------
        StoreError
            Its lock is somebody else's.
        """
        # The lock is the open file's already, so to ask for it again changes nothing.
        return _lock(fd, url)

    def fileno(self) -> int:
        """Return the descriptor, of which another process may be handed a copy.

        Raises
        ------
        ValueError
            The claim is closed.
        """
        if self._fd == -1:
            raise ValueError("the claim is closed; claim the store again")
        return self._fd

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode of the directory or file."""
        return self._identity

    def is_held(self) -> bool:
        """Return whether this process has not closed it."""
        return self._fd != -1

    def holder(self) -> int | None:
        """Return the process that has taken the lock, where that can be found out."""
        return lock_holder(self._fd)

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
    return _lock(fd, url)


def claim_name(parent: int, name: str, url: str) -> Claim:
    """Lock a name in an open directory for the only writer of what is going to lie there.

    What does not exist yet cannot be locked itself, so the lock is on a hidden file beside it.
    The lock counts and not the file: one that a dead writer left is taken over.

    Parameters
    ----------
    parent : int
        Descriptor of the directory.
    name : str
        What is going to be there.
    url : str
        The same, for messages.

    Raises
    ------
    StoreError
        When another writer holds the lock.  The message names its process; `transient` is
        false.

    Notes
    -----
    `release_name` ends the claim and removes the file.
    """
    hidden = _hidden(name)
    while True:
        fd = _open_claim(parent, hidden)
        if fd is None:  # its writer has ended meanwhile
            continue
        claim = _lock(fd, url)
        # 1. we open the file; 2. its writer removes it and lets go; 3. we lock it.  Another
        # writer can have made and locked a new file by then, so such a lock is worth nothing.
        if _is_at(claim, parent, hidden):
            return claim
        claim.close()


def release_name(claim: Claim, parent: int, name: str) -> None:
    """Remove the file of a claim of `claim_name`, and then let go of its lock."""
    hidden = _hidden(name)
    with contextlib.suppress(OSError):
        # Where the file system has no locks, it may be another writer's by now.
        if _is_at(claim, parent, hidden):
            os.unlink(hidden, dir_fd=parent)
    claim.close()


def _hidden(name: str) -> str:
    """Return what the file is called whose lock is the right to write at a name.

    It begins as the hidden directories of writers do, which nobody takes for data.
    """
    return f".{name}.partial-claim"


def _open_claim(parent: int, hidden: str) -> int | None:
    """Return a descriptor of the file that is locked, which is made where there is none.

    None where it was there, and is not any more.
    """
    with contextlib.suppress(FileExistsError):
        fd = os.open(hidden, files.CREATE_FLAGS, _NAME_MODE, dir_fd=parent)
        # Whatever the umask is: who may not open the file could never write here.
        with contextlib.suppress(OSError):
            os.fchmod(fd, _NAME_MODE)
        return fd
    with contextlib.suppress(FileNotFoundError):
        try:
            # NFS locks only what is open for writing (flock(2), NOTES).
            return os.open(hidden, files.LOCK_FLAGS, dir_fd=parent)
        except PermissionError:  # another user has made it
            return os.open(hidden, files.READ_FLAGS | os.O_NOFOLLOW, dir_fd=parent)
    return None


def _is_at(claim: Claim, parent: int, hidden: str) -> bool:
    try:
        status = os.stat(hidden, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return claim.identity == (status.st_dev, status.st_ino)


def _lock(fd: int, url: str) -> Claim:
    """Return the claim that a descriptor's lock is; it closes the descriptor."""
    try:
        began = time.monotonic()
        while not (is_locked := try_lock(fd)) and time.monotonic() < began + _patience(fd):
            time.sleep(_PAUSE_SECONDS)
        if is_locked:
            return Claim(fd)
        message = f"cannot write to {url}: {_describe(lock_holder(fd))}"
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    raise StoreError(message, url=url, key=None, transient=False)


def _patience(fd: int) -> float:
    """Return for how many seconds it is worth while to wait for a lock."""
    # None: it has been released since it was asked for, so asking again is right.
    if lock_taker(fd) not in (os.getpid(), None):
        return 0.0
    status = os.fstat(fd)
    identity = (status.st_dev, status.st_ino)
    is_own = any(claim.is_held() and claim.identity == identity for claim in list(_claims))
    # Of arrays that nobody has any more the claim ends a moment later, in another thread.  The
    # pager is told of that a moment after.
    return _OWN_SECONDS if is_own else _PATIENCE_SECONDS


def _describe(pid: int | None) -> str:
    if pid == os.getpid():
        return "this process has a writer of it open; close that one first"
    if pid is not None and _is_pager(pid):
        return (
            f"process {pid}, a pager, still writes back what processes have changed that had it "
            "open; wait until it has done that and has ended"
        )
    who = "another process" if pid is None else f"process {pid}"
    return f"{who} is writing to it; wait until it has closed its writer, or end it"


def _is_pager(pid: int) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return _PAGER in file.read(_MAX_COMMAND_NBYTES)
    return False


_claims: weakref.WeakSet[Claim] = weakref.WeakSet()


def _leave_all_to_parent() -> None:
    # A lock of flock(2) ends with the last copy of its descriptor: a child that lives on
    # would keep it after its parent's death.
    for claim in list(_claims):
        claim.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all_to_parent)
