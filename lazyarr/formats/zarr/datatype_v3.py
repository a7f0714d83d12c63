"""Data types as Zarr v3 spells them, to and from `DataType`.

Sources: zarr-specs v3.1 "data types"; zarr-extensions "data-types" (numpy.datetime64,
numpy.timedelta64, struct, bfloat16, float8); zarr-python 3 for fixed_length_utf32,
null_terminated_bytes, raw_bytes and structured, which no document specifies.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from lazyarr.checks import (
    as_configuration,
    as_integer,
    as_list,
    as_object,
    as_string,
    refuse_unknown,
    shown,
)
from lazyarr.errors import FormatError
from lazyarr.layout.datatype import ML_NAMES, DataType, Field

__all__ = ["data_type_document", "parse_data_type", "struct_type", "time_typestr"]

_TYPESTRS: Mapping[str, str] = {
    "bool": "|b1",
    "int8": "|i1",
    "int16": "<i2",
    "int32": "<i4",
    "int64": "<i8",
    "uint8": "|u1",
    "uint16": "<u2",
    "uint32": "<u4",
    "uint64": "<u8",
    "float16": "<f2",
    "float32": "<f4",
    "float64": "<f8",
    "complex64": "<c8",
    "complex128": "<c16",
}
_ALIASES: Mapping[str, str] = {
    "complex_float32": "complex64",
    "complex_float64": "complex128",
    "structured": "struct",
}
_UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "generic")
_UNIT_ALIASES = {"μs": "us", "µs": "us"}
_VARIABLE = ("string", "bytes", "variable_length_utf8", "variable_length_bytes", "vlen-ndarray")
# Of an element, in bytes: parsing makes one of the fill value, however short its text.
_MAX_ITEMSIZE = 2**24
_MAX_STRUCT_DEPTH = 16


def parse_data_type(value: object, *, depth: int = 0) -> DataType:
    """Return the little-endian data type that a v3 document names.

    Raises
    ------
    FormatError
        The type is not known, has elements of variable length, or its
        configuration is not what its specification says.

    Examples
    --------
    >>> parse_data_type("float32")
    DataType(name='float32', itemsize=4, typestr='<f4', fields=())
    """
    name, configuration = as_configuration(value, "data_type")
    name = _ALIASES.get(name, name)
    parser = _PARSERS.get(name)
    if parser is not None:
        return parser(name, configuration, depth)
    refuse_unknown(configuration, (), f"data_type {name!r}")
    if name in _TYPESTRS:
        typestr = _TYPESTRS[name]
        return DataType(name, int(typestr[2:]), typestr)
    if name in ML_NAMES:
        return DataType(name, ML_NAMES[name], name)
    if re.fullmatch(r"r[1-9][0-9]{0,10}", name):
        return _parse_raw_bits(name)
    if name in _VARIABLE:
        raise FormatError(
            f"data_type {name!r} has elements of variable length;"
            " only elements of a fixed size can be mapped: read it with zarr-python"
        )
    raise FormatError(
        f"data_type {shown(name)} is not known; read it with the library that wrote it"
    )


def _parse_raw_bits(name: str) -> DataType:
    nbits = int(name[1:])
    if nbits % 8:
        raise FormatError(f"data_type {name!r} is no whole number of bytes; use a multiple of 8")
    nbytes = as_integer(nbits // 8, f"the size of data_type {name!r}", maximum=_MAX_ITEMSIZE)
    return DataType(name, nbytes, f"|V{nbytes}")


def _parse_time(name: str, configuration: dict[str, Any], _depth: int) -> DataType:
    refuse_unknown(configuration, ("unit", "scale_factor"), f"data_type {name!r}")
    unit = as_string(configuration.get("unit"), f"the unit of {name!r}")
    factor = as_integer(
        configuration.get("scale_factor"),
        f"the scale_factor of {name!r}",
        minimum=1,
        maximum=2**31 - 1,
    )
    return DataType(name, 8, time_typestr(name, unit, factor))


def time_typestr(name: str, unit: str, factor: int) -> str:
    """Return NumPy's string of a date or a duration in multiples of some unit."""
    unit = _UNIT_ALIASES.get(unit, unit)
    if unit not in _UNITS:
        raise FormatError(f"data_type {name!r} has the unit {shown(unit)}; NumPy has {_UNITS}")
    letter = "M" if name == "numpy.datetime64" else "m"
    if unit == "generic":
        return f"<{letter}8"
    return f"<{letter}8[{factor if factor != 1 else ''}{unit}]"


