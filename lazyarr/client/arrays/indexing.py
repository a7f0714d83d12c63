"""Finds the units that an index needs, and requests them."""

from __future__ import annotations

import itertools
import operator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lazyarr import settings
from lazyarr.errors import PagerError
from lazyarr.plan.selection import byte_runs, merge_spans
from lazyarr.units import DIRTY, RESIDENT, Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lazyarr.client.session.region import Region
    from lazyarr.client.session.rpc import PendingRequest
    from lazyarr.layout.geometry import Geometry

__all__ = [
    "Holder",
    "absent_units",
    "ask_all_to_write",
    "ask_to_write",
    "basic_view",
    "check_advice",
    "clean_units",
    "is_basic",
    "is_pick",
    "is_much_to_write",
    "is_too_much",
    "request",
    "request_all",
    "units_of_corners",
    "units_of_index",
    "units_of_rows",
    "units_of_view",
    "whole_nbytes",
    "written_nbytes",
]

# One request may bring this part of the memory limit.  Of more, the first units would be evicted
# before they are used.
_WHOLE_SHARE = 4
# So much of it is asked for at once to be assigned to: see `writing`.
_WRITTEN_SHARE = 32


_NOT_WRITTEN_BACK = (
    "cannot write to this array: the pager is gone, and would write nothing back; what was written "
    "before is in the store; open the dataset again"
)

# Whether a byte of a residency map has a bit: tables for `bytes.translate`.
_IS_RESIDENT = bytes(bool(byte & RESIDENT) for byte in range(256))
_IS_DIRTY = bytes(bool(byte & DIRTY) for byte in range(256))

_ADVICE = ("normal", "sequential", "random")  # lazyarr.plan.readahead.Advice


class Owner(Protocol):
    """Loads units: a session, or the engine that copies."""

    def request(self, region: Any, units: Sequence[Span], /) -> None:
        """Have units loaded and wait for them."""
        ...

    def begin_request(self, region: Any, units: Sequence[Span], /) -> PendingRequest | None:
        """Request units without waiting for them; None where that is not possible."""
        ...


class Holder(Protocol):
    """The units of an array: a region of memory, or the store of the engine that copies."""

    @property
    def geometry(self) -> Geometry:
        """The array's arithmetic."""
        ...

    @property
    def address(self) -> int:
        """Address of the first element."""
        ...

    @property
    def residency(self) -> memoryview:
        """One byte for each unit: `RESIDENT` and `DIRTY`."""
        ...

    @property
    def owner(self) -> Owner:
        """What loads the units."""
        ...


def check_advice(advice: str) -> None:
    """Raise ValueError for a word that is no advice."""
    if advice not in _ADVICE:
        raise ValueError(f"advice={advice!r:.80} is not one of {', '.join(_ADVICE)}")


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


def basic_view(array: np.ndarray[Any, Any], key: Any) -> np.ndarray[Any, Any]:
    """Return the view that a basic index selects, never a scalar."""
    items = key if isinstance(key, tuple) else (key,)
    view: np.ndarray[Any, Any] = array[items if Ellipsis in items else (*items, Ellipsis)]
    return view


def units_of_index(region: Holder, array: np.ndarray[Any, Any], key: Any) -> list[Span]:
    """Return the units that an index into a view needs; those of the whole view when in doubt."""
    if array.ndim == 0:
        return units_of_view(region, array)
    if is_basic(key):
        return units_of_view(region, basic_view(array, key))
    if isinstance(key, str):
        return units_of_view(region, array[key])  # a field; NumPy refuses an unknown one
    rows = as_rows(key)
    if rows is None:
        return units_of_view(region, array)
    return units_of_rows(region, array, rows)


def units_of_view(
    region: Holder, view: np.ndarray[Any, Any], *, to_load: bool = True
) -> list[Span]:
    """Return the units that must be resident before all of a view can be read.

    With `to_load` false, only the units that hold a part of the view.
    """
    # To load, a page counts with all its units: it is installed when the last of them has come.
    # Gaps of less than a page are taken as read, for they lie on pages that are needed anyway.
    start = view.__array_interface__["data"][0] - region.address
    runs = byte_runs(
        start,
        view.shape,
        view.strides,
        view.itemsize or 1,  # a view without memory; an element lies in one unit
        gap_nbytes=region.geometry.page_nbytes,
    )
    find = region.geometry.units_to_load if to_load else region.geometry.units_of_bytes
    return merge_spans(find(run) for run in runs)


def units_of_corners(region: Holder, view: np.ndarray[Any, Any], edge: int) -> list[Span]:
    """Return the units of the corners that NumPy prints of a large array.

    `edge` is how many places from each end of an axis it prints.
    """
    ends = (slice(edge), slice(-edge, None))
    sides = [ends if length > 2 * edge else (slice(None),) for length in view.shape]
    corners = (view[box] for box in itertools.product(*sides))
    return merge_spans(span for corner in corners for span in units_of_view(region, corner))


