"""In which order the pages of a unit are installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from lazyarr.kernel import PAGE_NBYTES
from lazyarr.units import Span

__all__ = ["Copy", "Front"]

Copy: TypeAlias = Callable[[int, int], bool]
"""Installs the bytes [start, stop) of a unit; returns whether all of them are in."""

# As much as is installed while the thread that waits would still be waking up.
_FIRST_NBYTES = 16 * PAGE_NBYTES


class Front:
    """Installs a unit of whole pages from those on that somebody waits for.

    Who waits in a fault goes on when the page is there, and who waits in a request when it
    is told so, while the rest is still copied, or even decoded: half a chunk sooner on
    average where chunks are decoded in parts.

    Parameters
    ----------
    copy : callable
        Installs a part.
    nbytes : int
        How long the unit is.
    awaited : Span or None
        The bytes of the pages that are waited for, if some are.
    arrived : callable, optional
        Told when these are in, if that is before the others.

    Attributes
    ----------
    first : int
        Where what is waited for begins, in bytes from the unit's start.
    """

    def __init__(
        self,
        copy: Copy,
        nbytes: int,
        awaited: Span | None,
        arrived: Callable[[], None] | None = None,
    ) -> None:
        self._copy = copy
        self._nbytes = nbytes
        self._is_awaited = awaited is not None and nbytes > 2 * _FIRST_NBYTES
        self._awaited = awaited or Span(0, 0)
        self.first = self._next = self._awaited.start
        self._arrived = arrived if self._is_awaited else None
        self._is_right = True

    def __repr__(self) -> str:
        return f"<Front: [{self.first}, {self._next}) of {self._nbytes} bytes installed>"

    @property
    def has_begun(self) -> bool:
        """Whether anything was installed."""
        return self._next > self.first

    def advance(self, nbytes: int) -> None:
        """Install what is decoded from `first` on, if that is as far as a whole page."""
        # A chunk may be longer than what the array has of it.
        stop = min(nbytes & -PAGE_NBYTES, self._nbytes)
        if self._is_awaited and self._next == self.first:
            ahead = max(self.first + _FIRST_NBYTES, self._awaited.stop)
            if ahead + _FIRST_NBYTES < stop:
                self._install(self.first, ahead)
        self._install(self._next, stop)

    def finish(self) -> bool:
        """Install all the rest; return whether everything is in, False if in doubt."""
        self.advance(self._nbytes)
        if self.first:
            self._next = 0
            self._install(0, self.first)
        return self._is_right

    def _install(self, start: int, stop: int) -> None:
        if stop > start:
            self._is_right = self._is_right and self._copy(start, stop)
            self._next = stop
            if self._arrived and self._is_right and stop >= self._awaited.stop:
                arrived, self._arrived = self._arrived, None
                arrived()
