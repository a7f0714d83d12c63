"""safetensors: a header in JSON, then the tensors one after the other, little-endian, in C order.

Source: https://huggingface.co/docs/safetensors, and the checks of its library.  Each tensor is one
run of bytes, so it is mapped as it is stored.  The library itself is not needed.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from lazyarr.checks import (
    as_integer,
    as_list,
    as_object,
    as_shape,
    as_string,
    bounded_product,
    shown,
)
from lazyarr.errors import FormatError
from lazyarr.formats.base import in_groups, is_path
from lazyarr.formats.runs import RunArray
from lazyarr.layout.datatype import DataType

if TYPE_CHECKING:
    from lazyarr.formats.base import Node, ObjectReader
    from lazyarr.layout.swap import Swap

__all__ = ["FORMAT", "SafetensorsArray", "parse_header"]

_NAME = ("safetensors", "1")
_LENGTH_NBYTES = 8
# Of the library, which refuses longer ones.
_MAX_HEADER_NBYTES = 100_000_000
_FIRST_NBYTES = 1 << 16  # enough for some hundred tensors, so that one read does

_METADATA = "__metadata__"
TYPES = {
    "BOOL": DataType("bool", 1, "|b1"),
    "U8": DataType("uint8", 1, "|u1"),
    "I8": DataType("int8", 1, "|i1"),
    "U16": DataType("uint16", 2, "<u2"),
    "I16": DataType("int16", 2, "<i2"),
    "U32": DataType("uint32", 4, "<u4"),
    "I32": DataType("int32", 4, "<i4"),
    "U64": DataType("uint64", 8, "<u8"),
    "I64": DataType("int64", 8, "<i8"),
    "F16": DataType("float16", 2, "<f2"),
    "F32": DataType("float32", 4, "<f4"),
    "F64": DataType("float64", 8, "<f8"),
    "C64": DataType("complex64", 8, "<c8"),
    "BF16": DataType("bfloat16", 2, "bfloat16"),
    "F8_E4M3": DataType("float8_e4m3fn", 1, "float8_e4m3fn"),
    "F8_E4M3FNUZ": DataType("float8_e4m3fnuz", 1, "float8_e4m3fnuz"),
    "F8_E5M2": DataType("float8_e5m2", 1, "float8_e5m2"),
    "F8_E5M2FNUZ": DataType("float8_e5m2fnuz", 1, "float8_e5m2fnuz"),
    "F8_E8M0": DataType("float8_e8m0fnu", 1, "float8_e8m0fnu"),
}


class SafetensorsArray(RunArray):
    """A tensor of a file.

    Attributes
    ----------
    path, shape, dtype, start, file, swap
        As of `RunArray`.
    """

    path: str
    shape: tuple[int, ...]
    dtype: DataType
    start: int
    file: str
    swap: Swap | None = None

    attributes: Any = {}  # noqa: RUF012 - a value: nobody changes it

    format_name = _NAME


class _Safetensors:
    """The format of ``.safetensors`` files."""

    def describe(self, objects: ObjectReader, key: str) -> dict[str, Node | FormatError] | None:
        """Return the tensors that a file holds, and what it says of itself as attributes."""
        nbytes = objects.size(key)
        if nbytes is None:
            return None
        try:
            return _describe(objects, key, nbytes)
        except FormatError as error:
            message = f"cannot map {key!r} in {objects.url}: {error.message}"
            raise FormatError(message, path=key) from error


FORMAT = _Safetensors()


def _describe(objects: ObjectReader, key: str, nbytes: int) -> dict[str, Node | FormatError] | None:
    first = objects.read_range(key, 0, min(nbytes, _FIRST_NBYTES))
    if first is None:
        return None
    if len(first) < _LENGTH_NBYTES:
        raise FormatError(f"it has {nbytes} bytes, and the length of its header takes 8")
    length = int.from_bytes(first[:_LENGTH_NBYTES], "little")
    if length > _MAX_HEADER_NBYTES:
        raise FormatError(
            f"its header would have {length} bytes; up to {_MAX_HEADER_NBYTES} are allowed, so it "
            "is no safetensors file"
        )
    stop = _LENGTH_NBYTES + length
    if stop > nbytes:
        raise FormatError(f"its header ends at byte {stop}, the file has {nbytes} bytes")
    header = first[:stop] if stop <= len(first) else objects.read_range(key, 0, stop)
    if header is None:
        return None
    return parse_header(bytes(header[_LENGTH_NBYTES:]), file=key, start=stop, nbytes=nbytes)


def parse_header(
    header: bytes, *, file: str, start: int, nbytes: int
) -> dict[str, Node | FormatError]:
    """Return the nodes that a header describes.

    Parameters
    ----------
    header : bytes
        The JSON.
    file : str
        The file, in its store.
    start : int
        Where the first tensor lies in the file, in bytes.
    nbytes : int
        Size of the file.

    Raises
    ------
    FormatError
        It is no such header, or its tensors do not fill the file.

    Examples
    --------
    >>> header = b'{"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}'
    >>> nodes = parse_header(header, file="m.safetensors", start=80, nbytes=104)
    >>> sorted(nodes), nodes["w"].shape, nodes["w"].start
    (['', 'w'], (2, 3), 80)
    """
    tensors = _parse(header)
    about = as_object(tensors.pop(_METADATA, {}), _METADATA)
    attributes = {name: as_string(text, f"{name!r} in {_METADATA}") for name, text in about.items()}
    stop = 0
    found: dict[str, SafetensorsArray | FormatError] = {}
    for name, (begin, end, tensor) in _in_order(tensors):
        # Without holes and overlaps, as the library has it, so that a file that was cut off, or
        # whose header was changed, is seen.
        if begin != stop:
            raise FormatError(
                f"tensor {shown(name)} begins at byte {begin}, expected {stop}: right behind the "
                "one before it"
            )
        stop = end
        try:
            found[name] = _tensor(name, tensor, start + begin, end - begin, file)
        except FormatError as error:
            message = f"cannot map tensor {shown(name)}: {error.message}"
            found[name] = FormatError(message, path=name)
    if start + stop != nbytes:
        raise FormatError(
            f"the file has {nbytes} bytes, expected {start + stop}: it was cut off, or is no "
            "safetensors file; copy it again"
        )
    return in_groups(found, _NAME, attributes)


def _parse(header: bytes) -> dict[str, Any]:
    """Return the header's members; names that stand twice are refused, as the library does."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise FormatError(f"its header names one of {shown(sorted(found))} twice")
        return found

    if not header.startswith(b"{"):
        raise FormatError(f"its header begins with {header[:8]!r}, expected an object in JSON")
    try:
        parsed = json.loads(header, object_pairs_hook=members)
    # ValueError covers bad syntax and bad UTF-8.
    except (ValueError, RecursionError) as error:
        raise FormatError(f"its header is not JSON: {error}") from error
    return as_object(parsed, "its header")


