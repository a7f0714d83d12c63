"""Checks of what clients send, before anything relies on it.

A client is a process of the same user.  It may be of another version, or write into descriptors
at random.  A message that is wrong would fail later, in a worker that serves other clients too,
and again in every worker that takes over.  So it is refused here.
"""

from __future__ import annotations

import math
import os
import socket
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

from lazyarr.errors import PagerError
from lazyarr.kernel import seal_memfd
from lazyarr.memory_kind import MemoryKind
from lazyarr.wire.messages import VERSION, Hello

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lazyarr.layout.geometry import Geometry
    from lazyarr.pager.memory.clients import Arena
    from lazyarr.wire.channel import Received
    from lazyarr.wire.messages import OpenRegion

__all__ = [
    "Limits",
    "check_claim",
    "check_hello",
    "check_listener",
    "check_region",
    "kind_of",
    "read_settings",
]

_MAX_PID = 2**22  # linux/threads.h: PID_MAX_LIMIT
_MAX_ADDRESS = 2**63
# More than any machine needs.  A number that is too large is lowered, not refused: it asks for
# speed, and threads cost memory.
_MAX_THREADS = 1024
_MAX_CONNECTIONS = 1024


class Limits(NamedTuple):
    """The settings of a client that concern the pager, checked."""

    memory_limit: int
    threads: int
    timeout_seconds: float
    retries: int
    connections: int
    readahead: int
    raise_signal: int
    cache_dir: str | None
    cache_limit: int
    shared_limit: int


def read_settings(settings: Mapping[str, Any]) -> Limits:
    """Return the settings that a client has sent, checked.

    Raises
    ------
    PagerError
        When a setting is missing, or its value is of the wrong type or out of range.
    """
    try:
        found = Limits(
            memory_limit=int(settings["memory_limit"]),
            threads=min(int(settings["threads"]), _MAX_THREADS),
            timeout_seconds=float(settings["timeout"]),
            retries=int(settings["retries"]),
            connections=min(int(settings["connections"]), _MAX_CONNECTIONS),
            readahead=int(settings["readahead"]),
            raise_signal=int(settings.get("raise_signal", 0)),
            cache_dir=_path(settings["cache_dir"]),
            cache_limit=int(settings["cache_limit"]),
            shared_limit=int(settings.get("_shared_limit", 0)),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise PagerError(f"cannot use settings {settings!r:.200}: {error!r}") from None
    # NaN is refused too, for both comparisons are false.  A deadline of NaN never
    # comes.
    timeout_is_usable = 0 < found.timeout_seconds < math.inf
    least = min(found.memory_limit, found.threads, found.connections, found.cache_limit)
    if (
        least < 1
        or min(found.retries, found.readahead, found.raise_signal, found.shared_limit) < 0
        or not timeout_is_usable
    ):
        raise PagerError(f"cannot use settings {settings!r:.200}: a value is out of range")
    return found


def _path(value: Any) -> str | None:
    """Return an absolute path, or None; raise ValueError for anything else."""
    # Absolute, because the pager's working directory is not the client's.
    if value is None or (isinstance(value, str) and os.path.isabs(value) and "\0" not in value):
        return value
    raise ValueError(f"not an absolute path: {value!r:.80}")


def check_hello(received: Received) -> Limits:
    """Check the first message of a process, and return the settings in it.

    Raises
    ------
    PagerError
        When the message is not `Hello` of this version, or one of its descriptors is of
        another kind than it should be.
    KernelError
        When a memory object cannot be kept from getting shorter.
    """
    hello, descriptors = received
    if not isinstance(hello, Hello) or hello.version != VERSION:
        raise PagerError(f"expected Hello of version {VERSION}, found {hello!r:.80}")
    features = (hello.features, hello.writable_features)
    if not 0 < hello.pid <= _MAX_PID or min(features) < 0:
        raise PagerError(f"cannot serve process {hello.pid} with features {features}")
    # epoll refuses a regular file, and punching a hole in a client's file would destroy
    # its data.  The lifeline is only polled and closed, so it may be anything.
    uffd, memfd, anything = "anon_inode:[userfaultfd]", "/memfd:", ""
    kinds = (uffd, memfd, memfd, anything, uffd)
    for descriptor, kind in zip(descriptors, kinds, strict=False):
        found = os.readlink(f"/proc/self/fd/{descriptor}")
        if not found.startswith(kind):
            raise PagerError(f"expected a descriptor of {kind}, found {found!r:.80}")
    # What is cut off would be SIGBUS for the worker, which maps it.
    for descriptor in descriptors[1:3]:
        seal_memfd(descriptor)
    return read_settings(hello.settings)


def check_listener(descriptor: int) -> None:
    """Check that a descriptor is of a socket to which invited processes connect.

    Raises
    ------
    PagerError
        When it is not: each later worker would fail to listen to it.
    """
    kind = (socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        with socket.socket(fileno=os.dup(descriptor)) as sock:
            is_listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if is_listening and (sock.family, sock.type) == kind:
                return
    raise PagerError("expected a socket that listens to processes of this machine")


def kind_of(message: OpenRegion) -> MemoryKind:
    """Return the kind of memory that a client has mapped for a region.

    Raises
    ------
    PagerError
        When the pager knows no such kind.
    """
    try:
        return MemoryKind[message.kind]
    except KeyError:
        raise PagerError(
            f"cannot serve region {message.region}: expected a kind of memory of "
            f"{', '.join(MemoryKind.__members__)}, found {message.kind!r:.80}"
        ) from None


def check_region(message: OpenRegion, geometry: Geometry, kind: MemoryKind, arena: Arena) -> None:
    """Check that a region lies in its client's memory objects, and in whole pages.

    Raises
    ------
    PagerError
        When the region does not lie there.
    """
    # A punch outside of the region would take pages of another array out.  A map that ends
    # behind its memory object would be SIGBUS for the worker when it writes there.
    nbytes = geometry.n_pages * geometry.page_nbytes
    stop = message.address + nbytes
    fits = 0 < message.address < stop < _MAX_ADDRESS and message.address % geometry.page_nbytes == 0
    if kind.is_shared:
        fits &= message.offset >= 0 and message.offset % geometry.page_nbytes == 0
        fits &= message.offset + nbytes <= os.fstat(arena.memfd).st_size
    map_stop = message.map_offset + geometry.n_units
    fits &= message.map_offset >= 0 and map_stop <= os.fstat(arena.map_memfd).st_size
    if not fits:
        raise PagerError(
            f"cannot serve region {message.region}: {nbytes} bytes at {message.address:#x},"
            f" offset {message.offset}, map offset {message.map_offset}"
        )


def check_claim(message: OpenRegion, descriptors: Sequence[int], kind: MemoryKind) -> None:
    """Check that memory which is written back comes with the claim on its store, and no more.

    Raises
    ------
    PagerError
        When it does not: two processes could write to the store.
    """
    if not kind.writes_back:
        return
    store = message.store.get("kind")
    # A store on a network has no claim.  It is asked whether an object is still what it was.
    fits = store == "fsspec" and not descriptors
    if store == "local" and len(descriptors) == 1:
        # Of the store or of a directory around it, where this is a group of a larger store.
        fits = stat.S_ISDIR(os.fstat(descriptors[0]).st_mode)
    if not fits:
        raise PagerError(
            f"cannot serve region {message.region}: expected the claim on a {store!r:.20} store, "
            f"found {len(descriptors)} descriptors"
        )
