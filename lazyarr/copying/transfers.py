"""Which elements of a view lie in which unit, and carrying them from there or to there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from lazyarr.copying.phantom import start_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazyarr.copying.indexing import Picked
    from lazyarr.copying.phantom import Phantom
    from lazyarr.layout.geometry import Geometry

__all__ = ["Decoded", "Piece", "Points", "Transfer", "plan_picked", "plan_view"]

Decoded: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"
"""The bytes of a unit."""

_Offsets: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"


class Piece(NamedTuple):
    """A part of a view that lies in one unit.

    Attributes
    ----------
    unit : int
        Which one.
    start : int
        Where the part begins in the unit, in bytes.
    strides : tuple of int
        How far its elements are apart there.
    plain : ndarray
        The same part in the user's memory.
    """

    unit: int
    start: int
    strides: tuple[int, ...]
    plain: np.ndarray[Any, Any]

    def _inside(self, data: Decoded) -> np.ndarray[Any, Any]:
        return np.ndarray(
            self.plain.shape, self.plain.dtype, data, self.start, self.strides
        )  # checks that all of it is in there

    def read(self, data: Decoded) -> None:
        """Copy from the unit to the user."""
        self.plain[...] = self._inside(data)

    def write(self, data: Decoded) -> None:
        """Copy from the user to the unit."""
        self._inside(data)[...] = self.plain


class Points(NamedTuple):
    """Many small parts, all alike, that lie in one unit.

    Attributes
    ----------
    unit : int
        Which one.
    starts : ndarray of int
        Where each part begins in the unit, in bytes.
    step_nbytes : int
        The starts are so many bytes apart, or a multiple of that.
    strides : tuple of int
        How far the elements of a part are apart.
    plain : ndarray
        All parts in the user's memory, one after the other.
    order : ndarray of int
        Which of those the starts are for.
    """

    unit: int
    starts: _Offsets
    step_nbytes: int
    strides: tuple[int, ...]
    plain: np.ndarray[Any, Any]
    order: np.ndarray[Any, np.dtype[np.intp]]

    def _inside(self, data: Decoded) -> tuple[np.ndarray[Any, Any], _Offsets]:
        """Return every part that there could be in the unit, and which of them are meant."""
        places, first = np.divmod(self.starts, self.step_nbytes)
        shape, dtype = self.plain.shape[1:], self.plain.dtype
        n_windows = (len(data) - int(first[0]) - span_of(self.plain[0, ...], self.strides)) // (
            self.step_nbytes
        ) + 1
        strides = (self.step_nbytes, *self.strides)
        windows: np.ndarray[Any, Any] = np.ndarray(
            (n_windows, *shape), dtype, data, int(first[0]), strides
        )
        return windows, places

    def read(self, data: Decoded) -> None:
        """Copy from the unit to the user."""
        windows, places = self._inside(data)
        self.plain[self.order] = windows[places]

    def write(self, data: Decoded) -> None:
        """Copy from the user to the unit; of parts at one place the last one stays."""
        windows, places = self._inside(data)
        windows[places] = self.plain[self.order]


Transfer: TypeAlias = Piece | Points


def span_of(plain: np.ndarray[Any, Any], strides: tuple[int, ...]) -> int:
    """Return how many bytes lie from the first to the last of a part with positive strides.

    A part of no axes is given as an array too: of a string a scalar has the length of its
    content as its item size.
    """
    steps = zip(plain.shape, strides, strict=True)
    nbytes: int = plain.dtype.itemsize + sum((n - 1) * stride for n, stride in steps)
    return nbytes


def plan_view(geometry: Geometry, view: Phantom, plain: np.ndarray[Any, Any]) -> Iterator[Piece]:
    """Yield the pieces of a view, in the order in which they lie.

    Parameters
    ----------
    geometry : Geometry
        The array's arithmetic.
    view : Phantom
        The view.
    plain : ndarray
        Memory of the user's, of the same shape.
    """
    if plain.size:
        yield from _cut(geometry, *_ascending(start_of(view), view.strides, plain, 0))


def _ascending(
    start: int, strides: tuple[int, ...], plain: np.ndarray[Any, Any], n_fixed: int
) -> tuple[int, tuple[int, ...], np.ndarray[Any, Any]]:
    """Return a part with its axes so that elements follow one another as they lie.

    Parameters
    ----------
    start, strides, plain
        Place and memory of the part.
    n_fixed : int
        How many axes of `plain` in front have no strides, and stay.
    """
    axes = []
    flips: list[Any] = [slice(None)] * n_fixed
    for axis, (n, stride) in enumerate(zip(plain.shape[n_fixed:], strides, strict=True)):
        start += (n - 1) * min(stride, 0)
        flips.append(slice(None, None, -1 if stride < 0 else None))
        axes.append((0 if n == 1 else abs(stride), axis))
    axes.sort(reverse=True)
    order = (*range(n_fixed), *(n_fixed + axis for _, axis in axes))
    return start, tuple(stride for stride, _ in axes), plain[(*flips, ...)].transpose(order)


def _cut(
    geometry: Geometry, start: int, strides: tuple[int, ...], plain: np.ndarray[Any, Any]
) -> Iterator[Piece]:
    """Cut a part at the ends of units; its strides are positive, and the largest come first."""
    unit = geometry.unit_at(start)
    bounds = geometry.unit_bytes(unit)
    nbytes = span_of(plain, strides)
    if start + nbytes <= bounds.stop:
        yield Piece(unit, start - bounds.start, strides, plain)
        return
    # A span that is longer than an element has an axis, and a stride, that make it so.
    step, n_rows = strides[0], plain.shape[0]
    row_nbytes = nbytes - (n_rows - 1) * step
    done = 0
    while done < n_rows:
        first = start + done * step
        unit = geometry.unit_at(first)
        bounds = geometry.unit_bytes(unit)
        n_whole = min((bounds.stop - first - row_nbytes) // step + 1, n_rows - done)
        if n_whole > 0:
            part = plain[done : done + n_whole]
            yield Piece(unit, first - bounds.start, strides, part)
            done += n_whole
        else:
            yield from _cut(geometry, first, strides[1:], plain[done, ...])
            done += 1


def plan_picked(
    geometry: Geometry, picked: Picked, plain: np.ndarray[Any, Any], itemsize: int
) -> Iterator[Transfer]:
    """Yield what to carry for an advanced index, unit after unit.

    Parameters
    ----------
    geometry : Geometry
        The array's arithmetic.
    picked : Picked
        What the index picks.
    plain : ndarray
        Memory of the user's, of the shape ``(n_points, *picked.inner.shape)``.
    itemsize : int
        Bytes of an element of the array; all points are a multiple of that apart.
    """
    if not plain.size:
        return
    start, strides, plain = _ascending(start_of(picked.inner), picked.inner.strides, plain, 1)
    starts = start + picked.offsets.reshape(-1)
    order = np.argsort(starts, kind="stable")
    starts = starts[order]
    last = starts + (span_of(plain[0, ...], strides) - 1)
    units, last_units = _units_at(geometry, starts), _units_at(geometry, last)
    edges = np.flatnonzero(np.diff(units)) + 1
    for begin, end in zip([0, *edges.tolist()], [*edges.tolist(), len(units)], strict=True):
        unit = int(units[begin])
        inside = begin + np.flatnonzero(last_units[begin:end] == unit)
        if len(inside):
            relative = starts[inside] - geometry.unit_bytes(unit).start
            yield Points(unit, relative, itemsize, strides, plain, order[inside])
        for point in begin + np.flatnonzero(last_units[begin:end] != unit):
            yield from _cut(geometry, int(starts[point]), strides, plain[order[point], ...])


def _units_at(geometry: Geometry, offsets: _Offsets) -> _Offsets:
    units: Any = geometry.unit_at(offsets)  # type: ignore[arg-type]  # arithmetic
    return np.asarray(units)
