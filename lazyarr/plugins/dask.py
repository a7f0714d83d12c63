"""What dask calls when it is imported: the entry point ``dask.sizeof``."""

from __future__ import annotations

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
    integration.register(_find_kind, sizeof)


def _find_kind() -> type:
    # Not at the top: most programs that use dask would import lazyarr's arrays for nothing.
    from lazyarr.client.arrays.lazyarray import LazyArray

    return LazyArray
