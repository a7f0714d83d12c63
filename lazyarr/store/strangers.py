"""What a file is that was taken for a store, and what to do with it."""

from __future__ import annotations

import os

__all__ = ["describe_stranger"]

_SAVE = "give it to lazyarr.save to make a store of it"
_KINDS = (
    (b"PK", "a zip archive", "open it as 'zip://::{path}'"),
    (b"\x93NUMPY", "a .npy file", "'lazyarr convert {path} STORE' makes a store of it"),
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 or NetCDF 4 file",
        "lazyarr opens it by a name that ends with .h5 or .nc; a link to it will do",
    ),
    (b"CDF", "a NetCDF 3 file", f"open it with xarray, and {_SAVE}"),
    (b"II*\0", "a TIFF file", f"read it with tifffile, and {_SAVE}"),
    (b"MM\0*", "a TIFF file", f"read it with tifffile, and {_SAVE}"),
)


def describe_stranger(path: str) -> str:
    """Return what is wrong with a path that is, or leads through, no directory; and a remedy."""
    try:
        with open(path, "rb") as file:
            begin = file.read(8)
    except NotADirectoryError:
        return "what is above it is a file, not a directory; check the path"
    except OSError:
        begin = b""
    for magic, what, remedy in _KINDS:
        if begin.startswith(magic):
            if what == "a zip archive" and path.endswith(".npz"):
                what, remedy = "a .npz file", _KINDS[1][2]
            return f"it is {what}, not a directory; {remedy.format(path=os.path.abspath(path))}"
    return "it is a file, not a directory; give the directory of a Zarr store"
