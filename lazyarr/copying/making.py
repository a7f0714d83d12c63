"""How copying arrays are made, of a stored array or of a place in one."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from lazyarr.copying.array import CopyArray
from lazyarr.copying.phantom import make_phantom
from lazyarr.copying.stored import StoredArray

if TYPE_CHECKING:
    import numpy as np

    from lazyarr.client.array_ref import ArrayRef, StoreHolder
    from lazyarr.flush_report import FlushReport

__all__ = [
    "anchor_of",
    "flush",
    "leave_behind",
    "make_array",
    "restride",
    "retire",
]


def make_array(node: ArrayRef, holder: StoreHolder) -> CopyArray:
    """Return the array of a node, with nothing read."""
    layout = node.metadata.layout()
    dtype = node.metadata.dtype.to_numpy()
    lengths = itertools.accumulate(layout.shape[:0:-1], int.__mul__, initial=dtype.itemsize)
    strides = tuple(lengths)[::-1] if layout.shape else ()
    whole = make_phantom(0, layout.shape, strides, writable=node.mode != "r")
    inverse = sorted(range(len(layout.axes)), key=layout.axes.__getitem__)
    return CopyArray._over(StoredArray(node, holder), whole.transpose(inverse), dtype)


def restride(
    array: CopyArray,
    start: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
) -> CopyArray:
    """Return a view of a whole array by its place in the memory that it would have."""
    view = make_phantom(start, shape, strides, writable=array.flags.writeable)
    return CopyArray._over(array._stored, view, dtype)


def anchor_of(array: CopyArray) -> StoredArray:
    """Return what lives for as long as a view of an array does, and what its values are in."""
    return array._stored


def flush(anchor: StoredArray) -> FlushReport:
    """Have what was written to an array be in the store, durably."""
    return anchor.flush()


def leave_behind(_: StoredArray) -> bool:
    """Return False: this process writes back by itself, without a pager."""
    return False


def retire(anchor: StoredArray) -> None:
    """Have what was written to an array be in the store, and let nobody write to it any more."""
    anchor.retire()
