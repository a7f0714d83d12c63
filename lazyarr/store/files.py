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
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from lazyarr.store.base import Buffer, Parts

__all__ = [
    "ASTRAY_ERRNOS",
    "CREATE_FLAGS",
    "DIRECTORY_FLAGS",
    "HAS_DIRECTORY_DESCRIPTORS",
    "LINKLESS_FLAGS",
    "LOCK_FLAGS",
    "MISSING_ERRNOS",
    "LinkError",
    "READ_FLAGS",
    "SEARCH_FLAGS",
    "TEMPORARY_PREFIX",
    "contains_files",
    "find_obstacle",
    "is_transient",
    "list_directory",
    "list_entries",
    "make_directories",
    "parent_directory",
    "pread_into",
    "read_to_end",
    "remove_directory",
    "remove_file",
    "remove_leftovers",
    "remove_tree",
    "rename_tree",
    "sync_directories",
    "sync_directory",
    "sync_names",
    "write_and_rename",
    "write_parts",
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
# Enough to open a file in a directory that this user may not list.
SEARCH_FLAGS = _flags("O_PATH", "O_CLOEXEC", "O_DIRECTORY")
LINKLESS_FLAGS = DIRECTORY_FLAGS | _flags("O_NOFOLLOW")
# O_EXCL follows no link either (open(2)).
CREATE_FLAGS = _flags("O_WRONLY", "O_CREAT", "O_EXCL", "O_CLOEXEC")
LOCK_FLAGS = _flags("O_RDWR", "O_CLOEXEC", "O_NONBLOCK", "O_NOFOLLOW")

TEMPORARY_PREFIX = ".lazyarr-tmp-"
"""Names of files that are being written, or that a dead writer left behind: no objects."""

MISSING_ERRNOS = frozenset({errno.ENOENT, errno.ENOTDIR})
ASTRAY_ERRNOS = MISSING_ERRNOS | {errno.ELOOP}
"""A path leads nowhere: because nothing is there, or `find_obstacle` says why."""

# Network file systems answer with the first four when a server is away; the
# others are shortages of this machine.
_TRANSIENT_ERRNOS = frozenset(
    {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, getattr(errno, "EREMOTEIO", errno.EIO)}
    | {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EBUSY}
)


# How much is written at a time.  For a longer write(2) Linux takes blocks of up to 2 MiB for the
# page cache, which are seldom at hand: where the host of a virtual machine has taken them back,
# 52 MB took 140 ms in one piece and 12 ms in these.
_PIECE_NBYTES = 256 << 10


class LinkError(OSError):
    """A writer was to change a file behind a symbolic link."""

    def __init__(self, name: str) -> None:
        super().__init__(errno.ELOOP, f"{name!r} is a symbolic link, and a writer follows none")


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


@contextlib.contextmanager
def parent_directory(
    path: str, *, dir_fd: int, make: bool = False, sync: bool = False
) -> Iterator[tuple[int, str]]:
    """Lend the directory that a path leads to below an open one, and the name in it.

    No symbolic link is followed.  Readers may follow them, but a writer that did would change,
    or delete, what lies elsewhere: anybody who may write to the store can put one there.

    Parameters
    ----------
    path : str
        Names between single slashes.
    dir_fd : int
        The open directory.
    make : bool
        Whether directories that are missing are made.
    sync : bool
        Whether those that are made are forced to the disk.

    Raises
    ------
    LinkError
        A directory on the way is a symbolic link.
    """
    *names, last = path.split("/")
    directory = os.dup(dir_fd)
    try:
        for name in names:
            below = _open_below(name, directory, make=make, sync=sync)
            os.close(directory)
            directory = below
        yield directory, last
    finally:
        os.close(directory)


def _open_below(name: str, directory: int, *, make: bool, sync: bool) -> int:
    try:
        return os.open(name, LINKLESS_FLAGS, dir_fd=directory)
    except FileNotFoundError:
        if not make:
            raise
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise LinkError(name) from None
        raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=directory)
        if sync:
            sync_names(directory)
    return _open_below(name, directory, make=False, sync=False)


def make_directories(path: str, *, sync: bool) -> None:
    """Make a directory and those above it, where they are missing.

    Parameters
    ----------
    path : str
        The directory.
    sync : bool
        Whether those that are made are forced to the disk.
    """
    missing = []
    while not os.path.isdir(path or "."):
        missing.append(path)
        path = os.path.dirname(path.rstrip("/"))
    for below in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(below)
        if sync:
            sync_directory(path or ".")
        path = below


def sync_directory(path: str, *, dir_fd: int | None = None) -> None:
    """Force to the disk which names a directory holds; nothing happens when it is gone."""
    try:
        fd = os.open(path, DIRECTORY_FLAGS, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in MISSING_ERRNOS:
            return
        raise
    try:
        sync_names(fd)
    finally:
        os.close(fd)


def sync_names(directory: int) -> None:
    """Force to the disk which names an open directory holds, where its file system can.

    Some network file systems refuse that for directories alone, and keep names in a way of
    their own.
    """
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.EOPNOTSUPP):
            raise


