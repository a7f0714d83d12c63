"""Descriptors that are checked before use: whether they still are what lazyarr opened.

A program that becomes a daemon closes all open descriptors, and files that it opens then get the
same numbers.  So a number that lazyarr keeps may be another file by now.  A file is recognized
by its device and inode (stat(2)); a socket and, since Linux 5.12, a userfaultfd have inodes of
their own.
"""

from __future__ import annotations

import errno
import os
from typing import TypeAlias

__all__ = ["CLOSED_BY_OTHERS", "Identity", "KnownDescriptor", "identity_of"]

Identity: TypeAlias = "tuple[int, int]"
"""Device and inode."""

CLOSED_BY_OTHERS = (
    "other code of this process has closed lazyarr's descriptors, as daemons close all that are "
    "open; open the dataset after that"
)


def identity_of(fd: int) -> Identity | None:
    """Return the identity of a descriptor's file; None if it is closed or gone (ESTALE on NFS).

    Examples
    --------
    >>> reader, writer = os.pipe()
    >>> known = identity_of(reader)
    >>> os.close(reader)
    >>> identity_of(reader) is None, identity_of(writer) == known
    (True, True)
    >>> os.close(writer)
    """
    try:
        status = os.fstat(fd)
    except OSError as error:
        if error.errno in (errno.EBADF, errno.ESTALE):
            return None
        raise
    return status.st_dev, status.st_ino


class KnownDescriptor:
    """A descriptor that this object owns, until it is closed, here or by other code.

    Parameters
    ----------
    fd : int
        The descriptor.
    """

    __slots__ = ("_fd", "_identity")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._identity = identity_of(fd)

    def __repr__(self) -> str:
        return f"<KnownDescriptor: {self._fd}>"

    def fileno(self) -> int:
        """Return the number; -1 once closed or given up."""
        return self._fd

    def is_own(self) -> bool:
        """Return whether the number still is the file that it was at first."""
        return self._identity is not None and identity_of(self._fd) == self._identity

    def detach(self) -> int:
        """Give the descriptor up and return it; -1 where the number is another file by now."""
        fd, self._fd = self._fd if self.is_own() else -1, -1
        return fd

    def close(self) -> None:
        """Close the descriptor, if it is still there; once closed, do nothing."""
        fd = self.detach()
        if fd >= 0:
            os.close(fd)
