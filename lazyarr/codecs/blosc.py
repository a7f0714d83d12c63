"""Blosc 1, decoded by numcodecs after its header has been checked."""

from __future__ import annotations

import functools
import itertools
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from lazyarr.checks import MAX_NBYTES, as_integer, shown
from lazyarr.codecs.base import Buffer, BytesCodec, as_view, check_length
from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.errors import FormatError
from lazyarr.values import Value

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["MAX_BLOCK_NBYTES", "MAX_TYPESIZE", "Blosc", "decode_blocks"]

# c-blosc README_CHUNK_FORMAT: two versions, flags, size of an element; sizes of the content,
# of a block of it, and of the buffer.  Where each block begins follows, then the blocks.
_HEADER = struct.Struct("<BBBBiii")
_BLOSC_HEADER_NBYTES = _HEADER.size
_START_NBYTES = 4
_IS_COPIED = 0x2  # in the flags: nothing is compressed, and there are no blocks
# The other flags, of buffers that are put together here.  A block is split into one part for each
# byte of an element unless they say otherwise.
_SHUFFLES_BYTES, _SHUFFLES_BITS, _IS_NOT_SPLIT = 0x1, 0x4, 0x10
_FORMATS = {"lz4": 1 << 5, "zstd": 4 << 5}
_FORMAT_VERSION, _COMPRESSOR_VERSION = 2, 1
# c-blosc 1.21, blosc.h: BLOSC_MAX_TYPESIZE, and BLOSC_MAX_BLOCKSIZE less some bytes for safety.
MAX_TYPESIZE = 255
MAX_BLOCK_NBYTES = (2**31 - 1) // 3 - 4 * MAX_TYPESIZE

_CNAMES = ("lz4", "lz4hc", "blosclz", "snappy", "zlib", "zstd")

