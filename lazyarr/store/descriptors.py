"""A bounded number of open file descriptors, shared by threads."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict

from lazyarr.kernel import renew_in_child
from lazyarr.known import KnownDescriptor

__all__ = ["BorrowedFile", "Descriptor", "DescriptorPool", "OpenFile"]

_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)  # Linux alone


class Descriptor:
    """An open file that is lent out; `fd` is valid until it is given back."""

    __slots__ = ("_known", "fd", "is_kept", "n_users", "version")

    def __init__(self, fd: int, version: str | None = None) -> None:
        self._known = KnownDescriptor(fd)
        self.fd = fd
        self.version = version
        self.n_users = 1
        self.is_kept = True

    def is_own(self) -> bool:
        """Return whether the number still stands for the file that was opened."""
        return self._known.is_own()

    def close(self) -> None:
        """Close the file, if nobody else has."""
        self._known.close()


class DescriptorPool:
    """Open files by key, the least recently used closed first.

    A descriptor's number is free for any other file the moment it is closed:

    1. thread A looks up descriptor 7 for key "a"
    2. thread B opens key "b", the pool is full, it closes 7
    3. thread C opens another file and gets 7
    4. thread A reads from 7: the wrong file's bytes, without an error

    So a descriptor is lent: it is closed when the pool does not keep it any more
    *and* nobody has it.

    Parameters
    ----------
    limit : int
        How many are kept.  More can be open for as long as they are lent.
    keep_in_child : bool
        Whether a forked child goes on with its copies of the kept descriptors, or
        starts with an empty pool.

    Notes
    -----
    Owns every descriptor given to `lend`.
    """

    def __init__(self, limit: int, *, keep_in_child: bool = False) -> None:
        self._limit = limit
        self._keep_in_child = keep_in_child
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Descriptor] = OrderedDict()
        self._is_closed = False
        _pools.add(self)

    def __len__(self) -> int:
        return len(self._kept)

    def borrow(self, key: str) -> Descriptor | None:
        """Return the open file of a key, to be given back; None when it is not open."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            if not found.is_own():
                # Other code has closed it, and the number may be another file's by now.
                del self._kept[key]
                found.is_kept = False
                return None
            found.n_users += 1
            self._kept.move_to_end(key)
            return found

    def lend(self, key: str, fd: int, version: str | None = None) -> Descriptor:
        """Take over a newly opened file, in place of an older one of that key, and lend it.

        `version` is what differs from that of any other file which had or gets the name.
        """
        new = Descriptor(fd, version)
        unused: list[Descriptor] = []
        with self._lock:
            if self._is_closed:
                new.is_kept = False
                return new
            self._drop(key, unused)
            self._kept[key] = new
            while len(self._kept) > self._limit:
                self._drop(next(iter(self._kept)), unused)
        _close_all(unused)
        return new

    def give_back(self, descriptor: Descriptor) -> None:
        """End a loan."""
        with self._lock:
            descriptor.n_users -= 1
            is_last = descriptor.n_users == 0 and not descriptor.is_kept
        if is_last:
            descriptor.close()

    def forget(self, key: str) -> None:
        """Do not lend the open file of a key again: the key is another file now."""
        unused: list[Descriptor] = []
        with self._lock:
            self._drop(key, unused)
        _close_all(unused)

    def forget_other(self, key: str, status: os.stat_result) -> None:
        """Do not lend the open file of a key again if `status` is that of another file."""
        unused: list[Descriptor] = []
        with self._lock:
            found = self._kept.get(key)
            if found is not None and not os.path.samestat(os.fstat(found.fd), status):
                self._drop(key, unused)
        _close_all(unused)

    def forget_below(self, prefix: str) -> None:
        """Do not lend again what lies at a prefix and below it; ``""`` is everything."""
        unused: list[Descriptor] = []
        with self._lock:
            for key in list(self._kept):
                if prefix == "" or key == prefix or key.startswith(prefix + "/"):
                    self._drop(key, unused)
        _close_all(unused)

    def close(self) -> None:
        """Close what nobody has, now, and the rest when it is given back."""
        unused: list[Descriptor] = []
        with self._lock:
            self._is_closed = True
            for key in list(self._kept):
                self._drop(key, unused)
        _close_all(unused)

    def _drop(self, key: str, unused: list[Descriptor]) -> None:
        descriptor = self._kept.pop(key, None)
        if descriptor is not None:
            descriptor.is_kept = False
            if descriptor.n_users == 0:
                unused.append(descriptor)

    def _start_anew(self) -> None:
        # Only one thread exists here.  Another may have held the lock at the
        # fork, and the loans of the other threads are never given back.
        self._lock = threading.Lock()
        if self._keep_in_child:
            for descriptor in self._kept.values():
                descriptor.n_users = 0
            return
        inherited = list(self._kept.values())
        self._kept = OrderedDict()
        _close_all(inherited)


class OpenFile:
    """A file that is open, under a descriptor that somebody else closes."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def read(self, into: memoryview, start: int, *, may_wait: bool) -> bool:
        """Fill `into` from `start`; return whether that was done.

        It is not where there are fewer bytes, reading fails, or the page cache does not have
        it all and this must not wait: RWF_NOWAIT of preadv2(2), EAGAIN where it would wait,
        EOPNOTSUPP on file systems that cannot tell.
        """
        try:
            return os.preadv(self._fd, (into,), start, 0 if may_wait else _NOWAIT) == len(into)
        except OSError:
            return False


class BorrowedFile(OpenFile):
    """An open file out of a pool, until it is released."""

    __slots__ = ("_descriptor", "_pool")

    def __init__(self, pool: DescriptorPool, descriptor: Descriptor) -> None:
        super().__init__(descriptor.fd)
        self._pool = pool
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the file back."""
        self._pool.give_back(self._descriptor)


def _close_all(unused: list[Descriptor]) -> None:
    # Outside of the lock: closing a file of a network file system can block.
    for descriptor in unused:
        descriptor.close()


_pools: weakref.WeakSet[DescriptorPool] = weakref.WeakSet()


def _start_pools_anew() -> None:
    for pool in list(_pools):
        pool._start_anew()  # noqa: SLF001 - the module's own class


renew_in_child(_start_pools_anew)
