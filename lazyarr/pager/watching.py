"""Waiting for descriptors, and calling what handles them in the right order."""

from __future__ import annotations

import enum
import select
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Rank", "Watch"]


class Rank(enum.IntEnum):
    """In which order events that come together are handled."""

    MESSAGE = 0
    FAULT = 1
    EXIT = 2


class _Watched(NamedTuple):
    """What to do when a descriptor is readable."""

    rank: Rank
    handler: Callable[[], None]


class Watch:
    """The descriptors that are listened to; one thread at a time listens."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, _Watched] = {}

    def __repr__(self) -> str:
        return f"<Watch: {len(self._watched)} descriptors>"

    def fileno(self) -> int:
        """Return a descriptor that is readable when one that is watched is."""
        return self._epoll.fileno()

    def add(self, descriptor: int, rank: Rank, handler: Callable[[], None]) -> None:
        """Have something called when a descriptor is readable."""
        self._watched[descriptor] = _Watched(rank, handler)
        self._epoll.register(descriptor, select.EPOLLIN)

    def remove(self, descriptor: int) -> None:
        """Listen to a descriptor no longer, if it was listened to."""
        if self._watched.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Listen no more; what was watched belongs to others."""
        self._epoll.close()

    def listen(self) -> None:
        """Wait for events and handle all that have come.

        What a client says comes before its faults: it has said what a region is
        before anybody could touch it.
        """
        events = self._epoll.poll()
        if len(events) == 1:
            only = self._watched.get(events[0][0])
            if only is not None:
                only.handler()
            return
        ready = [(fd, self._watched[fd]) for fd, _ in events if fd in self._watched]
        for descriptor, watched in sorted(ready, key=lambda item: item[1].rank):
            # One event may end what another one is about, as a client's exit does.
            if self._watched.get(descriptor) is watched:
                watched.handler()