# As much as is decoded between two looks at who waits: as zstd's own blocks, at least.
_PART_NBYTES = 128 * 1024


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

    name = "blosc"

    cname: str
    clevel: int
    shuffle: int
    blocksize: int
    typesize: int

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Blosc:
        """Return the codec with some parameters, each of them checked."""
        cname = parameters["cname"]
        if cname not in _CNAMES:
            raise FormatError(
                f"cname of codec 'blosc' is {shown(cname)}; it must be one of {_CNAMES}"
            )

        def number(name: str, minimum: int, maximum: int) -> int:
            what = f"{name} of codec 'blosc'"
            return as_integer(parameters[name], what, minimum=minimum, maximum=maximum)

        return cls(
            cname,
            number("clevel", 0, 9),
            number("shuffle", -1, 2),
            number("blocksize", 0, 2**31 - 1),
            # c-blosc takes elements of up to 255 bytes, and larger ones for bytes.
            number("typesize", 1, MAX_NBYTES),
        )

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return what a buffer holds, up to a number of bytes."""
        view = _without_rest(as_view(data))
        out = bytearray(_blosc_content_nbytes(view, limit_nbytes))
        _blosc_decompress(view, out)
        return out

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill `out` with what a buffer holds, which must be just as much."""
        view = _without_rest(as_view(data))
        nbytes = _blosc_content_nbytes(view, len(out))
        if nbytes != len(out):
            raise DamagedChunkError(
                f"blosc content expected to have {len(out)} bytes, found {nbytes}"
            )
        _blosc_decompress(view, out)

    def decode_in_parts(self, data: Buffer, out: memoryview, first: int) -> Iterator[int]:
        """Fill `out` as `decode_into` does, from the block that holds the byte `first` on.

        Yields
        ------
        int
            How far `out` is filled from there on, now and then.  What lies before comes last.
        """
        view = _without_rest(as_view(data))
        blocks = _find_blocks(view, len(out))
        if blocks is None:
            self.decode_into(view, out)
            return
        n_blocks = len(blocks.starts)
        n_at_once = max(1, _PART_NBYTES // blocks.nbytes)
        # The last block may be short, and a buffer of that alone is none for the library, so
        # it is decoded with the one before it.
        at = begin = min(first // blocks.nbytes, n_blocks - 2)
        while at < n_blocks:
            stop = at + n_at_once
            stop = stop if stop < n_blocks - 1 else n_blocks
            _decode_blocks(view, out, blocks, at, stop)
            at = stop
            if stop < n_blocks:
                yield stop * blocks.nbytes
        if begin:
            yield len(out)
            _decode_blocks(view, out, blocks, 0, begin)

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


def _without_rest(data: memoryview) -> memoryview:
    """Return a buffer without what follows it, which the library leaves aside too."""
    if len(data) < _BLOSC_HEADER_NBYTES:
        return data
    return data[: max(_BLOSC_HEADER_NBYTES, int.from_bytes(data[12:16], "little"))]


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


def decode_blocks(
    blocks: Sequence[Buffer],
    out: memoryview,
    *,
    block_nbytes: int,
    cname: str = "lz4",
    shuffle: int = 0,
    typesize: int = 1,
) -> None:
    """Fill `out` with what compressed blocks hold that some other container had.

    A blosc buffer is a header, a table of where blocks begin, and the blocks, so one is put
    around them: the library takes the shuffles back with vector instructions, five times as fast
    as numcodecs or NumPy can, and decompresses straight to where the content belongs.  It costs
    a copy of the compressed bytes.

    Parameters
    ----------
    blocks : sequence of bytes-like
        In the order of the content.  One that is just as long as its content is not compressed.
    out : memoryview
        Writable, contiguous, as long as the content.
    block_nbytes : int
        How much each block but the last one holds, up to `MAX_BLOCK_NBYTES`.
    cname : {"lz4", "zstd"}
        The compressor.
    shuffle : {0, 1, 2}
        What is shuffled in each block before it is compressed: nothing, bytes, bits.  Of a block
        whose number of elements is no multiple of 8, bits are not.
    typesize : int
        Size of an element in bytes, up to `MAX_TYPESIZE`.

    Raises
    ------
    DamagedChunkError
        The blocks are damaged, or hold something else.

    Examples
    --------
    >>> out = bytearray(6)
    >>> decode_blocks([b"acebdf"], memoryview(out), block_nbytes=6, shuffle=1, typesize=2)
    >>> out
    bytearray(b'abcdef')
    """
    if len(blocks) != -(-len(out) // block_nbytes):
        raise DamagedChunkError(
            f"{len(out)} bytes expected in blocks of {block_nbytes}, found {len(blocks)} blocks"
        )
    if not blocks:
        return
    start = _BLOSC_HEADER_NBYTES + len(blocks) * _START_NBYTES
    starts, parts = [], []
    for block in blocks:
        starts.append(start)
        parts += [len(block).to_bytes(4, "little"), block]
        start += 4 + len(block)
    flags = _FORMATS[cname] | _IS_NOT_SPLIT | (0, _SHUFFLES_BYTES, _SHUFFLES_BITS)[shuffle]
    if start > 2**31 - 1:
        raise DamagedChunkError(f"blocks of up to 2**31 bytes expected, found {start}")
    versions = (_FORMAT_VERSION, _COMPRESSOR_VERSION, flags, typesize)
    header = _HEADER.pack(*versions, len(out), min(block_nbytes, len(out)), start)
    table = struct.pack(f"<{len(starts)}i", *starts)
    _blosc_decompress(b"".join((header, table, *parts)), out)


class _Blocks(NamedTuple):
    """Where the blocks of a buffer are: how long each is when decoded, and where each begins."""

    nbytes: int
    starts: tuple[int, ...]


def _find_blocks(data: memoryview, out_nbytes: int) -> _Blocks | None:
    """Return the blocks of a buffer that can be decoded by themselves; None where none can.

    Several are needed, one behind the other in the order of the content, as writers with one
    thread leave them.  What else is wrong with a buffer is left to the library.
    """
    if _blosc_content_nbytes(data, out_nbytes) != out_nbytes:
        return None
    _, _, flags, _, nbytes, block_nbytes, _ = _HEADER.unpack_from(data)
    if flags & _IS_COPIED or not 0 < block_nbytes < nbytes:
        return None
    n_blocks = -(-nbytes // block_nbytes)
    data_start = _BLOSC_HEADER_NBYTES + n_blocks * _START_NBYTES
    if data_start > len(data):
        return None
    starts = struct.unpack_from(f"<{n_blocks}i", data, _BLOSC_HEADER_NBYTES)
    bounds = (data_start, *starts, len(data))
    if any(start > stop for start, stop in itertools.pairwise(bounds)):
        return None
    return _Blocks(block_nbytes, starts)


def _decode_blocks(
    data: memoryview, out: memoryview, blocks: _Blocks, start: int, stop: int
) -> None:
    """Decode the blocks ``[start, stop)`` into their place: from a buffer of these alone."""
    begin = blocks.starts[start]
    end = blocks.starts[stop] if stop < len(blocks.starts) else len(data)
    content = out[start * blocks.nbytes : stop * blocks.nbytes]
    shift = begin - _BLOSC_HEADER_NBYTES - (stop - start) * _START_NBYTES
    header = _HEADER.pack(*data[:4], len(content), blocks.nbytes, end - shift)
    starts = (place - shift for place in blocks.starts[start:stop])
    part = b"".join((header, struct.pack(f"<{stop - start}i", *starts), data[begin:end]))
    _blosc_decompress(part, content)