def units_of_rows(
    region: Holder, array: np.ndarray[Any, Any], rows: np.ndarray[Any, Any]
) -> list[Span]:
    """Return the units of some rows, which are places of an array's leading axis.

    Parameters
    ----------
    region : Holder
        The units of the stored array.
    array : ndarray
        A view into the stored array.
    rows : ndarray
        Integers, or a mask, along the leading axis.  Integers that are out of range are left
        out; NumPy refuses them.
    """
    if rows.dtype == bool:
        rows = np.flatnonzero(rows.any(axis=tuple(range(1, rows.ndim))) if rows.ndim else rows)
    wanted = np.unique(rows)
    wanted = np.unique(wanted[(wanted >= -len(array)) & (wanted < len(array))] % max(1, len(array)))
    spans: list[Span] = []
    for row in _runs(wanted.tolist()):
        spans.extend(units_of_view(region, array[row.start : row.stop]))
    return merge_spans(spans)


def _runs(rows: Iterable[int]) -> list[Span]:
    return merge_spans(Span(row, row + 1) for row in rows)


def absent_units(region: Holder, units: Iterable[Span]) -> list[Span]:
    """Return those of some units that the residency map does not show as resident."""
    return _lacking(region, units, _IS_RESIDENT)


def clean_units(region: Holder, units: Iterable[Span]) -> list[Span]:
    """Return those of some units that the residency map does not show as dirty."""
    return _lacking(region, units, _IS_DIRTY)


def _lacking(region: Holder, units: Iterable[Span], has: bytes) -> list[Span]:
    """Return those of some units for whose byte on the map a table has 0."""
    absent: list[Span] = []
    for span in units:
        there = region.residency[span.start : span.stop].tobytes().translate(has)
        place = there.find(b"\0")
        while place >= 0:
            stop = there.find(b"\1", place)
            stop = len(there) if stop < 0 else stop
            absent.append(Span(span.start + place, span.start + stop))
            place = there.find(b"\0", stop)
    return absent


def is_too_much(region: Holder, units: Sequence[Span]) -> bool:
    """Return whether units are too many for one request."""
    # One unit never is, however large: a unit larger than the limit is an error at `open`.
    nbytes = sum(span.size for span in units) * region.geometry.unit_nbytes
    return nbytes > max(region.geometry.unit_nbytes, whole_nbytes())


def is_much_to_write(region: Holder, units: Sequence[Span]) -> bool:
    """Return whether so many units should be written to part by part."""
    nbytes = sum(span.size for span in units) * region.geometry.unit_nbytes
    return nbytes > max(region.geometry.unit_nbytes, written_nbytes())


def written_nbytes() -> int:
    """Return how many bytes are asked for at once, to be written to."""
    return settings.current().memory_limit // _WRITTEN_SHARE


def whole_nbytes() -> int:
    """Return how many bytes one request may bring."""
    return settings.current().memory_limit // _WHOLE_SHARE


def request(region: Holder, units: Sequence[Span]) -> bool:
    """Load units and wait for them; return False when they are too many for one request.

    Raises
    ------
    ChunkError
        When a chunk of one of the units cannot be had.
    PagerError
        When the pager is gone.
    """
    if is_too_much(region, units):
        return False
    request_all(region, units)
    return True


def request_all(region: Holder, units: Sequence[Span]) -> None:
    """Load units and wait for them, however many there are.

    Of too many, the first may be evicted before the last is loaded.  Raises what `request` does.
    """
    absent = absent_units(region, units)
    # No message where all are resident, which is the usual case.
    if absent:
        region.owner.request(region, absent)


def ask_to_write(region: Region, units: Sequence[Span]) -> bool:
    """Have units loaded and ready to be written to; return False when they are too many for that.

    Raises what `ask_all_to_write` does.
    """
    if is_too_much(region, units):
        return False
    ask_all_to_write(region, units)
    return True


def ask_all_to_write(region: Region, units: Sequence[Span]) -> None:
    """Have units loaded, and ready to be written to without a fault, however many there are.

    Raises
    ------
    ChunkError
        When a chunk of one of the units cannot be had.
    StoreError
        When there is no room, because what was written before cannot be written back.
    PagerError
        When the pager is gone.
    """
    if not region.kind.writes_back:
        request_all(region, units)
        return
    if region.is_forbidden:
        raise PagerError(_NOT_WRITTEN_BACK)
    clean = clean_units(region, units)
    # No message where all of them were written to before, and not written back since.
    if clean:
        region.owner.request(region, clean, writes=True)


def as_rows(key: Any) -> np.ndarray[Any, Any] | None:
    """Return the leading part of an advanced index as an array; None when it is something else.

    Raises
    ------
    IndexError
        For numbers that are no integers: nothing is loaded for an index that NumPy refuses.
    """
    first = key[0] if isinstance(key, tuple) and key else key
    if isinstance(first, slice) or first is None or first is Ellipsis or isinstance(first, tuple):
        return None
    if isinstance(first, int | np.integer) and not isinstance(first, bool):
        return np.array([operator.index(first)])
    rows = np.asarray(first)
    if rows.dtype == bool or np.issubdtype(rows.dtype, np.integer):
        return rows
    if rows.size and rows.dtype.kind in "fc":
        _ = np.empty(0)[first]  # raises IndexError, in NumPy's words
    return None if rows.size else np.zeros(0, np.intp)
