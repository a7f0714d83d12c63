"""NumPy's ``.npy``: a short header, then the elements in C or Fortran order.

Source: NumPy Enhancement Proposal 1 and `numpy.lib.format`, versions 1 to 3.  The elements are
one run of bytes, so they are mapped as they are stored; nothing is decoded.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from lazyarr.checks import as_shape, bounded_product, shown
from lazyarr.errors import FormatError
from lazyarr.formats.runs import RunArray
from lazyarr.layout.datatype import DataType, Field, parse_data_type_document
from lazyarr.shortage import is_shortage

if TYPE_CHECKING:
    import numpy as np

    from lazyarr.formats.base import ObjectReader
    from lazyarr.layout.swap import Swap

__all__ = ["FORMAT", "NpyArray", "header_nbytes", "parse_header"]

_MAGIC = b"\x93NUMPY"
_LENGTH_NBYTES = {(1, 0): 2, (2, 0): 4, (3, 0): 4}
# What numpy.load reads without being told to trust the file: a longer text, evaluated as a
# literal, can exhaust the parser's stack.
_MAX_HEADER_NBYTES = 10_000
_FIRST_NBYTES = 4096  # enough for nearly every header, so that one read does


class NpyArray(RunArray):
    """The array of an ``.npy`` file.

    Attributes
    ----------
    path, shape, dtype, start, is_fortran, file, swap
        As of `RunArray`.
    version : tuple of int
        Of the format.
    """

    path: str
    shape: tuple[int, ...]
    dtype: DataType
    start: int
    is_fortran: bool
    version: tuple[int, int]
    file: str
    swap: Swap | None = None

    attributes: Any = {}  # noqa: RUF012 - a value: nobody changes it

    @property
    def format_name(self) -> tuple[str, str]:
        """What the format is called, and its version."""
        return "npy", ".".join(map(str, self.version))


class _Npy:
    """The format of ``.npy`` files."""

    def describe(self, objects: ObjectReader, key: str) -> dict[str, NpyArray] | None:
        """Return the array that a file holds, as its root; None when there is no such file."""
        nbytes = objects.size(key)
        if nbytes is None:
            return None
        try:
            found = _describe(objects, key, nbytes)
        except FormatError as error:
            message = f"cannot map {key!r} in {objects.url}: {error.message}"
            raise FormatError(message, path=key) from error
        return None if found is None else {"": found}


FORMAT = _Npy()


def _describe(objects: ObjectReader, key: str, nbytes: int) -> NpyArray | None:
    first = objects.read_range(key, 0, min(nbytes, _FIRST_NBYTES))
    if first is None:
        return None
    stop = header_nbytes(bytes(first[:12]))
    if stop > nbytes:
        raise FormatError(f"the header ends at byte {stop}, the file has {nbytes} bytes")
    header = first if stop <= len(first) else objects.read_range(key, 0, stop)
    if header is None:
        return None
    found = parse_header(bytes(header[:stop]), path="", file=key)
    if found.start + found.nbytes > nbytes:
        raise FormatError(
            f"the file has {nbytes} bytes, expected {found.start + found.nbytes}: it was cut off;"
            " copy it again"
        )
    return found


def header_nbytes(first: bytes) -> int:
    """Return how long the header is, by the first 12 bytes of the file.

    Raises
    ------
    FormatError
        They are not those of such a file.
    """
    if not first.startswith(_MAGIC) or len(first) < 8:
        raise FormatError(f"it begins with {first[:8]!r}, expected {_MAGIC!r} and a version")
    size = _LENGTH_NBYTES.get((first[6], first[7]))
    if size is None:
        raise FormatError(f"its version is {first[6]}.{first[7]}; versions 1.0, 2.0, 3.0 are known")
    nbytes = int.from_bytes(first[8 : 8 + size], "little")
    if len(first) < 8 + size or nbytes > _MAX_HEADER_NBYTES:
        raise FormatError(
            f"its header has {nbytes} bytes; lazyarr reads up to {_MAX_HEADER_NBYTES}"
        )
    return 8 + size + nbytes


def parse_header(data: bytes, *, path: str, file: str) -> NpyArray:
    """Return the array that the header of a file describes.

    Parameters
    ----------
    data : bytes
        The beginning of the file, up to the first element.
    path : str
        The array's place in the file; "" where it is all of it.
    file : str
        The file, in its store.

    Raises
    ------
    FormatError
        It is no header, or describes what lazyarr cannot map, as Python objects.

    Examples
    --------
    >>> import io, numpy
    >>> file = io.BytesIO()
    >>> numpy.save(file, numpy.zeros((2, 3), ">i2"))
    >>> parse_header(file.getvalue()[:128], path="", file="x.npy").dtype.typestr
    '>i2'
    """
    stop = header_nbytes(data[:12])
    if len(data) < stop:
        raise FormatError(f"its header has {len(data)} bytes, expected {stop}")
    version = (data[6], data[7])
    try:
        shape, is_fortran, dtype = _read_header(data[:stop], version)
    # The text is evaluated as a literal, and NumPy checks types in any way.
    except Exception as error:
        if is_shortage(error):
            raise
        raise FormatError(f"its header cannot be read: {error}") from error
    lengths = as_shape(list(shape), "shape")
    found = _data_type(dtype)
    if found.to_numpy() != dtype:
        raise _has_gaps(dtype)
    bounded_product((*lengths, found.itemsize), "the array")
    return NpyArray(path, lengths, found, stop, is_fortran, version, file)


def _read_header(
    data: bytes, version: tuple[int, int]
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and type; raises whatever NumPy and the parser of literals raise."""
    from numpy.lib import format as numpy_format

    if version == (3, 0):
        # NumPy has no public function for this version: it is version 2 in UTF-8.
        import ast

        members = ast.literal_eval(data[12:].decode("utf-8"))
        if members.keys() != {"descr", "fortran_order", "shape"}:
            raise ValueError(f"its members are {shown(sorted(members))}")
        dtype = numpy_format.descr_to_dtype(members["descr"])
        shape, is_fortran = members["shape"], members["fortran_order"]
    else:
        file = io.BytesIO(data)
        numpy_format.read_magic(file)
        read = numpy_format.read_array_header_1_0
        if version == (2, 0):
            read = numpy_format.read_array_header_2_0
        shape, is_fortran, dtype = read(file, max_header_size=_MAX_HEADER_NBYTES)
    if not isinstance(shape, tuple) or not isinstance(is_fortran, bool):
        raise ValueError(f"shape {shown(shape)} or fortran_order {shown(is_fortran)}")
    return shape, is_fortran, dtype


def _data_type(dtype: np.dtype[Any]) -> DataType:
    """Return a NumPy type as a value, in its own byte order."""
    if dtype.hasobject:
        raise FormatError(
            f"dtype {shown(dtype)} holds Python objects, which are pickled; read the file with"
            " numpy.load, if you trust it"
        )
    if dtype.subdtype is not None:
        raise FormatError(f"dtype {shown(dtype)} is an array itself; read the file with numpy.load")
    if dtype.names is None:
        return parse_data_type_document(dtype.str)._replace(name=dtype.name)
    fields = []
    for name in dtype.names:
        member = dtype[name]
        fields.append(Field(name, _data_type(member.base), member.shape))
    # Checked as what comes from another process is, which will be told of it.
    nbytes = dtype.itemsize
    found = DataType("struct", nbytes, f"|V{nbytes}", tuple(fields))
    if parse_data_type_document(found.document()).itemsize != nbytes:
        raise _has_gaps(dtype)
    return found


def _has_gaps(dtype: np.dtype[Any]) -> FormatError:
    """Return the error for a struct whose fields do not lie one right behind the other."""
    return FormatError(
        f"dtype {shown(dtype)} has gaps between its fields; repack it with"
        " numpy.lib.recfunctions.repack_fields"
    )
