"""Writing to arrays: the units are asked for first, so that what cannot be had is an exception.

An array of mode ``"r+"`` is protected until somebody writes.  A write past lazyarr's methods is a
fault for each unit, and SIGBUS where a unit cannot be had.  Methods ask for many units by one
message.  Arrays that are too large for one message are written part by part, each of which is
loaded while the part before it is written.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from lazyarr.client.arrays import indexing
from lazyarr.client.arrays.passes import MappedOperand, Operand, blocks, room_nbytes
from lazyarr.plan.passes import cut_axes, is_in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lazyarr.client.session.region import Region

    _Array = np.ndarray[Any, Any]

__all__ = [
    "WritableOperand",
    "apply_along",
    "assign",
    "copy_to",
    "is_same_memory",
    "put_flat",
    "require_broadcast",
]


class WritableOperand(MappedOperand):
    """A view that is too large for one request, and is written to part by part."""

    def to_write(self, box: Any) -> _Array:
        """Return the elements of a box, ready to be written to."""
        part = indexing.basic_view(self.view, box)
        indexing.ask_all_to_write(self.region, self._units(part))
        return part


class _AssignedOperand(MappedOperand):
    """A view to which values are assigned, few units at a time.

    From the moment that a unit may be written to it counts as dirty.  Where much is dirty,
    everything is written back, also what is about to be assigned to.  It is clean then, may be
    evicted, and would be loaded again.  So no more than is worth a message is asked for ahead of
    the assignment.
    """

    def _part_nbytes(self) -> int:
        return indexing.written_nbytes()


def assign(region: Region, plain: _Array, key: Any, value: Any) -> None:
    """Do ``plain[key] = value``, with the units requested first.

    Parameters
    ----------
    region : Region
        The stored array's memory.
    plain : ndarray
        A plain view of that memory.
    key : index
        Any index that NumPy takes, without lazy arrays in it.
    value : array_like or Operand
        What is assigned.

    Raises
    ------
    ChunkError, StoreError, PagerError
        As `indexing.ask_all_to_write`.  Parts before the one that fails are changed.
    IndexError, ValueError, TypeError
        What NumPy raises.
    """
    if indexing.is_basic(key) or isinstance(key, str):
        target = plain[key] if isinstance(key, str) else indexing.basic_view(plain, key)
        units = indexing.units_of_view(region, target)
        if not indexing.is_much_to_write(region, units):
            indexing.ask_all_to_write(region, units)
            plain[key] = _whole(value)
        else:
            _assign_view(region, target, value)
        return
    if indexing.ask_to_write(region, indexing.units_of_index(region, plain, key)):
        plain[key] = _whole(value)
        return
    _assign_picked(region, plain, key, _whole(value))


def _whole(value: Any) -> Any:
    return value.whole() if isinstance(value, Operand) else value


def is_same_memory(one: _Array, other: Any) -> bool:
    """Return whether two arrays are the same elements at the same places."""
    if not isinstance(other, np.ndarray) or one.dtype != other.dtype:
        return False
    return (
        one.__array_interface__["data"][0] == other.__array_interface__["data"][0]
        and one.shape == other.shape
        and one.strides == other.strides
    )


def _assign_view(region: Region, target: _Array, value: Any) -> None:
    """Do ``target[...] = value`` part by part."""
    source = value.view if isinstance(value, Operand) else value
    if not isinstance(source, np.ndarray):
        # As NumPy takes it: a tuple is one element of a struct, and a list of tuples several.
        is_struct = target.dtype.kind == "V"
        source = value = np.asarray(value, target.dtype if is_struct else None)
    if is_same_memory(target, source):
        return  # as after ``x[a:b] += 1``, which has written to the view already
    if np.may_share_memory(target, source):
        # Which part would be read after it is written depends on both.  NumPy makes a copy too.
        source = value = np.array(_whole(value))
    surplus = source.ndim - target.ndim
    if surplus > 0 and all(n == 1 for n in source.shape[:surplus]):
        source = value = _whole(value).reshape(source.shape[surplus:])
    require_broadcast(source.shape, target.shape)
    for _, (part, piece) in blocks(_AssignedOperand(region, target), value):
        indexing.ask_all_to_write(region, indexing.units_of_view(region, part))
        part[...] = piece


def require_broadcast(source: tuple[int, ...], target: tuple[int, ...]) -> None:
    """Raise what NumPy raises unless a value of a shape can be assigned to another shape."""
    behind = target[len(target) - len(source) :] if len(source) <= len(target) else ()
    if len(source) > len(target) or any(
        n not in (1, m) for n, m in zip(source, behind, strict=True)
    ):
        raise ValueError(
            f"could not broadcast input array from shape {_shape(source)} into shape "
            f"{_shape(target)}"
        )


def _shape(shape: tuple[int, ...]) -> str:
    """Return a shape as NumPy's messages have it."""
    return f"({','.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _assign_picked(region: Region, plain: _Array, key: Any, value: Any) -> None:
    """Do ``plain[key] = value`` for an advanced index whose units are too many at once."""
    items = key if isinstance(key, tuple) else (key,)
    first, *rest = items
    if isinstance(value, np.ndarray) and np.may_share_memory(plain, value):
        value = value.copy()  # as NumPy does
    rows, is_done = indexing.as_rows(key), False
    if isinstance(first, slice) and rest:
        is_done = _assign_rows_of_slice(region, plain, first, rest, value)
    elif rows is not None and rows.dtype == bool and rows.ndim > 1 and not rest:
        is_done = _assign_by_mask(region, plain, rows, value)
    elif rows is not None and rows.ndim and indexing.is_basic(tuple(rest)):
        is_done = _assign_rows(region, plain, rows, tuple(rest), value)
    if is_done:
        return
    # Any other index: nothing is known of its order.  Each part is loaded once, so that a chunk
    # that cannot be had is an exception; what goes again before it is written to, faults.
    MappedOperand(region, plain).require()
    plain[key] = value