def _parse_fixed_length(name: str, configuration: dict[str, Any], _depth: int) -> DataType:
    refuse_unknown(configuration, ("length_bytes",), f"data_type {name!r}")
    nbytes = as_integer(
        configuration.get("length_bytes"),
        f"length_bytes of data_type {name!r}",
        minimum=1,
        maximum=_MAX_ITEMSIZE,
    )
    if name == "fixed_length_utf32":
        if nbytes % 4:
            raise FormatError(
                f"length_bytes of data_type {name!r} is {nbytes}; it must be a multiple of 4"
            )
        return DataType(name, nbytes, f"<U{nbytes // 4}")
    return DataType(name, nbytes, f"|{'S' if name == 'null_terminated_bytes' else 'V'}{nbytes}")


def _parse_struct(name: str, configuration: dict[str, Any], depth: int) -> DataType:
    if depth >= _MAX_STRUCT_DEPTH:
        raise FormatError(f"data_type {name!r} nests deeper than {_MAX_STRUCT_DEPTH}; flatten it")
    refuse_unknown(configuration, ("fields",), f"data_type {name!r}")
    members = []
    for member in as_list(configuration.get("fields"), f"the fields of data_type {name!r}"):
        # zarr-extensions has objects, zarr-python up to 3.1 has pairs.
        if isinstance(member, list) and len(member) == 2:
            label, spelled = member
        else:
            members_of = as_object(member, f"a field of data_type {name!r}")
            refuse_unknown(members_of, ("name", "data_type"), f"a field of data_type {name!r}")
            label, spelled = members_of.get("name"), members_of.get("data_type")
        label = as_string(label, f"the name of a field of data_type {name!r}")
        members.append(Field(label, parse_data_type(spelled, depth=depth + 1)))
    return struct_type(tuple(members))


def struct_type(members: tuple[Field, ...]) -> DataType:
    """Return the data type of some members that follow each other without gaps.

    Those without a name fill a gap; they get NumPy's names for them: ``f0``, ``f1`` and so on.
    """
    members = tuple(m._replace(name=m.name or f"f{n}") for n, m in enumerate(members))
    names = [member.name for member in members]
    if not names or len(set(names)) != len(names):
        raise FormatError(f"a struct has the fields {shown(names)}; each needs a name of its own")
    nbytes = 0
    for member in members:
        size = member.dtype.itemsize
        for length in member.shape:
            size *= length
        nbytes += size
    as_integer(nbytes, "the size of a struct", minimum=1, maximum=_MAX_ITEMSIZE)
    return DataType("struct", nbytes, f"|V{nbytes}", members)


_PARSERS: Mapping[str, Callable[[str, dict[str, Any], int], DataType]] = {
    "numpy.datetime64": _parse_time,
    "numpy.timedelta64": _parse_time,
    "fixed_length_utf32": _parse_fixed_length,
    "null_terminated_bytes": _parse_fixed_length,
    "raw_bytes": _parse_fixed_length,
    "struct": _parse_struct,
}


def data_type_document(dtype: DataType) -> Any:
    """Return the JSON value that names a data type in a v3 document.

    Raises
    ------
    FormatError
        A member of a struct is an array: Zarr v3 has no name for that.

    Examples
    --------
    >>> data_type_document(DataType("numpy.datetime64", 8, "<M8[ns]"))
    {'name': 'numpy.datetime64', 'configuration': {'unit': 'ns', 'scale_factor': 1}}
    """
    if dtype.kind in ("M", "m"):
        match = re.fullmatch(r"[<>][Mm]8(?:\[(\d*)(\w+)\])?", dtype.typestr)
        assert match is not None, dtype
        factor, unit = int(match[1] or 1), match[2] or "generic"
        return _named(dtype, unit=unit, scale_factor=factor)
    if dtype.kind in ("U", "S"):
        return _named(dtype, length_bytes=dtype.itemsize)
    if dtype.kind == "V":
        return f"r{8 * dtype.itemsize}"
    if dtype.kind != "struct":
        return dtype.name
    if any(member.shape for member in dtype.fields):
        raise FormatError("a struct has a field that is an array; make it several fields")
    return _named(
        dtype,
        fields=[
            {"name": member.name, "data_type": data_type_document(member.dtype)}
            for member in dtype.fields
        ],
    )


def _named(dtype: DataType, **configuration: Any) -> dict[str, Any]:
    return {"name": dtype.name, "configuration": configuration}
