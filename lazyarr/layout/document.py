"""Layouts and pipelines as text, for the processes that read chunks, and back.

The text is JSON.  It comes from another process, which may be anything, so it is checked as
documents from stores are: what comes back is a value that holds together, or a `FormatError`.
"""

from __future__ import annotations

import json
import math
from typing import Any

from lazyarr.checks import (
    MAX_NBYTES,
    as_integer,
    as_list,
    as_object,
    as_shape,
    as_string,
    bounded_product,
    parse_json,
    shown,
)
from lazyarr.codecs.registry import codec_document, parse_codec
from lazyarr.errors import FormatError
from lazyarr.layout.datatype import MAX_ITEMSIZE, DataType, parse_data_type_document
from lazyarr.layout.entries import Entries
from lazyarr.layout.grid import KeyEncoding, as_separator
from lazyarr.layout.layout import Layout
from lazyarr.layout.pipeline import Pipeline
from lazyarr.layout.placement import (
    ChunkTable,
    KeyPerChunk,
    Level,
    OneRun,
    Placement,
    is_run,
)
from lazyarr.layout.shard import MAX_ENTRIES, ShardLevel
from lazyarr.layout.swap import Swap, find_swap

__all__ = ["layout_text", "parse_layout", "parse_pipeline", "pipeline_text"]

_MAX_CODECS = 64
_MAX_LEVELS = 8
_MAX_WITNESSES = 8
_MAX_TABLE_ENTRIES = 2**24

_LAYOUT_MEMBERS = (
    *("shape", "axes", "chunk_shape", "itemsize", "fill", "codecs", "swap"),
    *("placement", "witnesses", "place"),
)
_KEY_MEMBERS = ("kind", "encoding", "separator", "chunks_per_object", "levels")
_TABLE_MEMBERS = ("kind", "objects", "entries", "is_padded")
_LEVEL_MEMBERS = (
    *("grid_shape", "index_location", "little_endian", "checksum"),
    *("sizes", "steps", "strides"),
)


def layout_text(layout: Layout) -> str:
    """Return a layout as text; equal layouts give equal texts.

    Examples
    --------
    >>> from lazyarr.layout.placement import OneRun
    >>> shape = (5, 3)
    >>> placement = OneRun((1, 1), (), (), "", 128, shape, shape, 8)
    >>> pipeline = Pipeline(120, ())
    >>> layout = Layout(shape, (0, 1), shape, (1, 1), 8, bytes(8), pipeline, placement, ("",))
    >>> parse_layout(layout_text(layout)) == layout
    True
    """
    return _text(
        {
            "shape": layout.shape,
            "axes": layout.axes,
            "chunk_shape": layout.chunk_shape,
            "itemsize": layout.itemsize,
            # An element may be long, and most fill values end with zeros.
            "fill": layout.fill.rstrip(b"\0").hex(),
            **_pipeline_document(layout.pipeline),
            "placement": _placement_document(layout.placement),
            "witnesses": layout.witnesses,
            "place": layout.place,
        }
    )


def parse_layout(text: str | bytes) -> Layout:
    """Return the layout that `layout_text` has described.

    Raises
    ------
    FormatError
        The text describes no layout, or one that does not hold together.
    """
    members = _parse(text, "a layout", _LAYOUT_MEMBERS)
    shape = as_shape(members["shape"], "shape")
    ndim = len(shape)
    axes = _parse_axes(members["axes"], ndim)
    chunk_shape = as_shape(members["chunk_shape"], "chunk_shape", minimum=1, ndim=ndim)
    itemsize = as_integer(members["itemsize"], "itemsize", minimum=1, maximum=MAX_ITEMSIZE)
    bounded_product((*shape, itemsize), "the array")
    chunk_nbytes = bounded_product((*chunk_shape, itemsize), "a chunk")
    layout = Layout(
        shape=shape,
        axes=axes,
        chunk_shape=chunk_shape,
        grid_shape=tuple(-(-n // c) for n, c in zip(shape, chunk_shape, strict=True)),
        itemsize=itemsize,
        fill=_parse_fill(members["fill"], itemsize),
        pipeline=_parse_pipeline(members, chunk_nbytes),
        placement=Placement((1,) * ndim, (), ()),
        witnesses=_parse_keys(members["witnesses"], "witnesses", _MAX_WITNESSES),
        place=None if members["place"] is None else as_string(members["place"], "place"),
    )
    swap = layout.pipeline.swap
    if swap is not None and swap.stored.itemsize != itemsize:
        raise FormatError(f"swap has elements of {swap.stored.itemsize} bytes, not {itemsize}")
    return layout._replace(placement=_parse_placement(members["placement"], layout))


def pipeline_text(pipeline: Pipeline) -> str:
    """Return a pipeline as text: all that is needed to decode a chunk whose place is known."""
    return _text({"chunk_nbytes": pipeline.chunk_nbytes, **_pipeline_document(pipeline)})


def parse_pipeline(text: str | bytes) -> Pipeline:
    """Return the pipeline that `pipeline_text` has described.

    Raises
    ------
    FormatError
        The text describes no pipeline.
    """
    members = _parse(text, "a pipeline", ("chunk_nbytes", "codecs", "swap"))
    chunk_nbytes = as_integer(members["chunk_nbytes"], "chunk_nbytes", maximum=MAX_NBYTES)
    return _parse_pipeline(members, chunk_nbytes)


# --- the parts ------------------------------------------------------------------------


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))


