"""Blosc 2, as HDF5's filter 32026 has it: a contiguous frame for each chunk.

Sources: README_CFRAME_FORMAT, README_B2ND_METALAYER and README_CHUNK_FORMAT of c-blosc2, and
blosc2_filter.c of HDF5-Blosc2.
"""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple

from lazyarr.codecs.base import Buffer, BytesCodec, as_view, check_length
from lazyarr.codecs.by_imagecodecs import find_function, run_decoder
from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.values import Value

__all__ = ["Blosc2"]

# A frame: "b2frame", the sizes of the header and of the frame, flags, the sizes of the content and
# of compressed chunks.  Msgpack has a byte before each, which stands for its type.
_FRAME = struct.Struct(">2x8sxIxQx4sxqxq")
_MAGIC = b"b2frame\0"
_LAYERS_START = 87  # of the fixed part of the header
_LAYER_NAME = b"\xa4b2nd\xd2"
# A chunk: versions and flags, the sizes of the content, of its blocks, and of the chunk.
_CHUNK = struct.Struct("<4xIII")
_CHUNK_HEADER_NBYTES = 32
_MOST_NBYTES = 2**31 - 1
_MAX_NDIM = 16
_MOST_PADDED = 64
# In place of where a chunk is: the sign, and 1 for zeros in the seven bits below.
_ZEROS = 0x81


class Blosc2(Value, BytesCodec):
    """Blosc 2: a contiguous frame that holds one chunk, which may be an array cut into blocks."""

    name = "blosc2"

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Blosc2:  # noqa: ARG003 - it has none
        """Return the codec, which has no parameters: a frame says all."""
        find_function("BLOSC2", "blosc2_decode", cls.name)
        return cls()

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return what a frame holds, up to a number of bytes."""
        frame = _parse_frame(as_view(data))
        check_length(self.name, frame.content_nbytes, limit_nbytes)
        out = bytearray(frame.content_nbytes)
        self.decode_into(data, memoryview(out))
        return out

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill `out` with what a frame holds, which must be just as much."""
        view = as_view(data)
        frame = _parse_frame(view)
        if frame.content_nbytes != len(out):
            raise DamagedChunkError(
                f"blosc2 content expected to have {len(out)} bytes, found {frame.content_nbytes}"
            )
        if not frame.is_chunk_stored:
            where = bytearray(8)
            _decode_chunk(view[frame.start :], memoryview(where))
            if where[7] != _ZEROS:
                raise DamagedChunkError(
                    f"blosc2 frame expected to hold a chunk, or zeros, found {where.hex()}"
                )
            out[:] = bytes(len(out))
        elif frame.blocks is None:
            _decode_chunk(view[frame.start :], out)
        else:
            _decode_blocks(view[frame.start :], out, *frame.blocks)

    def encode(self, data: Buffer) -> Buffer:
        """Return a frame that ends with its chunk: what follows is not needed to decode it."""
        chunk = bytes(find_function("BLOSC2", "blosc2_encode", self.name)(bytes(data)))
        sizes = (_LAYERS_START, _LAYERS_START + len(chunk), bytes(4), len(data), len(chunk))
        return _FRAME.pack(_MAGIC, *sizes).ljust(_LAYERS_START, b"\0") + chunk


class _Frame(NamedTuple):
    """What the header of a frame says.

    Attributes
    ----------
    start : int
        Where the header ends, and the chunk begins, or the index where no chunk is stored.
    content_nbytes : int
        How much the frame holds.
    is_chunk_stored : bool
        Whether the chunk is stored; otherwise the index says what its elements are.
    blocks : tuple of (tuple of int, tuple of int), or None
        The shape of the array and of its blocks, for one that is cut into blocks.
    """

    start: int
    content_nbytes: int
    is_chunk_stored: bool
    blocks: tuple[tuple[int, ...], tuple[int, ...]] | None


