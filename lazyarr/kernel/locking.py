"""Locks on open files, which the kernel ends with the process that holds them (flock(2))."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "alone_with",
    "holds_lock",
    "leave_alone_in_child",
    "lock_holder",
    "lock_taker",
    "try_lock",
]

_MAX_LOCKS_NBYTES = 16 << 20


def try_lock(fd: int) -> bool:
    """Lock an open file or directory without waiting; return False where it is locked already.

    The lock belongs to the open file (flock(2)).  It ends when the last descriptor of that
    open file is closed, so also when the process dies.  The same process can open the
    same file again and does not hold the lock there.  A directory can be locked by itself, so
    no lock file is needed.

    Returns
    -------
    bool
        True also where the file system has no locks: ENOLCK, EOPNOTSUPP and the like.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        # flock, not the record locks of fcntl(2): those end when any part of the
        # process closes the file, and they cannot be had on a directory.
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # A file system without locks does not refuse writers. lazyarr would be of no
        # use there otherwise, and compares documents in any case before it replaces
        # them.
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


_alone: set[int] = set()


@contextlib.contextmanager
def alone_with(fd: int) -> Iterator[None]:
    """Be the only one, of all processes and threads that have a file, who is here.

    Waits as long as another is here; its death lets the next one in.  Without /proc, and on
    Windows, nobody waits for anybody.
    """
    opened = -1
    # Opened anew: forked children, and whoever was handed the descriptor, have one open file,
    # and so one lock.
    with contextlib.suppress(OSError):
        opened = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    if opened < 0:
        yield
        return
    import fcntl

    _alone.add(opened)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        try:
            yield
        finally:
            # A child that another thread forks meanwhile has a descriptor of the same lock.
            fcntl.flock(opened, fcntl.LOCK_UN)
    finally:
        _alone.discard(opened)
        os.close(opened)


def leave_alone_in_child() -> None:
    """Close a forked child's descriptors of what a thread of its parent is alone with."""
    # The lock ends with the last of them: a parent that dies would leave it to the child, which
    # would wait for itself.
    for opened in tuple(_alone):
        _alone.discard(opened)
        with contextlib.suppress(OSError):
            os.close(opened)


def lock_holder(fd: int) -> int | None:
    """Return the process that holds the lock on the file or directory of a descriptor.

    The process that has taken the lock, or, where that has ended and has handed its descriptor on
    before, one that has the descriptor now.

    None where no process holds it, or where that cannot be found out: without /proc, for a
    process in another namespace, and for another user's that was handed the descriptor.
    """
    taker = lock_taker(fd)
    if taker is not None and _is_holder(taker, fd) is not False:
        return taker
    # /proc/locks leaves out a lock whose taker has ended, or names who has got its number since.
    return next((pid for pid in _processes() if _is_holder(pid, fd)), None)


def lock_taker(fd: int) -> int | None:
    """Return the process that has taken the lock on a file or directory, as /proc/locks has it.

    It may have closed its descriptor since, when it has handed the lock on.  None where nobody
    holds the lock, or where that cannot be found out.
    """
    status = os.fstat(fd)
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    exact = inexact = None
    for pid, place in _locks():
        found, _, inode = place.rpartition(":")
        if inode == str(status.st_ino):
            # On some file systems (btrfs, overlayfs) stat has another device than this list.
            inexact = pid
            exact = pid if found == device else exact
    return exact or inexact


def _processes() -> Iterator[int]:
    with contextlib.suppress(OSError):
        yield from (int(name) for name in os.listdir("/proc") if name.isdecimal())


def _is_holder(pid: int, fd: int) -> bool | None:
    """Return whether a process has a descriptor with the lock; None where that is not told."""
    wanted = os.fstat(fd)
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(f"/proc/{pid}/fd/{name}")
                if (found.st_dev, found.st_ino) != (wanted.st_dev, wanted.st_ino):
                    continue
                # Of all that have the directory open, those that have the lock have such a line.
                with open(f"/proc/{pid}/fdinfo/{name}", "rb") as file:
                    if b"FLOCK" in file.read():
                        return True
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return False


def holds_lock(fd: int) -> bool:
    """Return whether a descriptor's open file has a lock of flock(2); False without /proc."""
    try:
        with open(f"/proc/self/fdinfo/{fd}") as file:
            # proc(5): "lock: 1: FLOCK ADVISORY WRITE 359 00:13:11691 0 EOF"
            return any(line.startswith("lock:") and "FLOCK" in line for line in file)
    except OSError:
        return False


def _locks() -> list[tuple[int, str]]:
    """Return process and ``major:minor:inode`` of each lock of flock(2) (proc_locks(5))."""
    text = b""
    with contextlib.suppress(OSError), open("/proc/locks", "rb") as file:
        # Bounded: the list is the machine's, and anybody may hold very many locks.  A
        # holder that is not found only leaves its number out of a message.
        text = file.read(_MAX_LOCKS_NBYTES)
    locks = []
    for line in text.decode("ascii", "replace").splitlines():
        # "1: FLOCK  ADVISORY  WRITE 708 00:13:1234 0 EOF"; the line of a process that still
        # waits for the lock has "->" as a ninth field.
        fields = line.split()
        if len(fields) == 8 and fields[1] == "FLOCK" and fields[4].isdecimal():
            locks.append((int(fields[4]), fields[5]))
    return locks
