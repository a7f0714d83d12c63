"""What NumPy does with plain arrays, done for arrays that load first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from lazyarr.client.arrays import indexing, large
from lazyarr.client.arrays.nested import replace_items
from lazyarr.client.arrays.numpy_names import (
    CHANGING_FUNCTIONS,
    FREE_FUNCTIONS,
    IMITATING_FUNCTIONS,
    READING_METHODS,
    SCALAR_METHODS,
)
from lazyarr.client.arrays.one_element import compare_with_none
from lazyarr.client.arrays.passes import Operand, part_of
from lazyarr.copying.phantom import is_phantom

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.copying.phantom import Phantom

__all__ = ["DelegatingArray", "is_fields"]

# Functions that look at shape and type alone.
_SHAPE_FUNCTIONS = IMITATING_FUNCTIONS | {
    np.shape, np.ndim, np.size, np.result_type, np.can_cast, np.iscomplexobj, np.isrealobj,
    np.common_type,
}  # fmt: skip
_PLAIN = (np.ndarray, np.generic, bool, int, float, complex)
# Functions that do no more than call a method of the array, or get an attribute.
_METHOD_FUNCTIONS = frozenset({np.reshape, np.real, np.imag})
_SHARING_FUNCTIONS = frozenset({np.shares_memory, np.may_share_memory})
# Of the others some take several arrays or read a scalar.
_VIEW_FUNCTIONS = FREE_FUNCTIONS - _SHAPE_FUNCTIONS - _METHOD_FUNCTIONS - _SHARING_FUNCTIONS - {
    np.broadcast_arrays, np.min_scalar_type, np.ravel,
}  # fmt: skip
_CHANGING_METHODS = ("partition", "put", "sort")
_VIEW_METHODS = ("diagonal", "squeeze", "swapaxes", "transpose")
_OTHER_METHODS = ("getfield", "newbyteorder", "tostring")


class DelegatingArray(NDArrayOperatorsMixin):
    """An array that loads itself when NumPy computes with it.

    It has the methods and attributes of an ndarray.  What a subclass does not define is done to
    a plain array with the same elements, or to a phantom where that gives a view.
    """

    _phantom: Phantom

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the elements are."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        raise NotImplementedError

    @property
    def flags(self) -> Any:
        """As of an ndarray."""
        raise NotImplementedError

    def _loaded(self) -> np.ndarray[Any, Any]:
        """Return all of it, to compute on and not to write to."""
        raise NotImplementedError

    def _asked(self) -> np.ndarray[Any, Any] | Operand:
        """Return all of it, to compute on and not to write to; an operand if it is too much."""
        raise NotImplementedError

    def _is_large(self) -> bool:
        """Return whether it is too large to load all of it at once."""
        raise NotImplementedError

    def _view(self, phantom: Phantom) -> DelegatingArray:
        """Return a view of the same stored array."""
        raise NotImplementedError

    def _addresses_beside(self, other: Any) -> tuple[Phantom, Phantom] | None:
        """Return where this and another array would lie in memory; None if not in the same."""
        raise NotImplementedError

    def _require_writable(self) -> None:
        """Raise ValueError unless elements can be changed: before anything is read for that."""
        raise NotImplementedError

    def __setitem__(self, key: Any, value: Any) -> None:
        """Change elements."""
        raise NotImplementedError

    def take(
        self, indices: Any, axis: int | None = None, out: Any = None, mode: Any = "raise"
    ) -> Any:
        """Return elements by index, as `numpy.take`."""
        raise NotImplementedError

    def ravel(self, order: Any = "C") -> Any:
        """Return a lazy flat view where there is one, else a plain copy."""
        raise NotImplementedError

    def _take(self, indices: Any, axis: int | None, **how: Any) -> Any:
        """Return elements by index, as `numpy.take`, also into another array."""
        return _call_on_loaded(self, np.ndarray.take, (indices, axis), how)

    def fill(self, value: Any) -> None:
        """Let all elements have one value, as `numpy.ndarray.fill`."""
        self._require_writable()
        one = np.empty((), self.dtype)
        one.fill(value)
        self[...] = one

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """Load the operands, then compute on plain arrays."""
        return _call_ufunc(ufunc, method, inputs, kwargs)

    def __eq__(self, other: object) -> Any:
        """Return where elements are equal: of structs too, which ufuncs do not compare."""
        known = compare_with_none(self, other, np.equal)
        return self._loaded() == _read(other) if known is None else known

    def __ne__(self, other: object) -> Any:
        """Return where elements differ."""
        known = compare_with_none(self, other, np.not_equal)
        return self._loaded() != _read(other) if known is None else known

    __hash__ = None  # type: ignore[assignment]  # as ndarray's

    @property
    def flat(self) -> np.flatiter[Any]:
        """`numpy.ndarray.flat` of a copy, which is read-only."""
        return self._loaded().flat

    def __dir__(self) -> list[str]:
        """Return the names of all attributes but `flat`, which reads."""
        # Debuggers and `inspect.getmembers` get the value of each name.
        return [name for name in super().__dir__() if name != "flat"]

    def __array_function__(self, func: Any, _: Any, args: Any, kwargs: Any) -> Any:
        """Load the operands, then call the function on plain arrays."""
        return _call_function(self, func, args, kwargs)


def is_fields(key: Any) -> bool:
    """Return whether an index names members of a struct."""
    return isinstance(key, str) or (bool(key) and all(isinstance(item, str) for item in key))


def _call_ufunc(ufunc: Any, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what a universal function gives for plain operands."""
    if method == "at" and _is_ours(inputs[0]):
        with_plain = _changed(inputs[0])
        getattr(ufunc, method)(with_plain, *_read(inputs[1:]), **kwargs)
        inputs[0][...] = with_plain
        return None
    outputs = kwargs.pop("out", None)
    if method == "__call__" and outputs and _is_in_parts(ufunc, inputs, outputs, kwargs):
        return _compute_in_parts(ufunc, inputs, outputs[0], kwargs)
    kwargs = _read(kwargs)
    if not outputs:
        return _compute(ufunc, method, inputs, kwargs)
    plains = tuple(_changed(out) if _is_ours(out) else out for out in outputs)
    _compute(ufunc, method, inputs, {**kwargs, "out": plains})
    for out, plain in zip(outputs, plains, strict=True):
        if _is_ours(out):
            out[...] = plain
    return outputs[0] if len(outputs) == 1 else outputs


