"""Locks on open files, which the kernel ends with the process that holds them (flock(2))."""

from __future__ import annotations

import contextlib
import errno
import os

__all__ = ["lock_holder", "try_lock"]

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


def lock_holder(fd: int) -> int | None:
    """Return the process that holds the lock on the file or directory of a descriptor.

    None where no process holds it, or where that cannot be found out: without /proc, and for
    a process in another namespace.
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
