"""Fill values as a document spells them, to the bytes of one element.

Sources: zarr-specs v3.1 "data types" (numbers, NaN, hexadecimal bit patterns, complex
pairs, raw bits); zarr-extensions "struct" (an object by field); zarr-python and
zarr-specs v2 (base64 for byte strings and structs).
"""

from __future__ import annotations

import math
import re
import struct
from typing import Literal

from lazyarr.checks import as_integer, as_list, as_string, shown
from lazyarr.errors import FormatError
from lazyarr.layout.datatype import DataType

__all__ = ["NAMED_FLOATS", "NAT", "parse_fill", "parse_fill_head"]

_NUMBER = re.compile(
    r"\s*[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|nan|inf(inity)?)\s*",
    re.ASCII | re.IGNORECASE,
)

NAMED_FLOATS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
NAT = -(2**63)
"""NumPy's "not a time", for dates and durations."""
_LETTERS = {2: "e", 4: "f", 8: "d"}
_MAX_STRUCT_NBYTES = 2**16


def parse_fill(dtype: DataType, value: object) -> bytes:
    """Return one element that holds a fill value, in the data type's byte order.

    Parameters
    ----------
    dtype : DataType
        The array's data type.
    value : object
        The fill value as JSON has it.

    Raises
    ------
    FormatError
        The value is not one of this data type.

    Examples
    --------
    >>> parse_fill(DataType("int16", 2, "<i2"), -2).hex()
    'feff'
    >>> parse_fill(DataType("float32", 4, "<f4"), "0x7fc00001").hex()
    '0100c07f'
    """
    return parse_fill_head(dtype, value).ljust(dtype.itemsize, b"\0")


def parse_fill_head(dtype: DataType, value: object) -> bytes:
    """Return what `parse_fill` does without the zeros that it ends with.

    It is about as long as the document, however large an element that says it has.
    """
    return _PARSERS[dtype.kind](dtype, value).rstrip(b"\0")


def _order(dtype: DataType) -> str:
    return ">" if dtype.byte_order == ">" else "<"


def _endian(dtype: DataType) -> Literal["little", "big"]:
    return "big" if dtype.byte_order == ">" else "little"


def _refuse(dtype: DataType, value: object, expected: str) -> FormatError:
    return FormatError(
        f"fill_value of data_type {dtype.name!r} is {shown(value)}; it must be {expected}"
    )


def _parse_bool(dtype: DataType, value: object) -> bytes:
    # Zarr v2 writers spell it 0 and 1 too; some write null, as for "none", in v3 as well.
    if value is None:
        return b"\0"
    if value not in (False, True):
        raise _refuse(dtype, value, "true or false")
    return b"\1" if value else b"\0"


def _unquoted(value: object) -> object:
    """Return a number that is written as text, as n5-zarr writes it; what is none as it is."""
    if not isinstance(value, str) or _NUMBER.fullmatch(value) is None:
        return value
    try:
        return int(value)
    except ValueError:
        return float(value)


