"""``lazyarr info`` and ``lazyarr tree``: metadata alone; no chunk is read, nothing is mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lazyarr.cli.options import format_option, json_option, storage_option_pair
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

    from lazyarr.cli.measuring import Measurements
    from lazyarr.formats.base import Node
    from lazyarr.opening.survey import Found

__all__ = ["info", "tree"]


@click.command()
@click.argument("url")
@storage_option_pair()
@format_option
@click.option(
    "--measure",
    is_flag=True,
    help="Decode samples of the arrays, and say what would be faster, and by how much.",
)
@json_option
def info(
    url: str,
    storage_options: Mapping[str, Any] | None,
    *,
    file_format: str | None,
    measure: bool,
    as_json: bool,
) -> None:
    """Say what an array or a group is: shape, chunks, codecs, attributes."""
    found = _read(url, storage_options, file_format, measure=measure)
    store_url, kind, start, root, nodes, measured = found
    if as_json:
        below = {"nodes": [_document(*found) for found in nodes]} if _is_group(root) else {}
        attributes = {"attributes": root.attributes}
        store = {"url": store_url} | ({"store": kind} if kind else {})
        document = {**store, **_document(start, root), **attributes, **below}
        print_json(document | ({} if measured is None else measured.document()))
        return
    if isinstance(root, ArrayDescription):
        print_text(describe_metadata(store_url, root, kind=kind))
    else:
        print_text(describe_group(store_url, root, nodes, kind=kind))
    if measured is not None:
        print_text(str(measured))


@click.command()
@click.argument("url")
@storage_option_pair()
@format_option
@json_option
def tree(
    url: str, storage_options: Mapping[str, Any] | None, *, file_format: str | None, as_json: bool
) -> None:
    """List the arrays and groups of a store."""
    store_url, _, start, root, nodes, _ = _read(url, storage_options, file_format)
    if as_json:
        found = [(start, root), *nodes]
        print_json({"url": store_url, "nodes": [_document(path, node) for path, node in found]})
    elif isinstance(root, ArrayDescription):
        print_text(f"{start or '/'}  {describe_node(start, root)}")
    else:
        print_text(describe_tree(start, nodes))


def _is_group(node: Node) -> bool:
    return isinstance(node, GroupDescription)


def _read(
    url: str,
    storage_options: Mapping[str, Any] | None,
    file_format: str | None,
    *,
    measure: bool = False,
) -> tuple[str, str, str, Node, list[Found], Measurements | None]:
    """Return the URL of the store or file, its kind, a node in it by path, and those below.

    And what samples of their arrays have shown, where that is asked for.
    """
    hierarchy = open_nodes(url, storage_options, file_format=file_format)
    measured = None
    try:
        root = hierarchy.node(hierarchy.start)
        nodes = list(walk(hierarchy, hierarchy.start)) if _is_group(root) else []
        if measure:
            # Imported here: most only look.
            from lazyarr.cli.measuring import measure_all

            measured = measure_all(hierarchy.store, url, [(hierarchy.start, root), *nodes])
        kind = hierarchy.store.kind
    finally:
        hierarchy.store.close()
    return hierarchy.url, kind, hierarchy.start, root, nodes, measured


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
