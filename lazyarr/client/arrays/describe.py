"""What arrays and groups are, as text for people.

Names and attributes come from whoever wrote the store: what a terminal or a
browser would take for a command is spelled out.
"""

from __future__ import annotations

import itertools
import math
import shlex
from html import escape
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from lazyarr.client.arrays.chunk_objects import count_objects, look_at_local
from lazyarr.client.arrays.multiscales import find_multiscales
from lazyarr.client.arrays.text import columns, count, format_nbytes, one_line, printable, reason
from lazyarr.errors import FormatError
from lazyarr.formats.base import ArrayDescription, GroupDescription
from lazyarr.formats.paths import join_path
from lazyarr.layout.placement import KeyPerChunk, OneRun
from lazyarr.reading.units import geometry_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lazyarr.client.array_ref import ArrayRef
    from lazyarr.client.arrays.residency import Residency

__all__ = [
    "codec_names",
    "describe_array",
    "describe_group",
    "describe_metadata",
    "describe_node",
    "describe_residency",
    "describe_tree",
    "dtype_name",
    "tree_html",
]

_Node: TypeAlias = "ArrayDescription | GroupDescription | FormatError"
_Found: TypeAlias = "tuple[str, _Node]"

_MAX_CHILDREN = 40  # rows in the description of a group
_MAX_OPEN = 60  # nodes of a tree that is shown unfolded
_MAX_IMAGES = 4  # of one group, on one line
_BAR_WIDTH = 40

# What one touch may decode before there is a hint: a row of fewer tiles, fewer chunks that
# fill a page together, or a chunk of less, is a question of taste.
_MANY_TILES = 4
_MANY_CHUNKS = 128
_LARGE_UNIT_NBYTES = 64 * 2**20


class _Array(Protocol):
    """The array of any engine."""

    @property
    def _source(self) -> ArrayRef: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    @property
    def flags(self) -> Any: ...

    def residency(self) -> Residency: ...


def describe_array(array: _Array) -> str:
    """Return what the stored array is, and how much of this view of it is in memory."""
    node = array._source  # noqa: SLF001 - the text of a property of its class
    stored = node.metadata
    rows = [*_array_rows(node.store_url, stored), *_object_rows(node.url, stored)]
    if array.shape != stored.shape:
        rows.append(("this view", f"{array.shape} {array.dtype}"))
    kind = "private, writable" if array.flags.writeable else "read-only"
    if array.flags.writeable and node.mode == "r+":
        kind = "writable, written back"
    rows.append(("memory", f"{kind}; {describe_residency(array.residency())}"))
    return _block(f"{type(array).__name__} {_title(stored)}", rows + _hint(node.store_url, stored))


def describe_metadata(url: str, metadata: ArrayDescription, *, kind: str = "") -> str:
    """Return what a stored array is, by its metadata and by what is stored of it.

    `kind` is what the store is, where that is more than its URL says.
    """
    rows = [*_array_rows(url, metadata), *_object_rows(url, metadata), *_hint(url, metadata)]
    rows[1:1] = _kind_rows(kind)
    return _block(f"Array {_title(metadata)}", rows)


def _kind_rows(kind: str) -> list[tuple[str, str]]:
    return [("which is", printable(kind))] if kind else []


def _object_rows(url: str, metadata: ArrayDescription) -> list[tuple[str, str]]:
    """Return how much of a local array is stored, and what lies beside it by another name.

    Nothing for other stores, where it would take many requests.
    """
    objects = look_at_local(url, metadata)
    if objects is None:
        return []
    n_objects, noun = count_objects(metadata), "chunks" if metadata.shards is None else "shards"
    text = f"{objects.n_stored:,} of {n_objects:,} {noun}"
    if objects.n_stored < n_objects:
        text += "; the others are the fill value"
    rows = [("stored", text)]
    if objects.strays:
        first, is_more = objects.strays[0], len(objects.strays) > 1
        also = " and others" if is_more else ""
        text = f"no chunk is named {printable(first)}{also}; see 'lazyarr verify'"
        rows.append(("beside it", text))
    return rows