def _is_in_parts(
    ufunc: Any, inputs: tuple[Any, ...], outputs: tuple[Any, ...], kwargs: dict[str, Any]
) -> bool:
    """Return whether a result is too large for memory, and each part of it needs that part alone.

    Each input is the result itself, or has nothing in common with it.
    """
    if ufunc.signature is not None or len(outputs) != 1 or not _is_ours(outputs[0]):
        return False
    (out,) = outputs
    if not (out._is_large() and out.flags.writeable):
        return False
    values = (*inputs, kwargs.get("where", True))
    if not all(isinstance(v, _PLAIN) or _is_ours(v) for v in values):
        return False
    shapes = (v.shape if hasattr(v, "shape") else () for v in values)
    if np.broadcast_shapes(out.shape, *shapes) != out.shape:
        return False
    return all(_is_same(v, out) or not _is_beside(v, out) for v in values if _is_ours(v))


def _is_beside(value: DelegatingArray, out: DelegatingArray) -> bool:
    addresses = out._addresses_beside(value)
    return addresses is not None and np.may_share_memory(*addresses)


def _is_same(value: Any, out: DelegatingArray) -> bool:
    """Return whether two arrays are the same elements at the same places."""
    addresses = out._addresses_beside(value) if _is_ours(value) else None
    if addresses is None or value.dtype != out.dtype:
        return False
    one, two = (v.__array_interface__ for v in addresses)
    places = [(v["data"][0], v["shape"], v.get("strides")) for v in (one, two)]
    return places[0] == places[1]


def _compute_in_parts(
    ufunc: Any, inputs: tuple[Any, ...], out: DelegatingArray, kwargs: dict[str, Any]
) -> DelegatingArray:
    """Compute elementwise, and write each part of the result before the next one is read."""
    where = kwargs.pop("where", True)
    target: Any = out._asked()
    given = [target if _is_same(value, out) else _asked(value) for value in (*inputs, where)]
    for box in target.passes():
        whole = indexing.basic_view(target.view, box)
        parts = [part_of(value, box, out.shape) for value in given]
        result = np.empty(whole.shape, out.dtype)
        if where is not True:
            result[...] = target.gather(box)
        ufunc(*parts[:-1], out=result, where=parts[-1], **kwargs)
        out[box] = result
    return out


