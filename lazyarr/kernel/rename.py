"""Two names exchanged in one step, for which Python has no function."""

from __future__ import annotations

import errno
import os

from lazyarr.errors import KernelUnsupportedError
from lazyarr.kernel.libc import call, syscall_number

__all__ = ["exchange_paths"]

_AT_FDCWD = -100  # linux/fcntl.h
_RENAME_EXCHANGE = 2  # linux/fs.h


def exchange_paths(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    src_dir_fd: int | None = None,
    dst_dir_fd: int | None = None,
) -> None:
    """Give each of two existing paths the other's file or directory, in one step.

    Paths are relative to open directories where those are given, as with `os.rename`.

    Raises
    ------
    OSError
        As `os.rename` raises it, with both names: FileNotFoundError and so on.
    KernelUnsupportedError
        The file system cannot do it.
    """
    # The function renameat2 of the C library is newer than the call (glibc 2.28), and
    # not every C library has one.  So the call is made by its number.
    names = os.fsencode(first), os.fsencode(second)
    start, end = (_AT_FDCWD if fd is None else fd for fd in (src_dir_fd, dst_dir_fd))
    number = syscall_number("renameat2")
    try:
        if number is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        call("syscall", number, start, names[0], end, names[1], _RENAME_EXCHANGE)
    except OSError as error:
        # EINVAL is also how rename(2) refuses to move a directory into itself, but
        # then without flags too: the caller's plain rename tells.
        if error.errno in (errno.EINVAL, errno.ENOSYS):
            raise KernelUnsupportedError(
                f"cannot rename {os.fspath(first)!r} and {os.fspath(second)!r} in one step: "
                "the file system does not offer renameat2; rename them one after the other",
                missing=("renameat2",),
                remedy="rename them one after the other",
            ) from None
        raise OSError(
            error.errno, error.strerror, os.fspath(first), None, os.fspath(second)
        ) from None