def describe_residency(here: Residency) -> str:
    """Return how much is in memory, with a bar that shows where it lies."""
    resident, total = format_nbytes(here.resident_nbytes), format_nbytes(here.total_nbytes)
    units = f"{here.resident_units:,} of {here.total_units:,} units"
    text = f"[{_bar(here)}] {units} resident, {resident} of {total}"
    if here.dirty_units:
        text += f"; {here.dirty_units:,} not written back, {format_nbytes(here.dirty_nbytes)}"
    return text


def _bar(here: Residency) -> str:
    """Return one character for each stretch of units: all, some or none of them resident."""
    width = min(_BAR_WIDTH, max(1, here.total_units))
    edges = [place * here.total_units // width for place in range(width + 1)]
    shares = [(here.count(start, stop), stop - start) for start, stop in itertools.pairwise(edges)]
    return "".join("." if not n else "#" if n == size else "+" for n, size in shares)


def _stray_rows(url: str, nodes: Sequence[_Found]) -> list[tuple[str, str]]:
    """Return rows for the local arrays of a group beside which other objects lie."""
    rows = []
    for path, node in nodes[:_MAX_CHILDREN]:
        if isinstance(node, ArrayDescription):
            found = dict(_object_rows(url, node))
            if "beside it" in found:
                rows.append(("warning", f"{printable(path)}: {'; '.join(found.values())}"))
    return rows


def describe_group(
    url: str, metadata: GroupDescription, nodes: Sequence[_Found], *, kind: str = ""
) -> str:
    """Return what a group is and what lies below it.

    Parameters
    ----------
    url : str
        The store.
    metadata : GroupDescription
        The group's.
    nodes : sequence of (str, ArrayDescription or GroupDescription or FormatError)
        Path and metadata of every node below, parents first.
    kind : str
        What the store is, where that is more than its URL says.
    """
    arrays = [node for _, node in nodes if isinstance(node, ArrayDescription)]
    n_groups = sum(isinstance(node, GroupDescription) for _, node in nodes)
    n_other = len(nodes) - len(arrays) - n_groups
    holds = [count(len(arrays), "array"), count(n_groups, "group")]
    if n_other:
        holds.append(f"{n_other} that cannot be mapped")
    consolidated = "" if metadata.consolidated is None else ", consolidated metadata"
    name, version = metadata.format_name
    rows = [
        ("store", printable(url)),
        *_kind_rows(kind),
        ("holds", ", ".join(holds)),
        ("size", f"{format_nbytes(sum(array.nbytes for array in arrays))} in memory"),
        (f"{name} format", f"{version}{consolidated}"),
        *_image_rows(metadata, nodes),
        *_attribute_rows(metadata.attributes),
        *_stray_rows(url, nodes),
    ]
    listed = [_child_row(metadata.path, *found) for found in nodes[:_MAX_CHILDREN]]
    if len(nodes) > _MAX_CHILDREN:
        listed.append((f"and {len(nodes) - _MAX_CHILDREN} more: see 'lazyarr tree'",))
    text = _block(f"Dataset {_title(metadata)}", rows)
    return "\n".join([text, "", *columns(listed)]) if listed else text


def describe_tree(path: str, nodes: Sequence[_Found]) -> str:
    """Return a line for each node, drawn as a tree.

    Parameters
    ----------
    path : str
        The group at its root.
    nodes : sequence of (str, ArrayDescription or GroupDescription or FormatError)
        Path and metadata of every node below, parents first.
    """
    lines: list[tuple[str, ...]] = []
    # From the end, since whether a branch goes on below depends on what follows.
    continued: set[int] = set()
    for child, node in reversed(nodes):
        depth = len(_below(path, child).split("/"))
        stem = "".join("│   " if level in continued else "    " for level in range(1, depth))
        fork = "├── " if depth in continued else "└── "
        continued = {level for level in continued if level < depth} | {depth}
        summary = describe_node(child, node)
        name = stem + fork + _name(child)
        lines.append((name, summary) if summary else (name,))
    return "\n".join([printable(path) or "/", *columns(lines[::-1])])


def tree_html(title: str, path: str, nodes: Sequence[_Found]) -> str:
    """Return a tree of nodes for a notebook, groups as parts that unfold.

    Parameters
    ----------
    title : str
        What stands above it, as plain text.
    path : str
        The group at its root.
    nodes : sequence of (str, ArrayDescription or GroupDescription or FormatError)
        Path and metadata of every node below, parents first.
    """
    parts = [f"<div class='lazyarr'><b>{escape(printable(title))}</b><ul>"]
    unfolded = " open" if len(nodes) <= _MAX_OPEN else ""
    depths: list[int] = []
    for child, node in nodes:
        depth = len(_below(path, child).split("/"))
        while depths and depths[-1] >= depth:
            depths.pop()
            parts.append("</ul></details></li>")
        name = f"<code>{escape(_name(child))}</code>"
        if isinstance(node, GroupDescription):
            depths.append(depth)
            summary = f"{name} {escape(describe_node(child, node))}".rstrip()
            parts.append(f"<li><details{unfolded}><summary>{summary}</summary><ul>")
        else:
            parts.append(f"<li>{name} {escape(describe_node(child, node))}</li>")
    parts.extend("</ul></details></li>" for _ in depths)
    return "".join([*parts, "</ul></div>"])


# --- arrays ---------------------------------------------------------------------------


def _array_rows(url: str, metadata: ArrayDescription) -> list[tuple[str, str]]:
    names = metadata.dimension_names
    stored = metadata.dtype if metadata.swap is None else metadata.swap.stored
    order = ", big endian" if stored.byte_order == ">" else ""
    rows = [
        ("store", printable(url)),
        ("shape", str(metadata.shape)),
        ("data type", f"{dtype_name(metadata)}{order}"),
        ("size", f"{format_nbytes(metadata.nbytes)} in memory"),
        *_grid_rows(metadata),
        ("codecs", ", ".join(codec_names(metadata.document))),
    ]
    if not isinstance(metadata.layout().placement, OneRun):  # a chunk may not be stored
        rows.append(("fill value", one_line(metadata.document.get("fill_value"))))
    if names is not None:
        rows.append(("dimensions", ", ".join(printable(name or "-") for name in names)))
    name, version = metadata.format_name
    rows.append((f"{name} format", version))
    return rows + _attribute_rows(metadata.attributes)


def _grid_rows(metadata: ArrayDescription) -> Iterator[tuple[str, str]]:
    """Yield what an array is divided into: chunks, shards, units."""
    layout = metadata.layout()
    geometry = geometry_of(layout)
    n_chunks = math.prod(layout.grid_shape)
    chunk = format_nbytes(layout.chunk_nbytes)
    yield "chunks", f"{metadata.chunks}, {chunk} each, {n_chunks:,} in all"
    if not isinstance(layout.placement, KeyPerChunk):
        pass  # chunks are parts of a file
    elif metadata.shards is None:
        yield "shards", "none: every chunk is an object"
    else:
        n_shards = math.prod(
            -(-n // size)
            for n, size in zip(layout.grid_shape, layout.chunks_per_object, strict=True)
        )
        shard = format_nbytes(layout.chunk_nbytes * math.prod(layout.chunks_per_object))
        yield "shards", f"{metadata.shards}, {shard} each, {n_shards:,} in all"
    if geometry.n_units:
        pieces = count(geometry.unit_chunks, "chunk")
        unit = format_nbytes(geometry.unit_nbytes)
        yield "unit", f"{pieces}, {unit}: what a touch brings in; {geometry.n_units:,} in all"


def _hint(url: str, metadata: ArrayDescription) -> list[tuple[str, str]]:
    """Return advice for an array of which a single touch decodes a lot."""
    layout = metadata.layout()
    geometry = geometry_of(layout)
    if not geometry.n_units:
        return []
    n_pieces, unit = geometry.unit_chunks, format_nbytes(geometry.unit_nbytes)
    if geometry.is_grouped:
        if n_pieces < _MANY_CHUNKS:
            return []
        found = f"chunks are small: touching one element decodes {n_pieces:,} of them ({unit})"
    elif n_pieces >= _MANY_TILES:
        found = f"chunks are tiles: touching one element decodes {n_pieces:,} of them ({unit})"
    elif geometry.unit_nbytes >= _LARGE_UNIT_NBYTES:
        found = f"chunks are large: touching one element decodes {unit}"
    else:
        return []
    source = shlex.quote(printable(f"{url.rstrip('/')}/{metadata.path}".rstrip("/")))
    return [("hint", f"{found}; for faster picks: lazyarr convert {source} NEW.zarr")]


def dtype_name(metadata: ArrayDescription) -> str:
    """Return what an array's dtype calls itself, once it is opened."""
    try:
        return printable(str(metadata.dtype.with_byte_order("<").to_numpy()))
    except FormatError:  # ml_dtypes is not installed
        return printable(metadata.dtype.name)


def codec_names(document: dict[str, Any]) -> Iterator[str]:
    """Yield what chunks go through, from a document that was parsed before."""
    if "codecs" not in document:
        stages = [*(document.get("filters") or ()), document.get("compressor")]
        names = [printable(str(stage["id"])) for stage in stages if stage is not None]
        yield from names or ["none"]
        return
    for codec in document["codecs"]:
        name = codec if isinstance(codec, str) else str(codec["name"])
        configuration = {} if isinstance(codec, str) else codec.get("configuration", {})
        if name == "sharding_indexed":
            yield f"{name}({', '.join(codec_names(configuration))})"
        elif "level" in configuration:
            yield f"{printable(name)} level {one_line(configuration['level'])}"
        else:
            yield printable(name)


# --- nodes ----------------------------------------------------------------------------


def _attribute_rows(attributes: dict[str, Any]) -> list[tuple[str, str]]:
    return [("attributes", one_line(attributes))] if attributes else []


def _image_rows(metadata: GroupDescription, nodes: Sequence[_Found]) -> Iterator[tuple[str, str]]:
    """Yield what a group says of images in several resolutions, and of each level a row."""
    found = dict(nodes)
    for image in find_multiscales(metadata.attributes):
        yield "image", one_line(image.summary.removeprefix("image").lstrip(": "))
        for path, scale in image.levels[:_MAX_CHILDREN]:
            node = found.get(join_path(metadata.path, path))
            parts = ["not there" if node is None else describe_node(path, node)]
            parts += [f"scale {scale}"] if scale else []
            yield f"  level {one_line(path)}", one_line(", ".join(parts))


def _child_row(path: str, child: str, node: _Node) -> tuple[str, ...]:
    name = printable(_below(path, child))
    if isinstance(node, ArrayDescription):
        size = format_nbytes(node.nbytes)
        codecs = f"codecs {', '.join(codec_names(node.document))}"
        chunks = f"chunks {node.chunks}"
        return (f"  {name}", str(node.shape), dtype_name(node), size, chunks, codecs)
    if isinstance(node, GroupDescription):
        return tuple(cell for cell in (f"  {name}/", describe_node(child, node)) if cell)
    return (f"  {name}", describe_node(child, node))


def describe_node(path: str, node: _Node) -> str:
    """Return a node on one line; of a group what images it has, if any."""
    if isinstance(node, FormatError):
        return printable(f"cannot be mapped: {reason(path, node)}")
    if isinstance(node, GroupDescription):
        images = find_multiscales(node.attributes)
        return one_line("; ".join(image.summary for image in images[:_MAX_IMAGES]))
    return f"{node.shape} {dtype_name(node)}, {format_nbytes(node.nbytes)}"


def _title(metadata: ArrayDescription | GroupDescription) -> str:
    return printable(metadata.path) or "/"


def _below(path: str, child: str) -> str:
    return child.removeprefix(f"{path}/") if path else child


def _name(path: str) -> str:
    return printable(path.rpartition("/")[2])


def _block(title: str, rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join([title, *columns([(f"  {label}", text) for label, text in rows])])