def _compute(ufunc: Any, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what a universal function gives, part by part where an operand is large."""
    asked = _asked(inputs)
    result = NotImplemented
    if any(isinstance(value, Operand) for value in asked):
        result = large.call_ufunc(ufunc, method, asked, kwargs)
    return getattr(ufunc, method)(*_whole(asked), **kwargs) if result is NotImplemented else result


def _call_function(array: DelegatingArray, func: Any, args: Any, kwargs: Any) -> Any:
    """Return what a function of NumPy's gives for plain arguments; of views, lazy ones."""
    if func is np.take and args and args[0] is array:
        return array.take(*args[1:], **kwargs)
    if func in _SHARING_FUNCTIONS:
        a, b, *rest = args
        addresses = a._addresses_beside(b) if _is_ours(a) and _is_ours(b) else None
        return addresses is not None and func(*addresses, *rest, **kwargs)
    is_alone = args and args[0] is array and not any(map(_is_ours, (*args[1:], *kwargs.values())))
    if is_alone and func in _SHAPE_FUNCTIONS:
        return func(np.broadcast_to(np.empty((), array.dtype), array.shape), *args[1:], **kwargs)
    if is_alone and func is np.ravel:
        return array.ravel(*args[1:], **kwargs)
    if is_alone and func in _METHOD_FUNCTIONS:
        return np.ndarray.__array_function__(np.empty(0), func, (), args, kwargs)
    if is_alone and func in _VIEW_FUNCTIONS:
        return _lazy(array, func(array._phantom, *args[1:], **kwargs))
    if func in CHANGING_FUNCTIONS and args and _is_ours(args[0]):
        plain = _changed(args[0])
        func(plain, *_read(args[1:]), **_read(kwargs))
        args[0][...] = plain
        return None
    out = kwargs.get("out")
    if not _is_ours(out):
        return _call(func, args, _read(kwargs))
    plain = _changed(out)
    _call(func, args, {**_read(kwargs), "out": plain})
    out[...] = plain
    return out


def _call(func: Any, args: Any, kwargs: Any) -> Any:
    """Return what a function of NumPy's gives, part by part where its array is large."""
    is_large = args and _is_ours(args[0]) and args[0]._is_large()
    if is_large and large.n_delegated(func, args) == 1:
        args = (args[0], *_read(args[1:]))
        return np.ndarray.__array_function__(np.empty(0), func, (), args, kwargs)
    asked = _asked(args)
    result = large.call_function(func, asked, kwargs) if _has_operand(asked) else NotImplemented
    return func(*_whole(asked), **kwargs) if result is NotImplemented else result


def _has_operand(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_has_operand, value))
    return isinstance(value, Operand)


def _is_ours(value: Any) -> bool:
    return isinstance(value, DelegatingArray)


def _changed(array: DelegatingArray) -> np.ndarray[Any, Any]:
    """Return a plain copy of an array that is about to be changed."""
    array._require_writable()
    return array._loaded().copy()


def _lazy(array: DelegatingArray, result: Any) -> Any:
    """Return phantoms in a result as arrays."""
    if isinstance(result, list | tuple):
        return type(result)(_lazy(array, item) for item in result)
    if isinstance(result, np.ndarray) and is_phantom(result):
        return array._view(result)
    return result


def _read(value: Any) -> Any:
    """Return a value with the arrays in it replaced by plain ones that are loaded."""
    return replace_items(value, lambda item: item._loaded() if _is_ours(item) else item)


def _asked(value: Any) -> Any:
    """Return a value with the arrays in it replaced by plain ones, or by operands."""
    return replace_items(value, lambda item: item._asked() if _is_ours(item) else item)


def _whole(value: Any) -> Any:
    """Return a value with the operands in it replaced by plain arrays."""
    return replace_items(value, lambda item: item.whole() if isinstance(item, Operand) else item)


def _add_methods() -> None:
    """Give arrays the methods of an ndarray that they do not have yet."""
    ways: dict[str, Callable[[DelegatingArray, Callable[..., Any], Any, Any], Any]] = {
        **dict.fromkeys((*READING_METHODS, *_OTHER_METHODS), _call_on_loaded),
        **dict.fromkeys(SCALAR_METHODS, _call_on_scalar),
        **dict.fromkeys(_CHANGING_METHODS, _call_on_changed),
        **dict.fromkeys(_VIEW_METHODS, _call_on_view),
    }
    for name, way in ways.items():
        if name not in vars(DelegatingArray) and hasattr(np.ndarray, name):
            setattr(DelegatingArray, name, _method(name, way))


def _method(name: str, way: Callable[..., Any]) -> Callable[..., Any]:
    plain = getattr(np.ndarray, name)

    def method(self: DelegatingArray, *args: Any, **kwargs: Any) -> Any:
        return way(self, plain, args, kwargs)

    method.__name__ = name
    method.__qualname__ = f"DelegatingArray.{name}"
    method.__doc__ = f"Return what `numpy.ndarray.{name}` does, after loading the array."
    return method


def _call_on_loaded(
    array: DelegatingArray, plain: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    out = kwargs.get("out")
    if _is_ours(out):
        given = _changed(out)
        _call_on_loaded(array, plain, args, {**kwargs, "out": given})
        out[...] = given
        return out
    if plain is np.ndarray.byteswap and any((*args[:1], kwargs.get("inplace"))):
        _call_on_changed(array, plain, args, kwargs)
        return array
    args, kwargs, asked = _read(args), _read(kwargs), array._asked()
    if not isinstance(asked, Operand):
        return plain(asked, *args, **kwargs)
    result = large.call_method(plain.__name__, array, asked, args, kwargs)
    return plain(asked.whole(), *args, **kwargs) if result is NotImplemented else result


def _call_on_scalar(
    array: DelegatingArray, plain: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    # NumPy refuses more elements than one before it reads any.
    one = array._loaded() if array._phantom.size == 1 else array._phantom
    return plain(one, *args, **kwargs)


def _call_on_changed(
    array: DelegatingArray, plain: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    changed = _changed(array)
    plain(changed, *_read(args), **_read(kwargs))
    array[...] = changed


def _call_on_view(array: DelegatingArray, plain: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    return _lazy(array, plain(array._phantom, *args, **kwargs))


_add_methods()
