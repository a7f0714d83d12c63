"""The compressors of the standard library: gzip, zlib, bzip2, LZMA."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from lazyarr.errors import FormatError
from lazyarr.format.buffers import Buffer, as_view
from lazyarr.format.check import shown
from lazyarr.format.codec import BytesCodec, check_length
from lazyarr.format.errors import DamagedChunkError
from lazyarr.values import Value

if TYPE_CHECKING:
    import bz2
    import lzma

__all__ = ["Bz2", "Deflate", "Lzma"]

_STEP_NBYTES = 64 * 1024
_FORMAT_RAW = 3  # lzma.FORMAT_RAW, without the import
_LZMA_MEMORY_NBYTES = 128 * 2**20  # the strongest preset needs 65 MiB

# Members of one gzip stream: each costs more than its bytes do.
_MAX_MEMBERS = 2**15


class Deflate(Value, BytesCodec):
    """gzip or zlib.

    Parameters
    ----------
    container : {"gzip", "zlib"}
        What surrounds the deflated data; gzip may have several members.
    level : int
        Compression level, for `encode`.
    """

    container: Literal["gzip", "zlib"]
    level: int = 5

    @property
    def _wbits(self) -> int:
        return zlib.MAX_WBITS + (16 if self.container == "gzip" else 0)

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return what a stream holds, up to a number of bytes."""
        return _join(self._pieces(as_view(data), limit_nbytes), limit_nbytes, self.container)

    def _pieces(self, data: memoryview, limit_nbytes: int) -> Iterator[bytes]:
        # The object copies what it does not use, so it is given a little at a time.
        stream = zlib.decompressobj(self._wbits)
        at, n_members = 0, 1
        while at < len(data) and not (stream.eof and self.container == "zlib"):
            if stream.eof:
                stream = zlib.decompressobj(self._wbits)
                n_members += 1
                if n_members > _MAX_MEMBERS:
                    raise DamagedChunkError(f"gzip stream has more than {_MAX_MEMBERS} members")
            step = data[at : at + _STEP_NBYTES]
            try:
                yield stream.decompress(step, limit_nbytes + 1)
            except zlib.error as error:
                raise DamagedChunkError(f"{self.container} stream is damaged: {error}") from error
            at += len(step) - len(stream.unused_data)
        if not stream.eof or at < len(data):
            raise DamagedChunkError(
                f"{self.container} stream expected to end at byte {len(data)}, found its end"
                f" {'before' if stream.eof else 'missing'}"
            )

    def encode(self, data: Buffer) -> Buffer:
        """Return one stream; without a time, so that equal data gives equal bytes."""
        stream = zlib.compressobj(self.level, zlib.DEFLATED, self._wbits)
        return stream.compress(data) + stream.flush()


def _join(pieces: Iterator[bytes], limit_nbytes: int, name: str) -> bytes:
    kept, nbytes = [], 0
    for piece in pieces:
        nbytes += len(piece)
        check_length(name, nbytes, limit_nbytes)
        kept.append(piece)
    return kept[0] if len(kept) == 1 else b"".join(kept)


class Bz2(Value, BytesCodec):
    """bzip2, one stream."""

    level: int = 1

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return what a stream holds, up to a number of bytes."""
        import bz2  # here, like lzma below: few processes meet such chunks

        return _decompress_stream(bz2.BZ2Decompressor(), data, limit_nbytes, "bz2")

    def encode(self, data: Buffer) -> Buffer:
        """Return one stream."""
        import bz2

        return bz2.compress(data, self.level)


class Lzma(Value, BytesCodec):
    """LZMA and xz, with the parameters of numcodecs.

    Parameters
    ----------
    container, check : int
        `lzma.FORMAT_*` and `lzma.CHECK_*`.
    preset : int or None
        Compression level.
    filters : tuple of tuples of (str, int)
        The members of each filter, for `lzma.FORMAT_RAW` alone; its streams do not say.
    """

    container: int = 1
    check: int = -1
    preset: int | None = None
    filters: tuple[tuple[tuple[str, int], ...], ...] = ()

    def check_filters(self) -> None:
        """Raise FormatError where the filters are none that can be used, or want too much."""
        if not self.filters:
            return
        wanted = sum(dict(members).get("dict_size", 0) for members in self.filters)
        try:
            if self.container != _FORMAT_RAW or wanted > _LZMA_MEMORY_NBYTES:
                raise ValueError("they want too much memory, or another format than 3")
            self._stream()
        # LZMAError derives from it alone, and a filter is checked in any way.
        except Exception as error:
            raise FormatError(
                f"filters {shown(self.filters)} of codec 'lzma' can not be used: {error};"
                " read the array with the library that wrote it"
            ) from error

    def _stream(self) -> lzma.LZMADecompressor:
        import lzma

        if not self.filters:
            return lzma.LZMADecompressor(self.container, memlimit=_LZMA_MEMORY_NBYTES)
        return lzma.LZMADecompressor(self.container, filters=self._filters)

    @property
    def _filters(self) -> list[dict[str, int]]:
        return [dict(members) for members in self.filters]

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return what a stream holds, up to a number of bytes."""
        return _decompress_stream(self._stream(), data, limit_nbytes, "lzma")

    def encode(self, data: Buffer) -> Buffer:
        """Return one stream."""
        import lzma

        filters = self._filters or None
        return lzma.compress(data, self.container, self.check, self.preset, filters)


def _decompress_stream(
    stream: bz2.BZ2Decompressor | lzma.LZMADecompressor,
    data: Buffer,
    limit_nbytes: int,
    name: str,
) -> bytes:
    try:
        content = stream.decompress(data, limit_nbytes + 1)
    except Exception as error:  # LZMAError derives from it alone
        raise DamagedChunkError(f"{name} stream is damaged: {error}") from error
    check_length(name, len(content), limit_nbytes)
    if not stream.eof or stream.unused_data:
        raise DamagedChunkError(f"{name} stream expected to end with the data, found otherwise")
    return content
