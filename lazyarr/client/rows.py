"""The short way from a place on the leading axis to the unit that holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lazyarr.plan.selection import merge_spans
from lazyarr.units import Span

if TYPE_CHECKING:
    from lazyarr.client.region import Memory, Region

__all__ = ["Rows", "maybe_rows"]

_FEW = 256
_MAX_ARRIVING = 8


class Rows:
    """Rows of an array of which each lies in one unit, and each unit in pages of its own.

    Then what a row needs is one division, and whether it is there one look at the
    residency map.  Anything else goes by `picking`.

    Attributes
    ----------
    plain : ndarray
        The array, as a plain one.
    n_rows : int
        How many there are.
    per_unit, first : int
        How many a unit has, and which row of the stored array is this one's first.
    region : Region
        Where it lies; its residency map is another one in a forked child.
    """

    __slots__ = ("first", "n_rows", "per_unit", "plain", "region")

    def __init__(
        self, region: Region, plain: np.ndarray[Any, Any], first: int, per_unit: int
    ) -> None:
        self.region = region
        self.plain = plain
        self.first = first
        self.per_unit = per_unit
        self.n_rows = len(plain)

    def __repr__(self) -> str:
        return f"<Rows: {self.n_rows} from {self.first} on, {self.per_unit} to a unit>"

    def load(self, unit: int, row: int) -> None:
        """Have a unit loaded, and wait until one of its rows can be read."""
        units = [Span(unit, unit + 1)]
        if self.per_unit == 1:
            self.region.owner.request(self.region, units)
            return
        nbytes = self.region.geometry.unit_nbytes // self.per_unit
        start = (self.first + row) * nbytes
        pages = self.region.geometry.pages_of_bytes(Span(start, start + nbytes))
        self.region.owner.request(self.region, units, pages)
        if not self.region.residency[unit]:
            self.region.arriving = (*self.region.arriving[1 - _MAX_ARRIVING :], unit)

    def units(self, start: int, stop: int) -> Span:
        """Return the units of the rows ``[start, stop)``."""
        if start >= stop:
            return Span(0, 0)
        last = (self.first + stop - 1) // self.per_unit
        return Span((self.first + start) // self.per_unit, last + 1)

    def units_of(self, rows: np.ndarray[Any, Any]) -> list[Span]:
        """Return the units of some rows; those out of range are left to NumPy to refuse."""
        if rows.dtype == bool:
            rows = np.flatnonzero(rows.reshape(len(rows), -1).any(axis=1) if rows.ndim else rows)
        n_rows, per_unit = self.n_rows, self.per_unit
        if rows.size <= _FEW:  # NumPy's calls would take longer
            few = {r % n_rows for r in rows.ravel().tolist() if -n_rows <= r < n_rows}
            units = sorted({(self.first + row) // per_unit for row in few})
        else:
            there = rows[(rows >= -n_rows) & (rows < n_rows)].astype(np.int64)
            units = np.unique((there % n_rows + self.first) // per_unit).tolist()
        return merge_spans(Span(unit, unit + 1) for unit in units)


def maybe_rows(memory: Memory | None, array: np.ndarray[Any, Any]) -> Rows | None:
    """Return the short way for an array, if it has one.

    Parameters
    ----------
    memory : Memory or None
        What the array lies in.
    array : ndarray
        A view into it.
    """
    if memory is None or not array.ndim or not array.size or not array.flags.c_contiguous:
        return None
    region = memory.region
    geometry = region.geometry
    row_nbytes = array.nbytes // len(array)
    start = array.__array_interface__["data"][0] - region.address
    if not geometry.unit_pages or geometry.unit_nbytes % row_nbytes or start % row_nbytes:
        return None
    # Over the memory itself, not over the array: that would keep itself alive.
    plain = np.ndarray(array.shape, array.dtype, np.asarray(memory), start, array.strides)
    plain.flags.writeable = array.flags.writeable
    return Rows(region, plain, start // row_nbytes, geometry.unit_nbytes // row_nbytes)
