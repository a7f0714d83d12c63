"""Documents of Zarr v2: ``.zarray``, ``.zgroup``, ``.zattrs``, ``.zmetadata``.

Source: zarr-specs v2.  Members that are not known are left aside, as it says.
"""

from __future__ import annotations

from typing import Any

from lazyarr.checks import (
    as_list,
    as_object,
    as_shape,
    bounded_product,
    chunk_lengths,
    parse_json,
    shown,
)
from lazyarr.codecs.base import BytesCodec
from lazyarr.errors import FormatError
from lazyarr.formats.paths import join_path
from lazyarr.formats.zarr.codec_chain import CodecChain
from lazyarr.formats.zarr.codec_names import check_count, parse_v2_codec
from lazyarr.formats.zarr.datatype_v2 import parse_v2_data_type
from lazyarr.formats.zarr.document_v3 import located
from lazyarr.formats.zarr.fillvalue import parse_fill_head
from lazyarr.formats.zarr.metadata import ArrayMetadata, GroupMetadata, Node
from lazyarr.layout.datatype import DataType
from lazyarr.layout.grid import KeyEncoding

__all__ = ["parse_v2_array", "parse_v2_consolidated", "parse_v2_group"]

_ARRAY_MEMBERS = (
    "zarr_format",
    "shape",
    "chunks",
    "dtype",
    "compressor",
    "fill_value",
    "order",
    "filters",
    "dimension_separator",
)


def parse_v2_array(zarray: bytes, zattrs: bytes | None, *, path: str) -> ArrayMetadata:
    """Return the array that a ``.zarray`` describes.

    Parameters
    ----------
    zarray, zattrs : bytes, bytes or None
        The objects as the store gave them; the second may not be there.
    path : str
        The array's place in the store.

    Raises
    ------
    FormatError
        A document is not what Zarr v2 allows, or describes what lazyarr cannot map.
    """
    try:
        attributes = {} if zattrs is None else parse_json(zattrs, ".zattrs")
        return _parse_array(parse_json(zarray, ".zarray"), attributes, path)
    except FormatError as error:
        raise located(error, path) from error


def parse_v2_group(zgroup: bytes, zattrs: bytes | None, *, path: str) -> GroupMetadata:
    """Return the group that a ``.zgroup`` describes; as `parse_v2_array`."""
    try:
        _check_format(parse_json(zgroup, ".zgroup"))
        attributes = {} if zattrs is None else parse_json(zattrs, ".zattrs")
    except FormatError as error:
        raise located(error, path) from error
    return GroupMetadata(path, 2, attributes)


def parse_v2_consolidated(zmetadata: bytes, *, path: str) -> GroupMetadata:
    """Return the group at the root of a ``.zmetadata``, with all nodes below it.

    Raises
    ------
    FormatError
        The document is not what zarr-python writes, or has no group at its root.
    """
    try:
        members = parse_json(zmetadata, ".zmetadata")
        if members.get("zarr_consolidated_format") != 1:
            raise FormatError(
                f"zarr_consolidated_format is {shown(members.get('zarr_consolidated_format'))};"
                " it must be 1"
            )
        documents = as_object(members.get("metadata"), "metadata of .zmetadata")
        root = as_object(documents.get(".zgroup"), ".zgroup in .zmetadata")
        _check_format(root)
        attributes = as_object(documents.get(".zattrs", {}), ".zattrs")
    except FormatError as error:
        raise located(error, path) from error
    return GroupMetadata(path, 2, attributes, _parse_children(documents, path))


def _parse_children(documents: dict[str, Any], path: str) -> dict[str, Node | FormatError]:
    nodes: dict[str, Node | FormatError] = {}
    for key, document in documents.items():
        name, _, kind = key.rpartition("/")
        if not name or kind not in (".zarray", ".zgroup"):
            continue
        child = join_path(path, name)
        try:
            attributes = as_object(documents.get(f"{name}/.zattrs", {}), ".zattrs")
            members = as_object(document, kind)
            if kind == ".zarray":
                nodes[name] = _parse_array(members, attributes, child)
            else:
                _check_format(members)
                nodes[name] = GroupMetadata(child, 2, attributes)
        except FormatError as error:
            nodes[name] = located(error, child)
    return nodes


def _check_format(members: dict[str, Any]) -> None:
    zarr_format = members.get("zarr_format")
    if zarr_format != 2 or isinstance(zarr_format, bool | float):
        raise FormatError(f"zarr_format is {shown(zarr_format)}; it must be 2 here")


def _parse_array(members: dict[str, Any], attributes: dict[str, Any], path: str) -> ArrayMetadata:
    _check_format(members)
    shape = as_shape(members.get("shape"), "shape")
    dtype = parse_v2_data_type(members.get("dtype"))
    chunk_shape = chunk_lengths(members.get("chunks"), "chunks", shape)
    bounded_product((*shape, dtype.itemsize), "the array")
    bounded_product((*chunk_shape, dtype.itemsize), "a chunk")
    order = members.get("order")
    if order not in ("C", "F"):
        raise FormatError(f"order is {shown(order)}; it must be 'C' or 'F'")
    axes = tuple(range(len(shape)))
    return ArrayMetadata(
        path=path,
        zarr_format=2,
        shape=shape,
        dtype=dtype,
        chunk_shape=chunk_shape,
        key_encoding=_parse_separator(members.get("dimension_separator", ".")),
        codecs=CodecChain(axes if order == "C" else axes[::-1], _parse_codecs(members, dtype)),
        fill_head=_parse_fill_head(dtype, members.get("fill_value")),
        attributes=attributes,
        dimension_names=_dimension_names(members, attributes, len(shape)),
        document={name: members[name] for name in _ARRAY_MEMBERS if name in members},
    )


def _parse_separator(value: object) -> KeyEncoding:
    if value == ".":
        return KeyEncoding("v2", ".")
    if value == "/":
        return KeyEncoding("v2", "/")
    raise FormatError(f"dimension_separator is {shown(value)}; it must be '.' or '/'")


def _parse_codecs(members: dict[str, Any], dtype: DataType) -> tuple[BytesCodec, ...]:
    filters = members.get("filters") or []
    named = as_list(filters, "filters")
    check_count(named, "filters")
    codecs = [parse_v2_codec(value, dtype=dtype, is_filter=True) for value in named]
    compressor = members.get("compressor")
    if compressor is not None:
        codecs.append(parse_v2_codec(compressor, dtype=dtype, is_filter=False))
    return tuple(codecs)


def _parse_fill_head(dtype: DataType, value: object) -> bytes:
    if value is not None:
        return parse_fill_head(dtype, value)
    # "Undefined", says the specification; zarr-python has "not a time", else zeros.
    return parse_fill_head(dtype, "NaT") if dtype.kind in ("M", "m") else b""


def _dimension_names(
    members: dict[str, Any], attributes: dict[str, Any], ndim: int
) -> tuple[str | None, ...] | None:
    # xarray's convention: Zarr v2 has no place for them.
    names = attributes.get("_ARRAY_DIMENSIONS")
    if names is None:
        # NCZarr's, of netCDF-C: the paths of dimensions, in the array's document.
        noted = members.get("_NCZARR_ARRAY")
        paths = noted.get("dimrefs") if isinstance(noted, dict) else None
        if isinstance(paths, list) and all(isinstance(path, str) for path in paths):
            names = [path.rpartition("/")[2] for path in paths]
    if not isinstance(names, list) or len(names) != ndim:
        return None
    return tuple(names) if all(isinstance(name, str) for name in names) else None
