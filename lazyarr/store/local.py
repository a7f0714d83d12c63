"""A directory as a store, without fsspec."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from typing import TYPE_CHECKING

from lazyarr.errors import StoreError
from lazyarr.store import files
from lazyarr.store.base import METADATA_NAMES, StoreReference, check_key, check_limit, check_range
from lazyarr.store.descriptors import BorrowedFile, DescriptorPool
from lazyarr.store.directory import hold_directory, raise_short, raise_store_error
from lazyarr.store.stamps import Stamps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazyarr.store.base import Buffer
    from lazyarr.store.descriptors import Descriptor

__all__ = ["LocalStore"]

_KEPT_OPEN = 64
"""Open files per store: enough for the shards of one batch, far below the usual limit of 1024."""

_KEPT_CLEARED = 1024
"""Directories that are known to hold no leftovers; looking again costs little."""

_counter = itertools.count()


class LocalStore:
    """Objects are the regular files below a directory.

    Parameters
    ----------
    path : str
        The directory; it is made by the first write when it does not exist.
    writable : bool
        Whether the methods that change something are allowed.
    identity : tuple of (int, int), optional
        Device and inode that the directory must have, as another process saw them.

    Notes
    -----
    Ranges of one object come from one file for as long as its descriptor is kept, also
    when the object is replaced meanwhile; `read`, `read_suffix` and `size` always see
    the newest, and ranges after them too.

    Survives fork: the child opens its own files.
    """

    def __init__(
        self, path: str, *, writable: bool = False, identity: tuple[int, int] | None = None
    ) -> None:
        self._root = hold_directory(path, identity)
        self._files = DescriptorPool(_KEPT_OPEN)
        self._cleared: set[str] = set()
        self._stamps = Stamps()
        self.writable = writable
        self.url = self._root.url

    def __repr__(self) -> str:
        return f"LocalStore({self.path!r}, writable={self.writable}, n_open={len(self._files)})"

    @property
    def path(self) -> str:
        """The directory, absolute."""
        return self._root.path

    def reference(self, prefix: str = "") -> StoreReference:  # noqa: ARG002 - all of it
        """Return the path and the identity of the directory, for another process."""
        with self._root.opened():
            identity = self._root.identity
        description = {"kind": "local", "path": self.path, "writable": self.writable}
        return StoreReference({**description, "identity": identity and list(identity)})

    def read(self, key: str, *, limit_nbytes: int | None = None) -> bytes | None:
        """Return a whole object; None when it does not exist."""
        with self._newest(key) as found:
            if found is None:
                return None
            check_limit(key, os.fstat(found.fd).st_size, limit_nbytes, self.url)
            data = files.read_to_end(found.fd, limit_nbytes)
            check_limit(key, len(data), limit_nbytes, self.url)
            return data

    def read_range(
        self, key: str, start: int, stop: int, *, into: memoryview | None = None
    ) -> memoryview | None:
        """Return exactly ``stop - start`` bytes; None when the object does not exist.

        Raises
        ------
        StoreError
            Also when the object is shorter than `stop`; that is not transient.
        """
        nbytes = check_range(start, stop, into)
        found = self._files.borrow(key) or self._open(key)
        if found is None:
            return None
        target = memoryview(bytearray(nbytes)) if into is None else into.cast("B")[:nbytes]
        try:
            n_read = files.pread_into(found.fd, target, start)
        except OSError as error:
            raise_store_error(error, "read", key, self.url)
        finally:
            self._files.give_back(found)
        if n_read < nbytes:
            raise_short(self.url, key, start, stop, start + n_read)
        return target

    def borrow(self, key: str) -> BorrowedFile | None:
        """Return an object that is open already, to be released; None when it is not open."""
        found = self._files.borrow(key)
        return None if found is None else BorrowedFile(self._files, found)

    def rest(self) -> None:
        """Let go of the files; they are opened again when needed.

        Not of the directory, which must stay the same one.
        """
        self._files.forget_below("")

    def forget(self, key: str) -> None:
        """Read an object from now on as it is now, if it has been replaced."""
        self._files.forget(key)

    def read_suffix(self, key: str, nbytes: int) -> tuple[bytes, int] | None:
        """Return the last `nbytes` and the object's size; None when it does not exist."""
        check_range(0, nbytes, None)
        with self._newest(key) as found:
            if found is None:
                return None
            size = os.fstat(found.fd).st_size
            start = max(0, size - nbytes)
            target = bytearray(size - start)
            n_read = files.pread_into(found.fd, memoryview(target), start)
            if n_read < len(target):
                raise_short(self.url, key, start, size, start + n_read)
            return bytes(target), size

    def size(self, key: str) -> int | None:
        """Return an object's size in bytes; None when it does not exist."""
        check_key(key, self.url)
        with self._root.opened() as root, self._stamps.looking() as look:
            if root is not None:
                with self._missing_or_error("look up", key, root):
                    status = os.stat(key, dir_fd=root.fd)
                    self._files.forget_other(key, status)
                    if stat.S_ISREG(status.st_mode):
                        return status.st_size
            look.note(key, None)
        return None

    def is_unchanged(self) -> bool:
        """Return whether every object that was read is certainly what it was, or missing still.

        Raises
        ------
        OSError
            When the file system can not be asked.
        """
        return self._stamps.are_current(self._root.current_stamp)

    def list_names(self, prefix: str) -> tuple[str, ...]:
        """Return the sorted names of what lies directly below a prefix."""
        check_key(prefix, self.url, is_prefix=True)
        with self._root.opened() as root:
            if root is None:
                return ()
            with self._missing_or_error("list", prefix, root):
                return tuple(sorted(files.list_directory(prefix or ".", dir_fd=root.fd)))
        return ()

    def write(self, key: str, data: Buffer) -> None:
        """Put a whole object; readers see the old one or the new one, never a part.

        Notes
        -----
        Atomic for readers, by renaming.  It is not forced to the disk: a power
        failure may lose it.  The first write to a directory removes what writers that
        were killed left in it.
        """
        check_key(key, self.url)
        unique = f"{os.getpid()}-{next(_counter)}-{os.urandom(4).hex()}"
        parent = key.rpartition("/")[0] or "."
        temporary = f"{parent}/{files.TEMPORARY_PREFIX}{unique}"
        with self._changing("write", key) as root:
            if parent not in self._cleared:
                files.remove_leftovers(parent, dir_fd=root.fd)
                if len(self._cleared) >= _KEPT_CLEARED:
                    self._cleared.clear()
                self._cleared.add(parent)
            files.write_and_rename(temporary, key, data, dir_fd=root.fd)
        self._files.forget(key)

    def delete(self, key: str) -> None:
        """Take an object away; nothing happens when there is none."""
        check_key(key, self.url)
        with self._changing("delete", key) as root:
            files.remove_file(key, dir_fd=root.fd)
        self._files.forget(key)

    def delete_prefix(self, prefix: str) -> None:
        """Take away the object at a prefix and everything below it, metadata first.

        The root directory itself stays.
        """
        check_key(prefix, self.url, is_prefix=True)
        with self._changing("delete", prefix) as root:
            # Metadata first: a tree that is half gone must not look like one
            # whose chunks are all fill value.
            for name in METADATA_NAMES:
                files.remove_file(f"{prefix or '.'}/{name}", dir_fd=root.fd)
            for path in [prefix] if prefix else os.listdir(root.fd):
                files.remove_tree(path, dir_fd=root.fd)
        self._files.forget_below(prefix)

    def exists_any(self, prefix: str) -> bool:
        """Return whether there is an object at a prefix or anywhere below it.

        Empty directories are no objects.
        """
        check_key(prefix, self.url, is_prefix=True)
        if prefix and self.size(prefix) is not None:
            return True
        with self._root.opened() as root:
            if root is None:
                return False
            with self._missing_or_error("list", prefix, root):
                return files.contains_files(prefix or ".", dir_fd=root.fd)
        return False

    def close(self) -> None:
        """Close all descriptors; those in use by other threads when they are done."""
        self._files.close()
        self._root.close()

    def _open(self, key: str) -> Descriptor | None:
        check_key(key, self.url)
        with self._root.opened() as root, self._stamps.looking() as look:
            fd = -1
            if root is not None:
                with self._missing_or_error("open", key, root):
                    fd = os.open(key, files.READ_FLAGS, dir_fd=root.fd)
            status = os.fstat(fd) if fd >= 0 else None
            is_there = status is not None and not stat.S_ISDIR(status.st_mode)
            look.note(key, status if is_there else None)
        if status is None:
            return None
        if stat.S_ISREG(status.st_mode):
            return self._files.lend(key, fd)
        os.close(fd)
        if stat.S_ISDIR(status.st_mode):
            return None
        message = f"cannot read {key!r} in {self.url}: it is not a regular file; remove it"
        raise StoreError(message, url=self.url, key=key, transient=False)

    @contextlib.contextmanager
    def _newest(self, key: str) -> Iterator[Descriptor | None]:
        found = self._open(key)
        try:
            yield found
        except StoreError:
            raise
        except OSError as error:
            raise_store_error(error, "read", key, self.url)
        finally:
            if found is not None:
                self._files.give_back(found)

    @contextlib.contextmanager
    def _missing_or_error(self, action: str, key: str, root: Descriptor) -> Iterator[None]:
        # Goes on after the block when there is nothing at that key.
        try:
            yield
        except OSError as error:
            if error.errno not in files.MISSING_ERRNOS:
                raise_store_error(error, action, key, self.url)
            self._root.require_same(root, key)

    @contextlib.contextmanager
    def _changing(self, action: str, key: str) -> Iterator[Descriptor]:
        if not self.writable:
            message = f"cannot {action} {key!r} in {self.url}: the store was opened for reading"
            raise StoreError(message, url=self.url, key=key, transient=False)
        with self._root.created() as root:
            try:
                yield root
            except OSError as error:
                raise_store_error(error, action, key, self.url)
