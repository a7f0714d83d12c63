"""The compressors of the standard library: gzip, zlib, bzip2, LZMA."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from lazyarr.checks import as_integer, as_list, as_string, shown
from lazyarr.codecs.base import Buffer, BytesCodec, as_view, check_length
from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.errors import FormatError
from lazyarr.values import Value

if TYPE_CHECKING:
    import bz2
    import lzma

__all__ = ["Bz2", "Deflate", "Lzma"]

_STEP_NBYTES = 64 * 1024
_FORMAT_RAW = 3  # lzma.FORMAT_RAW, without the import
_LZMA_MEMORY_NBYTES = 128 * 2**20  # the strongest preset needs 65 MiB

_MAX_LZMA_FILTERS = 4  # LZMA_FILTERS_MAX, lzma/filter.h

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

    name = "deflate"

    container: Literal["gzip", "zlib"]
    level: int = 5

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Deflate:
        """Return the codec with some parameters, each of them checked."""
        container = parameters["container"]
        if container not in ("gzip", "zlib"):
            raise FormatError(
                f"container of codec 'deflate' is {shown(container)}; it must be 'gzip' or 'zlib'"
            )
        what = f"level of codec {container!r}"
        return cls(container, as_integer(parameters["level"], what, minimum=-1, maximum=9))

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
            if stream.eof and self.container == "gzip":
                at = _skip_zeros(data, at)
        # What follows zlib's stream is left aside, as zlib.decompress does.
        if not stream.eof:
            raise DamagedChunkError(
                f"{self.container} stream expected to end within {len(data)} bytes, found no end"
            )

    def encode(self, data: Buffer) -> Buffer:
        """Return one stream; without a time, so that equal data gives equal bytes."""
        stream = zlib.compressobj(self.level, zlib.DEFLATED, self._wbits)
        return stream.compress(data) + stream.flush()


def _skip_zeros(data: memoryview, at: int) -> int:
    """Return where the zeros end that gzip files are padded with, as Python's gzip module does."""
    while at < len(data):
        step = bytes(data[at : at + _STEP_NBYTES])
        n_zeros = len(step) - len(step.lstrip(b"\0"))
        at += n_zeros
        if n_zeros < len(step):
            break
    return at


def _join(pieces: Iterator[bytes], limit_nbytes: int, name: str) -> bytes:
    kept, nbytes = [], 0
    for piece in pieces:
        nbytes += len(piece)
        check_length(name, nbytes, limit_nbytes)
        kept.append(piece)
    return kept[0] if len(kept) == 1 else b"".join(kept)


class Bz2(Value, BytesCodec):
    """bzip2, one stream or several."""

    name = "bz2"

    level: int = 1

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Bz2:
        """Return the codec with some parameters, each of them checked."""
        return cls(as_integer(parameters["level"], "level of codec 'bz2'", minimum=1, maximum=9))

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return what some streams hold, up to a number of bytes."""
        import bz2  # here, like lzma below: few processes meet such chunks

        pieces = _stream_pieces(bz2.BZ2Decompressor, as_view(data), limit_nbytes, "bz2")
        return _join(pieces, limit_nbytes, "bz2")

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

    name = "lzma"

    container: int = 1
    check: int = -1
    preset: int | None = None
    filters: tuple[tuple[tuple[str, int], ...], ...] = ()

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Lzma:
        """Return the codec with some parameters, each of them checked."""
        filters = _checked_filters(parameters["filters"])
        # A raw stream does not say what it went through, so it needs filters.
        last = _FORMAT_RAW if filters else _FORMAT_RAW - 1
        preset = parameters["preset"]
        what = "of codec 'lzma'"
        codec = cls(
            as_integer(parameters["container"], f"format {what}", minimum=1, maximum=last),
            as_integer(parameters["check"], f"check {what}", minimum=-1, maximum=10),
            None if preset is None else as_integer(preset, f"preset {what}", maximum=2**32 - 1),
            filters,
        )
        codec.check_filters()
        return codec

    def parameters(self) -> dict[str, Any]:
        """Return the parameters as values that JSON can hold."""
        filters = [[list(member) for member in members] for members in self.filters]
        return super().parameters() | {"filters": filters}

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
                f"filters {shown(self.filters)} of codec 'lzma' cannot be used: {error};"
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
        """Return what some streams hold, up to a number of bytes."""
        pieces = _stream_pieces(self._stream, as_view(data), limit_nbytes, "lzma")
        return _join(pieces, limit_nbytes, "lzma")

    def encode(self, data: Buffer) -> Buffer:
        """Return one stream."""
        import lzma

        filters = self._filters or None
        return lzma.compress(data, self.container, self.check, self.preset, filters)


def _checked_filters(value: object) -> tuple[tuple[tuple[str, int], ...], ...]:
    filters = as_list(value, "filters of codec 'lzma'")
    if len(filters) > _MAX_LZMA_FILTERS:
        raise FormatError(f"filters of codec 'lzma' are {len(filters)}; it has up to 4")
    return tuple(
        tuple(_checked_member(member) for member in as_list(members, "a filter of codec 'lzma'"))
        for members in filters
    )


def _checked_member(value: object) -> tuple[str, int]:
    member = as_list(value, "a member of a filter of codec 'lzma'")
    if len(member) != 2:
        raise FormatError(
            f"a member of a filter of codec 'lzma' is {shown(member)}; it must be a name and a"
            " number"
        )
    name = as_string(member[0], "the name of a member of a filter of codec 'lzma'")
    what = f"{shown(name)} of a filter of codec 'lzma'"
    return name, as_integer(member[1], what, maximum=2**62)


def _stream_pieces(
    make: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor],
    data: memoryview,
    limit_nbytes: int,
    name: str,
) -> Iterator[bytes]:
    """Yield what streams hold that follow one another.

    What follows them and is none is left aside, as `bz2.decompress` and `lzma.decompress` do.
    """
    stream, at, n_streams = make(), 0, 1
    while at < len(data):
        if stream.eof:
            stream, n_streams = make(), n_streams + 1
            if n_streams > _MAX_MEMBERS:
                raise DamagedChunkError(f"{name} content has more than {_MAX_MEMBERS} streams")
        step = data[at : at + _STEP_NBYTES]
        try:
            yield stream.decompress(step, limit_nbytes + 1)
        except Exception as error:  # LZMAError derives from it alone
            if n_streams > 1:
                return
            raise DamagedChunkError(f"{name} stream is damaged: {error}") from error
        at += len(step) - len(stream.unused_data)
    if not stream.eof:
        raise DamagedChunkError(f"{name} stream expected to end with the data, found otherwise")
