"""What clients say, checked before anything relies on it.

A client is a process of the same user, and may be anything from one of another version to
one that writes into descriptors at random.  What would otherwise go wrong later, in a
worker that serves others too, and in every worker that takes over from it, is refused here.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from lazyarr.errors import PagerError
from lazyarr.kernel import PAGE_NBYTES
from lazyarr.wire.messages import VERSION, Hello

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazyarr.pager.clients import Arena
    from lazyarr.plan.geometry import Geometry
    from lazyarr.wire.channel import Received
    from lazyarr.wire.messages import OpenRegion

__all__ = ["Limits", "check_hello", "check_region", "read_settings"]

_MAX_PID = 2**22  # linux/threads.h: PID_MAX_LIMIT
_MAX_ADDRESS = 2**63
_MAX_THREADS = 1024
_MAX_CONNECTIONS = 1024


class Limits(NamedTuple):
    """The settings that a pager goes by."""

    memory_limit: int
    threads: int
    timeout_seconds: float
    retries: int
    connections: int
    readahead: int
    raise_signal: int
    cache_dir: str | None
    cache_limit: int


def read_settings(settings: Mapping[str, Any]) -> Limits:
    """Return the settings that a client has sent.

    Raises
    ------
    PagerError
        When one is missing, or is nothing that could hold.
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
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise PagerError(f"cannot use settings {settings!r:.200}: {error!r}") from None
    timeout_is_usable = 0 < found.timeout_seconds < math.inf
    least = min(found.memory_limit, found.threads, found.connections, found.cache_limit)
    if (
        least < 1
        or min(found.retries, found.readahead, found.raise_signal) < 0
        or not timeout_is_usable
    ):
        raise PagerError(f"cannot use settings {settings!r:.200}: a value is out of range")
    return found


def _path(value: Any) -> str | None:
    """Return a path; raise ValueError for what is none, and neither None."""
    if value is None or (isinstance(value, str) and os.path.isabs(value) and "\0" not in value):
        return value
    raise ValueError(f"not an absolute path: {value!r:.80}")


def check_hello(received: Received) -> Limits:
    """Return the settings of somebody who wants to be a client.

    Raises
    ------
    PagerError
        When it is not `Hello` of this version, or its descriptors are not what they
        should be: a worker that polls, or writes to, another kind of file may fail at it.
    """
    hello, descriptors = received
    if not isinstance(hello, Hello) or hello.version != VERSION:
        raise PagerError(f"expected Hello of version {VERSION}, found {hello!r:.80}")
    if not 0 < hello.pid <= _MAX_PID or hello.features < 0:
        raise PagerError(f"cannot serve process {hello.pid} with features {hello.features:#x}")
    kinds = ("anon_inode:[userfaultfd]", "/memfd:", "/memfd:")
    for descriptor, kind in zip(descriptors, kinds, strict=False):
        found = os.readlink(f"/proc/self/fd/{descriptor}")
        if not found.startswith(kind):
            raise PagerError(f"expected a descriptor of {kind}, found {found!r:.80}")
    return read_settings(hello.settings)


def check_region(message: OpenRegion, geometry: Geometry, arena: Arena) -> None:
    """Check that a region lies in its client's memory objects, and in whole pages.

    Raises
    ------
    PagerError
        When it does not.
    """
    nbytes = geometry.n_pages * PAGE_NBYTES
    stop = message.address + nbytes
    fits = 0 < message.address < stop < _MAX_ADDRESS and message.address % PAGE_NBYTES == 0
    if message.offset >= 0:
        fits &= message.offset % PAGE_NBYTES == 0
        fits &= message.offset + nbytes <= os.fstat(arena.memfd).st_size
    map_stop = message.map_offset + geometry.n_units
    fits &= message.map_offset >= 0 and map_stop <= os.fstat(arena.map_memfd).st_size
    if not fits:
        raise PagerError(
            f"cannot serve region {message.region}: {nbytes} bytes at {message.address:#x},"
            f" offset {message.offset}, map offset {message.map_offset}"
        )