def _parse_int(dtype: DataType, value: object) -> bytes:
    value = _unquoted(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    signed = dtype.kind == "i"
    nbits = 8 * dtype.itemsize - signed
    number = as_integer(
        value,
        f"fill_value of data_type {dtype.name!r}",
        minimum=-(2**nbits) if signed else 0,
        maximum=2**nbits - 1,
    )
    return number.to_bytes(dtype.itemsize, _endian(dtype), signed=signed)


def _parse_float(dtype: DataType, value: object) -> bytes:
    return _float_bytes(dtype, _unquoted(value), dtype.itemsize)


def _parse_complex(dtype: DataType, value: object) -> bytes:
    if not isinstance(value, list):
        value = [value, 0.0]  # zarr-python writes a plain number for a real one in v2
    if len(value) != 2:
        raise _refuse(dtype, value, "[real, imaginary]")
    return b"".join(_float_bytes(dtype, part, dtype.itemsize // 2) for part in value)


def _float_bytes(dtype: DataType, value: object, nbytes: int) -> bytes:
    order = _order(dtype)
    if isinstance(value, str) and value.startswith("0x"):
        bits = _parse_bits(dtype, value, nbytes)
        return bits.to_bytes(nbytes, _endian(dtype))
    number = _parse_number(dtype, value)
    try:
        return struct.pack(order + _LETTERS[nbytes], number)
    except OverflowError:  # beyond the largest: the nearest value is infinite
        return struct.pack(order + _LETTERS[nbytes], math.copysign(math.inf, number))


def _parse_bits(dtype: DataType, value: str, nbytes: int) -> int:
    digits = value[2:]
    if len(digits) != 2 * nbytes or not all(c in "0123456789abcdefABCDEF" for c in digits):
        raise _refuse(dtype, value, f"0x and {2 * nbytes} hexadecimal digits")
    return int(digits, 16)


def _parse_number(dtype: DataType, value: object) -> float:
    if isinstance(value, str) and value in NAMED_FLOATS:
        return NAMED_FLOATS[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _refuse(dtype, value, "a number, 'NaN', 'Infinity', '-Infinity' or '0x...'")
    try:
        return float(value)
    except OverflowError as error:
        raise _refuse(dtype, value, "a number that a double can hold") from error


def _parse_ml(dtype: DataType, value: object) -> bytes:
    if isinstance(value, str) and value.startswith("0x"):
        return _parse_bits(dtype, value, dtype.itemsize).to_bytes(dtype.itemsize, "little")
    number = _parse_number(dtype, value)
    if number == 0 and math.copysign(1, number) > 0 and dtype.name != "float8_e8m0fnu":
        return bytes(dtype.itemsize)  # the usual case needs no ml_dtypes
    import numpy

    with numpy.errstate(all="ignore"):
        return numpy.asarray(number, dtype="f8").astype(dtype.to_numpy()).tobytes()


def _parse_time(dtype: DataType, value: object) -> bytes:
    number = NAT if value == "NaT" else value
    count = as_integer(number, f"fill_value of {dtype.name!r}", minimum=NAT, maximum=2**63 - 1)
    return struct.pack(_order(dtype) + "q", count)


def _parse_text(dtype: DataType, value: object) -> bytes:
    if value == 0 and not isinstance(value, bool):
        return b""
    text = as_string(value, f"fill_value of {dtype.name!r}")
    try:
        encoded = text.encode("utf-32-be" if _order(dtype) == ">" else "utf-32-le")
    except UnicodeEncodeError as error:
        raise _refuse(dtype, value, "valid Unicode") from error
    return _fitting(dtype, encoded, value)


def _parse_opaque(dtype: DataType, value: object) -> bytes:
    if isinstance(value, list):
        parts = as_list(value, f"fill_value of {dtype.name!r}")
        encoded = bytes(as_integer(part, "a byte of fill_value", maximum=255) for part in parts)
        if len(encoded) != dtype.itemsize:
            raise _refuse(dtype, value, f"a list of {dtype.itemsize} bytes")
        return encoded
    return _parse_base64(dtype, value)


def _parse_base64(dtype: DataType, value: object) -> bytes:
    if value == 0 and not isinstance(value, bool):  # numcodecs-era writers: all bits zero
        return b""
    # Imported here: numbers are not written so.
    import base64

    text = as_string(value, f"fill_value of {dtype.name!r}")
    try:
        encoded = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise _refuse(dtype, value, "base64") from error
    return _fitting(dtype, encoded, value)


def _fitting(dtype: DataType, encoded: bytes, value: object) -> bytes:
    if len(encoded) > dtype.itemsize:
        raise _refuse(dtype, value, f"at most {dtype.itemsize} bytes")
    return encoded


def _parse_struct(dtype: DataType, value: object) -> bytes:
    if not isinstance(value, dict):
        return _parse_base64(dtype, value)
    if dtype.itemsize > _MAX_STRUCT_NBYTES:
        raise _refuse(dtype, value, f"base64 where it has more than {_MAX_STRUCT_NBYTES} bytes")
    names = {member.name for member in dtype.fields}
    if set(value) != names:
        raise _refuse(dtype, value, f"an object with the members {shown(sorted(names))}")
    parts = []
    for name, member, shape in dtype.fields:
        count = math.prod(shape)
        parts.append(parse_fill(member, value[name]) * count)
    return b"".join(parts)


_PARSERS = {
    "b": _parse_bool,
    "i": _parse_int,
    "u": _parse_int,
    "f": _parse_float,
    "c": _parse_complex,
    "M": _parse_time,
    "m": _parse_time,
    "U": _parse_text,
    "S": _parse_opaque,
    "V": _parse_opaque,
    "ml": _parse_ml,
    "struct": _parse_struct,
}
