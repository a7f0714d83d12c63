"""What dask calls when it is imported: the entry point ``dask.sizeof``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lazyarr.integrations import dask as integration

__all__ = ["register"]


def register(sizeof: Any) -> None:
    """Have dask name and measure lazyarr's arrays without reading them.

    Parameters
    ----------
    sizeof : dask.utils.Dispatch
        dask's function that measures objects.
    """
    integration.register(_find_arrays, sizeof)


def _find_arrays() -> tuple[type, Callable[[Any], Any]]:
    # Not at the top: most programs that use dask would import lazyarr's arrays for nothing.
    from lazyarr.client.arrays.lazyarray import LazyArray, readable_by_calls

    return LazyArray, readable_by_calls
