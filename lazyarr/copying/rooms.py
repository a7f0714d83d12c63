"""Two kinds of work of which each is done by many threads at once, but not beside the other."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Rooms"]


class Rooms:
    """Two rooms: while anybody is in one of them, nobody enters the other one.

    Fair: who wants to enter waits while somebody waits for the other room, unless both waited when
    the last one left that.

    Examples
    --------
    >>> rooms = Rooms()
    >>> with rooms.inside(0), rooms.inside(0):
    ...     rooms.is_free(1)
    False
    >>> rooms.is_free(1)
    True
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = [0, 0]
        self._waiting = [0, 0]
        # How many of those who wait may enter though others wait for the other room.
        self._admitted = [0, 0]

    def __repr__(self) -> str:
        return f"<Rooms: {self._inside} inside, {self._waiting} waiting>"

    def is_free(self, room: int) -> bool:
        """Return whether somebody who came now would not wait."""
        other = 1 - room
        has_turn = not self._waiting[other] or self._admitted[room] > 0
        return not self._inside[other] and has_turn

    @contextmanager
    def inside(self, room: int) -> Iterator[None]:
        """Be in a room."""
        with self._changed:
            self._waiting[room] += 1
            try:
                self._changed.wait_for(lambda: self.is_free(room))
                self._inside[room] += 1
            finally:
                self._waiting[room] -= 1
                self._admitted[room] = max(0, self._admitted[room] - 1)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._inside[room] -= 1
                if not self._inside[room]:
                    self._admitted = [0, 0]
                    self._admitted[1 - room] = self._waiting[1 - room]
                self._changed.notify_all()
