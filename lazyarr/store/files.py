"""Reading, making and removing files below an open directory; errors stay OSError."""

from __future__ import annotations

import contextlib
import errno
import functools
import operator
import os
import stat
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from lazyarr.store.base import Buffer

__all__ = [
    "DIRECTORY_FLAGS",
    "HAS_DIRECTORY_DESCRIPTORS",
    "MISSING_ERRNOS",
    "READ_FLAGS",
    "TEMPORARY_PREFIX",
    "contains_files",
    "is_transient",
    "list_directory",
    "pread_into",
    "read_to_end",
    "remove_file",
    "remove_leftovers",
    "remove_tree",
    "write_and_rename",
]

HAS_DIRECTORY_DESCRIPTORS = os.open in os.supports_dir_fd
"""Whether files can be opened relative to an open directory: everywhere but on Windows."""


def _flags(*names: str) -> int:
    """Return flags for opening; Windows lacks most, and nothing is opened with them there."""
    return functools.reduce(operator.or_, (getattr(os, name, 0) for name in names))


# Without O_NONBLOCK, opening a FIFO that somebody left in the store waits for ever.
# It means nothing for regular files.
READ_FLAGS = _flags("O_RDONLY", "O_CLOEXEC", "O_NONBLOCK")
DIRECTORY_FLAGS = _flags("O_RDONLY", "O_CLOEXEC", "O_DIRECTORY")
_CREATE_FLAGS = _flags("O_WRONLY", "O_CREAT", "O_EXCL", "O_CLOEXEC")
_LOCK_FLAGS = _flags("O_RDWR", "O_CLOEXEC", "O_NONBLOCK", "O_NOFOLLOW")

TEMPORARY_PREFIX = ".lazyarr-tmp-"
"""Names of files that are being written, or that a dead writer left behind: no objects."""

MISSING_ERRNOS = frozenset({errno.ENOENT, errno.ENOTDIR})
# Network file systems answer with the first four when a server is away; the
# others are shortages of this machine.
_TRANSIENT_ERRNOS = frozenset(
    {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, getattr(errno, "EREMOTEIO", errno.EIO)}
    | {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EBUSY}
)


def is_transient(error: OSError) -> bool:
    """Return whether the same call on a file may succeed later."""
    return error.errno in _TRANSIENT_ERRNOS


def read_to_end(fd: int, limit_nbytes: int | None = None) -> bytes:
    """Return all of a file, from its beginning, without moving its position.

    Of one that grows meanwhile, not much more than `limit_nbytes`.
    """
    # One byte more than the size: the usual file needs one read and one that finds the end.
    nbytes = os.fstat(fd).st_size + 1
    parts: list[bytes] = []
    offset = 0
    while part := os.pread(fd, max(nbytes - offset, 1 << 16), offset):
        parts.append(part)
        offset += len(part)
        if limit_nbytes is not None and offset > limit_nbytes:
            break
    return b"".join(parts)


def pread_into(fd: int, target: memoryview, start: int) -> int:
    """Read a file from `start` into `target`; return how many bytes there were."""
    done = os.preadv(fd, [target], start)
    # Linux gives at most 2 GiB - 4 KiB at a time (read(2), NOTES), and network file
    # systems sometimes less than was asked for.
    while 0 < done < len(target):
        n_read = os.preadv(fd, [target[done:]], start + done)
        if n_read == 0:
            break
        done += n_read
    return done


def write_and_rename(temporary: str, path: str, data: Buffer, *, dir_fd: int | None = None) -> None:
    """Put a file in its place, whole; directories above it are made when they are missing."""
    try:
        _write_and_rename(temporary, path, data, dir_fd)
    except FileNotFoundError:
        # 1. we create the temporary file, or close it; 2. another process clears up, finds
        # it without a lock, and takes it for a dead writer's; 3. there is nothing to rename.
        _write_and_rename(temporary, path, data, dir_fd)


def _write_and_rename(temporary: str, path: str, data: Buffer, dir_fd: int | None) -> None:
    fd = _create(temporary, dir_fd)
    try:
        try:
            # Held until the end of the writer, however it comes; not every file system
            # has locks, and where there are none nobody clears up.
            with contextlib.suppress(OSError):
                os.lockf(fd, os.F_TLOCK, 0)
            rest = memoryview(data).cast("B")
            while rest:
                rest = rest[os.write(fd, rest) :]
        finally:
            os.close(fd)
        os.replace(temporary, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=dir_fd)
        raise


def remove_leftovers(path: str, *, dir_fd: int) -> None:
    """Remove the temporary files that dead writers left in a directory, as far as that goes."""
    # Locks belong to processes: those of this one would not be in the way.
    own = f"{TEMPORARY_PREFIX}{os.getpid()}-"
    try:
        directory = os.open(path, DIRECTORY_FLAGS, dir_fd=dir_fd)
    except OSError:
        return
    try:
        for name in os.listdir(directory):
            if name.startswith(TEMPORARY_PREFIX) and not name.startswith(own):
                with contextlib.suppress(OSError):
                    _remove_unlocked(name, directory)
    finally:
        os.close(directory)


def _remove_unlocked(name: str, directory: int) -> None:
    fd = os.open(name, _LOCK_FLAGS, dir_fd=directory)
    try:
        os.lockf(fd, os.F_TLOCK, 0)
        os.unlink(name, dir_fd=directory)
    finally:
        os.close(fd)


def remove_file(path: str, *, dir_fd: int) -> None:
    """Remove a file, if it is there."""
    try:
        os.unlink(path, dir_fd=dir_fd)
    except OSError as error:
        # A directory is no object.
        if error.errno not in MISSING_ERRNOS | {errno.EISDIR}:
            raise


def remove_tree(path: str, *, dir_fd: int) -> None:
    """Remove a file, a symbolic link or a directory with all it holds, if it is there."""
    try:
        mode = os.stat(path, dir_fd=dir_fd, follow_symlinks=False).st_mode
        if not stat.S_ISDIR(mode):
            os.unlink(path, dir_fd=dir_fd)
            return
        # Imported here: it costs milliseconds and only deleting needs it.
        import shutil

        shutil.rmtree(path, dir_fd=dir_fd)
    except OSError as error:
        if error.errno not in MISSING_ERRNOS:
            raise


def list_directory(path: str, *, dir_fd: int) -> list[str]:
    """Return the names in a directory, in no order, without temporary files."""
    fd = os.open(path, DIRECTORY_FLAGS, dir_fd=dir_fd)
    try:
        return [name for name in os.listdir(fd) if not name.startswith(TEMPORARY_PREFIX)]
    finally:
        os.close(fd)


def contains_files(path: str, *, dir_fd: int) -> bool:
    """Return whether a directory holds a file, at any depth, that is not temporary."""
    for _, _, names, _ in os.fwalk(path, dir_fd=dir_fd, onerror=_raise):
        if not all(name.startswith(TEMPORARY_PREFIX) for name in names):
            return True
    return False


def _create(path: str, dir_fd: int | None) -> int:
    try:
        return os.open(path, _CREATE_FLAGS, 0o666, dir_fd=dir_fd)
    except FileNotFoundError:
        names = path.split("/")[:-1]
        for depth in range(1, len(names) + 1):
            with contextlib.suppress(FileExistsError):
                os.mkdir("/".join(names[:depth]), dir_fd=dir_fd)
        return os.open(path, _CREATE_FLAGS, 0o666, dir_fd=dir_fd)


def _raise(error: OSError) -> NoReturn:
    raise error