def sync_directories(directory: int) -> None:
    """Force to the disk which names an open directory holds, and all directories in it."""
    for _, _, _, below in os.fwalk(".", topdown=False, dir_fd=directory, onerror=_raise):
        sync_names(below)


def write_and_rename(
    temporary: str,
    path: str,
    data: Parts,
    *,
    dir_fd: int | None = None,
    sync: bool = False,
    check: Callable[[], None] = lambda: None,
) -> os.stat_result:
    """Put a file in its place, whole.

    Parameters
    ----------
    temporary, path : str
        What it is called meanwhile, and then.
    data : bytes-like, or list of bytes-like
        What it holds; in a list, parts that follow one another.
    dir_fd : int, optional
        The open directory that both are relative to.
    sync : bool
        Whether its bytes are forced to the disk before it gets its name; the name itself is
        not.
    check : callable, optional
        Called last before it gets its name, and raises when it is not to have it.

    Returns
    -------
    os.stat_result
        What the file was like before it got its name.
    """
    try:
        return _write_and_rename(temporary, path, data, dir_fd, sync=sync, check=check)
    except FileNotFoundError:
        # 1. we create the temporary file, or close it; 2. another process clears up, finds
        # it without a lock, and takes it for a dead writer's; 3. there is nothing to rename.
        return _write_and_rename(temporary, path, data, dir_fd, sync=sync, check=check)


def _write_and_rename(
    temporary: str,
    path: str,
    data: Parts,
    dir_fd: int | None,
    *,
    sync: bool,
    check: Callable[[], None],
) -> os.stat_result:
    fd = os.open(temporary, CREATE_FLAGS, 0o666, dir_fd=dir_fd)
    try:
        try:
            # Held until the end of the writer, however it comes; not every file system
            # has locks, and where there are none nobody clears up.
            with contextlib.suppress(OSError):
                os.lockf(fd, os.F_TLOCK, 0)
            write_parts(fd, data if isinstance(data, list) else [data])
            if sync:
                os.fsync(fd)
            status = os.fstat(fd)
        finally:
            os.close(fd)
        check()
        os.replace(temporary, path, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=dir_fd)
        raise
    return status


def write_parts(fd: int, parts: Iterable[Buffer]) -> None:
    """Write parts one after the other to a file that is open.

    Small ones are collected, and large ones are not copied.
    """
    pieces: list[memoryview] = []
    nbytes = 0
    for part in parts:
        view = memoryview(part).cast("B")
        for start in range(0, len(view), _PIECE_NBYTES):
            piece = view[start : start + _PIECE_NBYTES]
            if nbytes + len(piece) > _PIECE_NBYTES:
                _write_pieces(fd, pieces)
                pieces, nbytes = [], 0
            pieces.append(piece)
            nbytes += len(piece)
    _write_pieces(fd, pieces)


def _write_pieces(fd: int, pieces: Sequence[memoryview]) -> None:
    rest = pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))
    while rest:
        rest = rest[os.write(fd, rest) :]


def remove_leftovers(directory: int) -> None:
    """Remove the temporary files that dead writers of this user left in an open directory.

    Those that cannot be removed, and those of other users, are left there.
    """
    # Locks belong to processes: those of this one would not be in the way.
    own = f"{TEMPORARY_PREFIX}{os.getpid()}-"
    for name in os.listdir(directory):
        if name.startswith(TEMPORARY_PREFIX) and not name.startswith(own):
            with contextlib.suppress(OSError):
                _remove_unlocked(name, directory)


def _remove_unlocked(name: str, directory: int) -> None:
    fd = os.open(name, LOCK_FLAGS, dir_fd=directory)
    try:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            os.lockf(fd, os.F_TLOCK, 0)
            os.unlink(name, dir_fd=directory)
    finally:
        os.close(fd)


def remove_file(path: str, *, dir_fd: int) -> None:
    """Remove a file, if it is there; no link is followed to it.

    Raises
    ------
    LinkError
        A directory on the way is a symbolic link.
    IsADirectoryError, NotADirectoryError
        A directory is there, or a file on the way.
    """
    with (
        contextlib.suppress(FileNotFoundError),
        parent_directory(path, dir_fd=dir_fd) as (directory, name),
    ):
        os.unlink(name, dir_fd=directory)


def remove_tree(path: str, *, dir_fd: int, first: Collection[str] = ()) -> None:
    """Remove a file, a symbolic link or a directory with all it holds, if it is there.

    Parameters
    ----------
    path : str
        What is removed; no link is followed to it or in it.
    dir_fd : int
        The open directory that it is relative to.
    first : collection of str
        Names in the directory that go before the rest.

    Raises
    ------
    LinkError
        A directory on the way is a symbolic link.
    """
    try:
        with parent_directory(path, dir_fd=dir_fd) as (directory, name):
            mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
            if not stat.S_ISDIR(mode):
                os.unlink(name, dir_fd=directory)
                return
            for early in first:
                with contextlib.suppress(IsADirectoryError):
                    remove_file(f"{name}/{early}", dir_fd=directory)
            # Imported here: it costs milliseconds and only deleting needs it.
            import shutil

            shutil.rmtree(name, dir_fd=directory)
    except OSError as error:
        if error.errno not in MISSING_ERRNOS:
            raise


