"""What is known of an array, or of one of its elements, before anything is read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["compare_with_none", "place_of_item"]


def place_of_item(shape: tuple[int, ...], args: tuple[Any, ...]) -> tuple[int, ...] | None:
    """Return the index of the element that `numpy.ndarray.item` gives.

    Parameters
    ----------
    shape : tuple of int
        Lengths of the axes.
    args : tuple
        The method's arguments.

    Returns
    -------
    tuple of int or None
        One index for each axis; None where NumPy refuses the arguments.

    Examples
    --------
    >>> place_of_item((4, 3), (5,)), place_of_item((4, 3), (1, -1)), place_of_item((4, 3), ())
    ((1, 2), (1, -1), None)
    """
    size = math.prod(shape)
    if not args:
        return (0,) * len(shape) if size == 1 else None
    place = args[0] if len(args) == 1 and isinstance(args[0], tuple) else args
    if not all(isinstance(i, int | np.integer) for i in place):
        return None
    if len(args) == 1 and place is args:
        flat = int(args[0])
        if not -size <= flat < size:
            return None
        return tuple(int(i) for i in np.unravel_index(range(size)[flat], shape))
    is_inside = all(-n <= i < n for i, n in zip(place, shape, strict=False))
    return tuple(place) if len(place) == len(shape) and is_inside else None


def compare_with_none(array: Any, other: object, compare: Callable[..., Any]) -> Any:
    """Return ``array == None``, where no element can be None.

    Parameters
    ----------
    array : LazyArray or CopyArray
        The array.
    other : object
        What it is compared with.
    compare : {numpy.equal, numpy.not_equal}
        How.

    Returns
    -------
    ndarray or bool or None
        The same truth value for each element; None where elements have to be read.
    """
    if other is not None or array.dtype.kind not in "?biufcmMSU":
        return None
    of_one = compare(np.zeros(1, array.dtype), None)
    return np.full(array.shape, of_one[0])[()]
