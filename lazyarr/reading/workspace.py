"""What a load works with: the memory of a decoding thread, and what is handed to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from lazyarr.kernel import ScratchBuffer

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Fetched", "Share", "Workspace"]

Fetched: TypeAlias = "tuple[memoryview | None, ...]"
"""The encoded chunks of a unit, in the order of its pieces; None for a missing one."""

Share: TypeAlias = "Callable[[int, Callable[[int, Workspace], None], Workspace], None]"
"""Does the parts of a load: how many, what does one by its number, and where."""


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
