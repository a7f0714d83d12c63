"""In which order NumPy goes through an array, and whether memory that has to go comes back."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Walk", "comes_back", "of_function", "of_method", "of_ufunc"]

# Whether functions or methods: they go as the memory does, however the axes are turned.
_BY_MEMORY = frozenset(
    {
        "all", "any", "astype", "byteswap", "clip", "conj", "conjugate", "copy", "max", "mean",
        "min", "prod", "put", "round", "std", "sum", "var", "__copy__", "amax", "amin",
        "around", "average", "count_nonzero", "isclose", "nan_to_num", "nanmax", "nanmean",
        "nanmin", "nanprod", "nanstd", "nansum", "nanvar", "ptp", "real", "imag", "sort",
        "partition", "where",
    }
)  # fmt: skip
# They take one line along an axis after the other, and where the axis is among the arguments
# when it has no name.
_ALONG_AXIS = {
    "argmax": 0, "argmin": 0, "argsort": 0, "argpartition": 1, "cumprod": 0, "cumsum": 0,
}  # fmt: skip
_ALONG_AXIS_FUNCTIONS = frozenset(
    {*_ALONG_AXIS, "apply_along_axis", "cumulative_prod", "cumulative_sum", "lexsort", "unique"}
)
# An axis along which a walk goes fastest, while the others follow from the last to the first;
# "F" for all from the first to the last; None for whatever order the memory has.  "kernel" is
# from the last to the first, by a system call.
Walk = int | Literal["F", "kernel"] | None
_C_ORDER = -1


def of_method(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Walk:
    """Return how a method goes through its array."""
    if name in _ALONG_AXIS:
        place = _ALONG_AXIS[name]
        return _axis(kwargs.get("axis", args[place] if len(args) > place else None))
    if name == "tofile":
        return "kernel"
    takes_order = name in ("copy", "flatten", "ravel", "tobytes")
    order = kwargs.get("order", args[0] if takes_order and args else "C")
    if takes_order and order in ("K", "A"):
        return None
    if takes_order:
        return "F" if order == "F" else _C_ORDER
    return None if name in _BY_MEMORY else _C_ORDER


def of_function(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Walk:
    """Return how a function of NumPy's goes through its arrays."""
    name = func.__name__
    if name in _BY_MEMORY:
        return None
    if func is np.save:
        return "kernel"
    if name not in _ALONG_AXIS_FUNCTIONS and not func.__module__.startswith("numpy.fft"):
        return _C_ORDER
    try:
        bound = inspect.signature(func).bind(*args, **kwargs)
    except (TypeError, ValueError):  # no signature, or arguments that NumPy will refuse
        return _axis(kwargs.get("axis"))
    bound.apply_defaults()
    return _axis(bound.arguments.get("axis"))


def of_ufunc(ufunc: np.ufunc, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Walk:
    """Return how a method of a universal function goes through its operands."""
    if method == "accumulate":
        return _axis(kwargs.get("axis", args[1] if len(args) > 1 else 0))
    if method == "reduceat":
        return _axis(kwargs.get("axis", args[2] if len(args) > 2 else 0))
    return _C_ORDER if ufunc.signature else None


def _axis(axis: Any) -> int:
    return int(axis) if isinstance(axis, int | np.integer) else _C_ORDER


def comes_back(shape: Sequence[int], strides: Sequence[int], walk: Walk, room_nbytes: int) -> bool:
    """Return whether a walk comes back, again and again, to memory that it has left.

    Parameters
    ----------
    shape : sequence of int
        Of the array.
    strides : sequence of int
        In bytes.
    walk : int, "F", "kernel" or None
        The order of the axes.
    room_nbytes : int
        How much memory stays when the walk has left it.

    Examples
    --------
    Rows of 1000 bytes, column by column, and row by row:

    >>> comes_back((100, 1000), (1000, 1), 0, 50_000)
    True
    >>> comes_back((100, 1000), (1000, 1), 1, 50_000)
    False
    """
    axes = list(range(len(shape)))
    if walk == "F":
        axes.reverse()
    elif walk is None:
        return False
    elif walk != "kernel":
        if not -len(shape) <= walk < len(shape):
            return False  # NumPy refuses it
        axes.append(axes.pop(walk))
    # An axis that repeats the same memory goes through it again, whoever walks.
    steps = [(abs(strides[i]), shape[i]) for i in axes if shape[i] > 1 and strides[i]]
    for place, (stride, _) in enumerate(steps):
        inner = steps[place + 1 :]
        extent = sum((length - 1) * step for step, length in inner)
        if extent > room_nbytes and any(step > stride for step, _ in inner):
            return True
    return False
