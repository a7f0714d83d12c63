"""What dask is told of lazyarr's arrays: how they are named, sent, and how large they are.

dask looks for `numpy.ndarray` before it looks for what a subclass says of itself, and would read
all of an array to name it.  So the class is registered, whichever library is imported first:

- dask is imported: it calls an entry point, `lazyarr.plugins.dask`.
- lazyarr is imported after dask, and has no entry points, as in programs that are frozen: its
  arrays call `register`.

Public: ``register``; ``from_array`` and ``from_group``, behind the methods `to_dask`.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from lazyarr.errors import NotStoredError

if TYPE_CHECKING:
    import dask.array
    import numpy

__all__ = ["from_array", "from_group", "register"]

_NAMES = "dask.tokenize"
_TRANSFERS = "distributed.protocol.serialize"
FindArrays: TypeAlias = Callable[[], tuple[type, Callable[[Any], Any]]]
"""Returns the class of lazyarr's arrays, and what makes any buffer one that system calls can read.

Called when there is an array of lazyarr's, or dask asks for one.
"""

_REFERENCE_NBYTES = 1024
"""What an array takes of a worker's own memory: its pages are the pager's, which has a limit."""


def register(find_arrays: FindArrays, sizeof: Any = None) -> None:
    """Have dask name and measure lazyarr's arrays without reading them.

    Parameters
    ----------
    find_arrays : callable
        Returns their class, and what makes any buffer one that system calls can read.
    sizeof : dask.utils.Dispatch, optional
        dask's function that measures objects, which dask passes when it calls this.
    """
    # For arrays that there are, or most programs that use dask would import lazyarr's for nothing.
    if sizeof is None:
        _register_transfers(find_arrays)
    else:
        sizeof.register_lazy("lazyarr", lambda: _register_sizes(sizeof, find_arrays))
    if _NAMES in sys.modules:
        _register_names(sys.modules[_NAMES], find_arrays)
    else:
        # dask calls this in the middle of its own import, and has no place for names yet.
        sys.meta_path.insert(0, _Waiting(find_arrays))


class _Waiting:
    """Waits for the import of dask's module for names, a moment from now; an import hook."""

    def __init__(self, find_arrays: FindArrays) -> None:
        self._find_arrays = find_arrays

    def find_spec(self, name: str, path: object, target: object = None) -> Any:  # noqa: ARG002 - Python's signature
        """Return the module's own specification, with a loader that registers the arrays."""
        if name != _NAMES:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                execute(module)
                _register_names(module, self._find_arrays)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _register_names(module: Any, find_arrays: FindArrays) -> None:
    normalize_token = module.normalize_token

    def name(array: Any) -> Any:
        import numpy

        _register_transfers(find_arrays)
        try:
            return array.__dask_tokenize__()
        except NotStoredError:
            return normalize_token(numpy.asarray(array))

    def enter() -> None:
        normalize_token.register(find_arrays()[0], name)

    normalize_token.register_lazy("lazyarr", enter)


def _register_sizes(sizeof: Any, find_arrays: FindArrays) -> None:
    def size(_: Any) -> int:
        _register_transfers(find_arrays)
        return _REFERENCE_NBYTES

    sizeof.register(find_arrays()[0], size)


def _register_transfers(find_arrays: FindArrays) -> None:
    """Have distributed send arrays as references, if it is imported; as it sends bytes otherwise.

    It calls nothing when it is imported.  So this is called whenever dask names or measures an
    array, which it does before it sends one, and when lazyarr is imported after distributed, as in
    its workers.  Whoever gets a reference needs nothing of this.
    """
    module = sys.modules.get(_TRANSFERS)
    if module is None or "pickle" not in getattr(module, "families", ()):  # half imported
        return
    transfers = module.dask_serialize
    kind, make_readable = find_arrays()
    if transfers.dispatch(kind) is not _decline:
        transfers.register(kind, _decline)
        for family in ("dask", "pickle"):
            _copy_before_sending(module, family, make_readable)


def _decline(array: Any) -> Any:
    raise NotImplementedError  # distributed then pickles it


def _copy_before_sending(module: Any, family: str, make_readable: Callable[[Any], Any]) -> None:
    """Have distributed send and spill plain views of lazyarr's memory where they cannot be read.

    Results often are such views, or hold some.  Without full rights the kernel refuses to send
    pages that are not mapped, and distributed would compute the result again, for ever.
    """
    dumps, loads, *_ = module.families[family]

    @functools.wraps(dumps)  # distributed looks at its signature
    def dumps_readable(*arguments: Any, **options: Any) -> tuple[Any, list[Any]]:
        header, frames = dumps(*arguments, **options)
        return header, [make_readable(frame) for frame in frames]

    module.register_serialization_family(family, dumps_readable, loads)


def from_array(array: Any, chunks: Any = None) -> dask.array.Array:
    """Return an array of dask's over an array of lazyarr's; see `LazyArray.to_dask`."""
    import numpy
    from dask.array.core import from_array as from_blocks
    from dask.base import tokenize

    blocks = _Blocks(array)
    chunks = (blocks.chunks or "auto") if chunks is None else chunks
    # The array in each task: it is a reference, and a task of its own would tie all others to it.
    found: dask.array.Array = from_blocks(  # type: ignore[no-untyped-call]
        blocks,
        chunks,
        name=f"lazyarr-{tokenize(array, chunks)}",
        meta=numpy.ndarray,
        inline_array=True,
    )
    return found


def from_group(group: Mapping[str, Any], chunks: Any = None) -> dict[str, Any]:
    """Return a group's arrays as arrays of dask's, by name; see `Dataset.to_dask`."""
    return {name: _convert(node, chunks) for name, node in group.items()}


def _convert(node: Any, chunks: Any) -> Any:
    if isinstance(node, Mapping):
        return from_group(node, chunks)
    if hasattr(type(node), "to_dask"):
        return from_array(node, chunks)
    return node  # in place of what cannot be mapped, it raises when it is used


class _Blocks:
    """An array as dask reads one that is no `numpy.ndarray`: block by block.

    dask copies arrays that can be copied, and would read all of it.
    """

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape = array.shape
        self.dtype = array.dtype
        self.ndim = array.ndim
        # Of the stored array; a view may have other axes.
        self.chunks = array.chunks if len(array.chunks) == array.ndim else None

    def __dask_tokenize__(self) -> Any:
        from dask.base import normalize_token

        return "lazyarr blocks", normalize_token(self.array)

    def __getitem__(self, key: Any) -> numpy.ndarray[Any, Any]:
        """Return a block, loaded: what cannot be had is an exception of this task."""
        import numpy

        block = self.array[key]
        if isinstance(block, numpy.ndarray) and hasattr(block, "prefetch"):
            with suppress(ValueError):  # larger than the memory limit
                block.prefetch()
        return numpy.asarray(block)
