"""A descriptor that becomes readable at a given time."""

from __future__ import annotations

import os
from typing import Self

from lazyarr.kernel.libc import call

__all__ = ["Timer"]

# linux/time.h, sys/timerfd.h: the flags are those of open.
# It stands still while the machine sleeps, and nobody can set it: a time-out is neither
# cut short nor drawn out by a change of the date.
_CLOCK_MONOTONIC = 1
_NANOSECONDS = 10**9


class Timer:
    """A descriptor that becomes readable once for each time that it is set (timerfd_create(2)).

    Python has timerfd from 3.13 on.  The timeout of a poll would not do: the pager's threads
    take turns at polling, and one that polls already would not learn of a new deadline.

    Examples
    --------
    >>> import select
    >>> with Timer() as timer:
    ...     timer.set(0.001)
    ...     len(select.select([timer], [], [], 5)[0])
    1
    """

    def __init__(self) -> None:
        flags = os.O_CLOEXEC | os.O_NONBLOCK
        self._fd = call("timerfd_create", _CLOCK_MONOTONIC, flags)

    def __repr__(self) -> str:
        return f"<Timer: descriptor {self._fd}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def set(self, seconds: float) -> None:
        """Make the descriptor readable after some seconds from now, and not before."""
        import ctypes

        # struct itimerspec: no interval; all zeros would switch it off.
        # At least a nanosecond, for 0 would switch the timer off and not make it due.
        whole, rest = divmod(max(1, round(seconds * _NANOSECONDS)), _NANOSECONDS)
        wanted = (ctypes.c_long * 4)(0, 0, whole, rest)
        call("timerfd_settime", self._fd, 0, wanted, None)

    def clear(self) -> None:
        """Make the descriptor unreadable until `set` is called again."""
        import ctypes

        call("timerfd_settime", self._fd, 0, (ctypes.c_long * 4)(), None)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)
