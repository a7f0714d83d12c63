"""Which units a worker is loading and which questions it is answering, readable after its death."""

from __future__ import annotations

import os
import struct
import threading
from typing import TypeAlias

from lazyarr.kernel import map_shared, memory_view

__all__ = ["Deed", "InflightRecord"]

Deed: TypeAlias = tuple[int, int]
"""What a thread is at: the region and unit of a load, or ``~client`` and ticket of a question.

The client's number is inverted, because no region has a negative number.
"""

# A deed, with its second number plus one.
# Zero is an empty slot, so memory that is new, or was cleared, needs no further setting
# up.
_SLOT = struct.Struct("=qQ")
_N_SLOTS = 1024


class InflightRecord:
    """Memory with a slot for each thread, which the supervisor reads when a worker has died.

    A slot holds a `Deed`.

    The supervisor makes the record.  The worker and the decoders inherit it by fork.

    Attributes
    ----------
    n_deaths : int
        How many workers have died before this one.
    """

    def __init__(self) -> None:
        # A memory object outlives the process that writes to it, however that dies.  A message
        # to the supervisor for each load would cost a system call, and could be lost.
        self._memfd = os.memfd_create("lazyarr-inflight", os.MFD_CLOEXEC)
        os.ftruncate(self._memfd, _N_SLOTS * _SLOT.size)
        self._mapped: memoryview | None = None
        # Of each thread, its slot in the mapped record.
        self._slots = threading.local()
        self._lock = threading.Lock()
        self._n_taken = 0
        self.n_deaths = 0

    def __repr__(self) -> str:
        return f"<InflightRecord: {sorted(self.read())}>"

    def _take_slot(self) -> memoryview:
        """Return a slot for this thread, and remember it."""
        with self._lock:
            # Each thread writes to a slot of its own, so no lock is taken for a
            # load.  Beyond 1024 threads two share one, and a crash may be blamed on
            # neither of their units.  That delays a refusal by some crashes.
            start = self._n_taken % _N_SLOTS * _SLOT.size
            self._n_taken += 1
        slot: memoryview = self._view()[start : start + _SLOT.size]
        self._slots.slot = slot
        return slot

    def fileno(self) -> int:
        """Return the descriptor of the memory."""
        return self._memfd

    def start_at(self, slot: int) -> None:
        """Give the threads of this process slots from this number on."""
        self._slots, self._n_taken = threading.local(), slot

    def prepare(self) -> None:
        """Map the record now, so that the first load need not wait for it."""
        self._view()

    def begin(self, region: int, unit: int) -> None:
        """Write down that this thread begins to load a unit."""
        self._write(region, unit + 1)

    def begin_answer(self, client: int, ticket: int) -> None:
        """Write down that this thread begins to answer a client's question."""
        self._write(~client, ticket + 1)

    def end(self) -> None:
        """Write down that this thread has ended its load or its answer."""
        self._write(0, 0)

    def _write(self, subject: int, number: int) -> None:
        try:
            slot = self._slots.slot
        except AttributeError:  # this thread's first load or answer
            slot = self._take_slot()
        _SLOT.pack_into(slot, 0, subject, number)

    def _view(self) -> memoryview:
        """Return the record as mapped memory, which is written to without a system call."""
        if self._mapped is None:
            # The supervisor needs no mapping: it reads the record once for each death.
            nbytes = _N_SLOTS * _SLOT.size
            address = map_shared(self._memfd, 0, nbytes, writable=True)
            self._mapped = memory_view(address, nbytes, writable=True)
        return self._mapped

    def read(self) -> set[Deed]:
        """Return every deed that has begun and not ended."""
        slots = _SLOT.iter_unpack(os.pread(self._memfd, _N_SLOTS * _SLOT.size, 0))
        return {(subject, number - 1) for subject, number in slots if number}

    def clear(self) -> None:
        """Empty all slots, and give them out from the first again."""
        os.pwrite(self._memfd, bytes(_N_SLOTS * _SLOT.size), 0)
        self._slots, self._n_taken = threading.local(), 0