def _in_order(tensors: dict[str, Any]) -> list[tuple[str, tuple[int, int, dict[str, Any]]]]:
    """Return the tensors by their places in the file, with where they begin and end."""
    found = []
    for name, value in tensors.items():
        if not is_path(name):
            raise FormatError(
                f"a tensor is called {shown(name)}; lazyarr takes names whose parts between "
                "slashes are not empty and not dots"
            )
        tensor = as_object(value, f"tensor {shown(name)}")
        if tensor.keys() != {"dtype", "shape", "data_offsets"}:
            raise FormatError(f"tensor {shown(name)} has the members {shown(sorted(tensor))}")
        offsets = as_list(tensor["data_offsets"], "data_offsets")
        if len(offsets) != 2:
            raise FormatError(f"data_offsets of tensor {shown(name)} are {shown(offsets)}")
        begin = as_integer(offsets[0], "data_offsets")
        end = as_integer(offsets[1], "data_offsets", minimum=begin)
        found.append((name, (begin, end, tensor)))
    return sorted(found, key=lambda item: item[1][:2])


def _tensor(
    name: str, tensor: dict[str, Any], start: int, nbytes: int, file: str
) -> SafetensorsArray:
    dtype = TYPES.get(as_string(tensor["dtype"], "dtype"))
    if dtype is None:
        raise FormatError(
            f"dtype {shown(tensor['dtype'])} is not one that NumPy has; read it with the "
            "safetensors library"
        )
    shape = as_shape(as_list(tensor["shape"], "shape"), "shape")
    expected = bounded_product((*shape, dtype.itemsize), "the array")
    if math.prod(shape) * dtype.itemsize != nbytes:
        raise FormatError(f"it has {nbytes} bytes, expected {expected} of its shape {shape}")
    return SafetensorsArray(name, shape, dtype, start, file)