def _assign_rows(
    region: Region, plain: _Array, rows: _Array, rest: tuple[Any, ...], value: Any
) -> bool:
    """Assign to rows of the leading axis, in the order in which they lie in memory.

    Returns False where NumPy refuses the index.
    """
    if rows.dtype == bool:
        if rows.shape != plain.shape[:1]:
            return False
        rows = np.flatnonzero(rows)
    n_rows = len(plain)
    if ((rows < -n_rows) | (rows >= n_rows)).any():
        return False
    behind = indexing.basic_view(plain[:1], (slice(None), *rest)).shape[1:]
    given = _broadcast(value, (*rows.shape, *behind), plain.dtype)
    given = given.reshape(rows.size, *behind)
    rows = rows.reshape(-1).astype(np.intp) % max(1, n_rows)
    # Of a place that is named twice the last value stays, as NumPy has it.
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    start = plain.__array_interface__["data"][0] - region.address
    unit_nbytes = max(region.geometry.unit_nbytes, region.geometry.page_nbytes)
    changes = np.flatnonzero(np.diff((start + ordered * plain.strides[0]) // unit_nbytes)) + 1
    n_units = max(1, room_nbytes() // _row_nbytes(plain, unit_nbytes))
    cuts = [0, *changes[n_units - 1 :: n_units].tolist(), len(ordered)]
    for begin, end in itertools.pairwise(cuts):
        part = ordered[begin:end]
        units = indexing.units_of_rows(region, plain, part)
        if indexing.ask_to_write(region, units):
            plain[(part, *rest)] = given[order[begin:end]]
            continue
        for row, place in zip(part.tolist(), order[begin:end].tolist(), strict=True):
            assign(region, plain[row, ...], rest or ..., given[place])
    return True


def _row_nbytes(plain: _Array, unit_nbytes: int) -> int:
    """Return how many bytes the units of one row have at most."""
    steps = zip(plain.shape[1:], plain.strides[1:], strict=True)
    reach = sum((n - 1) * abs(stride) for n, stride in steps) + plain.itemsize
    nbytes: int = (reach // unit_nbytes + 2) * unit_nbytes
    return nbytes


def _broadcast(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Array:
    """Return a value as an array of a shape; raise what NumPy raises where it has another."""
    if not isinstance(value, np.ndarray):
        value = np.asarray(value, dtype if dtype.kind == "V" else None)
    surplus = value.ndim - len(shape)
    if surplus > 0 and all(n == 1 for n in value.shape[:surplus]):
        value = value.reshape(value.shape[surplus:])
    try:
        return np.broadcast_to(value, shape)
    except ValueError:
        raise ValueError(
            f"shape mismatch: value array of shape {_shape(value.shape)} could not be broadcast "
            f"to indexing result of shape {_shape(shape)}"
        ) from None


def _assign_rows_of_slice(
    region: Region, plain: _Array, first: slice, rest: Sequence[Any], value: Any
) -> bool:
    """Assign to ``plain[first, *rest]`` by parts of the leading axis.

    Returns False, and does nothing, where NumPy lays out the result in another way.
    """
    target = plain[first]
    if not len(target) or any(item is None for item in rest) or not _is_together(rest):
        return False
    one = (slice(0, 1), *rest)
    shape = np.broadcast_to(np.zeros((), np.int8), target.shape)[one].shape
    operand = MappedOperand(region, target)
    if max(cut_axes(next(operand.passes()), target.shape), default=0) > 0:
        return False
    given = _broadcast(value, (len(target), *shape[1:]), plain.dtype)
    for box, (_,) in blocks(operand):
        rows = target[box[0]]
        indexing.ask_all_to_write(region, indexing.units_of_view(region, rows))
        rows[(slice(None), *rest)] = given[box[0]]
    return True


def _is_together(items: Sequence[Any]) -> bool:
    """Return whether the advanced items of an index lie side by side.

    Then the axes before them stay in front of the result (NumPy, advanced indexing).
    """
    is_advanced = [not (isinstance(i, slice) or i is Ellipsis or i is None) for i in items]
    places = [place for place, there in enumerate(is_advanced) if there]
    return bool(places) and places[-1] - places[0] + 1 == len(places)


def _assign_by_mask(region: Region, plain: _Array, mask: _Array, value: Any) -> bool:
    """Assign where a mask of several axes is true; return whether that could be done in parts."""
    if mask.shape != plain.shape[: mask.ndim]:
        return False  # NumPy raises IndexError
    operand = MappedOperand(region, plain)
    box = next(operand.passes())
    is_cut_so = max(cut_axes(box, plain.shape), default=0) < mask.ndim
    if not is_cut_so or not is_in_order(box, plain.shape, plain.strides):
        return False
    shape = (int(np.count_nonzero(mask)), *plain.shape[mask.ndim :])
    given = _broadcast(value, shape, plain.dtype)
    stop = 0
    for box, (part,) in blocks(operand):
        here = mask[box[: mask.ndim]]
        start, stop = stop, stop + int(np.count_nonzero(here))
        if stop > start:
            indexing.ask_all_to_write(region, indexing.units_of_view(region, part))
            part[here] = given[start:stop]
    return True


def copy_to(region: Region, target: _Array, source: Any, casting: str, where: Any) -> None:
    """Do ``numpy.copyto`` part by part; `source` and `where` may be operands."""
    shape = source.view.shape if isinstance(source, Operand) else np.shape(source)
    require_broadcast(tuple(shape), target.shape)
    if where is True and isinstance(source, Operand | np.ndarray):
        view = source.view if isinstance(source, Operand) else source
        if not is_same_memory(target, view) and np.may_share_memory(target, view):
            source = np.array(_whole(source))
    where = where if where is True or isinstance(where, Operand) else np.asarray(where)
    source = (
        source if isinstance(source, Operand | np.generic | int | float) else np.asarray(source)
    )
    for _, (part, piece, mask) in blocks(MappedOperand(region, target), source, where):
        indexing.ask_all_to_write(region, indexing.units_of_view(region, part))
        np.copyto(part, piece, casting, mask)  # type: ignore[arg-type]  # NumPy refuses it


def apply_along(
    region: Region, target: _Array, axis: int | None, change: Callable[[_Array], object]
) -> bool:
    """Have each part of a view changed in its place; return whether no part cuts an axis.

    Parameters
    ----------
    region, target : Region, ndarray
        The memory, and a plain view of it.
    axis : int or None
        The axis that must not be cut; None if any may.
    change : callable
        Changes an array in its place.
    """
    operand = MappedOperand(region, target)
    first = next(operand.passes())
    if axis is not None and axis % target.ndim in cut_axes(first, target.shape):
        return False
    for _, (part,) in blocks(operand):
        indexing.ask_all_to_write(region, indexing.units_of_view(region, part))
        change(part)
    return True


def put_flat(region: Region, plain: _Array, indices: Any, values: Any, mode: str) -> bool:
    """Do ``plain.put``; return False where that has to be left to NumPy."""
    places = np.asarray(indices)
    if not plain.flags.c_contiguous or places.dtype.kind not in "iu" or not places.size:
        return False
    values = np.asarray(values)
    if not values.size:
        return False
    flat, places = plain.reshape(-1), places.reshape(-1)
    if mode == "wrap":
        places = places % flat.size
    elif mode == "clip":
        places = places.clip(0, flat.size - 1)
    # As many values as places: they are repeated, or left over.
    assign(region, flat, places, np.resize(values.astype(plain.dtype), places.size))
    return True
