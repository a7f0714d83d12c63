"""What one element is: its name in Zarr, its size, and the NumPy type that views it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from lazyarr.checks import as_integer, as_list, as_shape, as_string, bounded_product, shown
from lazyarr.errors import FormatError
from lazyarr.shortage import is_shortage
from lazyarr.values import Value

if TYPE_CHECKING:
    import numpy as np

__all__ = ["MAX_ITEMSIZE", "ML_NAMES", "DataType", "Field", "parse_data_type_document"]

MAX_ITEMSIZE = 2**24
"""Largest size of an element in bytes: a short document must not claim elements of gigabytes."""

_MAX_STRUCT_DEPTH = 16
_TYPESTR = r"([<>|])([biufcmMSUV])([1-9][0-9]{0,8})(\[[0-9]{0,10}[^\]0-9]{1,8}\])?"
# Most arrays are of these, for which no expression is compiled.
_KINDS = ("f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8", "c8", "c16")
_NUMBERS = frozenset(
    {f"{order}{kind}" for order in "<>" for kind in _KINDS} | {"|b1", "|i1", "|u1"}
)

ML_NAMES: Mapping[str, int] = {
    "bfloat16": 2,
    "float8_e3m4": 1,
    "float8_e4m3": 1,
    "float8_e4m3b11fnuz": 1,
    "float8_e4m3fn": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
}
"""Types that NumPy knows through ml_dtypes, by their names in Zarr and there, with their sizes."""


class Field(NamedTuple):
    """One member of a struct."""

    name: str
    dtype: DataType
    shape: tuple[int, ...] = ()


class DataType(Value):
    """The type of an array's elements, as a value that needs no NumPy.

    Attributes
    ----------
    name : str
        Zarr v3's name of the type, also for arrays of Zarr v2.
    itemsize : int
        Size of an element in bytes, at least 1.
    typestr : str
        NumPy's array-interface string with the byte order in memory, such as
        ``"<f4"``, ``">i2"``, ``"|b1"``, ``"<M8[ns]"``; for types of ml_dtypes
        their name there; ``"|V12"`` for a struct.
    fields : tuple of Field
        The members of a struct, in order and without gaps; empty for others.

    Examples
    --------
    >>> DataType("uint16", 2, "<u2").to_numpy()
    dtype('uint16')
    """

    name: str
    itemsize: int
    typestr: str
    fields: tuple[Field, ...] = ()

    @property
    def numpy(self) -> Any:
        """What `numpy.dtype` takes: a string, or the list of members of a struct."""
        if not self.fields:
            return self.typestr
        return [
            (name, dtype.numpy, shape) if shape else (name, dtype.numpy)
            for name, dtype, shape in self.fields
        ]

    @property
    def kind(self) -> str:
        """One letter for the family: NumPy's kind, ``"struct"``, or ``"ml"`` for ml_dtypes."""
        if self.fields:
            return "struct"
        return "ml" if self.typestr in ML_NAMES else self.typestr[1]

    @property
    def byte_order(self) -> str:
        """``"<"``, ``">"``, or ``"|"`` where an element has no order of bytes."""
        if self.fields:
            orders = {member.dtype.byte_order for member in self.fields} - {"|"}
            return orders.pop() if len(orders) == 1 else "<" if orders else "|"
        if self.kind == "ml":
            return "|" if self.itemsize == 1 else "<"
        return self.typestr[0]

    def with_byte_order(self, order: str) -> DataType:
        """Return the same type with another order of bytes, members of structs included.

        Parameters
        ----------
        order : {"<", ">"}
            Little or big endian.

        Raises
        ------
        FormatError
            NumPy has no such type: ml_dtypes are little endian here.
        """
        if self.fields:
            members = tuple(m._replace(dtype=m.dtype.with_byte_order(order)) for m in self.fields)
            return DataType(self.name, self.itemsize, self.typestr, members)
        if self.byte_order == "|":
            return self
        if self.kind == "ml" and order == ">":
            raise FormatError(
                f"data_type {self.name!r} is stored big endian; ml_dtypes has no such type:"
                " convert it with zarr-python"
            )
        typestr = self.typestr if self.kind == "ml" else order + self.typestr[1:]
        return DataType(self.name, self.itemsize, typestr)

    def to_numpy(self) -> np.dtype[Any]:
        """Return the NumPy type.  Imports NumPy, and ml_dtypes for the types that need it.

        Raises
        ------
        FormatError
            The type needs ml_dtypes, which is not installed.
        """
        import numpy

        self._load_extension()
        dtype: np.dtype[Any] = numpy.dtype(self.numpy)
        return dtype

    def document(self) -> Any:
        """Return the type as JSON can hold it, without its name in Zarr: as `numpy` does.

        Examples
        --------
        >>> DataType("uint16", 2, "<u2").document()
        '<u2'
        """
        if not self.fields:
            return self.typestr
        return [[name, dtype.document(), list(shape)] for name, dtype, shape in self.fields]

    def _load_extension(self) -> None:
        for member in self.fields:
            member.dtype._load_extension()  # noqa: SLF001 - the same class
        if self.kind != "ml":
            return
        try:
            import ml_dtypes  # noqa: F401 - registers its types with NumPy by name
        except ImportError as error:
            if is_shortage(error):
                raise
            raise FormatError(
                f"data_type {self.name!r} needs ml_dtypes, which is not installed;"
                " install lazyarr[ml]"
            ) from error


