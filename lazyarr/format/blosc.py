"""Blosc 1, decoded by numcodecs after its header has been checked."""

from __future__ import annotations

import functools
from typing import Any

from lazyarr.format.buffers import Buffer, as_view
from lazyarr.format.codec import BytesCodec, check_length
from lazyarr.format.errors import DamagedChunkError
from lazyarr.values import Value

__all__ = ["Blosc"]

_BLOSC_HEADER_NBYTES = 16


class Blosc(Value, BytesCodec):
    """Blosc 1, through numcodecs.

    Parameters
    ----------
    cname : str
        Compressor inside.
    clevel, shuffle, blocksize : int
        As `numcodecs.blosc.compress` takes them.
    typesize : int
        Size of an element in bytes, which the shuffles go by.
    """

    cname: str
    clevel: int
    shuffle: int
    blocksize: int
    typesize: int

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return what a buffer holds, up to a number of bytes."""
        out = bytearray(_blosc_content_nbytes(as_view(data), limit_nbytes))
        _blosc_decompress(data, out)
        return out

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill `out` with what a buffer holds, which must be just as much."""
        nbytes = _blosc_content_nbytes(as_view(data), len(out))
        if nbytes != len(out):
            raise DamagedChunkError(
                f"blosc content expected to have {len(out)} bytes, found {nbytes}"
            )
        _blosc_decompress(data, out)

    def encode(self, data: Buffer) -> Buffer:
        """Return one buffer."""
        compressed: bytes = _library().compress(
            data, self.cname.encode(), self.clevel, self.shuffle, self.blocksize, self.typesize
        )
        return compressed


@functools.cache
def _library() -> Any:
    # Not at the top: numcodecs brings NumPy and four compressors with it.
    from numcodecs import blosc

    # Left to itself it starts threads of its own where the main thread calls it, which
    # take turns at one lock; without, every call has its own context and shares nothing.
    if blosc.use_threads is None:
        blosc.use_threads = False
    return blosc


def _blosc_content_nbytes(data: memoryview, limit_nbytes: int) -> int:
    # c-blosc README_CHUNK_FORMAT: bytes 4 to 7 are the size of the content, 12
    # to 15 that of the buffer.  The library believes both.
    if len(data) < _BLOSC_HEADER_NBYTES:
        raise DamagedChunkError(f"blosc header expected in 16 bytes, found {len(data)}")
    nbytes = int.from_bytes(data[4:8], "little")
    stored = int.from_bytes(data[12:16], "little")
    if stored != len(data):
        raise DamagedChunkError(f"blosc buffer expected to have {stored} bytes, found {len(data)}")
    check_length("blosc", nbytes, limit_nbytes)
    return nbytes


def _blosc_decompress(data: Buffer, out: bytearray | memoryview) -> None:
    try:
        _library().decompress(data, out)  # straight into `out`, without the GIL
    except (RuntimeError, ValueError) as error:
        raise DamagedChunkError(f"blosc buffer is damaged: {error}") from error
