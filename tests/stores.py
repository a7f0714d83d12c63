"""Stores for tests, written by the libraries that lazyarr must agree with."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["images", "settle", "write_zarr"]

_CLOCK_REALTIME_COARSE = 5  # linux/time.h: what files are stamped with


def images(shape: tuple[int, ...] = (64, 32, 128), dtype: Any = np.uint16) -> np.ndarray:
    """Return numbers in which no two pages are alike."""
    count = int(np.prod(shape))
    return (np.arange(count, dtype=np.uint64) * 2654435761 % 65521).astype(dtype).reshape(shape)


def write_zarr(directory: Path, data: np.ndarray, name: str | None = None, **options: Any) -> str:
    """Write an array with zarr-python and return the store's path."""
    url = str(directory)
    store = zarr.create_array(
        url, name=name, shape=data.shape, dtype=data.dtype, overwrite=True, **options
    )
    store[...] = data
    return url


def settle(*paths: Path) -> None:
    """Wait until files that are changed from now on get a later time than these have."""
    newest = max(path.stat().st_ctime_ns for path in paths)
    while time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) <= newest:
        os.sched_yield()
