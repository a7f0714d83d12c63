"""What dask is told of lazyarr's arrays: how they are named, and how large they are.

dask looks for `numpy.ndarray` before it looks for what a subclass says of itself, and would read
all of an array to name it.  So the class is registered, whichever library is imported first:

- dask is imported: it calls `register`, the entry point ``dask.sizeof``.
- lazyarr is imported after dask, and has no entry points, as in programs that are frozen: its
  arrays call `register`.

Public: ``register``.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

__all__ = ["register"]

_NAMES = "dask.tokenize"
_REFERENCE_NBYTES = 1024
"""What an array takes of a worker's own memory: its pages are the pager's, which has a limit."""


def register(sizeof: Any = None) -> None:
    """Have dask name and measure lazyarr's arrays without reading them.

    Parameters
    ----------
    sizeof : dask.utils.Dispatch, optional
        dask's function that measures objects, which dask passes when it calls this.
    """
    # For arrays that there are, or most programs that use dask would import lazyarr's for nothing.
    if sizeof is not None:
        sizeof.register_lazy("lazyarr", lambda: _register_sizes(sizeof))
    if _NAMES in sys.modules:
        _register_names(sys.modules[_NAMES])
    else:
        # dask calls this in the middle of its own import, and has no place for names yet.
        sys.meta_path.insert(0, _Waiting())


class _Waiting:
    """Waits for the import of dask's module for names, a moment from now; an import hook."""

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
                _register_names(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _register_names(module: Any) -> None:
    normalize_token = module.normalize_token

    def name(array: Any) -> Any:
        import numpy

        from lazyarr.errors import NotStoredError

        try:
            return array.__dask_tokenize__()
        except NotStoredError:
            return normalize_token(numpy.asarray(array))

    def enter() -> None:
        import lazyarr

        normalize_token.register(lazyarr.LazyArray, name)

    normalize_token.register_lazy("lazyarr", enter)


def _register_sizes(sizeof: Any) -> None:
    import lazyarr

    sizeof.register(lazyarr.LazyArray, lambda _: _REFERENCE_NBYTES)
