"""NumPy's methods and functions for arrays that are too large for one request, part by part.

Each function here computes part by part what the function of NumPy with the same name computes
at once.  Where its arguments do not allow that, it returns NotImplemented.  The caller then
calls NumPy's function with a plain copy of the array.
"""

# ruff: noqa: A002, FBT002 - the signatures are NumPy's

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index
from numpy.lib.format import dtype_to_descr, write_array_header_1_0

from lazyarr.client.arrays.elements import contract, elementwise
from lazyarr.client.arrays.passes import Operand, blocks, copy_of, fill
from lazyarr.client.arrays.reductions import accumulate, argument, mean, reduce, variance
from lazyarr.plan.passes import cut_axes, is_in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lazyarr.plan.passes import Box

__all__ = ["call_function", "call_method", "call_ufunc", "n_delegated"]

# Functions of NumPy that touch the elements only through methods of the array, universal
# functions, and other functions of NumPy.  Each of those calls comes back to this module.
_DELEGATING = frozenset(
    {
        np.all, np.allclose, np.amax, np.amin, np.any, np.append, np.argmax, np.argmin,
        np.argwhere, np.around, np.average, np.clip, np.column_stack, np.compress, np.cumprod,
        np.cumsum, np.diff, np.dstack, np.flatnonzero, np.hstack, np.isclose, np.max, np.mean,
        np.min, np.nonzero, np.prod, np.ptp, np.ravel, np.reshape, np.round, np.searchsorted,
        np.stack, np.std, np.sum, np.take, np.trace, np.var, np.vstack,
    }
)  # fmt: skip
_NUMBERS = "biufc"


def n_delegated(func: Callable[..., Any], args: Any) -> int:
    """Return how many leading arguments NumPy's own function can be given as lazy arrays.

    It passes them to methods and functions that come back to this module; 0 for a function of
    which that is not known.
    """
    if func is np.save:
        file, array = (*args, None, None)[:2]
        is_file = isinstance(file, str | os.PathLike | io.FileIO | io.BufferedWriter)
        flags = getattr(array, "flags", None)
        is_even = flags is not None and (flags.c_contiguous or flags.f_contiguous)
        return 2 if is_file and is_even else 0
    return 1 if func in _DELEGATING and args else 0


