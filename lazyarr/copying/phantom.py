"""Views that have no memory: NumPy does the arithmetic of slicing, and touches nothing.

Elements of a phantom have no bytes, so that no operation can read or write any.  It has
the shape and the strides of what it stands for, and an address, from which the place of
its first element follows.
"""

from __future__ import annotations

import sys
from typing import Any, TypeAlias

import numpy as np

__all__ = ["ADDRESS", "Phantom", "is_phantom", "make_phantom", "start_of"]

Phantom: TypeAlias = "np.ndarray[Any, np.dtype[np.void]]"

ADDRESS = sys.maxsize // 2 + 1
"""Where the first element of an array would lie: far from any memory that a process has."""


class _Place:
    """Tells NumPy of memory that does not exist (array interface protocol, version 3)."""

    def __init__(
        self,
        start: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        *,
        writable: bool,
        itemsize: int,
    ) -> None:
        self.__array_interface__ = {
            "version": 3,
            "typestr": f"|V{itemsize}",
            "shape": shape,
            "strides": strides,
            "data": (ADDRESS + start, not writable),
        }


def make_phantom(
    start: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    writable: bool = False,
    itemsize: int = 0,
) -> Phantom:
    """Return a view by its place.

    Parameters
    ----------
    start : int
        Where it begins, in bytes from the beginning of its array.
    shape, strides : tuple of int
        As of any view; strides in bytes.
    writable : bool
        What its flags say.
    itemsize : int
        Bytes of an element.  With more than 0 it is no phantom, and to read it would be SIGSEGV:
        for functions that compare addresses alone.

    Examples
    --------
    >>> whole = make_phantom(0, (1 << 20, 1 << 20), (1 << 23, 8))
    >>> part = whole[5, 10:20:2]
    >>> part.shape, part.strides, start_of(part)
    ((5,), (16,), 41943120)
    """
    place = _Place(start, shape, strides, writable=writable, itemsize=itemsize)
    return np.asarray(place)


def is_phantom(array: np.ndarray[Any, Any]) -> bool:
    """Return whether an array is a view of a phantom, rather than a copy of one."""
    address: int = array.__array_interface__["data"][0]
    return array.size == 0 or address >= ADDRESS


def start_of(view: Phantom) -> int:
    """Return where a view begins, in bytes from the beginning of its array."""
    address: int = view.__array_interface__["data"][0]
    return address - ADDRESS
