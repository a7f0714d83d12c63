"""Which sources may hold descriptors: so many, however many arrays are open."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Protocol

__all__ = ["Rotation"]

# Of the thousand descriptors that a process may usually have, each of these takes two or
# more; what is let go is opened again in a fraction of a millisecond.
_MAX_OPEN = 128


class _Resting(Protocol):
    """What can let go of its descriptors, and comes again when it needs them."""

    def rest(self) -> None:
        """Let go of descriptors."""
        ...


class Rotation:
    """Sources in the order in which they came; the first one rests when there are too many.

    Safe to use from several threads.

    Parameters
    ----------
    max_open : int
        How many may hold descriptors.
    """

    def __init__(self, max_open: int = _MAX_OPEN) -> None:
        self._max_open = max_open
        self._lock = threading.Lock()
        self._open: OrderedDict[int, _Resting] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Rotation: {len(self._open)} of {self._max_open}>"

    def enter(self, source: _Resting) -> None:
        """Let a source hold descriptors, and another one rest if need be."""
        with self._lock:
            self._open[id(source)] = source
            oldest = None
            if len(self._open) > self._max_open:
                _, oldest = self._open.popitem(last=False)
        if oldest is not None:
            oldest.rest()

    def rest_all(self) -> None:
        """Let every source rest: descriptors are needed for something else."""
        with self._lock:
            found = tuple(self._open.values())
            self._open.clear()
        for source in found:
            source.rest()

    def leave(self, source: _Resting) -> None:
        """Forget a source that is closed."""
        with self._lock:
            self._open.pop(id(source), None)
