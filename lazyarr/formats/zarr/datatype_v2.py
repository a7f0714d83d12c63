"""Data types as NumPy and Zarr v2 spell them: type strings, and lists of fields.

Source: zarr-specs v2, "data type encoding"; NumPy's array interface, version 3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lazyarr.checks import as_list, as_shape, as_string, shown
from lazyarr.errors import FormatError
from lazyarr.formats.zarr.datatype_v3 import struct_type, time_typestr
from lazyarr.layout.datatype import ML_NAMES, DataType, Field

if TYPE_CHECKING:
    import numpy

__all__ = ["data_type_from_numpy", "parse_v2_data_type"]

_SIZES: Mapping[str, tuple[int, ...]] = {
    "b": (1,),
    "i": (1, 2, 4, 8),
    "u": (1, 2, 4, 8),
    "f": (2, 4, 8),
    "c": (8, 16),
}
_STEMS = {"i": "int", "u": "uint", "f": "float", "c": "complex"}
_MAX_STRUCT_DEPTH = 16
# Of an element, in bytes: parsing makes one of the fill value, however short its text.
_MAX_ITEMSIZE = 2**24


def parse_v2_data_type(value: object, *, depth: int = 0) -> DataType:
    """Return the data type that a ``.zarray`` names, with the byte order it says.

    Raises
    ------
    FormatError
        The type is not known, holds Python objects, or has elements of no size.

    Examples
    --------
    >>> parse_v2_data_type(">i2")
    DataType(name='int16', itemsize=2, typestr='>i2', fields=())
    """
    if isinstance(value, list):
        return _parse_fields(value, depth)
    typestr = as_string(value, "dtype")
    if typestr in ML_NAMES:
        return DataType(typestr, ML_NAMES[typestr], typestr)
    if typestr[1:2] == "O":
        raise FormatError(
            f"dtype {shown(typestr)} has elements of variable length;"
            " only elements of a fixed size can be mapped: read it with zarr-python"
        )
    match = re.fullmatch(r"([<>|=])([biufcmMSUV])([0-9]{1,10})(?:\[([0-9]{0,9})(\w+)\])?", typestr)
    if match is None:
        raise FormatError(f"dtype {shown(typestr)} is not known; it must be like '<f4' or '|S10'")
    order, kind, digits, factor, unit = match.groups()
    return _scalar("<" if order in "|=" else order, kind, int(digits), (unit, int(factor or 1)))


def _scalar(order: str, kind: str, size: int, unit: tuple[str | None, int]) -> DataType:
    if kind in "Mm" and size == 8:
        name = "numpy.datetime64" if kind == "M" else "numpy.timedelta64"
        typestr = time_typestr(name, unit[0] or "generic", unit[1])
        return DataType(name, 8, order + typestr[1:])
    if kind in "SVU":
        return _text(order, kind, size)
    if size not in _SIZES.get(kind, ()) or unit[0] is not None:
        raise FormatError(f"dtype '{order}{kind}{size}' is not known; Zarr has no such type")
    name = "bool" if kind == "b" else f"{_STEMS[kind]}{8 * size}"
    return DataType(name, size, f"{'|' if size == 1 else order}{kind}{size}")


def _text(order: str, kind: str, size: int) -> DataType:
    nbytes = 4 * size if kind == "U" else size
    if not 1 <= nbytes <= _MAX_ITEMSIZE:
        raise FormatError(f"dtype '{kind}{size}' has {nbytes} bytes; elements have at least one")
    if kind == "U":
        return DataType("fixed_length_utf32", nbytes, f"{order}U{size}")
    name = "null_terminated_bytes" if kind == "S" else "raw_bytes"
    return DataType(name, nbytes, f"|{kind}{size}")


def _parse_fields(value: list[Any], depth: int) -> DataType:
    if depth >= _MAX_STRUCT_DEPTH:
        raise FormatError(f"dtype nests deeper than {_MAX_STRUCT_DEPTH} structs; flatten it")
    members = []
    for member in value:
        parts = as_list(member, "a field of dtype")
        if len(parts) not in (2, 3):
            raise FormatError(f"a field of dtype is {shown(parts)}; it must be [name, type, shape]")
        shape = as_shape(parts[2], "the shape of a field", minimum=1) if len(parts) == 3 else ()
        dtype = parse_v2_data_type(parts[1], depth=depth + 1)
        members.append(Field(as_string(parts[0], "the name of a field"), dtype, shape))
    return struct_type(tuple(members))


def data_type_from_numpy(dtype: numpy.dtype[Any]) -> DataType:
    """Return the data type of a NumPy array, little endian whatever order that has.

    Parameters
    ----------
    dtype : numpy.dtype
        What `array.dtype` is.

    Raises
    ------
    FormatError
        Zarr cannot hold it: objects, long doubles, structs with gaps.

    Examples
    --------
    >>> import numpy
    >>> data_type_from_numpy(numpy.dtype(">u2"))
    DataType(name='uint16', itemsize=2, typestr='<u2', fields=())
    """
    if dtype.fields is not None:
        return _from_fields(dtype)
    if dtype.name in ML_NAMES:
        return DataType(dtype.name, dtype.itemsize, dtype.name)
    return parse_v2_data_type(dtype.str).with_byte_order("<")


def _from_fields(dtype: numpy.dtype[Any]) -> DataType:
    assert dtype.fields is not None
    assert dtype.names is not None
    members = []
    for name in dtype.names:
        member = dtype.fields[name][0]
        members.append(Field(name, data_type_from_numpy(member.base), member.shape))
    packed = struct_type(tuple(members))
    if packed.to_numpy() != dtype.newbyteorder("<"):
        raise FormatError(
            f"dtype {shown(dtype)} has gaps between its fields;"
            " repack it with numpy.lib.recfunctions.repack_fields"
        )
    return packed
