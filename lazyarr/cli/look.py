"""``lazyarr info`` and ``lazyarr tree``: metadata alone; no chunk is read, nothing is mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lazyarr.cli.options import json_option, storage_option_pair
from lazyarr.cli.output import print_json, print_text
from lazyarr.client.arrays.describe import (
    codec_names,
    describe_group,
    describe_metadata,
    describe_node,
    describe_tree,
    dtype_name,
)
from lazyarr.client.arrays.text import reason
from lazyarr.errors import FormatError
from lazyarr.formats.base import ArrayDescription, GroupDescription
from lazyarr.opening.nodes import open_nodes
from lazyarr.opening.survey import walk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazyarr.formats.base import Node
    from lazyarr.opening.survey import Found

__all__ = ["info", "tree"]


@click.command()
@click.argument("url")
@storage_option_pair()
@json_option
def info(url: str, storage_options: Mapping[str, Any] | None, *, as_json: bool) -> None:
    """Say what an array or a group is: shape, chunks, codecs, attributes."""
    store_url, root, nodes = _read(url, storage_options)
    if as_json:
        below = {"nodes": [_document(*found) for found in nodes]} if _is_group(root) else {}
        attributes = {"attributes": root.attributes}
        print_json({"url": store_url, **_document("", root), **attributes, **below})
    elif isinstance(root, ArrayDescription):
        print_text(describe_metadata(store_url, root))
    else:
        print_text(describe_group(store_url, root, nodes))


@click.command()
@click.argument("url")
@storage_option_pair()
@json_option
def tree(url: str, storage_options: Mapping[str, Any] | None, *, as_json: bool) -> None:
    """List the arrays and groups of a store."""
    store_url, root, nodes = _read(url, storage_options)
    if as_json:
        found = [("", root), *nodes]
        print_json({"url": store_url, "nodes": [_document(path, node) for path, node in found]})
    elif isinstance(root, ArrayDescription):
        print_text(f"/  {describe_node('', root)}")
    else:
        print_text(describe_tree("", nodes))


def _is_group(node: Node) -> bool:
    return isinstance(node, GroupDescription)


def _read(url: str, storage_options: Mapping[str, Any] | None) -> tuple[str, Node, list[Found]]:
    """Return the store's URL, its root, and every node below."""
    hierarchy = open_nodes(url, storage_options)
    try:
        root = hierarchy.node("")
        nodes = list(walk(hierarchy)) if _is_group(root) else []
    finally:
        hierarchy.store.close()
    return hierarchy.store.url, root, nodes


def _document(path: str, node: Node | FormatError) -> dict[str, Any]:
    """Return a node as JSON has it, without its attributes."""
    if isinstance(node, FormatError):
        return {"path": path, "node_type": "unsupported", "reason": reason(path, node)}
    name, version = node.format_name
    common: dict[str, Any] = {"path": path, "format": name, "format_version": version}
    if isinstance(node, GroupDescription):
        return {**common, "node_type": "group"}
    return {
        **common,
        "node_type": "array",
        "shape": node.shape,
        "dtype": dtype_name(node),
        "nbytes": node.nbytes,
        "chunks": node.chunks,
        "shards": node.shards,
        "codecs": list(codec_names(node.document)),
        "fill_value": node.document.get("fill_value"),
        "dimension_names": node.dimension_names,
    }
