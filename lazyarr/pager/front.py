"""In which order the pages of a unit are installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from lazyarr.kernel import PAGE_NBYTES

__all__ = ["Copy", "Front"]

Copy: TypeAlias = Callable[[int, int], bool]
"""Installs the bytes [start, stop) of a unit; returns whether all of them are in."""

# As much as is installed while the thread that waits would still be waking up.
_FIRST_NBYTES = 16 * PAGE_NBYTES


class Front:
    """Installs a unit of whole pages from the one on that a thread waits for.

    That thread goes on when its page is there, while the rest is still copied, or even
    decoded: half a chunk sooner on average where chunks are decoded in parts.

    Parameters
    ----------
    copy : callable
        Installs a part.
    nbytes : int
        How long the unit is.
    first : int or None
        Where the page begins that is waited for, if one is.
    """

    def __init__(self, copy: Copy, nbytes: int, first: int | None) -> None:
        self._copy = copy
        self._nbytes = nbytes
        self._is_awaited = first is not None and nbytes > 2 * _FIRST_NBYTES
        self._first = self._next = first or 0
        self._is_right = True

    def __repr__(self) -> str:
        return f"<Front: [{self._first}, {self._next}) of {self._nbytes} bytes installed>"

    def advance(self, nbytes: int) -> None:
        """Install what is decoded, if that is as far as the page that is waited for."""
        # A chunk may be longer than what the array has of it.
        self._install(self._next, min(nbytes & -PAGE_NBYTES, self._nbytes))

    def finish(self) -> bool:
        """Install all the rest; return whether everything is in, False if in doubt."""
        if self._is_awaited and self._next == self._first:
            self.advance(self._first + _FIRST_NBYTES)
        self.advance(self._nbytes)
        if self._first:
            self._next = 0
            self._install(0, self._first)
        return self._is_right

    def _install(self, start: int, stop: int) -> None:
        if stop > start:
            self._is_right = self._is_right and self._copy(start, stop)
            self._next = stop
