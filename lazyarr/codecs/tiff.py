"""What strips and tiles of TIFF go through besides the compressors that others use too.

Source: TIFF 6.0; Adobe Photoshop TIFF Technical Note 3 for the floating-point predictor; and what
tifffile makes of both.  imagecodecs decodes them.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, Self

from lazyarr.checks import MAX_NBYTES, as_integer, as_string, shown
from lazyarr.codecs.base import Buffer, BytesCodec, as_view, check_length, copy_into
from lazyarr.codecs.by_imagecodecs import find_function, run_decoder
from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.errors import FormatError
from lazyarr.values import Value

if TYPE_CHECKING:
    import numpy as np

__all__ = ["BitOrder", "Jpeg", "Lzw", "PackBits", "PackedBits", "Predictor"]

_REVERSED = bytes(int(f"{n:08b}"[::-1], 2) for n in range(256))
_DELTA, _FLOATING_POINT = "delta", "floating_point"
_NUMBER = re.compile(r"\|[biu]1|[<>](?:[iu][248]|f[248]|c8|c16)")
_MAX_BITS = 31
_MAX_TABLES_NBYTES = 1 << 16
_COLOURS = (None, 1, 2)  # of imagecodecs: as it is, grey, RGB


def _run(kind: str, way: str, data: Any, *arguments: Any, **options: Any) -> Any:
    """Return what a codec of imagecodecs makes of something, by ``decode`` or ``encode``."""
    function = find_function(kind.upper(), f"{kind}_{way}", kind, "tiff")
    return run_decoder(function, kind, data, *arguments, **options)


class BitOrder(Value, BytesCodec):
    """The bits of each byte in the other order: the lowest one first."""

    name = "bit_order"

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> BitOrder:  # noqa: ARG003 - it has none
        """Return the codec, which has no parameters."""
        return cls()

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return the bytes, with their bits the other way round."""
        check_length(self.name, len(as_view(data)), limit_nbytes)
        return bytes(data).translate(_REVERSED)

    def encode(self, data: Buffer) -> Buffer:
        """Return the bytes, with their bits the other way round."""
        return bytes(data).translate(_REVERSED)


class _Stream(Value, BytesCodec):
    """A compressor of imagecodecs without parameters, which never fills more than it is given."""

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Self:  # noqa: ARG003 - it has none
        """Return the codec, which has no parameters."""
        return cls()

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return what a stream holds, up to a number of bytes."""
        found: bytes = _run(self.name, "decode", data, out=limit_nbytes)
        return found

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill `out` with what a stream holds."""
        if not out:  # imagecodecs' LZW would write beyond it
            copy_into(data, out)
            return
        found = as_view(_run(self.name, "decode", data, out=out))
        if len(found) != len(out):
            raise DamagedChunkError(f"chunk expected to have {len(out)} bytes, found {len(found)}")

    def encode(self, data: Buffer) -> Buffer:
        """Return one stream."""
        found: bytes = _run(self.name, "encode", data)
        return found


class Lzw(_Stream):
    """LZW as TIFF has it, and as its older writers had it.

    What a stream holds beyond the chunk is left aside, as libtiff and tifffile do.
    """

    name = "lzw"

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return what a stream holds, up to a number of bytes."""
        _check_lzw(as_view(data))
        return super().decode(data, limit_nbytes)

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill `out` with what a stream holds."""
        _check_lzw(as_view(data))
        super().decode_into(data, out)


_CLEAR, _END, _FIRST_FREE = 256, 257, 258
_MAX_LZW_TABLE = 5120  # of imagecodecs; a stream that has more without a clear code is refused


