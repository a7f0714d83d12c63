"""Fill values on their way out: from a Python value to bytes, from bytes to JSON."""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

from lazyarr.checks import shown
from lazyarr.errors import FormatError
from lazyarr.formats.zarr.fillvalue import NAT, parse_fill
from lazyarr.layout.datatype import DataType

__all__ = ["encode_fill", "fill_document"]

_FLOAT_CODES = {2: "e", 4: "f", 8: "d"}  # of struct, by the size in bytes


def encode_fill(dtype: DataType, value: Any) -> bytes:
    """Return one element that holds a Python or NumPy value.

    Zero and None stand for "all bits zero" with every data type, strings and
    structs included.

    Raises
    ------
    FormatError
        The data type cannot hold the value.

    Examples
    --------
    >>> encode_fill(DataType("int16", 2, "<i2"), -2).hex()
    'feff'
    """
    if value is None or (isinstance(value, int) and value == 0):
        return bytes(dtype.itemsize)
    import numpy

    if isinstance(value, numpy.generic | numpy.ndarray) and value.dtype.kind in "biufc":
        value = value.item()
    try:
        with numpy.errstate(over="ignore"):
            element = numpy.array(value, dtype=dtype.to_numpy())
        # NumPy cuts 1.5 to 1 and "abc" to "ab" without a word.
        is_exact = dtype.kind not in ("b", "i", "u", "U", "S") or bool(element[()] == value)
    except (TypeError, ValueError, OverflowError) as error:
        raise _refusal(dtype, value) from error
    if not is_exact or element.shape:
        raise _refusal(dtype, value)
    return element.tobytes()


def _refusal(dtype: DataType, value: object) -> FormatError:
    return FormatError(
        f"fill_value is {shown(value)}, which data_type {dtype.name!r} cannot hold;"
        " give one that it can"
    )


def fill_document(dtype: DataType, element: bytes) -> Any:
    """Return the JSON value of one element, such that `parse_fill` gives the same bits.

    Examples
    --------
    >>> fill_document(DataType("float32", 4, "<f4"), bytes.fromhex("0000c07f"))
    'NaN'
    """
    order, kind = (">" if dtype.byte_order == ">" else "<"), dtype.kind
    if kind == "b":
        return element != b"\0"
    if kind in ("i", "u", "M", "m"):
        number = int.from_bytes(element, "big" if order == ">" else "little", signed=kind != "u")
        return "NaT" if kind in ("M", "m") and number == NAT else number
    if kind == "f":
        return _float_document(order, element)
    if kind == "c":
        half = len(element) // 2
        return [_float_document(order, element[:half]), _float_document(order, element[half:])]
    return _other_document(dtype, element, order)


def _float_document(order: str, element: bytes) -> Any:
    """Return the JSON value of a binary float: a number, a name, or the bits of an odd NaN."""
    format_code = order + _FLOAT_CODES[len(element)]
    (number,) = struct.unpack(format_code, element)
    if math.isfinite(number):
        return number
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    if struct.pack(format_code, math.nan) == element:
        return "NaN"
    return "0x" + (element if order == ">" else element[::-1]).hex()


def _other_document(dtype: DataType, element: bytes, order: str) -> Any:
    """Return the JSON value of what is no number: strings, raw bytes, structs; and of ml_dtypes."""
    if dtype.kind == "U":
        return element.decode("utf-32-be" if order == ">" else "utf-32-le").rstrip("\0")
    if dtype.kind == "S":
        return base64.b64encode(element.rstrip(b"\0")).decode("ascii")
    if dtype.kind == "V":
        return list(element)
    if dtype.kind == "ml":
        return _ml_document(dtype, element)
    members, start = {}, 0
    for name, member, _shape in dtype.fields:
        stop = start + member.itemsize
        members[name] = fill_document(member, element[start:stop])
        start = stop
    return members


def _ml_document(dtype: DataType, element: bytes) -> Any:
    """Return the JSON value of a float of ml_dtypes; its bits where no other means the same."""
    import numpy

    number = float(numpy.frombuffer(element, dtype=dtype.to_numpy())[0])
    json_value = number if math.isfinite(number) else "NaN" if math.isnan(number) else None
    if json_value is None:
        json_value = "Infinity" if number > 0 else "-Infinity"
    # Not every NaN is the usual one, and float8_e4m3fn has no infinity.
    is_exact = parse_fill(dtype, json_value) == element
    return json_value if is_exact else "0x" + element[::-1].hex()