def parse_data_type_document(value: object, *, depth: int = 0) -> DataType:
    """Return the type that `DataType.document` has described; its name is not known any more.

    Raises
    ------
    FormatError
        The document describes no type that NumPy has.

    Examples
    --------
    >>> parse_data_type_document([["a", ">i2", []], ["b", "|S3", [2]]]).itemsize
    8
    """
    if not isinstance(value, list):
        return _parse_typestr(as_string(value, "a data type"))
    if depth >= _MAX_STRUCT_DEPTH:
        raise FormatError(f"a data type nests deeper than {_MAX_STRUCT_DEPTH} structs; flatten it")
    fields = tuple(_parse_field(member, depth) for member in value)
    nbytes = sum(bounded_product((*shape, of.itemsize), "a field") for _, of, shape in fields)
    as_integer(nbytes, "the size of a struct", minimum=1, maximum=MAX_ITEMSIZE)
    dtype = DataType("struct", nbytes, f"|V{nbytes}", fields)
    if not depth:
        _check_names(dtype)
    return dtype


def _parse_field(value: object, depth: int) -> Field:
    parts = as_list(value, "a field")
    if len(parts) != 3:
        raise FormatError(f"a field is {shown(parts)}; it must be [name, type, shape]")
    name = as_string(parts[0], "the name of a field")
    shape = as_shape(parts[2], "the shape of a field", minimum=1)
    return Field(name, parse_data_type_document(parts[1], depth=depth + 1), shape)


def _parse_typestr(typestr: str) -> DataType:
    if typestr in ML_NAMES:
        return DataType(typestr, ML_NAMES[typestr], typestr)
    if typestr in _NUMBERS:
        return DataType(typestr, int(typestr[2:]), typestr)
    match = re.fullmatch(_TYPESTR, typestr)
    if match is None:
        raise FormatError(f"data type {shown(typestr)} is not known; it must be like '<f4'")
    order, kind, digits, unit = match.groups()
    nbytes = int(digits) * (4 if kind == "U" else 1)
    as_integer(nbytes, f"the size of data type {shown(typestr)}", maximum=MAX_ITEMSIZE)
    is_number = kind not in "SUV"
    sizes = {"b": (1,), "f": (2, 4, 8), "c": (8, 16), "M": (8,), "m": (8,)}.get(kind, (1, 2, 4, 8))
    if (is_number and nbytes not in sizes) or (unit is not None and kind not in "Mm"):
        raise FormatError(f"data type {shown(typestr)} is not known; NumPy has no such type")
    has_order = kind == "U" or (is_number and nbytes > 1)
    if (order == "|") == has_order:
        raise FormatError(f"data type {shown(typestr)} has the wrong mark of its byte order")
    return DataType(typestr, nbytes, typestr)


def _check_names(dtype: DataType) -> None:
    """Refuse a struct that NumPy does not take, for its names or for a unit of time."""
    try:
        found = dtype.to_numpy().itemsize
    except (TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"data type {shown(dtype)} is none of NumPy's: {error}") from error
    if found != dtype.itemsize:
        raise FormatError(
            f"data type {shown(dtype)} has {found} bytes in NumPy, expected {dtype.itemsize}"
        )
