"""Waits for descriptors, and calls their handlers in the right order."""

from __future__ import annotations

import bisect
import enum
import itertools
import select
import time
from typing import TYPE_CHECKING, NamedTuple

from lazyarr.kernel import Timer

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Rank", "Watch"]


class Rank(enum.IntEnum):
    """The order in which events that come together are handled."""

    # A client opens a region before any thread can touch it, so messages precede faults.  Faults
    # precede the exit of their client.  Strangers that connect can hold up nobody else.
    MESSAGE = 0
    FAULT = 1
    EXIT = 2
    ARRIVAL = 3


class _Watched(NamedTuple):
    """What to do when a descriptor is readable."""

    rank: Rank
    handler: Callable[[], object]


class Watch:
    """The descriptors that the worker listens to; one thread at a time listens."""

    def __init__(self) -> None:
        # Level-triggered: what a handler leaves unread is reported again, so a handler
        # may stop half-way.
        self._epoll = select.epoll()
        self._watched: dict[int, _Watched] = {}
        self._resting: dict[int, _Watched] = {}
        # In the order of their times; seldom more than one.
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._timer = Timer()
        self.add(self._timer.fileno(), Rank.ARRIVAL, self._act)

    def __repr__(self) -> str:
        return f"<Watch: {len(self._watched)} descriptors>"

    def fileno(self) -> int:
        """Return a descriptor that is readable when any watched descriptor is."""
        return self._epoll.fileno()

    def add(self, descriptor: int, rank: Rank, handler: Callable[[], object]) -> None:
        """Have a handler called when a descriptor is readable."""
        self._watched[descriptor] = _Watched(rank, handler)
        self._epoll.register(descriptor, select.EPOLLIN)

    def remove(self, descriptor: int) -> None:
        """Listen to a descriptor no longer, if it was listened to."""
        self._resting.pop(descriptor, None)
        if self._watched.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def rest(self, descriptor: int, seconds: float) -> None:
        """Do not listen to a descriptor for a while; what comes there waits."""
        watched = self._watched.pop(descriptor, None)
        if watched is None:
            return
        self._epoll.unregister(descriptor)
        self._resting[descriptor] = watched

        def go_on() -> None:
            # It may have been removed meanwhile, and its number may be another file's
            # by now.
            if self._resting.get(descriptor) is watched:
                del self._resting[descriptor]
                self.add(descriptor, watched.rank, watched.handler)

        self.after(seconds, go_on)

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        """Have the listening thread call a function when so many seconds have gone by."""
        # The number keeps functions from being compared where two times are equal.
        bisect.insort(self._due, (time.monotonic() + seconds, next(self._numbers), act))
        self._set_timer()

    def _act(self) -> None:
        """Call the functions that are due."""
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            self._due.pop(0)[2]()
        self._set_timer()

    def _set_timer(self) -> None:
        """Set the timer to the function that is due next."""
        # A descriptor, and no timeout of the poll: the thread that polls may be another one than
        # adds a function, and would not learn of the new time.
        if self._due:
            self._timer.set(max(0.0, self._due[0][0] - time.monotonic()))
        else:
            self._timer.clear()

    def close(self) -> None:
        """Stop listening; the watched descriptors belong to others, and stay open."""
        self._epoll.close()
        self._timer.close()

    def listen(self) -> None:
        """Wait for events and handle all that have come, in the order of their ranks."""
        events = self._epoll.poll()
        # A single fault is the usual case, and sorting costs some microseconds.  A message that
        # came first was reported with it, or before.
        if len(events) == 1:
            only = self._watched.get(events[0][0])
            if only is not None:
                only.handler()
            return
        ready = [(fd, self._watched[fd]) for fd, _ in events if fd in self._watched]
        for descriptor, watched in sorted(ready, key=lambda item: item[1].rank):
            # The handler before may have removed this descriptor, as a client's exit does.
            if self._watched.get(descriptor) is watched:
                watched.handler()
