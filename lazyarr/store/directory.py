"""The directory of a local store, held open and known by its identity."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from typing import TYPE_CHECKING, NoReturn

from lazyarr.errors import StoreError
from lazyarr.kernel import current_stamp, renew_in_child
from lazyarr.shortage import describe_shortage, is_shortage
from lazyarr.store import files
from lazyarr.store.descriptors import DescriptorPool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazyarr.kernel import Stamp
    from lazyarr.store.descriptors import Descriptor

__all__ = ["HeldDirectory", "hold_directory", "raise_short", "raise_store_error"]


class HeldDirectory:
    """A directory that stays the same one, whatever its path names later.

    Parameters
    ----------
    path : str
        The directory; it may not exist yet.
    identity : tuple of (int, int), optional
        Device and inode that it must have, as another process saw them.

    Notes
    -----
    It is opened at the first use and held, so what is read belongs to one tree
    also when a writer puts another in its place.  The old tree then looks
    emptier and emptier while it is deleted, and a chunk that is gone would be
    read as its fill value.  So an object counts as missing only while the path still
    names the directory that is held.
    """

    def __init__(self, path: str, *, identity: tuple[int, int] | None = None) -> None:
        self.path = os.path.abspath(path)
        self.url = "file://" + self.path
        self.identity = identity
        # A pool of one: it knows how to close what other threads are using.
        self._pool = DescriptorPool(1, keep_in_child=True)
        self._n_users = 1

    @contextlib.contextmanager
    def opened(self) -> Iterator[Descriptor | None]:
        """Lend the open directory; None when there has never been one."""
        held = self._pool.borrow("") or self._open()
        try:
            yield held
        finally:
            if held is not None:
                self._pool.give_back(held)

    @contextlib.contextmanager
    def created(self) -> Iterator[Descriptor]:
        """Lend the open directory, after making it when there has never been one."""
        if self.identity is None:
            try:
                os.makedirs(self.path, exist_ok=True)
            except OSError as error:
                raise_store_error(error, "make", None, self.url)
        with self.opened() as held:
            assert held is not None
            yield held

    def require_same(self, held: Descriptor, key: str) -> None:
        """Raise unless the path still names the directory that is held.

        Raises
        ------
        StoreError
            When it was replaced, moved or removed; not transient.
        """
        try:
            is_same = _identity(os.stat(self.path)) == _identity(os.fstat(held.fd))
        except OSError:
            is_same = False
        if not is_same:
            self._raise_replaced(key)

    def current_stamp(self, key: str) -> Stamp | None:
        """Return what an object is like now; None when there is none."""
        with self.opened() as root:
            if root is None:
                return None
            try:
                fd = os.open(key, files.READ_FLAGS, dir_fd=root.fd)
            except OSError as error:
                if error.errno in files.MISSING_ERRNOS:
                    return None
                raise
        try:
            stamp = current_stamp(fd)
        finally:
            os.close(fd)
        return None if stat.S_ISDIR(stamp.mode) else stamp

    def share(self) -> HeldDirectory:
        """Return the directory with one more user."""
        self._n_users += 1
        return self

    def close(self) -> None:
        """Have one user less; the last one closes it, when no other thread uses it any more."""
        with _sharing:
            self._n_users -= 1
            if self._n_users:
                return
            if _shared.get((self.path, self.identity)) is self:
                del _shared[self.path, self.identity]
        self._pool.close()

    def _open(self) -> Descriptor | None:
        try:
            fd = _open_directory(self.path)
        except FileNotFoundError:
            if self.identity is not None:
                self._raise_replaced(None)
            return None
        except NotADirectoryError as error:
            # Imported here: it is for an error.
            from lazyarr.store.strangers import describe_stranger

            message = f"cannot open {self.url}: {describe_stranger(self.path)}"
            raise StoreError(message, url=self.url, key=None, transient=False) from error
        except OSError as error:
            raise_store_error(error, "open", None, self.url)
        except ValueError as error:  # a zero byte, or half a character
            message = f"cannot open {self.url!r}: {error}; no directory has such a name"
            raise StoreError(message, url=self.url, key=None, transient=False) from error
        identity = _identity(os.fstat(fd))
        if self.identity not in (None, identity):
            os.close(fd)
            self._raise_replaced(None)
        self.identity = identity
        return self._pool.lend("", fd)

    def _raise_replaced(self, key: str | None) -> NoReturn:
        what = self.url if key is None else f"{key!r} in {self.url}"
        message = (
            f"cannot use {what}: the directory was replaced, moved or removed since it "
            f"was opened; open the store again"
        )
        raise StoreError(message, url=self.url, key=key, transient=False)


def hold_directory(path: str, identity: tuple[int, int] | None) -> HeldDirectory:
    """Return a directory, the same one for all who know its identity, to be closed by each.

    Ten thousand arrays of a store need one descriptor for it, which is never let go
    while one of them is open: an inode's number can be another directory's after that.
    """
    if identity is None:
        return HeldDirectory(path)
    key = (os.path.abspath(path), identity)
    with _sharing:
        held = _shared.get(key)
        if held is None:
            held = _shared[key] = HeldDirectory(path, identity=identity)
            return held
        return held.share()


def _open_directory(path: str) -> int:
    try:
        return os.open(path, files.DIRECTORY_FLAGS)
    except PermissionError:
        # Its mode may let others look for names that they know (0711).
        return os.open(path, files.SEARCH_FLAGS)


_sharing = threading.Lock()
_shared: dict[tuple[str, tuple[int, int] | None], HeldDirectory] = {}


def _start_anew() -> None:
    # Another thread may have held the lock at the fork.
    global _sharing
    _sharing = threading.Lock()


renew_in_child(_start_anew)


_REMEDIES = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), "check the owner and the mode"),
    **dict.fromkeys(
        (errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR, errno.ENOTDIR),
        "take away what is in its place",
    ),
    errno.ENAMETOOLONG: "use shorter names",
}


def raise_store_error(error: OSError, action: str, key: str | None, url: str) -> NoReturn:
    """Raise what the file system said as a StoreError."""
    what = url if key is None else f"{key!r} in {url}"
    remedy = _REMEDIES.get(error.errno or 0, "check the file system")
    if isinstance(error, files.LinkError):
        remedy = "write to what it leads to, or put a directory in its place"
    found = f"{error.strerror or error}; {remedy}"
    if is_shortage(error):
        found = describe_shortage(error)
    message = f"cannot {action} {what}: {found}"
    transient = files.is_transient(error)
    raise StoreError(message, url=url, key=key, transient=transient) from error


def raise_short(url: str, key: str, start: int, stop: int, size: int) -> NoReturn:
    """Raise the error for a range that an object does not have all of."""
    message = (
        f"cannot read bytes [{start}, {stop}) of {key!r} in {url}: nothing at or after "
        f"byte {size}; the object is truncated, or its index is of another version"
    )
    raise StoreError(message, url=url, key=key, transient=False)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
