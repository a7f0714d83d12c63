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

_LEAST_NBYTES = 1 << 16
# After so many loads a workspace gives back what none of them has needed.
_N_LOADS = 32


class Workspace:
    """The memory of one decoding thread, reused from unit to unit.

    A fresh megabyte from the allocator costs a page fault for each of its pages
    every time; a scratch buffer costs them once.  What large units have needed is given back
    when only small ones came for a while (`take_growth`).
    """

    def __init__(self) -> None:
        self.encoded = ScratchBuffer(_LEAST_NBYTES)
        self.unit = ScratchBuffer(_LEAST_NBYTES)
        self.tile = ScratchBuffer(_LEAST_NBYTES)
        self.counted_nbytes = 0
        self._first_nbytes = self.nbytes
        self._n_loads = 0

    @property
    def nbytes(self) -> int:
        """How much memory it is."""
        return self.encoded.nbytes + self.unit.nbytes + self.tile.nbytes

    def take_growth(self) -> int:
        """Return by how much to change what is counted for it; call it when a load has ended.

        `counted_nbytes` is the sum of what was returned.  The memory of a new workspace does
        not count.
        """
        self._n_loads += 1
        if self._n_loads == _N_LOADS:
            self._n_loads = 0
            for buffer in (self.encoded, self.unit, self.tile):
                buffer.shrink(_LEAST_NBYTES)
        growth = self.nbytes - self._first_nbytes - self.counted_nbytes
        self.counted_nbytes += growth
        return growth

    def close(self) -> None:
        """Give the memory back."""
        for buffer in (self.encoded, self.unit, self.tile):
            buffer.close()
