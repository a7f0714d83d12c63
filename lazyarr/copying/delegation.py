"""What NumPy does with plain arrays, done for arrays that load first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lazyarr.client.numpy_names import FREE_FUNCTIONS, READING_METHODS
from lazyarr.copying.phantom import is_phantom

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.copying.array import CopyArray

__all__ = ["add_methods", "call_function", "call_ufunc", "is_fields"]

# Functions that look at shape and type alone.
_SHAPE_FUNCTIONS = frozenset(
    {
        np.shape, np.ndim, np.size, np.result_type, np.can_cast, np.iscomplexobj, np.isrealobj,
        np.empty_like, np.zeros_like, np.ones_like,
    }
)  # fmt: skip
# Of these the first is about memory, and the others take several arrays or read a scalar.
_VIEW_FUNCTIONS = FREE_FUNCTIONS - _SHAPE_FUNCTIONS - {
    np.shares_memory, np.may_share_memory, np.broadcast_arrays, np.min_scalar_type,
}  # fmt: skip
# Functions that change their first argument.
_CHANGING_FUNCTIONS = frozenset(
    {np.copyto, np.put, np.put_along_axis, np.place, np.putmask, np.fill_diagonal}
)
_CHANGING_METHODS = ("fill", "partition", "put", "sort")
_VIEW_METHODS = ("diagonal", "squeeze", "swapaxes", "transpose")
_ATTRIBUTES = ("real", "imag", "flat")
_OTHER_METHODS = ("view", "getfield", "newbyteorder", "tostring", "__format__")


def is_fields(key: Any) -> bool:
    """Return whether an index names members of a struct."""
    return isinstance(key, str) or (bool(key) and all(isinstance(item, str) for item in key))


def call_ufunc(ufunc: Any, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what a universal function gives for plain operands."""
    if method == "at" and _is_ours(inputs[0]):
        with_plain = _changed(inputs[0])
        getattr(ufunc, method)(with_plain, *_read(inputs[1:]), **kwargs)
        inputs[0][...] = with_plain
        return None
    outputs = kwargs.pop("out", None)
    if not outputs:
        return getattr(ufunc, method)(*_read(inputs), **_read(kwargs))
    plains = tuple(_changed(out) if _is_ours(out) else out for out in outputs)
    getattr(ufunc, method)(*_read(inputs), out=plains, **_read(kwargs))
    for out, plain in zip(outputs, plains, strict=True):
        if _is_ours(out):
            out[...] = plain
    return outputs[0] if len(outputs) == 1 else outputs


def call_function(array: CopyArray, func: Any, args: Any, kwargs: Any) -> Any:
    """Return what a function of NumPy's gives for plain arguments; of views, lazy ones."""
    if func is np.take and args and args[0] is array:
        return array.take(*args[1:], **kwargs)
    is_alone = args and args[0] is array and not any(map(_is_ours, (*args[1:], *kwargs.values())))
    if is_alone and func in _SHAPE_FUNCTIONS:
        return func(np.broadcast_to(np.empty((), array.dtype), array.shape), *args[1:], **kwargs)
    if is_alone and func in _VIEW_FUNCTIONS:
        return _lazy(array, func(array._phantom, *args[1:], **kwargs))
    if func in _CHANGING_FUNCTIONS and args and _is_ours(args[0]):
        plain = _changed(args[0])
        func(plain, *_read(args[1:]), **_read(kwargs))
        args[0][...] = plain
        return None
    out = kwargs.get("out")
    if not _is_ours(out):
        return func(*_read(args), **_read(kwargs))
    plain = _changed(out)
    func(*_read(args), **{**_read(kwargs), "out": plain})
    out[...] = plain
    return out


def _is_ours(value: Any) -> bool:
    from lazyarr.copying.array import CopyArray

    return isinstance(value, CopyArray)


def _changed(array: CopyArray) -> np.ndarray[Any, Any]:
    """Return a plain copy of an array that is about to be changed."""
    if not array.flags.writeable:
        raise ValueError("output array is read-only")
    return array._loaded().copy()


def _lazy(array: CopyArray, result: Any) -> Any:
    """Return phantoms in a result as arrays."""
    if isinstance(result, list | tuple):
        return type(result)(_lazy(array, item) for item in result)
    if isinstance(result, np.ndarray) and is_phantom(result):
        return array._view(result)
    return result


def _read(value: Any) -> Any:
    """Return a value with the arrays in it replaced by plain ones that are loaded."""
    if _is_ours(value):
        return value._loaded()
    if type(value) in (list, tuple):
        return type(value)(_read(item) for item in value)
    if type(value) is dict:
        return {key: _read(item) for key, item in value.items()}
    return value


def add_methods(cls: type[CopyArray]) -> None:
    """Give a class the methods of an ndarray that it does not have yet."""
    ways: dict[str, Callable[[CopyArray, Callable[..., Any], Any, Any], Any]] = {
        **dict.fromkeys((*READING_METHODS, *_OTHER_METHODS), _call_on_loaded),
        **dict.fromkeys(_CHANGING_METHODS, _call_on_changed),
        **dict.fromkeys(_VIEW_METHODS, _call_on_view),
    }
    for name, way in ways.items():
        if name not in vars(cls) and hasattr(np.ndarray, name):
            setattr(cls, name, _method(name, way))
    for name in _ATTRIBUTES:
        setattr(cls, name, _attribute(name))


def _attribute(name: str) -> property:
    def read(self: CopyArray) -> Any:
        return getattr(self._loaded(), name)

    return property(read, doc=f"`numpy.ndarray.{name}` of a copy, which is read-only.")


def _method(name: str, way: Callable[..., Any]) -> Callable[..., Any]:
    plain = getattr(np.ndarray, name)

    def method(self: CopyArray, *args: Any, **kwargs: Any) -> Any:
        return way(self, plain, args, kwargs)

    method.__name__ = name
    method.__qualname__ = f"CopyArray.{name}"
    method.__doc__ = f"Return what `numpy.ndarray.{name}` does, after loading the array."
    return method


def _call_on_loaded(array: CopyArray, plain: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    out = kwargs.get("out")
    if not _is_ours(out):
        return plain(array._loaded(), *_read(args), **_read(kwargs))
    given = _changed(out)
    plain(array._loaded(), *_read(args), **{**_read(kwargs), "out": given})
    out[...] = given
    return out


def _call_on_changed(array: CopyArray, plain: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    changed = _changed(array)
    plain(changed, *_read(args), **_read(kwargs))
    array[...] = changed


def _call_on_view(array: CopyArray, plain: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    return _lazy(array, plain(array._phantom, *args, **kwargs))