@functools.cache
def _lzw_codes(is_old: bool) -> tuple[Any, Any, Any, Any]:  # noqa: FBT001 - a key of the cache
    """Return where the codes after a clear code begin, their bits and masks, and their maxima."""
    import numpy as np

    # The table grows by an entry with each code but the first, and codes with it.  Newer writers
    # make them longer one code early.
    table = np.maximum(np.arange(_FIRST_FREE - 1, _MAX_LZW_TABLE), _FIRST_FREE)
    steps = np.array([512, 1024, 2048]) - (0 if is_old else 1)
    widths = 9 + (table[:, None] >= steps).sum(axis=1)
    starts = np.concatenate([[0], np.cumsum(widths)[:-1]])
    largest = table.copy()
    largest[0] = _CLEAR - 1  # a byte, for there is nothing in the table
    return starts, widths, (1 << widths) - 1, largest


def _check_lzw(data: memoryview) -> None:
    """Raise unless each code of a stream is in the table when it comes, or the next one.

    imagecodecs (2026.3) follows what is in its memory by chance for a code that is no byte right
    after a clear code.
    """
    import numpy as np

    padded = np.zeros(len(data) + 3, np.uint32)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    is_old = len(data) > 1 and data[0] == 0 and bool(data[1] & 1)
    first, second, third = padded[:-2], padded[1:-1], padded[2:]
    # The three bytes from each byte on hold any code that begins in it.
    triples = (
        first | second << 8 | third << 16 if is_old else first << 16 | second << 8 | third
    ).astype(np.int64)
    all_starts, widths, masks, largest = _lzw_codes(is_old)
    at = 9  # the first code must be a clear code, which imagecodecs sees to
    while True:
        starts = at + all_starts
        n = int(np.searchsorted(starts + widths, 8 * len(data), side="right"))
        starts = starts[:n]
        shifts = starts & 7 if is_old else 24 - (starts & 7) - widths[:n]
        codes = (triples[starts >> 3] >> shifts) & masks[:n]
        ends = np.flatnonzero((codes == _CLEAR) | (codes == _END))
        n_codes = int(ends[0]) if len(ends) else n
        wrong = np.flatnonzero(codes[:n_codes] > largest[:n_codes])
        if len(wrong):
            place = int(starts[wrong[0]])
            raise DamagedChunkError(f"lzw cannot decode: the code at bit {place} means nothing")
        if not len(ends) or codes[n_codes] == _END:
            return
        at = int(starts[n_codes] + widths[n_codes])


class PackBits(_Stream):
    """Runs of equal bytes, each with its length before it."""

    name = "packbits"

    def encode(self, data: Buffer) -> Buffer:
        """Return the bytes without any runs: imagecodecs crashes where they are long."""
        view = as_view(data)
        pieces = (view[at : at + 128] for at in range(0, len(view), 128))
        return b"".join(bytes((len(piece) - 1,)) + piece for piece in pieces)


class _Rows(Value, BytesCodec):
    """Something that is done to each row of a strip or a tile by itself.

    Parameters
    ----------
    dtype : str
        The elements as NumPy's array interface has them, in their stored order of bytes.
    row : int
        How many pixels a row has.
    samples : int
        How many elements a pixel has.
    cuts : bool
        Whether what is behind the chunk's own rows is left aside: streams of LZW may hold more.
    """

    dtype: str
    row: int
    samples: int
    cuts: bool

    @classmethod
    def checked(cls, parameters: dict[str, Any]) -> tuple[str, int, int, bool]:
        """Return the parameters that all have."""
        what = f"of codec {cls.name!r}"
        dtype = as_string(parameters["dtype"], f"dtype {what}")
        if not _NUMBER.fullmatch(dtype):
            raise FormatError(f"dtype {what} is {shown(dtype)}; it must be one of numbers")
        row = as_integer(parameters["row"], f"row {what}", minimum=1, maximum=MAX_NBYTES)
        samples = as_integer(parameters["samples"], f"samples {what}", minimum=1, maximum=2**16)
        cuts = parameters["cuts"]
        if not isinstance(cuts, bool):
            raise FormatError(f"cuts {what} is {shown(cuts)}; it must be true or false")
        return dtype, row, samples, cuts

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return as many rows as the data has."""
        nbytes = len(as_view(data)) // self._row_nbytes(stored=True) * self._row_nbytes()
        check_length(self.name, nbytes, limit_nbytes)
        out = bytearray(nbytes)
        self.decode_into(data, memoryview(out))
        return out

    def _row_nbytes(self, *, stored: bool = False) -> int:  # noqa: ARG002 - for a subclass
        """Return the size of a row, in memory or as it is stored."""
        return self.row * self.samples * int(self.dtype[2:])

    def _wanted(self, data: Buffer, nbytes: int) -> memoryview:
        """Return what is stored of the chunk's rows."""
        view = as_view(data)
        wanted = view[:nbytes] if self.cuts else view
        if len(wanted) != nbytes:
            raise DamagedChunkError(
                f"rows of {nbytes} bytes together expected, found {len(view)} bytes"
            )
        return wanted

    def _pixels(self, out: memoryview) -> np.ndarray[Any, Any]:
        """Return memory as rows of pixels."""
        import numpy as np

        if len(out) % self._row_nbytes():
            raise DamagedChunkError(
                f"chunk of rows of {self.row} pixels of {self.samples} samples expected, found"
                f" {len(out)} bytes"
            )
        return np.frombuffer(out, self.dtype).reshape(-1, self.row, self.samples)


