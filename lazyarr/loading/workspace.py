"""The memory of one decoding thread."""

from __future__ import annotations

from lazyarr.kernel import ScratchBuffer

__all__ = ["Workspace"]


class Workspace:
    """The memory of one decoding thread, reused from unit to unit.

    A fresh megabyte from the allocator costs a page fault for each of its pages
    every time; a scratch buffer costs them once.
    """

    def __init__(self) -> None:
        self.encoded = ScratchBuffer(1 << 16)
        self.unit = ScratchBuffer(1 << 16)
        self.tile = ScratchBuffer(1 << 16)

    @property
    def nbytes(self) -> int:
        """How much memory it is."""
        return self.encoded.nbytes + self.unit.nbytes + self.tile.nbytes

    def close(self) -> None:
        """Give the memory back."""
        for buffer in (self.encoded, self.unit, self.tile):
            buffer.close()
