"""A memory object of this process, handed out piece by piece."""

from __future__ import annotations

import os

from lazyarr.kernel import PAGE_NBYTES, create_memfd

__all__ = ["Arena"]


class Arena:
    """Holes in a memory object; one descriptor serves any number of arrays.

    Pieces are never handed out twice: offsets are 63 bits long, and what nobody
    has filled takes no memory.

    Parameters
    ----------
    name : str
        What ``/proc/PID/maps`` shows.
    """

    def __init__(self, name: str) -> None:
        self.memfd = create_memfd(name)
        self._nbytes = 0

    def __repr__(self) -> str:
        return f"<Arena: descriptor {self.memfd}, {self._nbytes} bytes handed out>"

    def allot(self, nbytes: int) -> int:
        """Return the offset of a fresh piece, of whole pages."""
        offset = self._nbytes
        self._nbytes += -(-nbytes // PAGE_NBYTES) * PAGE_NBYTES
        os.ftruncate(self.memfd, self._nbytes)
        return offset
