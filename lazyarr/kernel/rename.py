"""Renames that Python has no wrapper for: two names exchanged, or no name replaced."""

from __future__ import annotations

import errno
import os

from lazyarr.errors import KernelUnsupportedError
from lazyarr.kernel.libc import call, syscall_number

__all__ = ["exchange_paths", "rename_noreplace"]

_AT_FDCWD = -100  # linux/fcntl.h
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2  # linux/fs.h


def exchange_paths(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> None:
    """Give each of two existing paths the other's file or directory, in one step.

    Raises
    ------
    OSError
        As `os.rename` raises it, with both names: FileNotFoundError and so on.
    KernelUnsupportedError
        The file system can not do it.
    """
    _renameat2(first, second, _RENAME_EXCHANGE)


def rename_noreplace(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Rename, or raise FileExistsError where the new name is taken.

    `os.rename` replaces a file, or an empty directory, without a word.

    Raises
    ------
    OSError
        As `os.rename` raises it, with both names; FileExistsError.
    KernelUnsupportedError
        The file system can not do it.
    """
    _renameat2(source, target, _RENAME_NOREPLACE)


def _renameat2(source: str | os.PathLike[str], target: str | os.PathLike[str], flags: int) -> None:
    names = os.fsencode(source), os.fsencode(target)
    number = syscall_number("renameat2")
    try:
        if number is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        call("syscall", number, _AT_FDCWD, names[0], _AT_FDCWD, names[1], flags)
    except OSError as error:
        # EINVAL is also how rename(2) refuses to move a directory into itself, but
        # then without flags too: the caller's plain rename tells.
        if error.errno in (errno.EINVAL, errno.ENOSYS):
            raise KernelUnsupportedError(
                f"cannot rename {os.fspath(source)!r} and {os.fspath(target)!r} in one step: "
                "the file system does not offer renameat2; rename them one after the other",
                missing=("renameat2",),
                remedy="rename them one after the other",
            ) from None
        raise OSError(
            error.errno, error.strerror, os.fspath(source), None, os.fspath(target)
        ) from None
