"""Reductions of arrays that are too large for one request: of each part, then of the results.

For integers, truth values and dates the results are NumPy's to the last bit.  Floating-point
numbers are added in another order than NumPy's, so sums may differ by rounding.
"""

# ruff: noqa: FBT002 - the signatures are NumPy's

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from lazyarr.client.arrays.passes import blocks, part_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.client.arrays.passes import Operand
    from lazyarr.plan.passes import Box

__all__ = ["accumulate", "argument", "mean", "reduce", "variance"]

# Ufuncs for which the reduction of the parts' reductions is the reduction of the whole.
_ASSOCIATIVE = frozenset(
    {
        np.add, np.multiply, np.maximum, np.minimum, np.fmax, np.fmin, np.logical_and,
        np.logical_or, np.logical_xor, np.bitwise_and, np.bitwise_or, np.bitwise_xor,
    }
)  # fmt: skip
_KINDS = "biufcmM"


def reduce(
    ufunc: np.ufunc,
    operand: Operand,
    axis: Any = 0,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    *,
    where: Any = True,
    of_part: Callable[[np.ndarray[Any, Any], Box], np.ndarray[Any, Any]] | None = None,
    **initial: Any,
) -> Any:
    """Return what ``ufunc.reduce`` returns; NotImplemented where parts cannot be combined.

    Parameters
    ----------
    ufunc, axis, dtype, out, keepdims, where, initial
        As of `numpy.ufunc.reduce`.
    operand : Operand
        The array.
    of_part : callable, optional
        Called with a part and its box in the result, all axes kept.  Returns the array that
        is reduced in place of the part.
    """
    if ufunc not in _ASSOCIATIVE or operand.dtype.kind not in _KINDS:
        return NotImplemented
    is_plain = dtype is None and out is None and of_part is None
    if ufunc is np.add and operand.dtype == np.float16 and is_plain:
        # NumPy adds half-precision numbers in single precision, and rounds the sum once.
        options = {"where": where, **initial}
        return reduce(ufunc, operand, axis, np.float32, None, keepdims, **options).astype("f2")
    ndim, result = operand.view.ndim, None
    axes = tuple(range(ndim)) if axis is None else normalize_axis_tuple(axis, ndim)
    for box, (part, where_part) in blocks(operand, where):
        place = tuple(slice(0, 1) if i in axes else side for i, side in enumerate(box))
        is_first = all(box[i].start == 0 for i in axes)
        options = {} if where is True else {"where": where_part}
        if is_first or ufunc.identity is None:
            options |= initial
        if of_part is not None:
            part = of_part(part, place)
        if out is not None:
            shape = tuple(1 if i in axes else n for i, n in enumerate(part.shape))
            options["out"] = np.empty(shape, out.dtype)
        partial = ufunc.reduce(part, axes, dtype, keepdims=True, **options)
        if result is None:
            shape = tuple(1 if i in axes else n for i, n in enumerate(operand.view.shape))
            result = np.empty(shape, partial.dtype)
        if is_first:
            result[place] = partial
        else:
            ufunc(result[place], partial, out=result[place], casting="unsafe")
    assert result is not None
    return _finish(result, axes, out, keepdims=keepdims)


def _finish(result: Any, axes: tuple[int, ...], out: Any, *, keepdims: bool) -> Any:
    """Return a result as NumPy does: without its reduced axes, and as a scalar if it is 0-d."""
    if not keepdims:
        result = result.squeeze(axes)
    if out is None:
        return result if result.ndim else result[()]
    out[...] = result
    return out


def _count(operand: Operand, axis: Any, where: Any) -> Any:
    """Return how many elements are reduced to each element of a result, all axes kept."""
    ndim = operand.view.ndim
    axes = range(ndim) if axis is None else normalize_axis_tuple(axis, ndim)
    shape = operand.view.shape
    if where is True:
        return np.intp(np.prod([shape[i] for i in axes], dtype=np.intp))
    wanted = np.broadcast_to(where, shape)
    return wanted.sum(axis=tuple(axes), dtype=np.intp, keepdims=True)


def _working_dtype(operand: Operand, dtype: Any) -> np.dtype[Any]:
    """Return the data type in which NumPy computes a mean."""
    if dtype is not None:
        given: np.dtype[Any] = np.dtype(dtype)
        return given
    if operand.dtype.kind in "biu":
        return np.dtype(np.float64)
    return np.dtype(np.float32) if operand.dtype == np.float16 else operand.dtype


def _result_dtype(operand: Operand, dtype: Any) -> np.dtype[Any]:
    is_half = dtype is None and operand.dtype == np.float16
    return np.dtype(np.float16) if is_half else _working_dtype(operand, dtype)


def mean(
    operand: Operand,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    *,
    where: Any = True,
) -> Any:
    """Return what `numpy.ndarray.mean` returns; NotImplemented for other elements than numbers."""
    if operand.dtype.kind not in "biufc":
        return NotImplemented
    working = _working_dtype(operand, dtype)
    total = np.asarray(reduce(np.add, operand, axis, working, keepdims=True, where=where))
    quotient = np.true_divide(total, _count(operand, axis, where), dtype=working)
    return _as_mean(operand, quotient, axis, dtype, out, keepdims=keepdims)


def _as_mean(
    operand: Operand, result: Any, axis: Any, dtype: Any, out: Any, *, keepdims: bool
) -> Any:
    ndim = operand.view.ndim
    axes = tuple(range(ndim)) if axis is None else normalize_axis_tuple(axis, ndim)
    real = result.dtype.kind == "f" and operand.dtype.kind == "c"
    if not real:
        result = result.astype(_result_dtype(operand, dtype), copy=False)
    return _finish(result, axes, out, keepdims=keepdims)