class Predictor(_Rows):
    """Differences to the pixel before, in each row.

    Parameters
    ----------
    dtype, row, samples, cuts
        As of all that goes by rows.
    kind : {"delta", "floating_point"}
        Differences of elements; or of bytes, of which those of the highest place come first.
    """

    name = "predictor"

    kind: str

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Predictor:
        """Return the codec with some parameters, each of them checked."""
        kind = parameters["kind"]
        if kind not in (_DELTA, _FLOATING_POINT):
            raise FormatError(f"kind of codec 'predictor' is {shown(kind)}; it is not known")
        return cls(*cls.checked(parameters), kind)

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill `out` with the elements."""
        pixels = self._pixels(out)
        copy_into(self._wanted(data, len(out)), out)
        if self.kind == _FLOATING_POINT:
            # It cannot be decoded in its place.
            pixels[...] = _run("floatpred", "decode", pixels.copy(), axis=-2)
            return
        # Sums need the machine's order of bytes.
        is_native = pixels.dtype.isnative
        native = (
            pixels if is_native else pixels.byteswap(inplace=True).view(pixels.dtype.newbyteorder())
        )
        _run("delta", "decode", native, axis=-2, out=native)
        if not is_native:
            pixels.byteswap(inplace=True)

    def encode(self, data: Buffer) -> Buffer:
        """Return the differences."""
        pixels = self._pixels(as_view(bytearray(data)))
        native = pixels.astype(pixels.dtype.newbyteorder("="))
        name = "delta" if self.kind == _DELTA else "floatpred"
        found = _run(name, "encode", native, axis=-2)
        stored: bytes = found.astype(pixels.dtype).tobytes()
        return stored


class PackedBits(_Rows):
    """Elements of some bits, without gaps in a row, the highest bit first.

    Parameters
    ----------
    dtype, row, samples, cuts
        As of all that goes by rows.
    bits : int
        How many an element has.
    """

    name = "packed_bits"

    bits: int

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> PackedBits:
        """Return the codec with some parameters, each of them checked."""
        what = "bits of codec 'packed_bits'"
        bits = as_integer(parameters["bits"], what, minimum=1, maximum=_MAX_BITS)
        return cls(*cls.checked(parameters), bits)

    def _row_nbytes(self, *, stored: bool = False) -> int:
        """Return the size of a row, in memory or as it is stored."""
        return -(-self.row * self.samples * self.bits // 8) if stored else super()._row_nbytes()

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill `out` with the elements."""
        pixels = self._pixels(out)
        wanted = self._wanted(data, len(pixels) * self._row_nbytes(stored=True))
        run = self.row * self.samples
        found = _run("packints", "decode", wanted, pixels.dtype, self.bits, runlen=run)
        pixels[...] = found.reshape(pixels.shape)

    def encode(self, data: Buffer) -> Buffer:
        """Return the elements without gaps."""
        pixels = self._pixels(as_view(bytearray(data)))
        native = pixels.astype(pixels.dtype.newbyteorder("="))
        run = self.row * self.samples
        found: bytes = _run("packints", "encode", native.reshape(-1), self.bits, runlen=run)
        return found


