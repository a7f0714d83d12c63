"""Documents that lazyarr writes, in the spelling that most readers take."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lazyarr.checks import shown
from lazyarr.errors import FormatError
from lazyarr.formats.zarr.compressors import compressor_codecs
from lazyarr.formats.zarr.datatype_v3 import data_type_document
from lazyarr.formats.zarr.document_v3 import parse_node
from lazyarr.formats.zarr.fillvalue_document import encode_fill, fill_document
from lazyarr.layout.datatype import DataType

__all__ = [
    "array_document",
    "attributes_document",
    "group_document",
    "plain_attribute",
    "resized_document",
]


def array_document(
    *,
    shape: tuple[int, ...],
    dtype: DataType,
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None = None,
    compressor: str = "zstd",
    level: int | None = None,
    fill_value: Any = 0,
    attributes: Mapping[str, Any] | None = None,
    inherited: Mapping[str, Any] | None = None,
    dimension_names: Sequence[str | None] | None = None,
) -> bytes:
    """Return the ``zarr.json`` of an array, with a crc32c behind every chunk.

    Parameters
    ----------
    shape : tuple of int
        The array's.
    dtype : DataType
        Its elements, which are stored little endian.
    chunks : tuple of int
        Shape of the smallest chunks.
    shards : tuple of int or None
        Shape of the shards, a multiple of `chunks`; None for an object per chunk.
    compressor, level : {"zstd", "blosc", "none"}, int or None
        What compresses chunks, and how hard it tries; see `compressor_codecs`.
    fill_value : object
        What elements read as that are not written; 0 and None are all zero
        bits with every data type.
    attributes : mapping or None
        Anything that JSON can hold, and NumPy's arrays and scalars, which become lists and numbers.
    inherited : mapping or None
        Attributes of what is copied, for names that `attributes` does not have; see `_members`.
    dimension_names : sequence of (str or None), or None
        Names of the axes.

    Raises
    ------
    FormatError
        Something does not fit together, or not into JSON.

    Examples
    --------
    >>> from lazyarr.formats.zarr import parse_data_type, parse_node
    >>> dtype = parse_data_type("uint8")
    >>> document = array_document(shape=(100, 8), dtype=dtype, chunks=(5, 8), shards=(50, 8))
    >>> parse_node(document, path="x").shards
    (50, 8)
    """
    dtype = dtype.with_byte_order("<")
    outer = chunks if shards is None else shards
    chunk_nbytes = math.prod(chunks) * dtype.itemsize
    compress = compressor_codecs(
        compressor, level, itemsize=dtype.itemsize, chunk_nbytes=chunk_nbytes
    )
    members: dict[str, Any] = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": data_type_document(dtype),
        "chunk_grid": _named("regular", chunk_shape=list(outer)),
        "chunk_key_encoding": _named("default", separator="/"),
        "fill_value": fill_document(dtype, encode_fill(dtype, fill_value)),
        "codecs": _codecs(dtype, chunks, compress, sharded=shards is not None),
        "attributes": _members(attributes, inherited),
    }
    if isinstance(dimension_names, str):
        raise FormatError(f"dimension_names is {shown(dimension_names)}; give a list of names")
    # TensorStore refuses null where there are none.
    if dimension_names is not None:
        members["dimension_names"] = list(dimension_names)
    document = _dump(members)
    parse_node(document, path="")  # what cannot be read is not written
    return document


def _named(name: str, **configuration: Any) -> dict[str, Any]:
    return {"name": name, "configuration": configuration}


def _codecs(
    dtype: DataType, chunks: tuple[int, ...], compress: list[dict[str, Any]], *, sharded: bool
) -> list[dict[str, Any]]:
    # Objects throughout: names alone are legal, but zarr-python and TensorStore
    # refuse them.  An `endian` is for elements that have an order of bytes.
    swappable = dtype.byte_order != "|"
    elements = _named("bytes", endian="little") if swappable else {"name": "bytes"}
    inner = [elements, *compress, {"name": "crc32c"}]
    if not sharded:
        return inner
    index = [_named("bytes", endian="little"), {"name": "crc32c"}]
    return [
        _named(
            "sharding_indexed",
            chunk_shape=list(chunks),
            codecs=inner,
            index_codecs=index,
            index_location="end",
        )
    ]


def group_document(
    attributes: Mapping[str, Any] | None = None,
    *,
    inherited: Mapping[str, Any] | None = None,
    consolidated: Mapping[str, bytes] | None = None,
) -> bytes:
    """Return the ``zarr.json`` of a group.

    Parameters
    ----------
    attributes : mapping or None
        Anything that JSON can hold, and NumPy's arrays and scalars, which become lists and numbers.
    inherited : mapping or None
        Attributes of what is copied, for names that `attributes` does not have; see `_members`.
    consolidated : mapping or None
        The documents of all nodes below the group, by their path relative to
        it; None to leave them to be found one by one.

    Examples
    --------
    >>> group_document({"a": 1})
    b'{"zarr_format": 3, "node_type": "group", "attributes": {"a": 1}}'
    """
    members: dict[str, Any] = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": _members(attributes, inherited),
    }
    if consolidated is not None:
        members["consolidated_metadata"] = {
            "kind": "inline",
            "must_understand": False,
            "metadata": {path: json.loads(consolidated[path]) for path in sorted(consolidated)},
        }
    return _dump(members)


def resized_document(document: bytes, shape: tuple[int, ...]) -> bytes:
    """Return the document of an array, v2 or v3, with another shape and all else as it was.

    Examples
    --------
    >>> resized_document(b'{"zarr_format": 2, "shape": [3, 4]}', (5, 4))
    b'{"zarr_format": 2, "shape": [5, 4]}'
    """
    members = json.loads(document)
    members["shape"] = list(shape)
    # Chunks of no length go with axes that have none: they are read as if they had one.
    grid = members.get("chunk_grid", {}).get("configuration", {})
    for holder, name in ((grid, "chunk_shape"), (members, "chunks")):
        if isinstance(holder.get(name), list):
            holder[name] = [length or 1 for length in holder[name]]
    return _dump_as_it_was(members)


def attributes_document(document: bytes, attributes: Mapping[str, Any]) -> bytes:
    """Return the document of a node of v3 with other attributes and all else as it was.

    Examples
    --------
    >>> attributes_document(b'{"zarr_format": 3, "attributes": {}}', {"a": 1})
    b'{"zarr_format": 3, "attributes": {"a": 1}}'
    """
    return _dump_as_it_was({**json.loads(document), "attributes": attributes})


def plain_attribute(value: Any, place: str) -> Any:
    """Return what a user wants to keep among attributes as JSON has it.

    Parameters
    ----------
    value : object
        Anything that JSON can hold, and NumPy's arrays and scalars.
    place : str
        Where it is to be, for the error.

    Raises
    ------
    FormatError
        JSON has no such thing.

    Examples
    --------
    >>> plain_attribute({"a": (1, 2)}, "attributes['x']")
    {'a': [1, 2]}
    """
    try:
        return _plain(value, place)
    except RecursionError as error:
        raise FormatError(f"{place} is nested too deeply for JSON; use fewer levels") from error


def _dump_as_it_was(members: dict[str, Any]) -> bytes:
    # That includes what JSON does not have: other writers put NaN into attributes, and halves
    # of characters, which no encoding but their escapes can hold.
    return json.dumps(members, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _members(
    attributes: Mapping[str, Any] | None, inherited: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return attributes as JSON has them, but for NaN and infinities among the inherited ones.

    NetCDF has such numbers in attributes such as ``valid_range``, and a copy must neither fail nor
    say something else.  They are written as zarr-python writes them, as the bare words NaN and
    Infinity: zarr-python, xarray and lazyarr read them as the numbers that they were.  The texts
    "NaN" and "Infinity" would be legal JSON but other attributes, which xarray decodes to something
    else.  The cost: readers of strict JSON, such as TensorStore, refuse that array.  So users
    who give such a number themselves get an error that says what to use in its place.
    """
    if not isinstance(attributes, Mapping | None):
        raise FormatError(
            f"attributes are {shown(attributes)}; give a mapping of names to what JSON can hold"
        )
    try:
        own: dict[str, Any] = _plain(attributes or {}, "attributes")
        kept = {name: value for name, value in (inherited or {}).items() if name not in own}
        plain: dict[str, Any] = _plain(kept, "attributes", is_inherited=True)
    except RecursionError as error:
        raise FormatError(
            f"attributes {shown(attributes)} do not fit into JSON: they are nested too deeply; "
            "use fewer levels"
        ) from error
    return {**plain, **own}


