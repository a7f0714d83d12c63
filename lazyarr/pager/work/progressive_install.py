"""The order in which the pages of a unit are installed: those that a thread waits for first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from lazyarr.kernel import PAGE_NBYTES
from lazyarr.units import Span

__all__ = ["Copy", "ProgressiveInstall"]

Copy: TypeAlias = Callable[[int, int], bool]
"""Installs the bytes [start, stop) of a unit; returns whether all of them are installed."""

# The pager installs so much while the thread that waits is still waking up.  Of a unit of a
# mebibyte, the thread has its page half a millisecond sooner than if all came first.
_FIRST_NBYTES = 64 << 10


class ProgressiveInstall:
    """Installs a unit of whole pages, beginning with the pages that a thread waits for.

    A thread that waits in a fault goes on when its page is installed.  One that waits in a
    request goes on when the pager tells it so.  The rest of the unit is copied, or even decoded,
    after that.  Where chunks are decoded in parts this is half a chunk sooner on average.

    Parameters
    ----------
    copy : callable
        Installs a part of the unit.
    nbytes : int
        Size of the unit.
    awaited : Span or None
        The bytes of the pages that a thread waits for; None when none waits for some pages.
    arrived : callable, optional
        Called when the awaited pages are installed, if that is before the others.
    page_nbytes : int
        Size in bytes of the pages.

    Attributes
    ----------
    first : int
        Where the awaited pages begin, in bytes from the unit's start.
    """

    def __init__(
        self,
        copy: Copy,
        nbytes: int,
        awaited: Span | None,
        arrived: Callable[[], None] | None = None,
        *,
        page_nbytes: int = PAGE_NBYTES,
    ) -> None:
        self._copy = copy
        self._nbytes = nbytes
        self._page_nbytes = page_nbytes
        # A smaller unit is installed by one call, which is over while the thread is
        # still waking up.
        self._is_awaited = awaited is not None and nbytes > 2 * _FIRST_NBYTES
        self._awaited = awaited or Span(0, 0)
        self.first = self._next = self._awaited.start
        self._arrived = arrived if self._is_awaited else None
        self._is_right = True

    def __repr__(self) -> str:
        return (
            f"<ProgressiveInstall: [{self.first}, {self._next}) of {self._nbytes} bytes installed>"
        )

    @property
    def has_begun(self) -> bool:
        """Whether any page may have been installed."""
        return self._next > self.first

    def advance(self, nbytes: int) -> None:
        """Install what is decoded, from `first` on, as far as whole pages go.

        Parameters
        ----------
        nbytes : int
            How many bytes of the unit are decoded, from its start.
        """
        # A page cannot be installed in part.  A chunk may be longer than the array's part of it.
        stop = min(nbytes & -self._page_nbytes, self._nbytes)
        start = self._next
        if self._is_awaited and start == self.first:
            # Only where enough is decoded to be worth two calls.
            ahead = max(start + _FIRST_NBYTES, self._awaited.stop)
            if ahead + _FIRST_NBYTES < stop:
                self._install(start, ahead)
                start = ahead
        if stop > start:
            self._install(start, stop)

    def finish(self) -> bool:
        """Install all the rest; return whether everything is installed, False if in doubt."""
        self.advance(self._nbytes)
        if self.first:
            self._next = 0
            self._install(0, self.first)
        return self._is_right

    def _install(self, start: int, stop: int) -> None:
        """Install a part, unless one has failed; tell of the awaited pages when they are in."""
        # After a failure nothing more is tried: the caller finds out why, and installs all again.
        self._is_right = self._is_right and self._copy(start, stop)
        self._next = stop
        if self._arrived and self._is_right and stop >= self._awaited.stop:
            arrived, self._arrived = self._arrived, None
            arrived()
