"""What one element is: its name in Zarr, its size, and the NumPy type that views it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from lazyarr.errors import FormatError
from lazyarr.values import Value

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ML_NAMES", "DataType", "Field"]

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

    def _load_extension(self) -> None:
        for member in self.fields:
            member.dtype._load_extension()  # noqa: SLF001 - the same class
        if self.kind != "ml":
            return
        try:
            import ml_dtypes  # noqa: F401 - registers its types with NumPy by name
        except ImportError as error:
            raise FormatError(
                f"data_type {self.name!r} needs ml_dtypes, which is not installed;"
                " install lazyarr[ml]"
            ) from error
