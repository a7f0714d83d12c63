"""Shuffled bytes and bits, and compressed blocks, in the containers of HDF5's filters.

Sources: H5Zshuffle.c of HDF5, and of its registered filters 32004, LZ4 (H5Zlz4.c), and 32008,
bitshuffle (bshuf_h5filter.c and bitshuffle_core.c).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from lazyarr.checks import MAX_NBYTES, as_integer, shown
from lazyarr.codecs.base import Buffer, BytesCodec, as_view, check_length
from lazyarr.codecs.blosc import MAX_BLOCK_NBYTES, MAX_TYPESIZE, decode_blocks
from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.errors import FormatError
from lazyarr.values import Value

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Bitshuffle", "Lz4Blocks", "Shuffle"]

# What stands before compressed blocks: the size of the content, and that of a block of it.  Each
# block has its own size before it.  All are big endian.
_CONTAINER = struct.Struct(">QI")
_SIZE_NBYTES = 4

# bitshuffle_core.c, bshuf_default_block_size(): blocks of about this many bytes, of a multiple of
# 8 elements, of at least 128.
_TARGET_BLOCK_NBYTES = 8192
_MIN_BLOCK_ELEMENTS = 128
_ELEMENTS_MULTIPLE = 8

_COMPRESSORS = ("none", "lz4", "zstd")


class Shuffle(Value, BytesCodec):
    """The first bytes of all elements, then the second ones, and so on.

    What is left behind the last whole element stays at the end as it is.

    Parameters
    ----------
    elementsize : int
        Size of an element in bytes.
    """

    name = "shuffle"

    elementsize: int

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Shuffle:
        """Return the codec with some parameters, each of them checked."""
        return cls(_element_size(parameters, cls.name, MAX_NBYTES))

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return the bytes in order."""
        check_length(self.name, len(as_view(data)), limit_nbytes)
        out = bytearray(len(as_view(data)))
        self.decode_into(data, memoryview(out))
        return out

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill `out` with the bytes in order."""
        view = as_view(data)
        if len(view) != len(out):
            raise DamagedChunkError(f"chunk expected to have {len(out)} bytes, found {len(view)}")
        size = self.elementsize
        nbytes = len(view) - len(view) % size
        if size <= MAX_TYPESIZE and 0 < nbytes <= MAX_BLOCK_NBYTES:
            inside = out[:nbytes]
            decode_blocks([view[:nbytes]], inside, block_nbytes=nbytes, shuffle=1, typesize=size)
        elif nbytes:
            import numpy as np

            columns = np.frombuffer(view[:nbytes], "u1").reshape(size, -1)
            np.frombuffer(out[:nbytes], "u1").reshape(-1, size)[...] = columns.T
        out[nbytes:] = view[nbytes:]

    def encode(self, data: Buffer) -> Buffer:
        """Return the bytes shuffled."""
        import numpy as np

        view = as_view(data)
        nbytes = len(view) - len(view) % self.elementsize
        rows = np.frombuffer(view[:nbytes], "u1").reshape(-1, self.elementsize)
        return rows.T.tobytes() + bytes(view[nbytes:])


class Lz4Blocks(Value, BytesCodec):
    """LZ4 as HDF5's filter 32004 has it: blocks, each with its size before it."""

    name = "lz4_blocks"

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Lz4Blocks:  # noqa: ARG003 - it has none
        """Return the codec, which has no parameters."""
        return cls()

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return what the blocks hold, up to a number of bytes."""
        out = bytearray(_content_nbytes(as_view(data), self.name, limit_nbytes))
        self.decode_into(data, memoryview(out))
        return out

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill `out` with what the blocks hold, which must be just as much."""
        view = as_view(data)
        block_nbytes = _block_nbytes(view, self.name, len(out))
        n_blocks = -(-len(out) // block_nbytes)
        blocks, _ = _split(view, n_blocks, self.name)
        decode_blocks(blocks, out, block_nbytes=block_nbytes)

    def encode(self, data: Buffer) -> Buffer:
        """Return one block."""
        nbytes = len(as_view(data))
        block = _lz4(data)
        # As long as its content would mean that it is not compressed.
        block = block if len(block) < nbytes else bytes(data)
        parts = [len(block).to_bytes(_SIZE_NBYTES, "big"), block] if nbytes else []
        return b"".join((_CONTAINER.pack(nbytes, nbytes or 1), *parts))


class Bitshuffle(Value, BytesCodec):
    """Bits of elements shuffled in blocks, which may be compressed: HDF5's filter 32008.

    Parameters
    ----------
    elementsize : int
        Size of an element in bytes.
    block_elements : int
        How many elements a block has where it is not compressed; 0 for as many as the filter
        chooses.  A compressed block says that itself.
    compressor : {"none", "lz4", "zstd"}
        What blocks are compressed with.
    """

    name = "bitshuffle"

    elementsize: int
    block_elements: int
    compressor: str

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Bitshuffle:
        """Return the codec with some parameters, each of them checked."""
        compressor = parameters["compressor"]
        if compressor not in _COMPRESSORS:
            raise FormatError(
                f"compressor of codec 'bitshuffle' is {shown(compressor)}; it must be one of"
                f" {_COMPRESSORS}"
            )
        what = "block_elements of codec 'bitshuffle'"
        block = as_integer(parameters["block_elements"], what, maximum=2**31 - 1)
        if block % _ELEMENTS_MULTIPLE:
            raise FormatError(f"{what} are {block}; they must be a multiple of 8")
        return cls(_element_size(parameters, cls.name, MAX_TYPESIZE), block, compressor)

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return what the blocks hold, up to a number of bytes."""
        view = as_view(data)
        nbytes = len(view)
        if self.compressor != "none":
            nbytes = _content_nbytes(view, self.name, limit_nbytes)
        check_length(self.name, nbytes, limit_nbytes)
        out = bytearray(nbytes)
        self.decode_into(data, memoryview(out))
        return out

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill `out` with what the blocks hold, which must be just as much."""
        view = as_view(data)
        # Elements behind the last multiple of 8 are left as they are, behind the last block.
        inside = out[: len(out) - len(out) % (_ELEMENTS_MULTIPLE * self.elementsize)]
        if self.compressor == "none":
            block_nbytes = (self.block_elements or self._default_block) * self.elementsize
            starts = range(0, len(inside), block_nbytes)
            blocks = [view[start : min(start + block_nbytes, len(inside))] for start in starts]
            rest = view[len(inside) :]
        else:
            block_nbytes = _block_nbytes(view, self.name, len(out))
            if block_nbytes % (_ELEMENTS_MULTIPLE * self.elementsize):
                raise DamagedChunkError(
                    f"bitshuffle blocks of a multiple of 8 elements expected, found blocks of"
                    f" {block_nbytes} bytes"
                )
            blocks, rest = _split(view, -(-len(inside) // block_nbytes), self.name)
            blocks = self._without_ambiguous(blocks, block_nbytes, len(inside))
        if len(rest) != len(out) - len(inside):
            raise DamagedChunkError(
                f"bitshuffle content expected to end with {len(out) - len(inside)} bytes, found"
                f" {len(rest)}"
            )
        decode_blocks(
            blocks,
            inside,
            block_nbytes=block_nbytes,
            cname="zstd" if self.compressor == "zstd" else "lz4",
            shuffle=2,
            typesize=self.elementsize,
        )
        out[len(inside) :] = rest

    def _without_ambiguous(
        self, blocks: list[memoryview], block_nbytes: int, nbytes: int
    ) -> list[memoryview]:
        """Return blocks of which those are decompressed that are just as long as their content.

        To `decode_blocks` these are not compressed; here all are.
        """
        found = []
        for number, block in enumerate(blocks):
            content_nbytes = min(block_nbytes, nbytes - number * block_nbytes)
            if len(block) == content_nbytes:
                found.append(memoryview(_decompress(self.compressor, block, content_nbytes)))
            else:
                found.append(block)
        return found

    @property
    def _default_block(self) -> int:
        n = _TARGET_BLOCK_NBYTES // self.elementsize // _ELEMENTS_MULTIPLE * _ELEMENTS_MULTIPLE
        return max(n, _MIN_BLOCK_ELEMENTS)

    def encode(self, data: Buffer) -> Buffer:
        """Return the blocks, with their sizes where they are compressed."""
        view = as_view(data)
        size = self.elementsize
        inside = len(view) - len(view) % (_ELEMENTS_MULTIPLE * size)
        block_nbytes = (self.block_elements or self._default_block) * size
        parts: list[Buffer] = []
        if self.compressor != "none":
            parts.append(_CONTAINER.pack(len(view), block_nbytes))
        for start in range(0, inside, block_nbytes):
            block = _shuffled_bits(view[start : min(start + block_nbytes, inside)], size)
            if self.compressor != "none":
                block = _lz4(block) if self.compressor == "lz4" else _zstd(block)
                parts.append(len(block).to_bytes(_SIZE_NBYTES, "big"))
            parts.append(block)
        return b"".join((*parts, view[inside:]))


def _element_size(parameters: dict[str, Any], name: str, maximum: int) -> int:
    what = f"elementsize of codec {name!r}"
    return as_integer(parameters["elementsize"], what, minimum=1, maximum=maximum)


def _content_nbytes(data: memoryview, name: str, limit_nbytes: int) -> int:
    """Return how much a container says that it holds."""
    if len(data) < _CONTAINER.size:
        raise DamagedChunkError(
            f"{name} header expected in {_CONTAINER.size} bytes, found {len(data)}"
        )
    nbytes: int = _CONTAINER.unpack_from(data)[0]
    check_length(name, nbytes, limit_nbytes)
    return nbytes


def _block_nbytes(data: memoryview, name: str, out_nbytes: int) -> int:
    """Return how much each block but the last of a container holds; check what all of them do."""
    nbytes = _content_nbytes(data, name, out_nbytes)
    block_nbytes: int = _CONTAINER.unpack_from(data)[1]
    if nbytes != out_nbytes or not 0 < min(block_nbytes, nbytes or 1) <= MAX_BLOCK_NBYTES:
        raise DamagedChunkError(
            f"{name} content expected to have {out_nbytes} bytes, in blocks of up to"
            f" {MAX_BLOCK_NBYTES}, found {nbytes}, in blocks of {block_nbytes}"
        )
    return block_nbytes


def _split(data: memoryview, n_blocks: int, name: str) -> tuple[list[memoryview], memoryview]:
    """Return the blocks of a container, and what follows them."""
    blocks, at = [], _CONTAINER.size
    for _ in range(n_blocks):
        start = at + _SIZE_NBYTES
        at = start + int.from_bytes(data[at:start], "big")
        if max(start, at) > len(data):
            raise DamagedChunkError(
                f"{name} block expected to end at byte {max(start, at)}, found {len(data)} bytes"
            )
        blocks.append(data[start:at])
    return blocks, data[at:]


def _decompress(compressor: str, block: memoryview, nbytes: int) -> Buffer:
    """Return what one compressed block holds."""
    from lazyarr.codecs.numcodec import Numcodec
    from lazyarr.codecs.zstd import Zstd

    if compressor == "zstd":
        content = Zstd().decode(block, nbytes)
    else:
        # numcodecs has the size of the content before the block, little endian.
        sized = b"".join((nbytes.to_bytes(4, "little"), block))
        content = Numcodec('{"id": "lz4"}').decode(sized, nbytes)
    if len(as_view(content)) != nbytes:
        raise DamagedChunkError(
            f"{compressor} block expected to hold {nbytes} bytes, found {len(as_view(content))}"
        )
    return content


def _lz4(data: Buffer) -> bytes:
    from numcodecs import lz4

    return bytes(lz4.compress(data))[4:]  # without the size of the content


def _zstd(data: Buffer) -> bytes:
    from lazyarr.codecs.zstd import Zstd

    return Zstd().encode(data)


def _shuffled_bits(block: memoryview, size: int) -> bytes:
    """Return the first bits of all elements, then the second ones, and so on."""
    import numpy as np

    rows: np.ndarray[Any, np.dtype[np.uint8]] = np.frombuffer(block, "u1").reshape(-1, size)
    bits = np.unpackbits(rows, axis=1, bitorder="little")
    return np.packbits(bits.T, axis=1, bitorder="little").tobytes()
