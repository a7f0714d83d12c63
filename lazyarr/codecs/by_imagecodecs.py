"""Compressors of HDF5's filters that imagecodecs has the libraries of: LZF and szip.

Sources: H5Zszip.c of HDF5, sz_compat.c of libaec, and lzf_filter.c of h5py.
"""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Any

from lazyarr.checks import MAX_NBYTES, as_integer
from lazyarr.codecs.base import Buffer, BytesCodec, as_view, check_length
from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.errors import FormatError
from lazyarr.shortage import is_shortage
from lazyarr.values import Value

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Lzf", "Szip", "find_function", "run_decoder"]

_MOST_NBYTES = 2**31 - 1  # what imagecodecs takes

# szlib.h.
_MAX_PIXELS_PER_BLOCK, _MAX_PIXELS_PER_LINE = 32, 4096
_SIZE = struct.Struct("<I")


class Lzf(Value, BytesCodec):
    """LZF, as h5py's filter has it: without any header.

    Parameters
    ----------
    content_nbytes : int
        How much a chunk holds as a rule; 0 where that is not known.
    """

    name = "lzf"

    content_nbytes: int

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Lzf:
        """Return the codec with some parameters, each of them checked."""
        what = "content_nbytes of codec 'lzf'"
        nbytes = as_integer(parameters["content_nbytes"], what, maximum=MAX_NBYTES)
        find_function("LZF", "lzf_decode", cls.name)
        return cls(nbytes)

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return what a buffer holds, up to a number of bytes."""
        for nbytes in sorted({min(self.content_nbytes, limit_nbytes), limit_nbytes} - {0}):
            out = bytearray(nbytes)
            try:
                return memoryview(out)[: self._decode(data, memoryview(out))]
            except DamagedChunkError:
                # One that holds more, as behind a filter that makes chunks longer.
                if nbytes == limit_nbytes:
                    raise
        raise DamagedChunkError(f"lzf content expected in {limit_nbytes} bytes, found a chunk")

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill `out` with what a buffer holds, which must be just as much."""
        nbytes = self._decode(data, out)
        if nbytes != len(out):
            raise DamagedChunkError(
                f"lzf content expected to have {len(out)} bytes, found {nbytes}"
            )

    def _decode(self, data: Buffer, out: memoryview) -> int:
        view = as_view(data)
        if not 0 < len(view) <= _MOST_NBYTES or not 0 < len(out) <= _MOST_NBYTES:
            raise DamagedChunkError(
                f"lzf content expected in 1 to {_MOST_NBYTES} bytes, found {len(view)} for"
                f" {len(out)}"
            )
        return len(
            run_decoder(find_function("LZF", "lzf_decode", self.name), self.name, view, out=out)
        )

    def encode(self, data: Buffer) -> Buffer:
        """Return one buffer."""
        return bytes(find_function("LZF", "lzf_encode", self.name)(bytes(data)))


