"""A set of units of one array, a bit for each unit, in bounded memory."""

from __future__ import annotations

__all__ = ["Marks"]

# Units in a block, and the number of blocks: half a mebibyte, for four million units.
_BLOCK_UNITS = 1 << 12
_MAX_BLOCKS = 1 << 10


class Marks:
    """Units with a mark.  Where a new block would be too many, the oldest block loses its marks.

    Parameters
    ----------
    max_blocks : int
        How many blocks, each for 4096 neighbouring units, there may be.

    Examples
    --------
    >>> marks = Marks()
    >>> marks.add(7), marks.add(7)
    (True, False)
    >>> marks.remove(7), marks.remove(7)
    (True, False)
    """

    def __init__(self, max_blocks: int = _MAX_BLOCKS) -> None:
        self._max_blocks = max_blocks
        self._blocks: dict[int, bytearray] = {}

    def __repr__(self) -> str:
        n_units = sum(
            int.from_bytes(block, "little").bit_count() for block in self._blocks.values()
        )
        return f"<Marks: {n_units} units>"

    def add(self, unit: int) -> bool:
        """Mark a unit; return whether it had no mark."""
        number, place = divmod(unit, _BLOCK_UNITS)
        block = self._blocks.get(number)
        if block is None:
            # An array may have millions of units, and a program may walk through all.  To
            # forget some means to warn later, or not at all; to keep all would be memory
            # that the limit does not count.
            if len(self._blocks) >= self._max_blocks:
                del self._blocks[next(iter(self._blocks))]
            block = self._blocks[number] = bytearray(_BLOCK_UNITS // 8)
        bit = 1 << (place & 7)
        if block[place >> 3] & bit:
            return False
        block[place >> 3] |= bit
        return True

    def remove(self, unit: int) -> bool:
        """Take the mark off a unit; return whether it had one."""
        number, place = divmod(unit, _BLOCK_UNITS)
        block = self._blocks.get(number)
        if block is None:
            return False
        bit = 1 << (place & 7)
        if not block[place >> 3] & bit:
            return False
        block[place >> 3] ^= bit
        return True
