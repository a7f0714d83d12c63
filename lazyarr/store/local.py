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
    ANYTHING,
    METADATA_NAMES,
    Anything,
    ChangedError,
    NoObjectError,
    StoreReference,
    check_key,
    check_limit,
    check_range,
)
from lazyarr.store.descriptors import BorrowedFile, DescriptorPool
from lazyarr.store.directory import hold_directory, raise_short, raise_store_error
from lazyarr.store.stamps import Stamps
from lazyarr.store.unsynced import Unsynced

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from lazyarr.store.base import Expected, Parts
    from lazyarr.store.claim import Claim
    from lazyarr.store.descriptors import Descriptor

__all__ = ["LocalStore"]

_KEPT_OPEN = 64
"""Open files per store: enough for the shards of one batch, far below the usual limit of 1024."""

_KEPT_CLEARED = 1024
"""Directories that are known to hold no leftovers; looking again costs little."""

_KEPT_ENDS = 1 << 16
"""Files that are known again by the end that was read of them: shards by their index."""

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
    the newest, and ranges after them too.  Ranges of an object whose end was read come
    from that very file, until `forget`: where it was replaced and is open no more, they raise.

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
        self._unsynced = Unsynced()
        self._ends: dict[str, str] = {}
        self.writable = writable
        self.url = self._root.url

    def __repr__(self) -> str:
        return f"LocalStore({self.path!r}, writable={self.writable}, n_open={len(self._files)})"

    @property
    def path(self) -> str:
        """The directory, absolute."""
        return self._root.path

    @property
    def local(self) -> LocalStore:
        """The directory that is read, as stores around this one have it too."""
        return self

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
            self._require_same_end(key, found)
            n_read = files.pread_into(found.fd, target, start)
        except StoreError:
            raise
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
        if found is None:
            return None
        if self._ends.get(key, found.version) != found.version:
            self._files.give_back(found)
            return None
        return BorrowedFile(self._files, found)

    def _require_same_end(self, key: str, found: Descriptor) -> None:
        """Raise where a file is another one than that whose end was read before.

        At the end of a shard is its index, which names bytes of that file alone.  The file may
        have been closed since, as one of many, and another have got its name.
        """
        if self._ends.get(key, found.version) != found.version:
            message = (
                f"cannot read {key!r} in {self.url}: another file has taken its place since its "
                "end was read; read that again"
            )
            raise StoreError(message, url=self.url, key=key, transient=False)

    def rest(self) -> None:
        """Let go of the files; they are opened again when needed.

        Not of the directory, which must stay the same one.
        """
        self._files.forget_below("")

    def forget(self, key: str) -> None:
        """Read an object from now on as it is now, if it has been replaced."""
        self._ends.pop(key, None)
        self._files.forget(key)

    def read_suffix(self, key: str, nbytes: int) -> tuple[bytes, int] | None:
        """Return the last `nbytes` and the object's size; None when it does not exist."""
        check_range(0, nbytes, None)
        with self._newest(key) as found:
            if found is None:
                return None
            if found.version is not None:
                if len(self._ends) >= _KEPT_ENDS:
                    self._ends.clear()
                self._ends[key] = found.version
            size = os.fstat(found.fd).st_size
            start = max(0, size - nbytes)
            target = bytearray(size - start)
            n_read = files.pread_into(found.fd, memoryview(target), start)
            if n_read < len(target):
                raise_short(self.url, key, start, size, start + n_read)
            return bytes(target), size

    def size(self, key: str) -> int | None:
        """Return an object's size in bytes; None when it does not exist."""
        with self._stamps.looking() as look:
            status = self._status(key)
            if status is None:
                look.note(key, None)
                return None
        self._files.forget_other(key, status)
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
        status = self._status(key)
        return None if status is None else status.st_mtime_ns

    def version(self, key: str) -> str | None:
        """Return what differs as soon as a byte of the object does; None when there is none."""
        status = self._status(key)
        return None if status is None else _version_of(status)

    def read_version(self, key: str) -> tuple[bytes, str] | None:
        """Return a whole object and its version; None when it does not exist."""
        with self._newest(key) as found:
            if found is None:
                return None
            # Before it is read: a file that is changed in place has another version after that.
            version = _version_of(os.fstat(found.fd))
            return files.read_to_end(found.fd), version

    def write(self, key: str, data: Parts, *, expected: Expected = ANYTHING) -> str | None:
        """Put a whole object; readers see the old one or the new one, never a part.

        Returns its version.  What is there is compared with what is expected just before, so the
        claim on the store is what keeps writers of lazyarr apart.

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
            status = files.write_and_rename(
                *(temporary, name, data),
                dir_fd=directory,
                sync=self.durable,
                check=lambda: self._require(key, expected),
            )
        self._unsynced.add(parent)
        self.forget(key)
        return _version_of(status)

    def _require(self, key: str, expected: Expected) -> None:
        if not isinstance(expected, Anything) and self.version(key) != expected:
            raise ChangedError(self.url, key)

    def delete(self, key: str) -> None:
        """Take an object away; nothing happens when there is none.

        Of a symbolic link the link.

        Raises
        ------
        NoObjectError
            There is something, and it is no object, or it is in the way of one.  Where this
            returns, the object is missing to readers.
        """
        check_key(key, self.url)
        with self._changing("delete", key) as root:
            try:
                files.remove_file(key, dir_fd=root.fd)
            except NotADirectoryError:
                if not _is_document(key):
                    raise
        self._unsynced.add(key.rpartition("/")[0])
        self.forget(key)

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
        self._ends.clear()
        self._files.forget_below(prefix)

    def rename(self, old: str, new: str) -> None:
        """Have what lies at a prefix lie at another one, in one step; nothing may be there yet."""
        check_key(old, self.url)
        check_key(new, self.url)
        with self._changing(f"rename {old!r} to", new) as root:
            files.rename_tree(old, new, dir_fd=root.fd, sync=self.durable)
        self._unsynced.add(old.rpartition("/")[0])
        self._unsynced.add(new.rpartition("/")[0])
        self._ends.clear()
        self._files.forget_below(old)
        self._files.forget_below(new)

    def discard(self, prefix: str) -> None:
        """Take away everything below a prefix, so that readers see all of it or nothing.

        What is left of it where the process is killed has no name that a reader looks at; see
        `remove_discarded`.
        """
        check_key(prefix, self.url)
        unique = f"{os.getpid()}-{next(_counter)}-{os.urandom(8).hex()}"
        # One directory deeper: what other readers list is then no node.
        hidden = f"{files.TEMPORARY_PREFIX}{unique}/{files.TEMPORARY_PREFIX}"
        with self._changing("delete", prefix) as root:
            files.rename_tree(prefix, hidden, dir_fd=root.fd, sync=self.durable)
            parent = prefix.rpartition("/")[0]
            if self.durable:
                files.sync_directory(parent or ".", dir_fd=root.fd)
            self._ends.clear()
            self._files.forget_below(prefix)
            files.remove_tree(hidden.partition("/")[0], dir_fd=root.fd)
        self._unsynced.add("")

    def remove_discarded(self) -> None:
        """Remove what writers that were killed had discarded; by the only writer alone."""
        with self._changing("delete", None) as root:
            for name in os.listdir(root.fd):
                if name.startswith(files.TEMPORARY_PREFIX):
                    with contextlib.suppress(OSError):
                        files.remove_directory(name, dir_fd=root.fd)

    def sync(self) -> None:
        """Force to the disk which objects there are, if `durable`.

        At its end all names are there that were written or deleted before its beginning: another
        thread that is about to force some of them is waited for.
        """
        if self.durable:
            with self._changing("write to", None) as root:
                self._unsynced.force(lambda path: files.sync_directory(path or ".", dir_fd=root.fd))

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

    def claim(self) -> Claim:
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
        return self._claim

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
                "read", key, root, lambda root_fd: os.open(key, files.READ_FLAGS, dir_fd=root_fd)
            )
            status = None if fd is None else os.fstat(fd)
            look.note(key, status)
        if fd is None or status is None:
            return None
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            self._refuse("read", key, status)
        return self._files.lend(key, fd, _version_of(status))

    def _status(self, key: str) -> os.stat_result | None:
        """Return what the file system says of an object; None when it does not exist."""
        check_key(key, self.url)
        with self._root.opened() as root:
            status = self._find("look up", key, root, lambda fd: os.stat(key, dir_fd=fd))
        if status is not None and not stat.S_ISREG(status.st_mode):
            self._refuse("look up", key, status)
        return status

    def _refuse(self, action: str, key: str, status: os.stat_result) -> NoReturn:
        what = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        self._raise_no_object(action, key, f"it is {what}; remove it")

    def _raise_no_object(self, action: str, key: str, found: str) -> NoReturn:
        message = f"cannot {action} {key!r} in {self.url}: {found}"
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
        may_be_file = may_be_file or _is_document(key)
        if root is None:
            return None
        for _ in range(_MAX_LOOKS):
            try:
                return look(root.fd)
            except OSError as error:
                if error.errno not in files.ASTRAY_ERRNOS:
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
            self._raise_no_object(action, key, found)
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
            except StoreError:
                raise
            except OSError as error:
                if key is not None and isinstance(error, NotADirectoryError | IsADirectoryError):
                    self._raise_obstacle(action, key, root)
                raise_store_error(error, action, key, self.url)

    def _raise_obstacle(self, action: str, key: str, root: Descriptor) -> None:
        """Raise what is at the place of an object, or above it, and is none."""
        try:
            found = files.find_obstacle(key, dir_fd=root.fd)
        except FileExistsError:
            found = "it is a directory; remove it"
        if found is not None:
            self._raise_no_object(action, key, found)


def _is_document(key: str) -> bool:
    return key.rpartition("/")[2] in METADATA_NAMES


def _version_of(status: os.stat_result) -> str:
    """Return what differs once a file is another one, or was changed in place.

    Not the time of change, which moves when the file gets its name.
    """
    return f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