class Szip(Value, BytesCodec):
    """Szip, which is the adaptive entropy coder of CCSDS 121.0.

    Parameters
    ----------
    options : int
        Szip's flags.
    bits_per_pixel, pixels_per_block, pixels_per_scanline : int
        Pixels are elements here, or bytes of them where they have 32 or 64 bits.
    """

    name = "szip"

    options: int
    bits_per_pixel: int
    pixels_per_block: int
    pixels_per_scanline: int

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Szip:
        """Return the codec with some parameters, each of them checked."""

        def number(name: str, maximum: int) -> int:
            what = f"{name} of codec 'szip'"
            return as_integer(parameters[name], what, minimum=1, maximum=maximum)

        bits = number("bits_per_pixel", 64)
        block = number("pixels_per_block", _MAX_PIXELS_PER_BLOCK)
        line = number("pixels_per_scanline", _MAX_PIXELS_PER_LINE)
        is_even = not block % 2 and block <= line <= _padded(line, block) <= _MAX_PIXELS_PER_LINE
        if not is_even or not (bits <= 24 or bits in (32, 64)):
            raise FormatError(
                f"codec 'szip' has pixels of {bits} bits, in blocks of {block} and lines of {line};"
                " there must be up to 24 bits, 32 or 64, and even blocks, no longer than a line"
            )
        options = as_integer(parameters["options"], "options of codec 'szip'", maximum=2**31 - 1)
        find_function("SZIP", "szip_decode", cls.name)
        return cls(options, bits, block, line)

    @property
    def _plane_count(self) -> int:
        """How many bytes of an element are stored apart: all first ones, then all second ones."""
        return self.bits_per_pixel // 8 if self.bits_per_pixel in (32, 64) else 1

    @property
    def _coder(self) -> dict[str, int]:
        """What imagecodecs is told: of whole blocks, and of planes as if they were elements.

        Then libaec fills the memory that it is given, and says how much of it.  Otherwise it puts
        together elements from memory of its own, whatever that holds where a chunk is cut off.
        """
        return {
            "options_mask": self.options,
            "bits_per_pixel": 8 if self._plane_count > 1 else self.bits_per_pixel,
            "pixels_per_block": self.pixels_per_block,
            "pixels_per_scanline": _padded(self.pixels_per_scanline, self.pixels_per_block),
        }

    @property
    def _line_nbytes(self) -> tuple[int, int]:
        """How many bytes a line has, and with it what fills its last block."""
        coder = self._coder
        bits = coder["bits_per_pixel"]
        nbytes = 4 if bits > 16 else 2 if bits > 8 else 1
        return self.pixels_per_scanline * nbytes, coder["pixels_per_scanline"] * nbytes

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return what a buffer holds, up to a number of bytes."""
        out = bytearray(self._content_nbytes(as_view(data), limit_nbytes))
        self.decode_into(data, memoryview(out))
        return out

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill `out` with what a buffer holds, which must be just as much."""
        import numpy as np

        view = as_view(data)
        nbytes = self._content_nbytes(view, len(out))
        if nbytes != len(out):
            raise DamagedChunkError(
                f"szip content expected to have {len(out)} bytes, found {nbytes}"
            )
        planes = self._plane_count
        if nbytes % planes:
            raise DamagedChunkError(
                f"szip content expected to have elements of {planes} bytes, found {nbytes} bytes"
            )
        line, padded = self._line_nbytes
        n_lines = -(-nbytes // line)
        decoded = np.empty(n_lines * padded, "u1")
        decode = find_function("SZIP", "szip_decode", self.name)
        found = len(
            run_decoder(decode, self.name, view[_SIZE.size :], out=decoded.data, **self._coder)
        )
        # A writer need not fill the last line.
        expected = (n_lines - 1) * padded + nbytes - (n_lines - 1) * line
        if found < expected:
            raise DamagedChunkError(
                f"szip content expected to have {expected} bytes, found {found}: it is cut off"
            )
        content = decoded.reshape(n_lines, padded)[:, :line].reshape(-1)[:nbytes]
        np.frombuffer(out, "u1").reshape(-1, planes)[...] = content.reshape(planes, -1).T

    def _content_nbytes(self, data: memoryview, limit_nbytes: int) -> int:
        """Return how much a buffer says that it holds."""
        if len(data) <= _SIZE.size:
            raise DamagedChunkError(f"szip content expected in 5 bytes or more, found {len(data)}")
        nbytes: int = _SIZE.unpack_from(data)[0]
        check_length(self.name, nbytes, limit_nbytes)
        return nbytes

    def encode(self, data: Buffer) -> Buffer:
        """Return one buffer."""
        import numpy as np

        view = as_view(data)
        planes = self._plane_count
        content = np.frombuffer(view, "u1").reshape(-1, planes).T.reshape(-1)
        line, padded = self._line_nbytes
        n_lines = -(-len(view) // line)
        lines = np.zeros((n_lines, padded), "u1")
        lines[:, :line] = np.pad(content, (0, n_lines * line - len(view))).reshape(n_lines, line)
        encode = find_function("SZIP", "szip_encode", self.name)
        return _SIZE.pack(len(view)) + bytes(encode(lines.tobytes(), **self._coder))


def _padded(line: int, block: int) -> int:
    """Return how many pixels a line has of which all blocks are whole."""
    return -(-line // block) * block


@functools.cache
def find_function(kind: str, function: str, name: str, extra: str = "hdf5") -> Callable[..., Any]:
    """Return a function of imagecodecs, which may be there without the library that it needs."""
    # Here: the package takes a tenth of a second, and most processes meet no such chunk.
    try:
        import imagecodecs

        if not getattr(imagecodecs, kind).available:
            raise ImportError(f"imagecodecs was built without {kind}")
        found: Callable[..., Any] = getattr(imagecodecs, function)
    except ImportError as error:
        if is_shortage(error):
            raise
        raise FormatError(
            f"codec {name!r} needs imagecodecs, which cannot be imported: {error}; pip install"
            f" 'lazyarr[{extra}]'"
        ) from error
    return found


def run_decoder(
    function: Callable[..., Any], name: str, data: Any, *arguments: Any, **options: Any
) -> Any:
    """Return what a decoder has filled of the memory that it was given."""
    try:
        return function(data, *arguments, **options)
    # Each of imagecodecs' decoders raises errors of its own.
    except Exception as error:
        if is_shortage(error):
            raise
        raise DamagedChunkError(f"{name} cannot decode: {error}") from error
