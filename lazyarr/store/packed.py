"""Objects of one process's memory, handed to another in one descriptor."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from lazyarr.errors import StoreError
from lazyarr.store import files
from lazyarr.store.base import (
    NoObjectError,
    Store,
    StoreReference,
    check_key,
    check_limit,
    check_range,
)
from lazyarr.store.descriptors import DescriptorPool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lazyarr.store.descriptors import Descriptor

__all__ = ["ListableStore", "PackedStore", "pack_store"]


class ListableStore(Store, Protocol):
    """A store that can list all its objects."""

    def list_keys(self, prefix: str) -> tuple[str, ...]:
        """Return the sorted keys of all objects at a prefix and below it."""
        ...


class PackedStore:
    """A snapshot of objects, one after another in one file; for reading only.

    ``memory://`` lives in the process that wrote it.  This is how another process,
    the pager, reads what lies there.

    Parameters
    ----------
    fd : int
        The file, usually a memfd.  The store owns it, unless it cannot be made.
    index : mapping of str to (int, int)
        Offset and size in bytes, by key.
    url : str
        What the snapshot was taken of.

    Notes
    -----
    Survives fork.  What is written to the original later does not appear here.
    """

    def __init__(self, fd: int, index: Mapping[str, Sequence[int]], url: str) -> None:
        self.url = url
        self._index = {
            check_key(key, url): _checked(key, place, url) for key, place in index.items()
        }
        self._directories = {parent for key in self._index for parent in _parents(key)}
        self._pool = DescriptorPool(1, keep_in_child=True)
        self._pool.give_back(self._pool.lend("", fd))

    def __repr__(self) -> str:
        nbytes = sum(n for _, n in self._index.values())
        return f"PackedStore({self.url!r}, n_objects={len(self._index)}, nbytes={nbytes})"

    def read(self, key: str, *, limit_nbytes: int | None = None) -> bytes | None:
        """Return a whole object; None when it does not exist."""
        nbytes = self.size(key)
        check_limit(key, nbytes or 0, limit_nbytes, self.url)
        data = None if nbytes is None else self.read_range(key, 0, nbytes)
        return None if data is None else bytes(data)

    def read_range(
        self, key: str, start: int, stop: int, *, into: memoryview | None = None
    ) -> memoryview | None:
        """Return exactly ``stop - start`` bytes; None when the object does not exist."""
        nbytes = check_range(start, stop, into)
        place = self._place(key)
        if place is None:
            return None
        target = memoryview(bytearray(nbytes)) if into is None else into.cast("B")[:nbytes]
        held = self._borrow(key)
        try:
            # An object ends where the next begins: the file would go on.
            n_read = 0
            if stop <= place[1]:
                n_read = files.pread_into(held.fd, target, place[0] + start)
        finally:
            self._pool.give_back(held)
        if n_read < nbytes:
            message = (
                f"cannot read bytes [{start}, {stop}) of {key!r} in {self.url}: the object has "
                f"{place[1]} bytes; its index is of another version"
            )
            raise StoreError(message, url=self.url, key=key, transient=False)
        return target

    def read_suffix(self, key: str, nbytes: int) -> tuple[bytes, int] | None:
        """Return the last `nbytes` and the object's size; None when it does not exist."""
        check_range(0, nbytes, None)
        size = self.size(key)
        if size is None:
            return None
        data = self.read_range(key, max(0, size - nbytes), size)
        return None if data is None else (bytes(data), size)

    def size(self, key: str) -> int | None:
        """Return an object's size in bytes; None when it does not exist."""
        place = self._place(key)
        return None if place is None else place[1]

    def list_names(self, prefix: str) -> tuple[str, ...]:
        """Return the sorted names of what lies directly below a prefix."""
        start = check_key(prefix, self.url, is_prefix=True) + "/" if prefix else ""
        below = {key[len(start) :].split("/")[0] for key in self._index if key.startswith(start)}
        return tuple(sorted(below))

    def reference(self, prefix: str = "") -> StoreReference:
        """Return the index of what lies at a prefix or below it, and a copy of the descriptor."""
        start = prefix + "/" if prefix else ""
        index = {
            key: list(place)
            for key, place in self._index.items()
            if key == prefix or key.startswith(start)
        }
        held = self._borrow(prefix)
        try:
            fd = os.dup(held.fd)
        finally:
            self._pool.give_back(held)
        return StoreReference({"kind": "packed", "url": self.url, "index": index}, (fd,))

    def forget(self, key: str) -> None:
        """Do nothing: nothing is kept of an object."""

    def rest(self) -> None:
        """Do nothing: there are no descriptors that could be opened again."""

    def borrow(self, key: str) -> None:
        """Return None: an object is no open file here."""

    def close(self) -> None:
        """Close the descriptor, when no other thread reads from it any more."""
        self._pool.close()

    def _place(self, key: str) -> tuple[int, int] | None:
        place = self._index.get(check_key(key, self.url))
        if place is None and key in self._directories:
            message = f"cannot read {key!r} in {self.url}: it is a directory; remove it"
            raise NoObjectError(message, url=self.url, key=key, transient=False)
        return place

    def _borrow(self, key: str) -> Descriptor:
        held = self._pool.borrow("")
        if held is None:
            message = f"cannot read {key!r} in {self.url}: the store is closed; open it again"
            raise StoreError(message, url=self.url, key=key, transient=False)
        return held


def pack_store(store: ListableStore, prefix: str) -> PackedStore:
    """Copy all objects below a prefix into a new memfd.

    Parameters
    ----------
    store : ListableStore
        Where they are.  Its keys stay the same.
    prefix : str
        Which ones; ``""`` for all.
    """
    fd = os.memfd_create("lazyarr-packed", os.MFD_CLOEXEC)
    index: dict[str, tuple[int, int]] = {}
    offset = 0
    try:
        for key in store.list_keys(prefix):
            data = store.read(key)
            if data is None:
                continue  # taken away since it was listed
            index[key] = (offset, len(data))
            rest = memoryview(data)
            while rest:
                n_written = os.pwrite(fd, rest, offset)
                offset += n_written
                rest = rest[n_written:]
    except BaseException:
        os.close(fd)
        raise
    return PackedStore(fd, index, store.url)


def _parents(key: str) -> Iterator[str]:
    while key := key.rpartition("/")[0]:
        yield key


def _checked(key: str, place: Sequence[int], url: str) -> tuple[int, int]:
    is_valid = len(place) == 2 and all(type(n) is int and 0 <= n < 2**62 for n in place)
    if not is_valid:
        message = f"cannot open the copy of {url}: place of {key!r} is {place!r}; open it again"
        raise StoreError(message, url=url, key=key, transient=False)
    return place[0], place[1]
