"""Documents of Zarr v3: ``zarr.json`` of arrays and groups.

Source: zarr-specs v3.1, "array metadata" and "group metadata"; zarr-python for
`consolidated_metadata`.
"""

from __future__ import annotations

from typing import Any

from lazyarr.checks import (
    as_list,
    as_object,
    as_shape,
    bounded_product,
    parse_json,
    refuse_unknown,
    shown,
)
from lazyarr.errors import FormatError
from lazyarr.formats.paths import join_path
from lazyarr.formats.zarr.codec_chain import parse_codecs
from lazyarr.formats.zarr.datatype_v3 import parse_data_type
from lazyarr.formats.zarr.fillvalue import parse_fill_head
from lazyarr.formats.zarr.metadata import ArrayMetadata, GroupMetadata, Node
from lazyarr.layout.grid import parse_chunk_grid, parse_key_encoding

__all__ = ["located", "parse_node"]

_ARRAY_MEMBERS = (
    "zarr_format",
    "node_type",
    "shape",
    "data_type",
    "chunk_grid",
    "chunk_key_encoding",
    "fill_value",
    "codecs",
    "attributes",
    "dimension_names",
    "storage_transformers",
)
_TOLD = tuple(name for name in _ARRAY_MEMBERS if name != "attributes")
_GROUP_MEMBERS = ("zarr_format", "node_type", "attributes", "consolidated_metadata")


def parse_node(document: bytes, *, path: str) -> Node:
    """Return the array or the group that a ``zarr.json`` describes.

    Parameters
    ----------
    document : bytes
        The object as the store gave it.
    path : str
        The node's place in the store, for messages; "" for the root.

    Raises
    ------
    FormatError
        The document is not what Zarr v3 allows, or describes what lazyarr
        cannot map.

    Examples
    --------
    >>> parse_node(b'{"zarr_format": 3, "node_type": "group"}', path="")
    GroupMetadata(path='', zarr_format=3, attributes={}, consolidated=None)
    """
    try:
        return _parse_node(parse_json(document, "zarr.json"), path)
    except FormatError as error:
        raise located(error, path) from error


def located(error: FormatError, path: str) -> FormatError:
    """Return an error about some metadata that also says whose it is."""
    message = f"cannot read the metadata of '/{path.strip('/')}': {error.message}"
    return FormatError(message, path=path)


def _parse_node(members: dict[str, Any], path: str) -> Node:
    zarr_format, node_type = members.get("zarr_format"), members.get("node_type")
    if zarr_format != 3 or isinstance(zarr_format, bool | float):
        raise FormatError(f"zarr_format is {shown(zarr_format)}; a zarr.json has 3")
    if node_type == "array":
        return _parse_array(members, path)
    if node_type == "group":
        return _parse_group(members, path)
    raise FormatError(f"node_type is {shown(node_type)}; it must be 'array' or 'group'")


def _parse_array(members: dict[str, Any], path: str) -> ArrayMetadata:
    refuse_unknown(members, _ARRAY_MEMBERS, "zarr.json")
    if members.get("storage_transformers"):
        raise FormatError("storage_transformers are not empty; no reader knows any")
    if "fill_value" not in members:
        raise FormatError("fill_value is missing; an array must have one")
    shape = as_shape(members.get("shape"), "shape")
    data_type = parse_data_type(members.get("data_type"))
    chunk_shape = parse_chunk_grid(members.get("chunk_grid"), shape=shape)
    bounded_product((*shape, data_type.itemsize), "the array")
    bounded_product((*chunk_shape, data_type.itemsize), "a chunk")
    chain, stored_type = parse_codecs(
        members.get("codecs"), chunk_shape=chunk_shape, dtype=data_type
    )
    return ArrayMetadata(
        path=path,
        zarr_format=3,
        shape=shape,
        dtype=stored_type,
        chunk_shape=chunk_shape,
        key_encoding=parse_key_encoding(members.get("chunk_key_encoding")),
        codecs=chain,
        fill_head=parse_fill_head(stored_type, members["fill_value"]),
        attributes=_parse_attributes(members.get("attributes")),
        dimension_names=_parse_dimension_names(members.get("dimension_names"), len(shape)),
        document={name: members[name] for name in _TOLD if name in members},
    )


def _parse_attributes(value: object) -> dict[str, Any]:
    return {} if value is None else as_object(value, "attributes")


def _parse_dimension_names(value: object, ndim: int) -> tuple[str | None, ...] | None:
    if value is None:  # zarr-python writes null where it means none
        return None
    names = as_list(value, "dimension_names")
    if len(names) != ndim or not all(name is None or isinstance(name, str) for name in names):
        raise FormatError(
            f"dimension_names are {shown(names)}; there must be {ndim} strings or nulls"
        )
    return tuple(names)


def _parse_group(members: dict[str, Any], path: str) -> GroupMetadata:
    refuse_unknown(members, _GROUP_MEMBERS, "zarr.json")
    return GroupMetadata(
        path=path,
        zarr_format=3,
        attributes=_parse_attributes(members.get("attributes")),
        consolidated=_parse_consolidated(members.get("consolidated_metadata"), path),
    )


def _parse_consolidated(value: object, path: str) -> dict[str, Node | FormatError] | None:
    # Not understanding it is allowed: the nodes are in their own documents too.
    if not isinstance(value, dict) or value.get("kind") != "inline":
        return None
    nodes: dict[str, Node | FormatError] = {}
    for name, members in as_object(value.get("metadata"), "consolidated_metadata").items():
        child = join_path(path, name)
        try:
            spelled = dict(as_object(members, "an entry of consolidated_metadata"))
            # zarr-python puts an empty one into every group; it says nothing.
            spelled.pop("consolidated_metadata", None)
            nodes[name] = _parse_node(spelled, child)
        except FormatError as error:
            nodes[name] = located(error, child)
    return nodes
