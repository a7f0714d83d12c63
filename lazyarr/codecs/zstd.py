"""zstd as Zarr uses it: straight into memory, with every length checked.

Source: RFC 8878, sections 3.1.1 (frames) and 3.1.2 (skippable frames).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from lazyarr.checks import as_integer, shown
from lazyarr.codecs.base import Buffer, BytesCodec, as_view, check_length
from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.errors import FormatError
from lazyarr.values import Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from zstandard import ZstdCompressor, ZstdDecompressor

__all__ = ["Frame", "Zstd", "scan_frames"]

_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"  # after a first byte of 0x50 to 0x5f
_DICTIONARY_NBYTES = (0, 1, 2, 4)
_CONTENT_NBYTES = (0, 2, 4, 8)
_RLE, _RESERVED = 1, 3  # block types; the others hold as many bytes as their size says

# What a decoder should be ready to allocate (RFC 8878, 3.1.1.1.2).  A frame
# that asks for more gets no more than its chunk can need.
_USUAL_WINDOW_NBYTES = 8 * 2**20
_MAX_BLOCK_NBYTES = 128 * 1024
# Where some of a block has not been taken yet, the library does not decode the next one
# before it gives anything back (zstd_decompress.c, ZSTD_decompressStream).
_HELD_BACK_NBYTES = 4096
_MAX_WINDOW_NBYTES = 2**31

# Frames and blocks of one chunk: 16 GiB in blocks of the usual size.  A chunk of
# nothing but empty ones would take far longer to walk than to read.
_MAX_BLOCKS = 2**17


class Frame(NamedTuple):
    """One frame of some compressed bytes.

    Attributes
    ----------
    stop : int
        Where it ends, in bytes from the start of the data.
    content_nbytes : int or None
        How much it says that it decompresses to; None where it does not say.
    window_at : int
        Where its window descriptor is; -1 where it has none.
    window_nbytes : int
        How much history it wants kept; 0 where it has no window descriptor.
    n_blocks : int
        How many blocks it consists of.
    """

    stop: int
    content_nbytes: int | None
    window_at: int
    window_nbytes: int
    n_blocks: int


def scan_frames(data: memoryview) -> list[Frame]:
    """Return the frames that some bytes consist of, without decompressing them.

    The library takes the end of the data for the end of a frame, whether or not
    the frame is complete: a chunk that lost its last bytes, a checksum among
    them, would pass.  Walking the block headers costs a microsecond per 128 KiB.

    Raises
    ------
    DamagedChunkError
        Something that is no frame, or a frame that ends early.
    """
    frames = []
    at = n_blocks = 0
    while at < len(data):
        magic = data[at : at + 4]
        if magic == _MAGIC:
            frame = _scan_frame(data, at)
        elif magic[1:] == _SKIPPABLE and magic[0] >> 4 == 5:
            size = int.from_bytes(data[at + 4 : at + 8], "little")
            frame = Frame(at + 8 + size, 0, -1, 0, 1)
        else:
            raise DamagedChunkError(
                f"zstd frame expected at byte {at} of {len(data)}, found {bytes(magic).hex()}"
            )
        n_blocks += frame.n_blocks
        if n_blocks > _MAX_BLOCKS:
            raise DamagedChunkError(f"zstd content expected in {_MAX_BLOCKS} blocks, found more")
        if frame.stop > len(data):
            raise DamagedChunkError(
                f"zstd frame expected to end at byte {frame.stop}, found {len(data)} bytes"
            )
        frames.append(frame)
        at = frame.stop
    return frames


def _scan_frame(data: memoryview, start: int) -> Frame:
    header = data[start : start + 18].tobytes().ljust(18, b"\0")  # the longest there is
    descriptor = header[4]
    single = descriptor >> 5 & 1
    content_field = _CONTENT_NBYTES[descriptor >> 6] or single
    at = 5
    window_at, window = -1, 0
    if not single:
        window_at = start + at
        base = 1 << (10 + (header[at] >> 3))
        window = base + (base >> 3) * (header[at] & 7)
        at += 1
    at += _DICTIONARY_NBYTES[descriptor & 3]
    content: int | None = None
    if content_field:
        content = int.from_bytes(header[at : at + content_field], "little")
        content += 256 * (content_field == 2)
    at += content_field
    stop, n_blocks = _scan_blocks(data, start + at)
    return Frame(stop + 4 * (descriptor >> 2 & 1), content, window_at, window, n_blocks)


def _scan_blocks(data: memoryview, at: int) -> tuple[int, int]:
    """Return where the last block ends, beyond the data when it is cut short, and their count."""
    n_blocks = 0
    while at + 3 <= len(data) and n_blocks <= _MAX_BLOCKS:
        n_blocks += 1
        header = data[at] | data[at + 1] << 8 | data[at + 2] << 16
        kind = header >> 1 & 3
        if kind == _RESERVED:
            raise DamagedChunkError(f"zstd block of a known type expected at byte {at}, found 3")
        at += 3 + (1 if kind == _RLE else header >> 3)
        if header & 1:
            return at, n_blocks
    return max(at, len(data)) + 3, n_blocks


class _PerThread(threading.local):
    """Contexts of zstd: expensive to make, and good for one thread at a time."""

    def __init__(self) -> None:
        self.decompressor: ZstdDecompressor | None = None
        self.compressors: dict[tuple[int, bool], ZstdCompressor] = {}


_contexts = _PerThread()


def _decompressor() -> ZstdDecompressor:
    if _contexts.decompressor is None:
        # Not at the top: a process that reads no chunk has no use for it.
        from zstandard import ZstdDecompressor

        _contexts.decompressor = ZstdDecompressor(max_window_size=_MAX_WINDOW_NBYTES)
    return _contexts.decompressor


class Zstd(Value, BytesCodec):
    """zstd, releasing the GIL while it works.

    Parameters
    ----------
    level : int
        Compression level, for `encode`.
    checksum : bool
        Whether `encode` adds a checksum of the content.  `decode` checks one
        wherever it is there.
    """

    name = "zstd"

    level: int = 3
    checksum: bool = False

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Zstd:
        """Return the codec with some parameters, each of them checked."""
        checksum = parameters["checksum"]
        if not isinstance(checksum, bool):
            raise FormatError(
                f"checksum of codec 'zstd' is {shown(checksum)}; it must be true or false"
            )
        # Bounds of libzstd; level 0 is its default.
        what = "level of codec 'zstd'"
        level = as_integer(parameters["level"], what, minimum=-131072, maximum=22)
        return cls(level, checksum)

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return what some frames hold, up to a number of bytes."""
        from zstandard import ZstdError

        source = _bounded_source(as_view(data), limit_nbytes)
        reader = _decompressor().stream_reader(source, read_across_frames=True)
        try:
            content = reader.read(limit_nbytes + 1)
        except ZstdError as error:
            raise DamagedChunkError(f"zstd frame does not decompress: {error}") from error
        check_length("zstd", len(content), limit_nbytes)
        return content

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill `out` with what some frames hold, which must be just as much."""
        for _ in self._fill(data, out, len(out), len(out)):
            pass

    def decode_in_parts(self, data: Buffer, out: memoryview, first: int = 0) -> Iterator[int]:  # noqa: ARG002
        """Fill `out` as `decode_into` does; yield now and then how much of it is there.

        What is there is what the frames say, which only the end proves to be right.
        """
        return self._fill(data, out, _MAX_BLOCK_NBYTES - _HELD_BACK_NBYTES, _MAX_BLOCK_NBYTES)

    def _fill(
        self, data: Buffer, out: memoryview, first_nbytes: int, part_nbytes: int
    ) -> Iterator[int]:
        from zstandard import ZstdError

        source = _bounded_source(as_view(data), len(out))
        reader = _decompressor().stream_reader(source, read_across_frames=True)
        nbytes, stop = 0, first_nbytes
        try:
            while nbytes < len(out):
                more = reader.readinto(out[nbytes:stop])
                if not more:
                    break
                nbytes += more
                stop = nbytes + part_nbytes
                if nbytes < len(out):
                    yield nbytes
            # Also makes the library check the checksum of the last frame.
            rest = reader.read(1) if nbytes == len(out) else b""
        except ZstdError as error:
            raise DamagedChunkError(f"zstd frame does not decompress: {error}") from error
        if nbytes != len(out) or rest:
            found = f"{nbytes} bytes" if not rest else "more"
            raise DamagedChunkError(
                f"zstd content expected to have {len(out)} bytes, found {found}"
            )

    def encode(self, data: Buffer) -> bytes:
        """Return one frame that says how much it holds."""
        key = (self.level, self.checksum)
        compressor = _contexts.compressors.get(key)
        if compressor is None:
            from zstandard import ZstdCompressor

            compressor = ZstdCompressor(level=self.level, write_checksum=self.checksum)
            _contexts.compressors[key] = compressor
        return compressor.compress(data)


def _bounded_source(data: memoryview, limit_nbytes: int) -> memoryview | bytearray:
    """Return frames that make the library allocate no more than the limit, or the usual.

    A frame of a few bytes may claim terabytes of content, or a window of
    gigabytes, which the library allocates before it looks further.
    """
    frames = scan_frames(data)
    if (
        len(frames) == 1
        and not frames[0].window_nbytes
        and frames[0].content_nbytes == limit_nbytes
    ):
        return data  # what most writers store: there is nothing else to look at
    declared = sum(frame.content_nbytes or 0 for frame in frames)
    check_length("zstd", declared, limit_nbytes)
    enough = max(limit_nbytes, _MAX_BLOCK_NBYTES)
    wide = [frame for frame in frames if frame.window_nbytes > max(enough, _USUAL_WINDOW_NBYTES)]
    if not wide:
        return data
    # No content reaches further back than its own start, so a window as large
    # as the content serves: strong levels ask for 128 MiB for a few kilobytes.
    narrowed = bytearray(data)
    for frame in wide:
        narrowed[frame.window_at] = (enough - 1).bit_length() - 10 << 3
    return narrowed
