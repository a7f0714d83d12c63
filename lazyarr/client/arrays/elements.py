"""Elementwise functions and matrix products of large arrays, part by part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lazyarr.client.arrays.passes import Operand, blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lazyarr.plan.passes import Box

__all__ = ["contract", "elementwise"]

_VALUES = (Operand, np.ndarray, np.generic, bool, int, float, complex)


def elementwise(
    function: Callable[..., Any],
    inputs: Sequence[Any],
    *,
    out: tuple[Any, ...] | None = None,
    where: Any = True,
    **options: Any,
) -> Any:
    """Return the result of an elementwise function; NotImplemented where parts do not do.

    Parameters
    ----------
    function : ufunc or callable
        Called with the parts of the inputs; returns an array or a tuple of arrays.
    inputs : sequence
        Operands, arrays and scalars; at least one `Operand`.
    out : tuple of ndarray, optional
        The arrays to write the results to; ufuncs only.
    where : array_like of bool
        The elements to compute; ufuncs only.
    **options
        Passed on to the function.
    """
    where = where if where is True else np.asarray(where)
    if not all(isinstance(v, _VALUES) for v in inputs):
        return NotImplemented
    if not _operands((*inputs, *(out or ()))):
        return NotImplemented
    shape = np.broadcast_shapes(*(_shape_of(v) for v in (*inputs, *(out or ()), where)))
    targets = [_view_of(result) for result in out or ()]
    if any(target.shape != shape or _overlaps(target, inputs) for target in targets):
        return NotImplemented
    # The parts are those of the largest input; of a result, where no input is large.
    is_input = bool(_operands(inputs))
    index, main = _largest(inputs if is_input else out or ())
    before, behind = (inputs[:index], inputs[index + 1 :]) if is_input else (inputs, ())
    order = options.get("order", "K")
    results = out
    for box, (part, *rest) in blocks(main, *before, *behind, where):
        given = options if where is True else {**options, "where": rest[-1]}
        own = (part,) if is_input else ()
        parts = (*rest[: len(before)], *own, *rest[len(before) : -1])
        place = _place_in(shape, box, main.view.shape)
        if results is not None and isinstance(function, np.ufunc):
            function(*parts, out=tuple(_to_write(r, place) for r in results), **given)
            continue
        found = function(*parts, **given)
        found = found if isinstance(found, tuple) else (found,)
        if results is None:
            results = tuple(_empty(main, shape, value.dtype, order) for value in found)
        for result, value in zip(results, found, strict=True):
            result[place] = value
    assert results is not None
    if out is not None:
        results = tuple(targets)
    return results[0] if len(results) == 1 else results


def _to_write(result: Any, place: Box) -> Any:
    """Return a part of a result, ready to be written to."""
    return result.to_write(place) if isinstance(result, Operand) else result[place]


def _view_of(result: Any) -> Any:
    return result.view if isinstance(result, Operand) else result


def _shape_of(value: Any) -> tuple[int, ...]:
    return value.view.shape if isinstance(value, Operand) else np.shape(value)


def _largest(values: Sequence[Any]) -> tuple[int, Operand]:
    return max(_operands(values), key=lambda item: item[1].view.size)


def _operands(inputs: Sequence[Any]) -> list[tuple[int, Operand]]:
    return [(i, value) for i, value in enumerate(inputs) if isinstance(value, Operand)]


def _overlaps(result: np.ndarray[Any, Any], inputs: Sequence[Any]) -> bool:
    """Return whether writing one part of a result could change a part of an input still to be read.

    It could not where both are the same elements of the same memory: each part is read before
    it is written.
    """
    for value in inputs:
        view = value.view if isinstance(value, Operand) else value
        if isinstance(view, np.ndarray) and np.may_share_memory(view, result):
            ours, theirs = view.__array_interface__, result.__array_interface__
            is_same = all(ours[name] == theirs[name] for name in ("data", "shape", "typestr"))
            if not is_same or view.strides != result.strides:
                return True
    return False


def _place_in(shape: Sequence[int], box: Box, main: Sequence[int]) -> Box:
    """Return the box of a result that is computed from a box of the largest operand."""
    before = len(shape) - len(main)
    return (
        *(slice(0, n) for n in shape[:before]),
        *(
            side if n == m else slice(0, n)
            for side, n, m in zip(box, shape[before:], main, strict=True)
        ),
    )


def _empty(main: Operand, shape: tuple[int, ...], dtype: Any, order: Any) -> Any:
    """Return a new array for a result, with its axes in the order that NumPy would choose."""
    if main.view.shape == shape:
        return np.empty_like(main.view, dtype, order=order, subok=False)
    return np.empty(shape, dtype, order="F" if order == "F" else "C")


def contract(left: Any, right: Any) -> Any:
    """Return the matrix product of an `Operand` and an array, in either order.

    It is put together from the products of the operand's parts.  NotImplemented where the
    other side is no array of one or two axes, or for elements that are no numbers.
    """
    is_left = isinstance(left, Operand)
    operand, other = (left, right) if is_left else (right, left)
    if not isinstance(other, np.ndarray) or not isinstance(operand, Operand):
        return NotImplemented
    view, inner = operand.view, -1 if is_left else max(-2, -operand.view.ndim)
    is_plain = 1 <= other.ndim <= 2 if is_left else other.ndim >= 1 and view.ndim <= 2
    across = max(-2, -other.ndim) if is_left else -1
    if not view.ndim or not is_plain or view.shape[inner] != other.shape[across]:
        return NotImplemented
    if operand.dtype.kind not in "biufc" or other.dtype.kind not in "biufc":
        return NotImplemented
    if is_left:
        shape = (*view.shape[:-1], *other.shape[1:])
    else:
        shape = (*other.shape[:-1], *view.shape[1:])
    result: np.ndarray[Any, Any] | None = None
    for box, (part,) in blocks(operand):
        if is_left:
            product = np.dot(part, other[box[inner],])
            place: Any = (*box[:-1], ...)
        else:
            product = np.dot(other[..., box[inner]], part)
            place = (..., box[-1]) if view.ndim == 2 else (...,)
        if result is None:
            result = np.empty(shape, product.dtype)
        if box[inner].start == 0:
            result[place] = product
        else:
            result[place] += product
    assert result is not None
    return result if result.ndim else result[()]
