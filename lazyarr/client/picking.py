"""Which units an index needs, and asking for them."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from lazyarr import settings
from lazyarr.plan.selection import byte_runs, merge_spans
from lazyarr.units import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lazyarr.client.region import Region

__all__ = ["absent_units", "is_basic", "is_pick", "request", "units_of_rows", "units_of_view"]

# An operation whose operands are larger than this part of the memory limit is not
# asked for as a whole: what comes first would be evicted before it is used.
_WHOLE_SHARE = 4


def is_basic(key: Any) -> bool:
    """Return whether an index gives a view (NumPy, basic indexing)."""
    items = key if isinstance(key, tuple) else (key,)
    return all(
        item is None
        or item is Ellipsis
        or isinstance(item, slice | np.integer)
        or (isinstance(item, int) and not isinstance(item, bool))
        for item in items
    )


def is_pick(key: Any, ndim: int) -> bool:
    """Return whether a basic index picks elements rather than slices.

    It does when it takes one place of the leading axis, or of every axis.
    """
    items = key if isinstance(key, tuple) else (key,)
    integers = [isinstance(item, int | np.integer) for item in items]
    return bool(items) and (integers[0] or sum(integers) == ndim)


def units_of_view(
    region: Region, view: np.ndarray[Any, Any], *, to_load: bool = True
) -> list[Span]:
    """Return the units that must be resident before all of a view can be read.

    With `to_load` false, only those that hold some of it: a page may need others too.
    """
    start = view.__array_interface__["data"][0] - region.address
    runs = byte_runs(
        start,
        view.shape,
        view.strides,
        view.itemsize,
        gap_nbytes=region.geometry.page_nbytes,
    )
    find = region.geometry.units_to_load if to_load else region.geometry.units_of_bytes
    return merge_spans(find(run) for run in runs)


def units_of_rows(
    region: Region, array: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]
) -> list[Span]:
    """Return the units of some places of an array's leading axis.

    Parameters
    ----------
    region : Region
        Where the array lies.
    array : ndarray
        A view into it.
    rows : ndarray
        Integers, or a mask, along the leading axis; what is out of range is left to
        NumPy to refuse.
    """
    if rows.dtype == bool:
        rows = np.flatnonzero(rows.reshape(rows.shape[0], -1).any(axis=1) if rows.ndim else rows)
    wanted = np.unique(rows)
    wanted = np.unique(wanted[(wanted >= -len(array)) & (wanted < len(array))] % max(1, len(array)))
    spans: list[Span] = []
    for row in _runs(wanted.tolist()):
        spans.extend(units_of_view(region, array[row.start : row.stop]))
    return merge_spans(spans)


def _runs(rows: Iterable[int]) -> list[Span]:
    return merge_spans(Span(row, row + 1) for row in rows)


def absent_units(region: Region, units: Iterable[Span]) -> list[Span]:
    """Return those units that the residency map does not show."""
    absent: list[Span] = []
    for span in units:
        there = region.residency[span.start : span.stop].tobytes()
        place = there.find(b"\0")
        while place >= 0:
            stop = there.find(b"\1", place)
            stop = len(there) if stop < 0 else stop
            absent.append(Span(span.start + place, span.start + stop))
            place = there.find(b"\0", stop)
    return absent


def request(region: Region, units: Sequence[Span]) -> bool:
    """Have units loaded and wait for them; return False when they are too many at once.

    Raises
    ------
    ChunkError
        When one of them can not be had.
    PagerError
        When the pager is gone.
    """
    nbytes = sum(span.size for span in units) * region.geometry.unit_nbytes
    if nbytes > max(region.geometry.unit_nbytes, settings.current().memory_limit // _WHOLE_SHARE):
        return False
    absent = absent_units(region, units)
    if absent:
        region.owner.request(region, absent)
    return True


def as_rows(key: Any) -> np.ndarray[Any, Any] | None:
    """Return the leading part of an advanced index as an array; None when it is something else."""
    first = key[0] if isinstance(key, tuple) and key else key
    if isinstance(first, slice) or first is None or first is Ellipsis or isinstance(first, tuple):
        return None
    if isinstance(first, int | np.integer) and not isinstance(first, bool):
        return np.array([operator.index(first)])
    rows = np.asarray(first)
    if rows.dtype == bool or np.issubdtype(rows.dtype, np.integer):
        return rows
    return np.zeros(0, np.intp) if rows.size == 0 else None