def _plain(value: Any, place: str, *, is_inherited: bool = False) -> Any:
    """Return a value as JSON has it; NumPy's arrays and scalars become lists and numbers.

    Parameters
    ----------
    value : object
        What is to be stored.
    place : str
        Where it is, for messages.
    is_inherited : bool
        Whether NaN and infinities stay.
    """
    # NumPy is known by what it gives, for opening a store must not wait for its import.
    # Python's values of times are other ones: whole numbers, or none that JSON has.
    dtype = getattr(value, "dtype", None)
    if hasattr(value, "tolist") and getattr(dtype, "kind", "O") in "biufUTO":
        value = value.tolist()
    if isinstance(value, Mapping):
        return {
            _plain_key(k, place): _plain(v, f"{place}[{k!r}]", is_inherited=is_inherited)
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            _plain(member, f"{place}[{i}]", is_inherited=is_inherited)
            for i, member in enumerate(value)
        ]
    if isinstance(value, float) and not math.isfinite(value) and not is_inherited:
        raise _unfit(f"{place} is {value}", "a text, or None")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    what = f"{place} is {shown(value)}, a {type(value).__name__}"
    raise _unfit(what, "numbers, texts, lists, mappings or NumPy arrays of them")


def _plain_key(key: Any, place: str) -> Any:
    """Return a key as `json` takes it, which makes texts of numbers."""
    key = key.item() if hasattr(key, "item") else key
    if key is None or isinstance(key, bool | int | float | str):
        return key
    raise _unfit(f"{place} has the key {shown(key)}, a {type(key).__name__}", "texts")


def _unfit(what: str, remedy: str) -> FormatError:
    return FormatError(f"{what}, which JSON does not have; use {remedy}")


def _dump(members: dict[str, Any]) -> bytes:
    try:
        return json.dumps(members, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(
            f"attributes {shown(members.get('attributes'))} do not fit into JSON: {error};"
            " use numbers, strings, lists and mappings"
        ) from error
