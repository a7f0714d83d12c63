"""The fast path from a row, a place on the leading axis, to the unit that holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lazyarr.kernel import arrive
from lazyarr.plan.selection import merge_spans
from lazyarr.units import Span

if TYPE_CHECKING:
    from lazyarr.client.session.region import Memory, Region

__all__ = ["Rows", "maybe_rows"]

_FEW = 256
_MAX_ARRIVING = 8


class Rows:
    """The rows of an array, where each row lies in one unit and each unit fills whole pages.

    Then the unit of a row is one division, and one look at the residency map tells whether the
    unit is resident.  Other arrays go by `indexing`.

    Attributes
    ----------
    plain : ndarray
        The array as a plain array, over the same memory.
    n_rows : int
        Number of rows.
    per_unit, first : int
        Number of rows in a unit, and the row of the stored array with which this array begins.
    region : Region
        The stored array's memory.  Asked for its residency map each time, for a forked child has
        another one.
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

    def __deepcopy__(self, _: Any) -> Rows:
        """Return itself, as `Memory` does."""
        return self

    def load(self, unit: int, row: int) -> None:
        """Load a unit, and wait until one of its rows can be read."""
        # A child that C code has forked finds out here, and joins the pager first.
        arrive()
        units = [Span(unit, unit + 1)]
        if self.per_unit == 1:
            self.region.owner.request(self.region, units)
            return
        nbytes = self.region.geometry.unit_nbytes // self.per_unit
        start = (self.first + row) * nbytes
        pages = self.region.geometry.pages_of_bytes(Span(start, start + nbytes))
        self.region.owner.request(self.region, units, pages)
        # The row is here, and the rest of the unit on its way.  `residency()` waits for some of
        # these units, so that it does not show a unit as absent that was just read from.
        if not self.region.residency[unit]:
            self.region.arriving = (*self.region.arriving[1 - _MAX_ARRIVING :], unit)

    def units(self, start: int, stop: int) -> Span:
        """Return the units of the rows ``[start, stop)``."""
        if start >= stop:
            return Span(0, 0)
        last = (self.first + stop - 1) // self.per_unit
        return Span((self.first + start) // self.per_unit, last + 1)

    def units_of(self, rows: np.ndarray[Any, Any]) -> list[Span]:
        """Return the units of some rows; rows out of range are left out, and NumPy refuses them."""
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
    """Return the fast path for an array, if it has one.

    Parameters
    ----------
    memory : Memory or None
        The memory in which the array lies.
    array : ndarray
        A view into that memory.
    """
    if memory is None or not array.ndim or not array.size or not array.flags.c_contiguous:
        return None
    region = memory.region
    geometry = region.geometry
    row_nbytes = array.nbytes // len(array)
    start = array.__array_interface__["data"][0] - region.address
    if not geometry.unit_pages or geometry.unit_nbytes % row_nbytes or start % row_nbytes:
        return None
    # Over the memory itself.  Over the array it would be a circle, which keeps the memory mapped
    # until garbage is collected: the array has these rows, and they would have the array.
    plain = np.ndarray(array.shape, array.dtype, np.asarray(memory), start, array.strides)
    plain.flags.writeable = array.flags.writeable
    return Rows(region, plain, start // row_nbytes, geometry.unit_nbytes // row_nbytes)
