"""What an advanced index picks: points, and at each of them the same slices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from lazyarr.copying.phantom import Phantom, make_phantom, start_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Picked", "pick"]

_Indexes: TypeAlias = "np.ndarray[Any, np.dtype[np.intp]]"


class Picked(NamedTuple):
    """The points of an advanced index.

    Attributes
    ----------
    inner : Phantom
        What is picked at the first place of all axes that the points go along.
    offsets : ndarray of int
        How far each point is from there, in bytes, in the shape of the points.
    place : int
        Where the axes of the points come among those of `inner`.
    """

    inner: Phantom
    offsets: _Indexes
    place: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result."""
        inner: tuple[int, ...] = self.inner.shape
        return (*inner[: self.place], *self.offsets.shape, *inner[self.place :])

    def points_first(self, result: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return a view of the result with the axes of the points in front."""
        n_axes = self.offsets.ndim
        return np.moveaxis(result, range(self.place, self.place + n_axes), range(n_axes))


def pick(view: Phantom, key: Any) -> Picked:
    """Return what an advanced index of a view picks (NumPy, advanced indexing).

    Raises
    ------
    IndexError
        For what NumPy refuses, in its words.
    """
    try:
        picked = _pick(view, key)
    except (IndexError, ValueError, TypeError):
        picked = None
    if picked is None:
        empty = view[key]  # raises what NumPy has to say
        if empty.size:
            raise IndexError(f"cannot use {key!r:.200} as an index")
        # What is out of bounds is no error where nothing is picked.
        picked = Picked(make_phantom(0, (), ()), np.zeros(empty.shape, np.intp), 0)
    return picked


def _pick(view: Phantom, key: Any) -> Picked | None:
    """Return what a right index picks, None for most wrong ones."""
    split = _split(key, view.ndim)
    sliced = view[split.basic]
    parts: list[_Indexes] = []
    for axis, indexes, mask_length in split.arrays:
        length = sliced.shape[axis]
        is_wrong = (indexes < -length) | (indexes >= length)
        if is_wrong.any() or mask_length not in (None, length):
            return None
        parts.append(np.where(indexes < 0, indexes + length, indexes) * sliced.strides[axis])
    taken = {axis for axis, _, _ in split.arrays}
    left = [axis for axis in range(sliced.ndim) if axis not in taken]
    inner = make_phantom(
        start_of(sliced),
        tuple(sliced.shape[axis] for axis in left),
        tuple(sliced.strides[axis] for axis in left),
    )
    return Picked(inner, np.asarray(sum(np.broadcast_arrays(*parts))), split.place)


class _Split(NamedTuple):
    """A basic index, and arrays that are to be used on the view that it gives.

    Attributes
    ----------
    basic : tuple
        The slices and new axes.
    arrays : list of (int, ndarray, int or None)
        Axis, indexes, and of those that come from a mask the length of its axis.
    place : int
        How many axes of the result come before those of the arrays.
    """

    basic: tuple[Any, ...]
    arrays: list[tuple[int, _Indexes, int | None]]
    place: int


def _split(key: Any, ndim: int) -> _Split:
    """Take an advanced index apart.

    Arrays, masks and integers that stand together give their axes where they stand; else
    the axes come first.  A mask of no axes is a new axis, of which one place or none
    is picked.
    """
    items = [_as_array(item) for item in (key if isinstance(key, tuple) else (key,))]
    basic: list[Any] = []
    arrays: list[tuple[int, _Indexes, int | None]] = []
    n_slices, place, has_ended = 0, None, False
    for item in items:
        if not isinstance(item, np.ndarray):
            has_ended = place is not None
            news = [slice(None)] * (ndim - _n_consumed(items)) if item is Ellipsis else [item]
            basic += news
            n_slices += len(news)
            continue
        place = n_slices if place is None else 0 if has_ended else place
        for indexes, length in _indexes_of(item):
            arrays.append((len(basic), indexes, length))
            basic.append(slice(None) if item.ndim or item.dtype != bool else None)
    assert place is not None
    return _Split(tuple(basic), arrays, place)


def _as_array(item: Any) -> Any:
    """Return slices, new axes and the ellipsis as they are, all else as an array."""
    if item is None or item is Ellipsis or isinstance(item, slice):
        return item
    array = np.asarray(item)
    is_empty_list = array.size == 0 and not isinstance(item, np.ndarray)
    return array.astype(np.intp) if is_empty_list else array


def _n_consumed(items: Sequence[Any]) -> int:
    """Return how many axes the items of an index are about, besides its ellipsis."""
    arrays = [item for item in items if isinstance(item, np.ndarray)]
    n_axes = sum(item.ndim if item.dtype == bool else 1 for item in arrays)
    return n_axes + sum(isinstance(item, slice) for item in items)


def _indexes_of(item: np.ndarray[Any, Any]) -> list[tuple[_Indexes, int | None]]:
    """Return the indexes that an array means, one for each axis, with the lengths of a mask."""
    if item.dtype != bool:
        if item.dtype.kind not in "iu":
            raise IndexError("arrays used as indices must be of integer (or boolean) type")
        return [(item.astype(np.intp, casting="same_kind"), None)]
    if item.ndim == 0:
        return [(np.zeros(int(item), np.intp), None)]
    return list(zip(item.nonzero(), item.shape, strict=True))
