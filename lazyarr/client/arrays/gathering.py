"""Picking elements of a large array by index arrays and masks, a few units at a time."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from lazyarr.client.arrays import indexing
from lazyarr.client.arrays.passes import MappedOperand, blocks, fill, room_nbytes
from lazyarr.plan.passes import cut_axes, is_in_order

if TYPE_CHECKING:
    from lazyarr.client.session.region import Region

__all__ = ["pick"]

_Rows = np.ndarray[Any, np.dtype[np.intp]]


def pick(region: Region, plain: np.ndarray[Any, Any], key: Any) -> Any:
    """Return the elements that an advanced index picks, however many units they lie in.

    Parameters
    ----------
    region : Region
        The stored array's memory.
    plain : ndarray
        A plain view of that memory.
    key : index
        An advanced index, without lazy arrays in it.

    Raises
    ------
    ChunkError
        When a chunk cannot be had.
    IndexError
        When NumPy refuses the index.
    """
    first, *rest = key if isinstance(key, tuple) else (key,)
    if isinstance(first, slice):
        return _pick_from_copy(region, plain[first], (slice(None), *rest))
    rows = indexing.as_rows(first)
    if rows is None or not rows.ndim:
        return _pick_from_copy(region, plain, key)
    if rows.dtype == bool:
        if rows.shape != plain.shape[: rows.ndim]:
            return plain[key]  # NumPy raises IndexError
        if rows.ndim > 1:
            return _pick_by_mask(region, plain, rows, key)
        rows = np.flatnonzero(rows)
    if ((rows < -len(plain)) | (rows >= len(plain))).any():
        return plain[key]  # NumPy raises IndexError before it reads an element
    rows = rows.astype(np.intp) % max(1, len(plain))
    if not rest:
        return _pick_rows(region, plain, rows)
    distinct, places = np.unique(rows, return_inverse=True)
    picked = _pick_rows(region, plain, distinct)
    return picked[(places.reshape(rows.shape), *rest)]


def _pick_from_copy(region: Region, plain: np.ndarray[Any, Any], key: Any) -> Any:
    return MappedOperand(region, plain).whole()[key]


def _pick_by_mask(
    region: Region, plain: np.ndarray[Any, Any], mask: np.ndarray[Any, Any], key: Any
) -> Any:
    """Return the elements at which a mask of several axes is true."""
    operand = MappedOperand(region, plain)
    box = next(operand.passes())
    is_alone = not isinstance(key, tuple) or len(key) == 1
    is_cut_so = max(cut_axes(box, plain.shape), default=0) < mask.ndim
    if not is_alone or not is_cut_so or not is_in_order(box, plain.shape, plain.strides):
        return _pick_from_copy(region, plain, key)
    result = np.empty((np.count_nonzero(mask), *plain.shape[mask.ndim :]), plain.dtype)
    stop = 0
    for box, (part,) in blocks(operand):
        picked = part[mask[box[: mask.ndim]]]
        start, stop = stop, stop + len(picked)
        result[start:stop] = picked
    return result


def _pick_rows(region: Region, plain: np.ndarray[Any, Any], rows: _Rows) -> Any:
    """Return rows of the leading axis by number, read in the order in which they lie in memory."""
    flat = rows.reshape(-1)
    result = np.empty((flat.size, *plain.shape[1:]), plain.dtype)
    unit_nbytes = max(region.geometry.unit_nbytes, region.geometry.page_nbytes)
    steps = zip(plain.shape[1:], plain.strides[1:], strict=True)
    reach = sum((n - 1) * abs(stride) for n, stride in steps) + plain.itemsize
    row_nbytes = (reach // unit_nbytes + 2) * unit_nbytes
    if row_nbytes > max(room_nbytes(), 2 * unit_nbytes):
        for place, row in enumerate(flat.tolist()):
            fill(result[place], MappedOperand(region, plain[row, ...]))
        return result.reshape(*rows.shape, *plain.shape[1:])
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    start = plain.__array_interface__["data"][0] - region.address
    changes = np.flatnonzero(np.diff((start + ordered * plain.strides[0]) // unit_nbytes)) + 1
    n_units = max(1, room_nbytes() // row_nbytes)
    cuts = [0, *changes[n_units - 1 :: n_units].tolist(), len(ordered)]
    for begin, end in itertools.pairwise(cuts):
        part = ordered[begin:end]
        indexing.request_all(region, indexing.units_of_rows(region, plain, part))
        result[order[begin:end]] = plain[part]
    return result.reshape(*rows.shape, *plain.shape[1:])
