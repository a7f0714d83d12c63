"""A directory as a store, without fsspec."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from typing import TYPE_CHECKING, NoReturn, TypeVar

from lazyarr.errors import StoreError
from lazyarr.store import files
from lazyarr.store.base import (
    METADATA_NAMES,
    NoObjectError,
    StoreReference,
    check_key,
    check_limit,
    check_range,
)
from lazyarr.store.descriptors import BorrowedFile, DescriptorPool
from lazyarr.store.directory import hold_directory, raise_short, raise_store_error
from lazyarr.store.stamps import Stamps

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from lazyarr.store.base import Buffer
    from lazyarr.store.claim import Claim
    from lazyarr.store.descriptors import Descriptor

__all__ = ["LocalStore"]

_KEPT_OPEN = 64
"""Open files per store: enough for the shards of one batch, far below the usual limit of 1024."""

_KEPT_CLEARED = 1024
"""Directories that are known to hold no leftovers; looking again costs little."""

_MAX_LOOKS = 8
"""How often something is looked for that was not there, and is a moment later."""

_counter = itertools.count()

_Found = TypeVar("_Found")


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

    durable = False
    """Whether what is written is forced to the disk: objects at once, their names by `sync`."""

    def __init__(
        self, path: str, *, writable: bool = False, identity: tuple[int, int] | None = None
    ) -> None:
        self._root = hold_directory(path, identity)
        self._files = DescriptorPool(_KEPT_OPEN)
        self._cleared: set[str] = set()
        self._stamps = Stamps()
        self._claim: Claim | None = None
        self._unsynced: set[str] = set()
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
            status = self._find("look up", key, root, lambda fd: os.stat(key, dir_fd=fd))
            if status is None:
                look.note(key, None)
                return None
        self._files.forget_other(key, status)
        if not stat.S_ISREG(status.st_mode):
            self._refuse(key, status)
        return status.st_size

    def is_unchanged(self) -> bool:
        """Return whether every object that was read is certainly what it was, or missing still.

        Raises
        ------
        OSError
            When the file system cannot be asked.
        """
        return self._stamps.are_current(self._root.current_stamp)

    def list_names(self, prefix: str) -> tuple[str, ...]:
        """Return the sorted names of what lies directly below a prefix."""
        check_key(prefix, self.url, is_prefix=True)
        with self._root.opened() as root:
            names = self._find(
                *("list", prefix, root),
                lambda fd: files.list_directory(prefix or ".", dir_fd=fd),
                may_be_file=True,
            )
        return tuple(sorted(names or ()))

    def list_directories(self, prefix: str) -> tuple[str, ...]:
        """Return the sorted names of what lies directly below a prefix and is no file."""
        check_key(prefix, self.url, is_prefix=True)
        with self._root.opened() as root:
            entries = self._find(
                *("list", prefix, root),
                lambda fd: files.list_entries(prefix or ".", dir_fd=fd),
                may_be_file=True,
            )
        return tuple(sorted(name for name, is_file in entries or () if not is_file))

    def iterate_names(self, prefix: str) -> Generator[str]:
        """Yield the names of what lies directly below a prefix, in no order, as they are read."""
        check_key(prefix, self.url, is_prefix=True)
        with self._root.opened() as root:
            fd = self._find(
                *("list", prefix, root),
                lambda fd: os.open(prefix or ".", files.DIRECTORY_FLAGS, dir_fd=fd),
                may_be_file=True,
            )
        if fd is not None:
            try:
                with os.scandir(fd) as entries:
                    yield from (entry.name for entry in entries)
            finally:
                os.close(fd)

    def changed_ns(self, key: str) -> int | None:
        """Return when an object was changed last; None when it does not exist."""
        check_key(key, self.url)
        with self._root.opened() as root:
            status = self._find("look up", key, root, lambda fd: os.stat(key, dir_fd=fd))
        return None if status is None else status.st_mtime_ns

    def write(self, key: str, data: Buffer) -> None:
        """Put a whole object; readers see the old one or the new one, never a part.

        Notes
        -----
        Atomic for readers, by renaming.  With `durable`, a power failure leaves the old
        object or the new one, and the new one after `sync`; without, it may leave neither.  The
        first write to a directory removes what writers that were killed left in it.
        """
        check_key(key, self.url)
        unique = f"{os.getpid()}-{next(_counter)}-{os.urandom(8).hex()}"
        temporary = files.TEMPORARY_PREFIX + unique
        with (
            self._changing("write", key) as root,
            files.parent_directory(key, dir_fd=root.fd, make=True, sync=self.durable) as (
                directory,
                name,
            ),
        ):
            parent = key.rpartition("/")[0]
            if parent not in self._cleared:
                files.remove_leftovers(directory)
                if len(self._cleared) >= _KEPT_CLEARED:
                    self._cleared.clear()
                self._cleared.add(parent)
            files.write_and_rename(temporary, name, data, dir_fd=directory, sync=self.durable)
        self._unsynced.add(parent)
        self._files.forget(key)

    def delete(self, key: str) -> None:
        """Take an object away; nothing happens when there is none."""
        check_key(key, self.url)
        with self._changing("delete", key) as root:
            files.remove_file(key, dir_fd=root.fd)
        self._unsynced.add(key.rpartition("/")[0])
        self._files.forget(key)

    def delete_prefix(self, prefix: str) -> None:
        """Take away the object at a prefix and everything below it, metadata first.

        The root directory itself stays.
        """
        check_key(prefix, self.url, is_prefix=True)
        with self._changing("delete", prefix) as root:
            # Metadata first: a tree that is half gone must not look like one
            # whose chunks are all fill value.
            if prefix:
                files.remove_tree(prefix, dir_fd=root.fd, first=METADATA_NAMES)
            else:
                names = os.listdir(root.fd)
                for path in sorted(names, key=lambda name: name not in METADATA_NAMES):
                    files.remove_tree(path, dir_fd=root.fd)
        self._unsynced.add(prefix.rpartition("/")[0])
        self._files.forget_below(prefix)

    def sync(self) -> None:
        """Force to the disk which objects there are, if `durable`; no other thread writes now."""
        changed, self._unsynced = self._unsynced, set()
        if self.durable and changed:
            with self._changing("write to", None) as root:
                for path in sorted(changed):
                    files.sync_directory(path or ".", dir_fd=root.fd)

    def exists_any(self, prefix: str) -> bool:
        """Return whether there is an object at a prefix or anywhere below it.

        Empty directories are no objects.
        """
        check_key(prefix, self.url, is_prefix=True)
        with self._root.opened() as root:
            found = self._find(
                *("list", prefix, root),
                lambda fd: files.contains_files(prefix or ".", dir_fd=fd),
                may_be_file=True,
            )
        return bool(found)

    def claim(self) -> None:
        """Be the only writer of the store, which exists, until it is closed or this process ends.

        Raises
        ------
        StoreError
            There is another one, in this process or in another; the message names it.
        """
        # Imported here: readers do without.
        from lazyarr.store.claim import claim_directory

        with self._root.opened() as root:
            assert root is not None
            self._claim = claim_directory(root.fd, self.url)

    def close(self) -> None:
        """Close all descriptors; those in use by other threads when they are done."""
        if self._claim is not None:
            self._claim.close()
        self._files.close()
        self._root.close()

    def _open(self, key: str) -> Descriptor | None:
        check_key(key, self.url)
        with self._root.opened() as root, self._stamps.looking() as look:
            fd = self._find(
                "open", key, root, lambda root_fd: os.open(key, files.READ_FLAGS, dir_fd=root_fd)
            )
            status = None if fd is None else os.fstat(fd)
            look.note(key, status)
        if fd is None or status is None:
            return None
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            self._refuse(key, status)
        return self._files.lend(key, fd)

    def _refuse(self, key: str, status: os.stat_result) -> NoReturn:
        what = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        self._raise_no_object(key, f"it is {what}; remove it")

    def _raise_no_object(self, key: str, found: str) -> NoReturn:
        message = f"cannot read {key!r} in {self.url}: {found}"
        raise NoObjectError(message, url=self.url, key=key, transient=False)

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

    def _find(
        self,
        action: str,
        key: str,
        root: Descriptor | None,
        look: Callable[[int], _Found],
        *,
        may_be_file: bool = False,
    ) -> _Found | None:
        """Return what looking for a key gives; None when nothing is there.

        Raises
        ------
        NoObjectError
            When something is, to which the key does not lead.
        """
        # What lies in a group and is no node is often a file, and has no document below it.
        may_be_file = may_be_file or key.rpartition("/")[2] in METADATA_NAMES
        if root is None:
            return None
        for _ in range(_MAX_LOOKS):
            try:
                return look(root.fd)
            except OSError as error:
                if error.errno not in files.MISSING_ERRNOS:
                    raise_store_error(error, action, key, self.url)
                is_file = error.errno == errno.ENOTDIR and may_be_file
            try:
                found = None if is_file else files.find_obstacle(key, dir_fd=root.fd)
            except FileExistsError:
                continue
            except OSError as error:
                raise_store_error(error, action, key, self.url)
            self._root.require_same(root, key)
            if found is None:
                return None
            self._raise_no_object(key, found)
        message = f"cannot {action} {key!r} in {self.url}: it comes and goes; try again"
        raise StoreError(message, url=self.url, key=key, transient=True)

    @contextlib.contextmanager
    def _changing(self, action: str, key: str | None) -> Iterator[Descriptor]:
        if not self.writable:
            message = f"cannot {action} {key!r} in {self.url}: the store was opened for reading"
            raise StoreError(message, url=self.url, key=key, transient=False)
        with self._root.created() as root:
            try:
                yield root
            except OSError as error:
                raise_store_error(error, action, key, self.url)
