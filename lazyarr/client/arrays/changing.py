"""Methods of NumPy that change an array, where not all of it has to be written to at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lazyarr.client.arrays import indexing, writing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lazyarr.client.session.region import Region

    _Array = np.ndarray[Any, Any]

__all__ = ["change"]


def change(
    name: str, region: Region, plain: _Array, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> bool:
    """Do what a method of `numpy.ndarray` does; return False where that has to be left to NumPy.

    Parameters
    ----------
    name : str
        The method's name.
    region, plain : Region, ndarray
        The stored array's memory, and a plain view of it.
    args, kwargs
        The method's arguments, without lazy arrays in them.
    """
    method = _METHODS.get(name)
    return method is not None and method(region, plain, *args, **kwargs)


def _fill(region: Region, plain: _Array, value: Any) -> bool:
    if not _is_too_much(region, plain):
        return False
    # What NumPy refuses it refuses before anything is written.
    np.empty(1, plain.dtype).fill(value)
    return writing.apply_along(region, plain, None, lambda part: part.fill(value))


def _put(region: Region, plain: _Array, indices: Any, values: Any, mode: str = "raise") -> bool:
    # Not the whole array, as NumPy's own would: a unit that is asked for is written back.
    return writing.put_flat(region, plain, indices, values, mode)


def _sort(region: Region, plain: _Array, axis: int = -1, **options: Any) -> bool:
    def sort(part: _Array) -> None:
        part.sort(axis, **options)

    return _along(region, plain, axis, sort)


def _partition(region: Region, plain: _Array, kth: Any, axis: int = -1, **options: Any) -> bool:
    def partition(part: _Array) -> None:
        part.partition(kth, axis, **options)

    return _along(region, plain, axis, partition)


def _along(region: Region, plain: _Array, axis: int, change: Callable[[_Array], object]) -> bool:
    if not _is_too_much(region, plain) or not -plain.ndim <= axis < plain.ndim:
        return False
    return writing.apply_along(region, plain, axis, change)


def _is_too_much(region: Region, plain: _Array) -> bool:
    return indexing.is_too_much(region, indexing.units_of_view(region, plain))


_METHODS: dict[str, Callable[..., bool]] = {
    "fill": _fill, "put": _put, "sort": _sort, "partition": _partition,
}  # fmt: skip
