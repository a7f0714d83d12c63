"""How a large array is cut into boxes, so that the units of each box fit into memory.

A *pass* is what one operation does to a large array: it goes through all boxes, one after the
other.  While it is at one box, the units of that box are in memory, and those before may go.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TypeAlias

__all__ = ["Box", "cut_axes", "is_in_order", "plan_passes"]

Box: TypeAlias = "tuple[slice, ...]"
"""A part of an array: a slice for each axis, with start and stop."""


def plan_passes(
    shape: Sequence[int], strides: Sequence[int], *, unit_nbytes: int, room_nbytes: int
) -> Iterator[Box]:
    """Yield boxes that together are the whole view, in the order in which they lie in memory.

    The boxes are a grid: each axis is cut at the same places everywhere, and of two
    boxes that differ along one axis the one with the smaller indexes comes first.

    Parameters
    ----------
    shape, strides : sequence of int
        Shape and strides of the view; strides in bytes, which may be negative or 0.
    unit_nbytes : int
        Size of a unit; a unit is loaded as a whole, however few of its bytes are needed.
    room_nbytes : int
        How many bytes the units of one box may have together; a box has at least one unit.
        Where the view begins within a unit, a box may need up to twice as many.

    Examples
    --------
    >>> list(plan_passes((5, 10), (10, 1), unit_nbytes=10, room_nbytes=30))
    [(slice(0, 3, None), slice(0, 10, None)), (slice(3, 5, None), slice(0, 10, None))]
    """
    # Axes of length 1, and axes that are repeated (stride 0), take no further memory:
    # they are in each box as a whole.
    axes = sorted(
        (axis for axis, n in enumerate(shape) if n > 1 and strides[axis]),
        key=lambda axis: -abs(strides[axis]),
    )
    steps = list(shape)
    if axes:
        depth, box_length = _cut(
            [(abs(strides[axis]), shape[axis]) for axis in axes],
            unit_nbytes,
            max(room_nbytes, unit_nbytes),
        )
        for axis in axes[:depth]:
            steps[axis] = 1
        steps[axes[depth]] = box_length
    order = [*axes, *(axis for axis in range(len(shape)) if axis not in axes)]
    positions = [order.index(axis) for axis in range(len(shape))]
    # In the order of memory, not of the axes: each unit is needed by one box, or by
    # boxes that follow one another.  In another order it would be loaded, evicted and
    # loaded again.
    for starts in itertools.product(*(range(0, shape[a], max(1, steps[a])) for a in order)):
        yield tuple(
            slice(starts[position], min(starts[position] + steps[axis], shape[axis]))
            for axis, position in enumerate(positions)
        )


def _cut(axes: Sequence[tuple[int, int]], unit_nbytes: int, room_nbytes: int) -> tuple[int, int]:
    """Return the axis to cut, by its number in `axes`, and how long a box is along it.

    Along the axes before it a box has length 1, along those behind it the axis's own.

    Parameters
    ----------
    axes : sequence of (int, int)
        Stride and length of each axis, the largest strides first.
    unit_nbytes, room_nbytes : int
        As of `plan_passes`.
    """
    # For the axes from each one on: how far apart in memory the first and last element lie,
    # and how many bytes their units have.
    reach, needed = [0], [unit_nbytes]
    for stride, n in reversed(axes):
        reach.insert(0, reach[0] + (n - 1) * stride)
        # The units between the first and the last element: for a view with gaps that
        # may be fewer than its elements would need one by one.
        hull = (reach[0] // unit_nbytes + 1) * unit_nbytes
        needed.insert(0, min(n * needed[0], hull))
    # The outermost axis along which a box of length 1 fits.
    depth = next(d for d in range(len(axes)) if needed[d + 1] <= room_nbytes)
    stride, _ = axes[depth]
    box_length = max(
        (room_nbytes - reach[depth + 1] - 1) // stride + 1, room_nbytes // needed[depth + 1]
    )
    # Cut between units where possible: a unit with a cut inside it would be loaded twice.
    per_unit = unit_nbytes // stride if unit_nbytes % stride == 0 else 1
    return depth, box_length // per_unit * per_unit or max(1, box_length)


def cut_axes(box: Box, shape: Sequence[int]) -> list[int]:
    """Return the axes along which an array has several boxes, given its first box."""
    return [axis for axis, n in enumerate(shape) if box[axis].stop < n]


def is_in_order(box: Box, shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Return whether the elements of all boxes, one box after the other, are in C order.

    Parameters
    ----------
    box : Box
        The first box.
    shape, strides : sequence of int
        As of `plan_passes`.
    """
    cut = cut_axes(box, shape)
    steps = [abs(strides[axis]) for axis in cut]
    before = range(cut[-1]) if cut else ()
    return steps == sorted(steps, reverse=True) and all(box[axis].stop == 1 for axis in before)