def variance(
    operand: Operand,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = False,
    *,
    is_root: bool,
    where: Any = True,
    mean: Any = None,
    correction: Any = None,
) -> Any:
    """Return what `numpy.ndarray.var` returns, or with `is_root` what `numpy.ndarray.std` does.

    The array is read twice: for the mean, and for the squares of the distances to it.
    """
    if operand.dtype.kind not in "biufc" or (correction is not None and ddof):
        return NotImplemented
    working = _working_dtype(operand, dtype)
    count = _count(operand, axis, where)
    if mean is None:
        total = np.asarray(reduce(np.add, operand, axis, working, keepdims=True, where=where))
        mean = np.true_divide(total, count, dtype=working)

    def squares(part: np.ndarray[Any, Any], place: Box) -> np.ndarray[Any, Any]:
        apart = np.subtract(part, part_of(mean, place, mean.shape))
        if apart.dtype.kind != "c":
            return np.asarray(np.square(apart, out=apart))
        return np.asarray(np.square(apart.real) + np.square(apart.imag))

    real = None if working.kind == "c" else working
    total = reduce(np.add, operand, axis, real, keepdims=True, where=where, of_part=squares)
    n_free = np.maximum(count - (ddof if correction is None else correction), 0)
    result = np.true_divide(np.asarray(total), n_free)
    result = result.astype(np.asarray(total).dtype, copy=False)
    if is_root:
        result = np.sqrt(result)
    return _as_mean(operand, result, axis, dtype, out, keepdims=keepdims)


def argument(
    ufunc: np.ufunc, operand: Operand, axis: Any = None, out: Any = None, *, keepdims: Any = False
) -> Any:
    """Return where the largest or the smallest elements are, as `numpy.argmax` and `argmin` do.

    Parameters
    ----------
    ufunc : ufunc
        `numpy.greater` or `numpy.less`.
    operand, axis, out, keepdims
        As of `numpy.argmax`.
    """
    if operand.dtype.kind not in "biuf":
        return NotImplemented
    name = "argmax" if ufunc is np.greater else "argmin"
    if axis is None:
        best = _flat_argument(ufunc, name, operand)
        result = np.full((1,) * operand.view.ndim, best, np.intp)
        return _finish(result, tuple(range(operand.view.ndim)), out, keepdims=keepdims)
    axis = normalize_axis_index(axis, operand.view.ndim)
    shape = tuple(1 if i == axis else n for i, n in enumerate(operand.view.shape))
    values, places = np.empty(shape, operand.dtype), np.empty(shape, np.intp)
    for box, (part,) in blocks(operand):
        place = tuple(slice(0, 1) if i == axis else side for i, side in enumerate(box))
        found = getattr(part, name)(axis, keepdims=True)
        value = np.take_along_axis(part, found, axis)
        if box[axis].start == 0:
            is_better: Any = ...
        else:
            is_better = _is_better(ufunc, value, values[place])
        values[place][is_better] = value[is_better]
        places[place][is_better] = found[is_better] + box[axis].start
    return _finish(places, (axis,), out, keepdims=keepdims)


def _flat_argument(ufunc: np.ufunc, name: str, operand: Operand) -> int:
    shape = operand.view.shape
    best: tuple[Any, int] | None = None
    for box, (part,) in blocks(operand):
        inside = np.unravel_index(int(getattr(part, name)()), part.shape)
        place = tuple(int(i) + side.start for i, side in zip(inside, box, strict=True))
        found = int(np.ravel_multi_index(place, shape))
        value = part[inside]
        if best is None or _is_better(ufunc, value, best[0]):
            best = value, found
        elif not _is_better(ufunc, best[0], value):
            best = best[0], min(best[1], found)
    assert best is not None
    return best[1]


def _is_better(ufunc: np.ufunc, new: Any, old: Any) -> Any:
    """Return where a new element replaces the best one so far; the first NaN is never replaced."""
    return ufunc(new, old) | (np.isnan(new) & ~np.isnan(old))


def accumulate(
    ufunc: np.ufunc, operand: Operand, axis: Any = 0, dtype: Any = None, out: Any = None
) -> Any:
    """Return what ``ufunc.accumulate`` returns, to the last bit; NotImplemented for others."""
    if ufunc not in _ASSOCIATIVE or operand.dtype.kind not in _KINDS or out is not None:
        return NotImplemented
    axis = normalize_axis_index(axis, operand.view.ndim)
    result: np.ndarray[Any, Any] | None = None
    for box, (part,) in blocks(operand):
        if result is None:
            first = ufunc.accumulate(part, axis, dtype)
            result = np.empty_like(operand.view, first.dtype, subok=False)
            result[box] = first
        elif box[axis].start == 0:
            ufunc.accumulate(part, axis, dtype, out=result[box])
        else:
            _go_on(ufunc, part, result, box, axis)
    return result


def _go_on(
    ufunc: np.ufunc, part: np.ndarray[Any, Any], result: np.ndarray[Any, Any], box: Box, axis: int
) -> None:
    """Accumulate a part, beginning with the last elements of the part before it."""
    start = box[axis].start
    before = result[(*box[:axis], slice(start - 1, start), *box[axis + 1 :])]
    part = part.astype(result.dtype)
    first = part[(*(slice(None),) * axis, slice(0, 1))]
    first[...] = ufunc(before, first)
    ufunc.accumulate(part, axis, out=result[box])
