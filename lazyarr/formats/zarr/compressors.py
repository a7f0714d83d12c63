"""The compressors that lazyarr writes with, in Zarr's spelling."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

from lazyarr.checks import shown
from lazyarr.errors import FormatError

__all__ = ["COMPRESSORS", "Compressor", "compressor_codecs"]

Compressor: TypeAlias = Literal["zstd", "blosc", "none"]
"""What compresses chunks; blosc is zstd behind a shuffle of bytes."""

COMPRESSORS: tuple[str, ...] = get_args(Compressor)

# Level 3 is zstd's own default.  In blosc, level 1 finds what shuffling has put together;
# higher ones look for matches in noise.  16-bit images in blocks of 256 KiB took at level 3
# six times as long to encode, were of the same size, and decoded an eighth slower
# (numcodecs 0.16.6, one thread of a 2.5 GHz Xeon).
_ZSTD_LEVEL = 3
_BLOSC_LEVEL = 1
_BLOSC_MAX_LEVEL = 9

# Blosc compresses blocks on their own.  Large ones suit zstd, whose own blocks have 128 KiB:
# where a byte of every element fills one, noise is told from signal and only copied.
# From blocks of 256 KiB float32 fields decoded at 2.2 GB/s and float64 noise at 1.4, from
# 512 KiB at 2.6 and 1.9 (the same machine).
_BLOSC_BLOCK_NBYTES = 512 * 1024
_BLOSC_MAX_NBYTES = 2**31 - 17  # BLOSC_MAX_BUFFERSIZE: its sizes are 32-bit numbers
_BLOSC_MAX_TYPESIZE = 255


def compressor_codecs(
    compressor: str, level: int | None, *, itemsize: int, chunk_nbytes: int
) -> list[dict[str, Any]]:
    """Return the codecs between elements and checksum, as ``zarr.json`` has them.

    Parameters
    ----------
    compressor : {"zstd", "blosc", "none"}
        Which one.
    level : int or None
        How hard it tries: up to 22 for zstd, from 1 to 9 for blosc; None for 3 and 1.
    itemsize : int
        Size of an element in bytes.
    chunk_nbytes : int
        Size of a chunk in memory.

    Raises
    ------
    FormatError
        There is no such compressor or level, or the chunk is too large for it.

    Examples
    --------
    >>> compressor_codecs("zstd", None, itemsize=2, chunk_nbytes=4096)
    [{'name': 'zstd', 'configuration': {'level': 3, 'checksum': False}}]
    """
    if compressor == "zstd":
        level = _ZSTD_LEVEL if level is None else level  # its reader knows the bounds
        return [{"name": "zstd", "configuration": {"level": level, "checksum": False}}]
    if compressor == "blosc":
        return [_blosc(level, itemsize, chunk_nbytes)]
    if compressor != "none":
        raise FormatError(f"compressor is {shown(compressor)}; it must be one of {COMPRESSORS}")
    if level is not None:
        raise FormatError(f"level is {shown(level)} where compressor is 'none'; leave it out")
    return []


def _blosc(level: int | None, itemsize: int, chunk_nbytes: int) -> dict[str, Any]:
    level = _BLOSC_LEVEL if level is None else level
    if level not in range(1, _BLOSC_MAX_LEVEL + 1):
        raise FormatError(
            f"level of compressor 'blosc' is {shown(level)}; it must lie between 1 and "
            f"{_BLOSC_MAX_LEVEL}"
        )
    if chunk_nbytes > _BLOSC_MAX_NBYTES:
        raise FormatError(
            f"chunks have {chunk_nbytes} bytes; blosc takes up to {_BLOSC_MAX_NBYTES}; use "
            "smaller chunks or compressor='zstd'"
        )
    # One byte has no bytes to shuffle; its bits are, as numcodecs and zarr-python do.
    configuration = {
        "cname": "zstd",
        "clevel": level,
        "shuffle": "shuffle" if itemsize > 1 else "bitshuffle",
        "typesize": itemsize if itemsize <= _BLOSC_MAX_TYPESIZE else 1,
        "blocksize": _BLOSC_BLOCK_NBYTES,
    }
    return {"name": "blosc", "configuration": configuration}
