"""Which format opens a URL.

A URL that no format below recognises is a Zarr store.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from lazyarr.formats.base import FileFormat

__all__ = ["find_file_format"]

_MODULES = {
    ".npy": "npy",
    ".npz": "npz",
    ".safetensors": "safetensors",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".he5": "hdf5",
    ".nc": "hdf5",
    ".nc4": "hdf5",
}
"""The module of each format whose arrays lie in one file, by the end of the file's name."""


def find_file_format(name: str) -> FileFormat | None:
    """Return the format of a file, by its name; None where it is none of a known format.

    Examples
    --------
    >>> find_file_format("train.zarr") is None, find_file_format("x.npy") is None
    (True, False)
    """
    for suffix, module in _MODULES.items():
        if name.lower().endswith(suffix):
            return cast("FileFormat", importlib.import_module(f"lazyarr.formats.{module}").FORMAT)
    return None