def call_ufunc(
    ufunc: np.ufunc, method: str, inputs: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Return the result of a universal function, of whose inputs at least one is an `Operand`.

    NotImplemented if a copy is needed.
    """
    if method == "__call__":
        if ufunc is np.matmul and not kwargs:
            return contract(*inputs)
        return NotImplemented if ufunc.signature else elementwise(ufunc, inputs, **kwargs)
    if not isinstance(inputs[0], Operand) or len(inputs) > 1:
        return NotImplemented
    kwargs = dict(kwargs)
    if kwargs.get("out"):
        (kwargs["out"],) = kwargs["out"]
    if method == "reduce":
        return reduce(ufunc, inputs[0], **kwargs)
    return accumulate(ufunc, inputs[0], **kwargs) if method == "accumulate" else NotImplemented


# --- methods: each takes the array, the same array as an operand, and NumPy's arguments ---


def _sum(_: Any, x: Operand, axis: Any = None, *args: Any, **kwargs: Any) -> Any:
    return reduce(np.add, x, axis, *args, **kwargs)


def _prod(_: Any, x: Operand, axis: Any = None, *args: Any, **kwargs: Any) -> Any:
    return reduce(np.multiply, x, axis, *args, **kwargs)


def _max(
    _: Any, x: Operand, axis: Any = None, out: Any = None, keepdims: Any = False, **kwargs: Any
) -> Any:
    return reduce(np.maximum, x, axis, None, out, keepdims, **kwargs)


def _min(
    _: Any, x: Operand, axis: Any = None, out: Any = None, keepdims: Any = False, **kwargs: Any
) -> Any:
    return reduce(np.minimum, x, axis, None, out, keepdims, **kwargs)


def _any(
    _: Any, x: Operand, axis: Any = None, out: Any = None, keepdims: Any = False, **kwargs: Any
) -> Any:
    dtype = np.dtype(bool) if out is None else None
    return reduce(np.logical_or, x, axis, dtype, out, keepdims, **kwargs)


def _all(
    _: Any, x: Operand, axis: Any = None, out: Any = None, keepdims: Any = False, **kwargs: Any
) -> Any:
    dtype = np.dtype(bool) if out is None else None
    return reduce(np.logical_and, x, axis, dtype, out, keepdims, **kwargs)


def _mean(_: Any, x: Operand, *args: Any, **kwargs: Any) -> Any:
    return mean(x, *args, **kwargs)


def _std(_: Any, x: Operand, *args: Any, **kwargs: Any) -> Any:
    return variance(x, *args, is_root=True, **kwargs)


def _var(_: Any, x: Operand, *args: Any, **kwargs: Any) -> Any:
    return variance(x, *args, is_root=False, **kwargs)


def _argmax(_: Any, x: Operand, *args: Any, **kwargs: Any) -> Any:
    return argument(np.greater, x, *args, **kwargs)


def _argmin(_: Any, x: Operand, *args: Any, **kwargs: Any) -> Any:
    return argument(np.less, x, *args, **kwargs)


def _cumsum(_: Any, x: Operand, axis: Any = None, *args: Any, **kwargs: Any) -> Any:
    return _accumulate(np.add, x, axis, *args, **kwargs)


def _cumprod(_: Any, x: Operand, axis: Any = None, *args: Any, **kwargs: Any) -> Any:
    return _accumulate(np.multiply, x, axis, *args, **kwargs)


def _accumulate(ufunc: np.ufunc, x: Operand, axis: Any, *args: Any, **kwargs: Any) -> Any:
    if axis is None:
        flat = x.flat()
        return NotImplemented if flat is None else accumulate(ufunc, flat, 0, *args, **kwargs)
    return accumulate(ufunc, x, axis, *args, **kwargs)


def _contains(_: Any, x: Operand, item: Any) -> Any:
    if np.ndim(item):
        return NotImplemented
    found = reduce(np.logical_or, x, None, of_part=lambda part, _: np.asarray(part == item))
    return found if found is NotImplemented else bool(found)


def _trace(
    array: Any, _: Operand, offset: Any = 0, axis1: Any = 0, axis2: Any = 1,
    dtype: Any = None, out: Any = None,
) -> Any:  # fmt: skip
    return array.diagonal(offset, axis1, axis2).sum(-1, dtype, out)


def _copy(_: Any, x: Operand, order: Any = "C") -> Any:
    return copy_of(x, order)


def _copy_as_it_lies(_: Any, x: Operand) -> Any:
    return copy_of(x, "K")


def _flatten(_: Any, x: Operand, order: Any = "C") -> Any:
    if order not in ("C", "F"):
        return NotImplemented
    flat = np.empty(x.view.size, x.dtype)
    fill(flat.reshape(x.view.shape, order=order), x)
    return flat


def _astype(
    array: Any, x: Operand, dtype: Any, order: Any = "K", casting: Any = "unsafe",
    subok: Any = True, copy: Any = True,
) -> Any:  # fmt: skip
    wanted = np.dtype(dtype)
    if wanted.kind not in _NUMBERS or x.dtype.kind not in _NUMBERS:
        return NotImplemented
    if wanted == x.dtype and not copy and order == "K":
        return array
    # NumPy checks the arguments, and raises what it raises for an array.
    np.empty(0, x.dtype).astype(wanted, casting=casting, subok=subok)
    return copy_of(x, order, wanted)


def _clip(
    _: Any, x: Operand, min: Any = None, max: Any = None, out: Any = None, **kwargs: Any
) -> Any:
    if min is None or max is None:
        return NotImplemented
    bounds = (v if np.ndim(v) == 0 else np.asarray(v) for v in (min, max))
    return elementwise(np.clip, (x, *bounds), out=None if out is None else (out,), **kwargs)


def _round(_: Any, x: Operand, decimals: Any = 0, out: Any = None) -> Any:
    if out is not None:
        return NotImplemented
    return elementwise(lambda part: part.round(decimals), (x,))


def _byteswap(_: Any, x: Operand, inplace: Any = False) -> Any:
    return NotImplemented if inplace else elementwise(lambda part: part.byteswap(), (x,))


def _conjugate(array: Any, x: Operand, *args: Any) -> Any:
    if x.dtype.kind != "c" and not args and x.dtype.kind in _NUMBERS:
        return array
    return NotImplemented if args else elementwise(np.conjugate, (x,))


def _dot(_: Any, x: Operand, other: Any, out: Any = None) -> Any:
    return NotImplemented if out is not None else contract(x, np.asarray(other))


def _tobytes(_: Any, x: Operand, order: Any = "C") -> Any:
    if order != "C" or not _is_in_order(x):
        return NotImplemented
    # b"".join would need the memory for all bytes twice: once as parts, once as the result.
    stream = io.BytesIO()
    for _, (part,) in blocks(x):
        stream.write(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)
    return stream.getvalue()


def _tofile(_: Any, x: Operand, fid: Any, sep: Any = "", format: Any = "%s") -> Any:
    if sep != "" or not _is_in_order(x):
        return NotImplemented
    if not hasattr(fid, "write"):
        with open(os.fspath(fid), "wb") as file:
            return _tofile(_, x, file, sep, format)
    for _, (part,) in blocks(x):
        # In user-mode-only a system call fails with EFAULT on pages that are not mapped here.
        # So write(2) gets a copy.
        part.copy("C").tofile(fid)
    return None


def _tolist(_: Any, x: Operand) -> Any:
    if not _is_in_order(x) or max(cut_axes(next(x.passes()), x.view.shape), default=0) > 0:
        return NotImplemented
    return [item for _, (part,) in blocks(x) for item in part.tolist()]


def _nonzero(_: Any, x: Operand) -> Any:
    if not _is_in_order(x):
        return NotImplemented
    found = [
        tuple(i + side.start for i, side in zip(part.nonzero(), box, strict=True))
        for box, (part,) in blocks(x)
    ]
    return tuple(np.concatenate(places) for places in zip(*found, strict=True))


def _is_in_order(x: Operand) -> bool:
    """Return whether the elements of all boxes, one after the other, are in C order."""
    return is_in_order(next(x.passes()), x.view.shape, x.view.strides)


def _take(
    array: Any, x: Operand, indices: Any, axis: Any = None, out: Any = None, mode: Any = "raise"
) -> Any:
    places = np.asarray(indices)
    if out is not None or places.dtype.kind not in "iu":
        return NotImplemented
    if axis is None:
        if x.flat() is None:
            return NotImplemented
        array, axis = array.reshape(-1), 0
    axis = normalize_axis_index(axis, array.ndim)
    n = array.shape[axis]
    if mode != "raise":
        places = places % n if mode == "wrap" else np.clip(places, 0, n - 1)
    return array[(*(slice(None),) * axis, places)]


def _compress(array: Any, _: Operand, condition: Any, axis: Any = None, out: Any = None) -> Any:
    if out is not None or np.ndim(condition) != 1:
        return NotImplemented
    return array.take(np.flatnonzero(condition), axis)


def _item(array: Any, _: Operand, *args: Any) -> Any:
    if len(args) == 1 and not isinstance(args[0], tuple):
        place = range(array.size)[args[0]] if -array.size <= args[0] < array.size else None
        if place is None:
            return NotImplemented
        args = tuple(int(i) for i in np.unravel_index(place, array.shape))
    picked = array[args[0] if len(args) == 1 and isinstance(args[0], tuple) else args]
    return picked.item() if np.ndim(picked) == 0 else NotImplemented


def _searchsorted(
    array: Any, x: Operand, values: Any, side: Any = "left", sorter: Any = None
) -> Any:
    """Find each value's place by bisection, which reads a few elements of the array."""
    if array.ndim != 1 or sorter is not None or side not in ("left", "right"):
        return NotImplemented
    values = np.asarray(values)
    if x.dtype.kind not in "biuf" or values.dtype.kind not in "biuf":
        return NotImplemented
    low, high = np.zeros(values.shape, np.intp), np.full(values.shape, len(array), np.intp)
    while (is_open := low < high).any():
        middle = (low + high) // 2
        found = np.asarray(array[np.minimum(middle, len(array) - 1)])
        is_less = _is_before(found, values) if side == "left" else ~_is_before(values, found)
        low = np.where(is_open & is_less, middle + 1, low)
        high = np.where(is_open & ~is_less, middle, high)
    return low if low.ndim else np.intp(low)


def _is_before(one: Any, other: Any) -> Any:
    """Return where one element comes before the other in NumPy's sorted order: NaN is last."""
    return (one < other) | (np.isnan(other) & ~np.isnan(one))


_METHODS: dict[str, Callable[..., Any]] = {
    "sum": _sum, "prod": _prod, "max": _max, "min": _min, "any": _any, "all": _all,
    "mean": _mean, "std": _std, "var": _var, "argmax": _argmax, "argmin": _argmin,
    "cumsum": _cumsum, "cumprod": _cumprod, "trace": _trace, "copy": _copy,
    "__copy__": _copy_as_it_lies, "flatten": _flatten, "astype": _astype, "clip": _clip,
    "round": _round, "byteswap": _byteswap, "conj": _conjugate, "conjugate": _conjugate,
    "dot": _dot, "tobytes": _tobytes, "tofile": _tofile, "tolist": _tolist,
    "nonzero": _nonzero, "take": _take, "compress": _compress, "item": _item,
    "searchsorted": _searchsorted, "__contains__": _contains,
}  # fmt: skip


def call_method(name: str, array: Any, x: Operand, args: Any, kwargs: Any) -> Any:
    """Return the result of a method of `numpy.ndarray`; NotImplemented if a copy is needed.

    Parameters
    ----------
    name : str
        The method's name.
    array : LazyArray or CopyArray
        The array that the method is called on.
    x : Operand
        The same array, to be read in parts.
    args, kwargs
        The method's arguments, with plain arrays in place of lazy ones.
    """
    method = _METHODS.get(name)
    return NotImplemented if method is None else method(array, x, *args, **kwargs)


# --- functions: each takes NumPy's arguments, of which some are operands -------------------


def _concatenate(arrays: Any, axis: Any = 0, out: Any = None, **options: Any) -> Any:
    """Return `numpy.concatenate` of arrays and operands, which are copied one after another."""
    if out is not None or options or axis is None:
        return NotImplemented
    views = [v if isinstance(v, Operand) else np.asarray(v) for v in arrays]
    if any(not isinstance(v, Operand) and v.dtype.hasobject for v in views):
        return NotImplemented
    shapes = [v.view.shape if isinstance(v, Operand) else v.shape for v in views]
    axis = normalize_axis_index(axis, len(shapes[0]))
    sides = {(*shape[:axis], 0, *shape[axis + 1 :]) for shape in shapes}
    if len(sides) > 1:
        return NotImplemented  # NumPy says what is wrong
    total = sum(shape[axis] for shape in shapes)
    shape = (*shapes[0][:axis], total, *shapes[0][axis + 1 :])
    result = np.empty(shape, np.result_type(*(v.dtype for v in views)))
    stop = 0
    for view, length in zip(views, (shape[axis] for shape in shapes), strict=True):
        start, stop = stop, stop + length
        target = result[(*(slice(None),) * axis, slice(start, stop))]
        if isinstance(view, Operand):
            fill(target, view)
        else:
            target[...] = view
    return result


def _where(condition: Any, *choices: Any) -> Any:
    if len(choices) != 2:
        return NotImplemented
    return elementwise(np.where, (condition, *choices))


def _copy_function(a: Any, order: Any = "K", **_: Any) -> Any:
    return copy_of(a, order)


def _count_nonzero(a: Any, axis: Any = None, *, keepdims: Any = False) -> Any:
    def flags(part: np.ndarray[Any, Any], _: Box) -> np.ndarray[Any, Any]:
        return part.astype(np.bool_)

    found = reduce(np.add, a, axis, np.intp, None, keepdims, of_part=flags)
    if axis is not None or keepdims or found is NotImplemented:
        return found
    # An int before NumPy 2.3, and a scalar of NumPy's since.
    return type(np.count_nonzero(()))(found)


def _array_equal(a1: Any, a2: Any, equal_nan: Any = False) -> Any:
    one, other = (a if isinstance(a, Operand) else np.asarray(a) for a in (a1, a2))
    shapes = [a.view.shape if isinstance(a, Operand) else a.shape for a in (one, other)]
    if shapes[0] != shapes[1]:
        return False
    if equal_nan:
        return NotImplemented
    main, rest = (one, other) if isinstance(one, Operand) else (other, one)
    assert isinstance(main, Operand)
    return all(bool(np.asarray(part == its).all()) for _, (part, its) in blocks(main, rest))


def _bincount(x: Any, weights: Any = None, minlength: Any = 0) -> Any:
    if not isinstance(x, Operand) or x.view.ndim != 1 or weights is not None:
        return NotImplemented
    total = np.zeros(minlength, np.intp)
    for _, (part,) in blocks(x):
        counts = np.bincount(part, minlength=len(total))
        counts[: len(total)] += total
        total = counts
    return total


def _dot_function(a: Any, b: Any, out: Any = None) -> Any:
    if out is not None:
        return NotImplemented
    sides = (v if isinstance(v, Operand) else np.asarray(v) for v in (a, b))
    return contract(*sides)


def _save(file: Any, arr: Any, allow_pickle: Any = True) -> Any:  # noqa: ARG001 - no objects here
    """Write what `numpy.save` does, where NumPy would make a copy of all elements."""
    is_named = isinstance(file, str | os.PathLike)
    if not is_named or not isinstance(arr, Operand) or not _is_in_order(arr):
        return NotImplemented
    path = os.fspath(file)
    header = {"descr": dtype_to_descr(arr.dtype), "fortran_order": False, "shape": arr.view.shape}
    stream = io.BytesIO()
    try:
        write_array_header_1_0(stream, header)
    except ValueError:  # a struct with names that are many, or no Latin
        return NotImplemented
    with open(path if path.endswith(".npy") else f"{path}.npy", "wb") as opened:
        opened.write(stream.getvalue())
        return _tofile(None, arr, opened)


_FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    np.concatenate: _concatenate, np.where: _where, np.copy: _copy_function,
    np.count_nonzero: _count_nonzero, np.array_equal: _array_equal, np.bincount: _bincount,
    np.dot: _dot_function, np.save: _save,
}  # fmt: skip


def call_function(func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """Return the result of a function of NumPy; NotImplemented if a copy is needed.

    Parameters
    ----------
    func : callable
        NumPy's function, such as `numpy.concatenate`.
    args, kwargs
        The function's arguments, with an `Operand` in place of each array that is too large.
    """
    function = _FUNCTIONS.get(func)
    return NotImplemented if function is None else function(*args, **kwargs)