class Jpeg(Value, BytesCodec):
    """JPEG of 8 bits, as tifffile decodes it.

    Parameters
    ----------
    row, samples : int
        How many pixels a row has, and elements a pixel.
    tables : str
        What all strips or tiles have in common, and leave out, in hexadecimal.
    colours, out_colours : {None, 1, 2}
        What imagecodecs is told of colours: those that are stored, and those that come out.
    """

    name = "jpeg"

    row: int
    samples: int
    tables: str
    colours: int | None
    out_colours: int | None

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Jpeg:
        """Return the codec with some parameters, each of them checked."""
        what = "of codec 'jpeg'"
        row = as_integer(parameters["row"], f"row {what}", minimum=1, maximum=2**16 - 1)
        samples = as_integer(parameters["samples"], f"samples {what}", minimum=1, maximum=4)
        tables = as_string(parameters["tables"], f"tables {what}")
        if not re.fullmatch("(?:[0-9a-f]{2})*", tables[: 2 * _MAX_TABLES_NBYTES + 1]):
            raise FormatError(f"tables {what} are {shown(tables)}; they must be hexadecimal")
        colours = parameters["colours"], parameters["out_colours"]
        if any(each not in _COLOURS or isinstance(each, bool) for each in colours):
            raise FormatError(f"colours {what} are {shown(colours)}; they must be in {_COLOURS}")
        return cls(row, samples, tables, *colours)

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return the elements, up to a number of bytes."""
        height, width = _jpeg_lengths(as_view(data))
        check_length(self.name, height * width * self.samples, limit_nbytes)
        out = bytearray(height * width * self.samples)
        self.decode_into(data, memoryview(out))
        return out

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill `out` with the elements."""
        import numpy as np

        # The library takes memory for as many pixels as the header says, before it looks at `out`.
        height, width = _jpeg_lengths(as_view(data))
        if width != self.row or height * width * self.samples != len(out):
            raise DamagedChunkError(
                f"jpeg expected to have {self.row} pixels in a row, and {len(out)} bytes, found"
                f" {height} rows of {width} pixels"
            )
        pixels = np.frombuffer(out, "u1").reshape(height, width, self.samples)
        _run(
            "jpeg",
            "decode",
            data,
            tables=bytes.fromhex(self.tables) or None,
            colorspace=self.colours,
            outcolorspace=self.out_colours,
            shape=(height, width),
            bitspersample=8,
            out=pixels if self.samples > 1 else pixels[..., 0],
        )

    def encode(self, data: Buffer) -> Buffer:
        """Return what JPEG makes of the elements: it changes them a little."""
        import numpy as np

        pixels = np.frombuffer(data, "u1").reshape(-1, self.row, self.samples)
        found: bytes = _run("jpeg", "encode", pixels if self.samples > 1 else pixels[..., 0])
        return found


def _jpeg_lengths(data: memoryview) -> tuple[int, int]:
    """Return how many rows a JPEG says that it has, and how many pixels a row."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            found = bytes(data[at + 5 : at + 9])
            return int.from_bytes(found[:2], "big"), int.from_bytes(found[2:], "big")
        # What may stand between markers, or has no length.
        is_bare = kind == 0xFF or kind in (0x01, *range(0xD0, 0xDA))
        at += 1 if kind == 0xFF else 2
        at += 0 if is_bare else int.from_bytes(data[at : at + 2], "big")
    raise DamagedChunkError("jpeg expected to say how many pixels it has, found nothing of it")
