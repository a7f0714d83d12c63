"""Numbers packed into fewer bits: HDF5's filters scale-offset and nbit, and narrow integers.

Sources: HDF5 File Format Specification 3.0, IV.A.2.l and its appendices; H5Zscaleoffset.c and
H5Znbit.c of HDF5 1.14 and 2.0.  Both filters write elements one after the other, without a gap,
each with its highest bit first, whatever the byte order of the elements is.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

from lazyarr.checks import MAX_NBYTES, as_integer, shown
from lazyarr.codecs.base import Buffer, BytesCodec, as_view, check_length
from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.errors import FormatError
from lazyarr.values import Value

if TYPE_CHECKING:
    import numpy as np

__all__ = ["NarrowIntegers", "Nbit", "ScaleOffset"]

# The number of bits; how many of the next bytes are the smallest value; that value.  The header
# has 21 bytes, of which the last 8 mean nothing.
_HEADER = struct.Struct("<IB8s8x")

_SEVERAL_BYTES = ("i2", "i4", "i8", "u2", "u4", "u8")
_INTEGERS = ("|i1", "|u1", *(order + kind for kind in _SEVERAL_BYTES for order in "<>"))
_NUMBERS = (*_INTEGERS, "<f4", ">f4", "<f8", ">f8")
_MAX_SCALE = 2**31


class ScaleOffset(Value, BytesCodec):
    """Differences from the smallest element of a chunk, in as many bits as the largest needs.

    Floating-point numbers are multiplied by a power of ten first, and rounded.  Elements that are
    the fill value have all bits set.

    Parameters
    ----------
    dtype : str
        The elements, as NumPy writes their type.
    elements : int
        How many a chunk has.
    decimals : int
        By which power of ten floating-point numbers were multiplied.
    fill : str or None
        The fill value, as hexadecimal digits in little-endian order; None where elements have none.
    """

    name = "scale_offset"

    dtype: str
    elements: int
    decimals: int
    fill: str | None

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> ScaleOffset:
        """Return the codec with some parameters, each of them checked."""
        dtype = _checked_type(parameters, cls.name, _NUMBERS)
        what = "decimals of codec 'scale_offset'"
        decimals = as_integer(
            parameters["decimals"], what, minimum=-_MAX_SCALE, maximum=_MAX_SCALE - 1
        )
        fill = parameters["fill"]
        if fill is not None:
            try:
                is_element = len(bytes.fromhex(fill)) == _size(dtype)
            except (TypeError, ValueError):
                is_element = False
            if not is_element:
                raise FormatError(
                    f"fill of codec 'scale_offset' is {shown(fill)}; it must be the"
                    f" {_size(dtype)} bytes of an element, in hexadecimal digits"
                )
        return cls(dtype, _checked_count(parameters, cls.name, dtype), decimals, fill)

    @property
    def _nbytes(self) -> int:
        return self.elements * _size(self.dtype)

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return the elements, if they are no more than a number of bytes."""
        check_length(self.name, self._nbytes, limit_nbytes)
        out = bytearray(self._nbytes)
        self.decode_into(data, memoryview(out))
        return out

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill `out` with the elements, which must be just as many."""
        import numpy as np

        view = as_view(data)
        n_bits = self._check(view, len(out))
        size = _size(self.dtype)
        elements = np.frombuffer(out, f"{self.dtype[0]}u{size}")
        packed = view[_HEADER.size :]
        if n_bits == 8 * size:
            elements[...] = np.frombuffer(packed[: self._nbytes], f"<u{size}")
            return
        _, n_kept, least = _HEADER.unpack_from(view)
        # Integers are added to the smallest one modulo the size of the type, also signed ones.
        minimum = np.frombuffer(least[:n_kept].ljust(8, b"\0"), f"<u{size}")[0]
        unpacked = _unpack(packed, self.elements, n_bits, size)
        with np.errstate(all="ignore"):
            if self.dtype[1] == "f":
                values = self._scaled(unpacked, minimum).view(f"u{size}")
            else:
                values = unpacked + minimum.astype(unpacked.dtype)
        if self.fill is not None:
            fill = np.frombuffer(bytes.fromhex(self.fill), f"<u{size}")[0]
            values[unpacked == (1 << n_bits) - 1] = fill
        elements[...] = values

    def _scaled(self, unpacked: np.ndarray[Any, Any], minimum: Any) -> np.ndarray[Any, Any]:
        """Return floating-point numbers, computed in their own precision, as HDF5 does."""
        import numpy as np

        try:
            power = math.pow(10.0, self.decimals)
        except OverflowError:
            power = math.inf
        dtype = np.dtype(f"f{_size(self.dtype)}")
        numbers: np.ndarray[Any, Any] = unpacked.astype(dtype) / dtype.type(power)
        numbers += minimum.astype(f"u{dtype.itemsize}").view(dtype)
        return numbers

    def _check(self, data: memoryview, out_nbytes: int) -> int:
        """Return how many bits an element has, if all of them are there."""
        if out_nbytes != self._nbytes:
            raise DamagedChunkError(
                f"chunk expected to have {out_nbytes} bytes, found {self._nbytes} in"
                f" {self.elements} elements of scale_offset"
            )
        found = _HEADER.size
        n_bits = _HEADER.unpack_from(data)[0] if len(data) >= _HEADER.size else 0
        if n_bits > 8 * _size(self.dtype):
            raise DamagedChunkError(
                f"scale_offset elements of up to {8 * _size(self.dtype)} bits expected, found"
                f" {n_bits}"
            )
        found += -(-self.elements * n_bits // 8)
        if len(data) < found:
            raise DamagedChunkError(
                f"scale_offset content expected in {found} bytes, found {len(data)}"
            )
        return int(n_bits)

    def encode(self, data: Buffer) -> Buffer:
        """Return the elements with all of their bits, which is one of the ways to store them."""
        import numpy as np

        size = _size(self.dtype)
        elements = np.frombuffer(data, f"{self.dtype[0]}u{size}").astype(f"<u{size}")
        return _HEADER.pack(8 * size, 8, bytes(8)) + elements.tobytes()


class Nbit(Value, BytesCodec):
    """Elements without the bits that mean nothing.

    Parameters
    ----------
    dtype : str
        Unsigned integers of the size and byte order of elements, as NumPy writes their type.
    elements : int
        How many a chunk has.
    precision, offset : int
        How many bits of an element mean something, and how many are below these.
    """

    name = "nbit"

    dtype: str
    elements: int
    precision: int
    offset: int

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Nbit:
        """Return the codec with some parameters, each of them checked."""
        dtype = _checked_type(parameters, cls.name, _INTEGERS)
        count = _checked_count(parameters, cls.name, dtype)
        return cls(dtype, count, *_checked_bits(parameters, cls.name, dtype))

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return the elements, if they are no more than a number of bytes."""
        nbytes = self.elements * _size(self.dtype)
        check_length(self.name, nbytes, limit_nbytes)
        out = bytearray(nbytes)
        self.decode_into(data, memoryview(out))
        return out

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill `out` with the elements, which must be just as many."""
        import numpy as np

        view, size = as_view(data), _size(self.dtype)
        expected = -(-self.elements * self.precision // 8)
        if len(view) < expected or len(out) != self.elements * size:
            raise DamagedChunkError(
                f"nbit content expected to have {expected} bytes, and {len(out)} when it is"
                f" unpacked, found {len(view)} and {self.elements * size}"
            )
        unpacked = _unpack(view, self.elements, self.precision, size)
        unpacked <<= unpacked.dtype.type(self.offset)
        np.frombuffer(out, f"{self.dtype[0]}u{size}")[...] = unpacked

    def encode(self, data: Buffer) -> Buffer:
        """Return the bits that mean something, one element after the other."""
        import numpy as np

        size = _size(self.dtype)
        elements = np.frombuffer(data, f"{self.dtype[0]}u{size}").astype(f">u{size}")
        bits = np.unpackbits(elements.view("u1").reshape(-1, size), axis=1)
        stop = 8 * size - self.offset
        return np.packbits(bits[:, stop - self.precision : stop]).tobytes()


class NarrowIntegers(Value, BytesCodec):
    """Integers of which only some bits mean something, in memory as NumPy has them.

    Parameters
    ----------
    dtype : str
        The integers, as NumPy writes their type.
    precision, offset : int
        How many bits of a stored integer mean something, and how many are below these.
    """

    name = "narrow_integers"

    dtype: str
    precision: int
    offset: int

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> NarrowIntegers:
        """Return the codec with some parameters, each of them checked."""
        dtype = _checked_type(parameters, cls.name, _INTEGERS)
        return cls(dtype, *_checked_bits(parameters, cls.name, dtype))

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return the integers with all of their bits."""
        check_length(self.name, len(as_view(data)), limit_nbytes)
        out = bytearray(len(as_view(data)))
        self.decode_into(data, memoryview(out))
        return out

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill `out` with the integers with all of their bits."""
        import numpy as np

        view, size = as_view(data), _size(self.dtype)
        if len(view) != len(out) or len(view) % size:
            raise DamagedChunkError(
                f"chunk expected to have {len(out)} bytes, of integers of {size}, found {len(view)}"
            )
        stored = np.frombuffer(view, f"{self.dtype[0]}u{size}").astype(f"u{size}")
        stored <<= stored.dtype.type(8 * size - self.precision - self.offset)
        # Of signed integers this copies the sign into the bits above.
        integers = stored.view(self.dtype[1:])
        integers >>= integers.dtype.type(8 * size - self.precision)
        np.frombuffer(out, self.dtype)[...] = integers

    def encode(self, data: Buffer) -> Buffer:
        """Return the integers without the bits that mean nothing."""
        import numpy as np

        size = _size(self.dtype)
        integers = np.frombuffer(data, f"{self.dtype[0]}u{size}").astype(f"u{size}")
        integers &= integers.dtype.type((1 << self.precision) - 1)
        integers <<= integers.dtype.type(self.offset)
        return integers.astype(f"{self.dtype[0]}u{size}").tobytes()


def _size(dtype: str) -> int:
    return int(dtype[2:])


def _checked_type(parameters: dict[str, Any], name: str, known: tuple[str, ...]) -> str:
    dtype = parameters["dtype"]
    if dtype not in known:
        raise FormatError(f"dtype of codec {name!r} is {shown(dtype)}; it must be one of {known}")
    return str(dtype)


def _checked_count(parameters: dict[str, Any], name: str, dtype: str) -> int:
    what = f"elements of codec {name!r}"
    return as_integer(parameters["elements"], what, maximum=MAX_NBYTES // _size(dtype))


def _checked_bits(parameters: dict[str, Any], name: str, dtype: str) -> tuple[int, int]:
    """Return how many bits mean something, and how many are below these."""
    n_bits = 8 * _size(dtype)
    precision = as_integer(
        parameters["precision"], f"precision of codec {name!r}", minimum=1, maximum=n_bits
    )
    what = f"offset of codec {name!r}"
    return precision, as_integer(parameters["offset"], what, maximum=n_bits - precision)


def _unpack(data: memoryview, count: int, n_bits: int, size: int) -> np.ndarray[Any, Any]:
    """Return numbers of some bits that lie one after the other, each with its highest bit first.

    Parameters
    ----------
    data : memoryview
        At least as many bytes as they take.
    count : int
        How many there are.
    n_bits : int
        Of each of them, up to those of `size` bytes.
    size : int
        How many bytes an element of the result has.
    """
    import numpy as np

    unsigned = np.dtype(f"u{size}")
    found = np.zeros(count, unsigned)
    if not n_bits:
        return found
    # Eight numbers take `n_bits` bytes.  So each of the eight begins at the same bit of every row
    # of so many bytes, and the numbers of a column are put together by a few operations.
    n_rows = -(-count // 8)
    rows = np.frombuffer(data, "u1", min(len(data), n_rows * n_bits))
    if rows.size < n_rows * n_bits:
        rows = np.pad(rows, (0, n_rows * n_bits - rows.size))
    rows = rows.reshape(n_rows, n_bits)
    for column in range(min(8, count)):
        start, stop = column * n_bits, (column + 1) * n_bits
        first, last = start // 8, (stop - 1) // 8
        numbers = (rows[:, first] & (0xFF >> start % 8)).astype(unsigned)
        # A number may reach into a ninth byte.  Its lowest bits alone are shifted in.
        n_behind = 8 * (last + 1) - stop
        for byte in range(first + 1, last):
            numbers = numbers << unsigned.type(8) | rows[:, byte]
        if last > first:
            numbers = numbers << unsigned.type(8 - n_behind) | rows[:, last] >> n_behind
        else:
            numbers >>= unsigned.type(n_behind)
        found[column::8] = numbers[: len(found[column::8])]
    return found
