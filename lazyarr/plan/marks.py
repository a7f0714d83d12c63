"""A set of units of one array, a bit for each unit, in bounded memory."""

from __future__ import annotations

__all__ = ["Marks"]

# Units in a block, and the number of blocks: half a mebibyte, for four million units.
_BLOCK_UNITS = 1 << 12
_MAX_BLOCKS = 1 << 10


class Marks:
    """Units with a mark.  Where a new block would be too many, the oldest block loses its marks.

    Examples
    --------
    >>> marks = Marks()
    >>> marks.add(7)
    >>> marks.remove(7), marks.remove(7)
    (True, False)
    """

    def __init__(self) -> None:
        self._blocks: dict[int, bytearray] = {}

    def __repr__(self) -> str:
        n_units = sum(
            int.from_bytes(block, "little").bit_count() for block in self._blocks.values()
        )
        return f"<Marks: {n_units} units>"

    def add(self, unit: int) -> None:
        """Mark a unit."""
        number, place = divmod(unit, _BLOCK_UNITS)
        block = self._blocks.get(number)
        if block is None:
            # An array may have millions of units, and a program may walk through all.  To
            # forget some means to warn later, or not at all; to keep all would be memory
            # that the limit does not count.
            if len(self._blocks) >= _MAX_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
            block = self._blocks[number] = bytearray(_BLOCK_UNITS // 8)
        block[place >> 3] |= 1 << (place & 7)

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
