"""Which units are on their way: what a worker leaves behind when it dies."""

from __future__ import annotations

import os
import struct
import threading

__all__ = ["Board"]

_SLOT = struct.Struct("=QQ")
_N_SLOTS = 256
_NOTHING = bytes(_SLOT.size)


class Board:
    """A slot for each thread of the worker, in memory that outlives it.

    The supervisor makes it, and the worker inherits it by fork.

    Attributes
    ----------
    n_deaths : int
        How many workers have died before this one.
    """

    def __init__(self) -> None:
        self._memfd = os.memfd_create("lazyarr-board", os.MFD_CLOEXEC)
        os.ftruncate(self._memfd, _N_SLOTS * _SLOT.size)
        self._slots = threading.local()
        self._lock = threading.Lock()
        self._n_taken = 0
        self.n_deaths = 0

    def __repr__(self) -> str:
        return f"<Board: {sorted(self.read())}>"

    def _offset(self) -> int:
        slot: int | None = getattr(self._slots, "number", None)
        if slot is None:
            with self._lock:
                slot = self._slots.number = self._n_taken % _N_SLOTS
                self._n_taken += 1
        return slot * _SLOT.size

    def begin(self, region: int, unit: int) -> None:
        """Write down that this thread begins to load a unit."""
        os.pwrite(self._memfd, _SLOT.pack(region, unit + 1), self._offset())

    def end(self) -> None:
        """Write down that it has ended."""
        os.pwrite(self._memfd, _NOTHING, self._offset())

    def read(self) -> set[tuple[int, int]]:
        """Return region and unit of every load that had begun and not ended."""
        slots = _SLOT.iter_unpack(os.pread(self._memfd, _N_SLOTS * _SLOT.size, 0))
        return {(region, unit - 1) for region, unit in slots if unit}

    def clear(self) -> None:
        """Begin anew."""
        os.pwrite(self._memfd, bytes(_N_SLOTS * _SLOT.size), 0)
        self._slots, self._n_taken = threading.local(), 0