def _parse_frame(data: memoryview) -> _Frame:
    if len(data) < _LAYERS_START or data[2:10] != _MAGIC:
        raise DamagedChunkError(f"blosc2 frame expected, found {bytes(data[:10])!r}")
    _, start, nbytes, _, content_nbytes, chunks_nbytes = _FRAME.unpack_from(data)
    if not _LAYERS_START <= start <= nbytes <= len(data) or content_nbytes < 0:
        raise DamagedChunkError(
            f"blosc2 frame expected in {len(data)} bytes, found one of {nbytes} with a header of"
            f" {start} and a content of {content_nbytes}"
        )
    blocks = _parse_blocks(data[:start])
    if blocks is not None:
        # The size in the header is that of whole blocks.
        shape, block = blocks
        n_whole = math.prod(-(-n // b) * b for n, b in zip(shape, block, strict=True))
        size, rest = divmod(content_nbytes, n_whole)
        if rest or not size:
            raise DamagedChunkError(
                f"blosc2 content expected in {n_whole} elements, found {content_nbytes} bytes"
            )
        # The array is less than whole blocks by so much at most, for which memory is taken.
        if n_whole > _MOST_PADDED * math.prod(shape):
            raise DamagedChunkError(f"blosc2 blocks of {block} found in an array of {shape}")
        content_nbytes = math.prod(shape) * size
    return _Frame(start, content_nbytes, chunks_nbytes > 0, blocks)


def _parse_blocks(header: memoryview) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the shapes of an array and of its blocks; None where a chunk has no blocks."""
    at = bytes(header[_LAYERS_START:]).find(_LAYER_NAME)
    if at < 0:
        return None
    at += _LAYERS_START + len(_LAYER_NAME)
    # The layer: the type of bytes and their number, an array of 7, a version, the number of axes.
    at = int.from_bytes(header[at : at + 4], "big") + 7
    ndim = header[at] if at < len(header) else 0
    if not 0 < ndim <= _MAX_NDIM:
        raise DamagedChunkError(f"blosc2 array expected of up to {_MAX_NDIM} axes, found {ndim}")
    at += 1
    found = []
    for nbytes in (8, 4, 4):
        # An array: its type, and each number behind its own type.
        starts = range(at + 2, at + 2 + ndim * (nbytes + 1), nbytes + 1)
        found.append(tuple(int.from_bytes(header[k : k + nbytes], "big") for k in starts))
        at += 1 + ndim * (nbytes + 1)
    is_right = at <= len(header) and found[0] == found[1]
    if not is_right or not all(0 < n < 2**31 for lengths in found for n in lengths):
        raise DamagedChunkError(f"blosc2 array of one chunk expected, found {found}")
    return found[1], found[2]


def _decode_blocks(
    data: memoryview, out: memoryview, shape: tuple[int, ...], block: tuple[int, ...]
) -> None:
    """Put elements of an array in order that lie block by block in its chunk."""
    import numpy as np

    grid = tuple(-(-n // b) for n, b in zip(shape, block, strict=True))
    size = len(out) // math.prod(shape)
    padded = bytearray(math.prod(grid) * math.prod(block) * size)
    _decode_chunk(data, memoryview(padded))
    ndim = len(shape)
    elements = np.frombuffer(padded, f"V{size}").reshape(*grid, *block)
    turned = elements.transpose([axis for k in range(ndim) for axis in (k, ndim + k)])
    whole = turned.reshape([g * b for g, b in zip(grid, block, strict=True)])
    np.frombuffer(out, f"V{size}").reshape(shape)[...] = whole[tuple(map(slice, shape))]


def _decode_chunk(data: memoryview, out: memoryview) -> None:
    if len(data) < _CHUNK_HEADER_NBYTES:
        raise DamagedChunkError(f"blosc2 chunk expected in 32 bytes, found {len(data)}")
    nbytes, _, chunk_nbytes = _CHUNK.unpack_from(data)
    is_inside = _CHUNK_HEADER_NBYTES <= chunk_nbytes <= min(len(data), _MOST_NBYTES)
    if nbytes != len(out) or not nbytes or not is_inside:
        raise DamagedChunkError(
            f"blosc2 chunk expected to hold {len(out)} bytes in up to {len(data)}, found {nbytes}"
            f" in {chunk_nbytes}"
        )
    decode = find_function("BLOSC2", "blosc2_decode", Blosc2.name)
    found = len(run_decoder(decode, Blosc2.name, data[:chunk_nbytes], out=out))
    if found != nbytes:
        raise DamagedChunkError(f"blosc2 chunk expected to hold {nbytes} bytes, found {found}")
