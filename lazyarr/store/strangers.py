"""What a file is that was taken for a store, and what to do with it."""

from __future__ import annotations

import os
import stat

__all__ = ["describe_stranger"]

_SAVE = "give it to lazyarr.save to make a store of it"
_KINDS = (
    (b"CDF", "a NetCDF 3 file", f"open it with xarray, and {_SAVE}"),
    (b"II*\0", "a TIFF file", "open it with format='tiff'"),
    (b"MM\0*", "a TIFF file", "open it with format='tiff'"),
)


def describe_stranger(path: str) -> str:
    """Return what is wrong with a path that is, or leads through, no directory; and a remedy."""
    try:
        # To open a FIFO is to wait for a writer, and a device may have no end.
        if not stat.S_ISREG(os.stat(path).st_mode):
            return "it is neither a directory nor a regular file; check the path"
        with open(path, "rb") as file:
            begin = file.read(8)
    except NotADirectoryError:
        return "what is above it is a file, not a directory; check the path"
    except OSError:
        begin = b""
    for magic, what, remedy in _KINDS:
        if begin.startswith(magic):
            return f"it is {what}, not a directory; {remedy}"
    return (
        "it is a file, not a directory, as a Zarr store is; whatever gives NumPy arrays can be "
        "given to lazyarr.save"
    )