def remove_directory(name: str, *, dir_fd: int) -> None:
    """Remove a directory with all it holds, and nothing that is none."""
    if stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
        remove_tree(name, dir_fd=dir_fd)


def rename_tree(old: str, new: str, *, dir_fd: int, sync: bool = False) -> None:
    """Give what is somewhere another place, whose parents are made where they are missing.

    Parameters
    ----------
    old, new : str
        Where it is, and where it is to be; no link is followed on the way.
    dir_fd : int
        The open directory that both are relative to.
    sync : bool
        Whether directories that are made are forced to the disk.

    Raises
    ------
    LinkError
        A directory on the way is a symbolic link.
    FileExistsError
        There is something already, other than an empty directory.
    """
    with (
        parent_directory(old, dir_fd=dir_fd) as (source, name),
        parent_directory(new, dir_fd=dir_fd, make=True, sync=sync) as (target, other),
    ):
        with contextlib.suppress(FileNotFoundError):
            # rename(2) refuses other directories by itself.
            if not stat.S_ISDIR(os.stat(other, dir_fd=target, follow_symlinks=False).st_mode):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
        os.rename(name, other, src_dir_fd=source, dst_dir_fd=target)


def list_entries(path: str, *, dir_fd: int) -> list[tuple[str, bool]]:
    """Return the names in a directory, without temporary files, and whether each is a file.

    A link that leads nowhere, or to where nobody may look, is none.
    """
    fd = os.open(path, DIRECTORY_FLAGS, dir_fd=dir_fd)
    try:
        with os.scandir(fd) as entries:
            return [
                (entry.name, _is_file(entry))
                for entry in entries
                if not entry.name.startswith(TEMPORARY_PREFIX)
            ]
    finally:
        os.close(fd)


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # links in a ring, or to where this user has no right
        return False


def list_directory(path: str, *, dir_fd: int) -> list[str]:
    """Return the names in a directory, in no order, without temporary files."""
    fd = os.open(path, DIRECTORY_FLAGS, dir_fd=dir_fd)
    try:
        return [name for name in os.listdir(fd) if not name.startswith(TEMPORARY_PREFIX)]
    finally:
        os.close(fd)


def find_obstacle(path: str, *, dir_fd: int) -> str | None:
    """Return, in words, why a path leads nowhere though something is there; None for nothing.

    git-annex and DataLad leave links that point to nothing where they have no content.

    Parameters
    ----------
    path : str
        What was looked for and not found.
    dir_fd : int
        Where it begins.

    Raises
    ------
    FileExistsError
        When there is a file or a directory at the path by now.
    OSError
        When the file system cannot be asked.
    """
    place = path
    while place:
        try:
            mode = os.stat(place, dir_fd=dir_fd, follow_symlinks=False).st_mode
        except OSError as error:
            if error.errno not in ASTRAY_ERRNOS:
                raise
            place = place.rpartition("/")[0]
            continue
        if stat.S_ISLNK(mode):
            try:
                mode = os.stat(place, dir_fd=dir_fd).st_mode
            except OSError as error:
                return _describe_link(place, dir_fd, is_ring=error.errno == errno.ELOOP)
        if place == path:
            raise FileExistsError(path)
        is_directory = stat.S_ISDIR(mode)
        return None if is_directory else f"{place!r} is a file, not a directory; remove it"
    return None


def _describe_link(path: str, dir_fd: int, *, is_ring: bool) -> str:
    try:
        target = os.readlink(path, dir_fd=dir_fd)
    except OSError as error:  # it has been replaced since it was a link
        raise FileExistsError(path) from error
    if is_ring:
        return f"{path!r} is a symbolic link to {target!r}, and links lead in a ring; remove it"
    return (
        f"{path!r} is a symbolic link to {target!r}, which does not exist; fetch that, as "
        "'git annex get' and 'datalad get' do, or remove the link"
    )


def contains_files(path: str, *, dir_fd: int) -> bool:
    """Return whether there is anything but directories and temporary files, at any depth.

    A symbolic link below counts, wherever it leads: objects may be read through it.
    """
    # What is no directory is not opened: to open a FIFO is to wait for a writer.
    if not stat.S_ISDIR(os.stat(path, dir_fd=dir_fd).st_mode):
        return True
    fd = os.open(path, DIRECTORY_FLAGS, dir_fd=dir_fd)
    try:
        with os.scandir(fd) as entries:
            found = [entry for entry in entries if not entry.name.startswith(TEMPORARY_PREFIX)]
        if not all(entry.is_dir(follow_symlinks=False) for entry in found):
            return True
        return any(_contains_files(entry.name, fd) for entry in found)
    finally:
        os.close(fd)


def _contains_files(name: str, directory: int) -> bool:
    """Return the same of a directory that may be gone since it was listed."""
    try:
        return contains_files(name, dir_fd=directory)
    except FileNotFoundError:
        return False


def _raise(error: OSError) -> NoReturn:
    raise error
