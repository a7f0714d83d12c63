"""Which units are on their way: what a worker leaves behind when it dies."""

from __future__ import annotations

import os
import struct
import threading

from lazyarr.kernel import map_shared, memory_view

__all__ = ["Board"]

_SLOT = struct.Struct("=QQ")
_N_SLOTS = 1024


class Board:
    """A slot for each thread that loads, in memory that outlives it.

    The supervisor makes it, and the worker, and what decodes for it, inherit it by fork.

    Attributes
    ----------
    n_deaths : int
        How many workers have died before this one.
    """

    def __init__(self) -> None:
        self._memfd = os.memfd_create("lazyarr-board", os.MFD_CLOEXEC)
        os.ftruncate(self._memfd, _N_SLOTS * _SLOT.size)
        self._mapped: memoryview | None = None
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

    def fileno(self) -> int:
        """Return the descriptor of the memory."""
        return self._memfd

    def start_at(self, slot: int) -> None:
        """Let the threads of this process have the slots from one on."""
        self._slots, self._n_taken = threading.local(), slot

    def prepare(self) -> None:
        """Have the board in this worker's memory before a load must wait for that."""
        self._view()

    def begin(self, region: int, unit: int) -> None:
        """Write down that this thread begins to load a unit."""
        _SLOT.pack_into(self._view(), self._offset(), region, unit + 1)

    def end(self) -> None:
        """Write down that it has ended."""
        _SLOT.pack_into(self._view(), self._offset(), 0, 0)

    def _view(self) -> memoryview:
        """Return the board in this worker's memory: no call is made to write on it."""
        if self._mapped is None:
            nbytes = _N_SLOTS * _SLOT.size
            address = map_shared(self._memfd, 0, nbytes, writable=True)
            self._mapped = memory_view(address, nbytes, writable=True)
        return self._mapped

    def read(self) -> set[tuple[int, int]]:
        """Return region and unit of every load that had begun and not ended."""
        slots = _SLOT.iter_unpack(os.pread(self._memfd, _N_SLOTS * _SLOT.size, 0))
        return {(region, unit - 1) for region, unit in slots if unit}

    def clear(self) -> None:
        """Begin anew."""
        os.pwrite(self._memfd, bytes(_N_SLOTS * _SLOT.size), 0)
        self._slots, self._n_taken = threading.local(), 0