def _parse(text: str | bytes, what: str, names: tuple[str, ...]) -> dict[str, Any]:
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
    return _members(parse_json(data, what), what, names)


def _members(value: object, what: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Return an object with exactly some members."""
    members = as_object(value, what)
    if members.keys() != set(names):
        raise FormatError(f"{what} has the members {shown(sorted(members))}, expected {names}")
    return members


def _parse_axes(value: object, ndim: int) -> tuple[int, ...]:
    axes = as_shape(value, "axes", ndim=ndim)
    if sorted(axes) != list(range(ndim)):
        raise FormatError(f"axes are {shown(axes)}; they must be a permutation")
    return axes


def _parse_fill(value: object, itemsize: int) -> bytes:
    try:
        head = bytes.fromhex(as_string(value, "fill"))
    except ValueError as error:
        raise FormatError(f"fill is {shown(value)}; it must be hexadecimal") from error
    if len(head) > itemsize:
        raise FormatError(f"fill has {len(head)} bytes, an element {itemsize}")
    return head.ljust(itemsize, b"\0")


def _parse_keys(value: object, what: str, limit: int) -> tuple[str, ...]:
    keys = as_list(value, what)
    if len(keys) > limit:
        raise FormatError(f"{what} are {len(keys)}; there may be up to {limit}")
    return tuple(as_string(key, f"a key in {what}") for key in keys)


def _parse_bool(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise FormatError(f"{what} is {shown(value)}; it must be true or false")
    return value


# --- pipelines ------------------------------------------------------------------------


def _pipeline_document(pipeline: Pipeline) -> dict[str, Any]:
    swap = pipeline.swap
    return {
        "codecs": [codec_document(codec) for codec in pipeline.codecs],
        "swap": None if swap is None else swap.stored.document(),
    }


def _parse_pipeline(members: dict[str, Any], chunk_nbytes: int) -> Pipeline:
    codecs = as_list(members["codecs"], "codecs")
    if len(codecs) > _MAX_CODECS:
        raise FormatError(f"codecs are {len(codecs)}; there may be up to {_MAX_CODECS}")
    swap = None if members["swap"] is None else _parse_swap(members["swap"])
    if swap is not None and chunk_nbytes % swap.stored.itemsize:
        raise FormatError(
            f"a chunk has {chunk_nbytes} bytes, an element {swap.stored.itemsize}; elements must"
            " be whole"
        )
    return Pipeline(chunk_nbytes, tuple(parse_codec(codec) for codec in codecs), swap)


def _parse_swap(value: object) -> Swap:
    stored: DataType = parse_data_type_document(value)
    swap = find_swap(stored)
    if swap is None:
        raise FormatError(f"swap is {shown(value)}, which is in the machine's byte order already")
    return swap


# --- placements -----------------------------------------------------------------------


def _placement_document(placement: Placement) -> dict[str, Any]:
    if isinstance(placement, OneRun):
        return {"kind": "run", "key": placement.key, "start": placement.start}
    if isinstance(placement, ChunkTable):
        return {
            "kind": "table",
            "objects": placement.objects,
            "entries": Entries.of(placement.entries).document(),
            "is_padded": placement.is_padded,
        }
    assert isinstance(placement, KeyPerChunk)
    encoding = placement.key_encoding
    return {
        "kind": "keys",
        "encoding": encoding.name,
        "separator": encoding.separator,
        "chunks_per_object": placement.chunks_per_object,
        "levels": [
            {**level._asdict(), **place._asdict()}
            for level, place in zip(placement.levels, placement.places, strict=True)
        ],
    }


def _parse_placement(value: object, layout: Layout) -> Placement:
    kind = as_object(value, "placement").get("kind")
    if kind == "keys":
        return _parse_key_per_chunk(_members(value, "placement", _KEY_MEMBERS), layout)
    if kind == "run":
        return _parse_run(_members(value, "placement", ("kind", "key", "start")), layout)
    if kind == "table":
        return _parse_table(_members(value, "placement", _TABLE_MEMBERS), layout)
    raise FormatError(
        f"the kind of placement is {shown(kind)}; it must be 'keys', 'run' or 'table'"
    )


def _parse_run(members: dict[str, Any], layout: Layout) -> OneRun:
    start = as_integer(members["start"], "start of placement")
    as_integer(start + layout.nbytes, "the end of the run", maximum=2**63 - 1)
    _check_runs(layout)
    if layout.pipeline.codecs:
        raise FormatError("placement is a run, and codecs are not empty; a run has none")
    ones = (1,) * len(layout.shape)
    key = as_string(members["key"], "key of placement")
    return OneRun(ones, (), (), key, start, layout.shape, layout.chunk_shape, layout.itemsize)


def _check_runs(layout: Layout) -> None:
    if not is_run(layout.shape, layout.chunk_shape):
        raise FormatError(
            f"chunks of shape {layout.chunk_shape} are no runs of an array of shape {layout.shape}"
        )


def _parse_table(members: dict[str, Any], layout: Layout) -> ChunkTable:
    objects = _parse_keys(members["objects"], "objects of placement", _MAX_TABLE_ENTRIES)
    n_chunks = math.prod(layout.grid_shape)
    if n_chunks > _MAX_TABLE_ENTRIES:
        raise FormatError(
            f"placement has a table of {n_chunks} chunks; there may be up to {_MAX_TABLE_ENTRIES}"
        )
    entries = Entries.parse(members["entries"], n_chunks)
    entries.check(len(objects), 2 ** len(layout.pipeline.codecs) - 1)
    is_padded = _parse_bool(members["is_padded"], "is_padded of placement")
    if not is_padded:
        _check_runs(layout)
    ones = (1,) * len(layout.shape)
    return ChunkTable(ones, (), (), layout.grid_shape, objects, entries, is_padded)


def _parse_key_per_chunk(members: dict[str, Any], layout: Layout) -> KeyPerChunk:
    ndim = len(layout.shape)
    name = members["encoding"]
    if name not in ("default", "v2"):
        raise FormatError(f"encoding of placement is {shown(name)}; it must be 'default' or 'v2'")
    encoding = KeyEncoding(name, as_separator(members["separator"]))
    per_object = as_shape(members["chunks_per_object"], "chunks_per_object", minimum=1, ndim=ndim)
    bounded_product((*per_object, *layout.chunk_shape, layout.itemsize), "an object")
    levels = as_list(members["levels"], "levels")
    if len(levels) > _MAX_LEVELS:
        raise FormatError(f"levels are {len(levels)}; there may be up to {_MAX_LEVELS}")
    pairs = [_parse_level(level, ndim) for level in levels]
    outer = per_object
    for _, place in pairs:
        if place.sizes != outer:
            raise FormatError(f"a level of shards has sizes {place.sizes}, expected {outer}")
        outer = place.steps
    if any(n != 1 for n in outer):
        raise FormatError(f"the innermost chunks are {outer} smallest ones; they must be one")
    return KeyPerChunk(
        per_object, tuple(p[0] for p in pairs), tuple(p[1] for p in pairs), encoding, layout.axes
    )


def _parse_level(value: object, ndim: int) -> tuple[ShardLevel, Level]:
    members = _members(value, "a level of shards", _LEVEL_MEMBERS)
    grid = as_shape(members["grid_shape"], "grid_shape", minimum=1, ndim=ndim)
    n_entries = bounded_product(grid, "a shard index")
    as_integer(n_entries, "the number of chunks in a shard", maximum=MAX_ENTRIES)
    location = members["index_location"]
    if location not in ("start", "end"):
        raise FormatError(f"index_location is {shown(location)}; it must be 'start' or 'end'")
    level = ShardLevel(
        grid,
        location,
        _parse_bool(members["little_endian"], "little_endian"),
        _parse_bool(members["checksum"], "checksum"),
    )
    sizes = as_shape(members["sizes"], "sizes", minimum=1, ndim=ndim)
    steps = as_shape(members["steps"], "steps", minimum=1, ndim=ndim)
    strides = as_shape(members["strides"], "strides", ndim=ndim)
    last = 0
    for size, step, stride in zip(sizes, steps, strides, strict=True):
        if size % step:
            raise FormatError(f"steps {steps} do not divide sizes {sizes}; they must")
        last += (size // step - 1) * stride
    if last >= n_entries:
        raise FormatError(f"a shard of {n_entries} chunks has no entry {last}")
    return level, Level(sizes, steps, strides)
