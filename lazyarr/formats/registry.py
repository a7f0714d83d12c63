"""Which format opens a file: by the end of its name, or else by its first bytes.

What no format below recognises is a Zarr store.
"""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    from lazyarr.formats.base import FileFormat

__all__ = [
    "FIRST_NBYTES",
    "FORMAT_NAMES",
    "STORE_NAMES",
    "file_suffixes",
    "find_file_format",
    "load_format",
    "recognise",
]

FIRST_NBYTES = 16
"""How many bytes of a file tell what it is."""


class _Looks(NamedTuple):
    """How files of a format are called, and how they begin (a regular expression)."""

    suffixes: tuple[str, ...]
    first: bytes


_FORMATS = {
    "npy": _Looks((".npy",), rb"\x93NUMPY"),
    "npz": _Looks((".npz",), rb"PK\x03\x04|PK\x05\x06"),
    # The header's length, of which no more than four bytes are used, and a JSON object.
    "safetensors": _Looks((".safetensors",), rb"(?s:.{4})\0{4}\{[\"} ]"),
    "hdf5": _Looks((".h5", ".hdf5", ".he5", ".nc", ".nc4"), rb"\x89HDF\r\n\x1a\n"),
    "tiff": _Looks((".tif", ".tiff", ".btf", ".lsm"), rb"II[*+]\0|MM\0[*+]"),
}
"""The formats whose arrays lie in one file.  Each is the module of its name in this package."""

STORE_NAMES = ("zarr", "kerchunk", "icechunk")
"""What is a store, whose objects have names, and not a file."""

FORMAT_NAMES = ("zarr", *_FORMATS, "kerchunk", "icechunk")
"""What a user may call a format."""


def load_format(name: str) -> FileFormat:
    """Return a file format by its name, which is one of `FORMAT_NAMES` and no store's."""
    return cast("FileFormat", importlib.import_module(f"lazyarr.formats.{name}").FORMAT)


def file_suffixes() -> tuple[str, ...]:
    """Return how the names of all files end that have a known format.

    Examples
    --------
    >>> ".npy" in file_suffixes(), ".zarr" in file_suffixes()
    (True, False)
    """
    return tuple(suffix for looks in _FORMATS.values() for suffix in looks.suffixes)


def find_file_format(file_name: str) -> FileFormat | None:
    """Return the format of a file, by its name; None where it is none of a known format.

    Examples
    --------
    >>> find_file_format("train.zarr") is None, find_file_format("x.npy") is None
    (True, False)
    """
    for name, looks in _FORMATS.items():
        if file_name.lower().endswith(looks.suffixes):
            return load_format(name)
    return None


def recognise(first: bytes) -> str | None:
    r"""Return the name of the format of a file that begins like this; None where none does.

    Examples
    --------
    >>> recognise(b"PK\x03\x04" + bytes(12)), recognise(b"time,value")
    ('npz', None)
    """
    return next((name for name, looks in _FORMATS.items() if re.match(looks.first, first)), None)
