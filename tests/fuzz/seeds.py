"""What fuzzing starts from: what zarr-python, TensorStore and lazyarr really write."""

from __future__ import annotations

import functools
import io
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
import zarr
from zarr import codecs

import lazyarr
from lazyarr.layout.document import layout_text, parse_layout
from lazyarr.layout.entries import Entries
from lazyarr.wire import messages as w
from lazyarr.wire.ledger import record_of
from lazyarr.wire.packets import encode
from tests.fuzz.targets import PIPELINES, SHARDED

__all__ = ["seeds"]

_DTYPES = ("bool", "int16", ">u4", "float16", "float64", "complex64", "M8[s]", "U3", "S5", "V4")


@functools.cache
def seeds(target: str) -> tuple[bytes, ...]:
    """Return inputs of a target that are as they should be."""
    return tuple(dict.fromkeys(_MAKERS[target]()))


@functools.cache
def _documents() -> dict[str, tuple[bytes, ...]]:
    """Return every metadata document of some stores, by the name of its object."""
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = Path(directory)
        _write_zarr(root / "zarr")
        _write_tensorstore(root / "tensorstore")
        x = np.arange(24.0).reshape(4, 6)
        lazyarr.save(root / "lazyarr", {"x": x, "g/y": x.astype("u1")}, attributes={"a": [1, None]})
        names = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
        return {
            name: tuple(path.read_bytes() for path in sorted(root.rglob(name))) for name in names
        }


def _write_zarr(root: Path) -> None:
    for zarr_format in (3, 2):
        group = zarr.open_group(root / f"v{zarr_format}", mode="w", zarr_format=zarr_format)
        group.attrs["a"] = {"b": [1.5, "x", None]}
        for number, dtype in enumerate(_DTYPES):
            fill = None if np.dtype(dtype).kind in "MUSV" else 1
            group.create_array(
                f"d{number}", shape=(5, 4), chunks=(2, 4), dtype=dtype, fill_value=fill
            )
        _write_codecs(group, zarr_format)
        zarr.consolidate_metadata(group.store, zarr_format=zarr_format)


def _write_codecs(group: zarr.Group, zarr_format: int) -> None:
    def create(name: str, **options: Any) -> None:
        group.create_array(
            name, shape=(6, 8), chunks=(2, 4), dtype="<f4", fill_value="NaN", **options
        )

    if zarr_format == 3:
        create("sharded", shards=(4, 8), attributes={"x": "y"}, dimension_names=["a", "b"])
        create("blosc", compressors=codecs.BloscCodec(cname="zstd", shuffle="shuffle"))
        create(
            "turned", filters=codecs.TransposeCodec(order=(1, 0)), compressors=codecs.GzipCodec()
        )
        serializer = codecs.ShardingCodec(chunk_shape=(1, 2), index_location="start")
        create("nested", serializer=serializer, compressors=None)
        create("dotted", chunk_key_encoding={"name": "v2", "separator": "."})
        return
    from numcodecs import LZMA, Blosc, Delta, Zlib

    create("zlib", compressors=Zlib(1), order="F")
    create("delta", filters=[Delta(dtype="<f4")], compressors=Blosc())
    create("lzma", compressors=LZMA(format=3, filters=[{"id": 33, "preset": 1}]))


def _write_tensorstore(root: Path) -> None:
    for driver, extra in (
        ("zarr3", {"data_type": "bfloat16", "shape": [4, 4], "dimension_names": ["x", None]}),
        ("zarr3", {"data_type": "uint16", "shape": [0, 4], "fill_value": 3}),
        ("zarr", {"dtype": "<i2", "shape": [3, 3], "chunks": [2, 2]}),
    ):
        place = root / f"{driver}-{extra.get('data_type', 'v2')}"
        spec = {
            "driver": driver,
            "kvstore": {"driver": "file", "path": str(place)},
            "metadata": extra,
            "create": True,
        }
        tensorstore.open(spec).result()


def _v2() -> list[bytes]:
    found = _documents()
    first = found[".zarray"] + found[".zgroup"] + found[".zmetadata"]
    return [*first, *(first[0] + b"\0" + attributes for attributes in found[".zattrs"])]


def _layouts() -> list[bytes]:
    run = parse_layout(
        b'{"shape":[5,4],"axes":[1,0],"chunk_shape":[2,4],"itemsize":4,"fill":"","codecs":[],'
        b'"swap":">f4","placement":{"kind":"run","key":"","start":128},"witnesses":[""],"place":"x.npy"}'
    )
    entries = json.dumps(Entries.of([(0, 10, 90), None]).document()).encode()
    table = parse_layout(
        b'{"shape":[3],"axes":[0],"chunk_shape":[2],"itemsize":8,"fill":"00ff",'
        b'"codecs":[{"name":"zstd","level":3,"checksum":false}],"swap":[["a",">i2",[]],["b","|V6",[1]]],'
        b'"placement":{"kind":"table","objects":["a","b/c"],"entries":'
        + entries
        + b',"is_padded":true},'
        b'"witnesses":["a","b/c"],"place":null}'
    )
    found = [*PIPELINES, *SHARDED, run, table]
    return [layout_text(layout).encode() for layout in found]


def _npy() -> list[bytes]:
    found = []
    for dtype in (*_DTYPES, [("a", ">i2"), ("b", "S3", (2,))]):
        data = np.zeros((3, 4), dtype)
        for array, version in ((data, None), (np.asfortranarray(data), (2, 0)), (data[0], (3, 0))):
            file = io.BytesIO()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                np.lib.format.write_array(file, array, version)
            found.append(file.getvalue())
    return found


def _chunks() -> list[bytes]:
    elements = [np.arange(256, dtype="<u4"), np.zeros(256, dtype="<u4")]
    return [
        bytes([number]) + layout.encode(data.tobytes())
        for number, layout in enumerate(PIPELINES)
        for data in elements
    ]


def _index_seeds() -> list[bytes]:
    empty = b"\xff" * 16
    first = (0).to_bytes(8, "little") + (60).to_bytes(8, "little")
    found = []
    for flags in (2, 3, 0, 10, 0xF2):
        found.append(bytes([0, flags]) + first)
        found.append(bytes([1, flags]) + first + empty)
    level = next(level for layout in SHARDED for level in layout.levels if level.checksum is False)
    found.append(bytes([3, 6 | 0x40]) + level.build_index([(0, 4), None, (4, 90), None]))
    return found


def _shards() -> list[bytes]:
    return [bytes([number]) + _shard(layout) for number, layout in enumerate(SHARDED)]


def _shard(layout: Any, depth: int = 0) -> bytes:
    """Return a shard that holds every second inner chunk."""
    level = layout.levels[depth]
    if depth + 1 < len(layout.levels):
        inner = _shard(layout, depth + 1)
    else:
        inner = layout.encode(bytes(range(256))[: layout.chunk_nbytes].ljust(layout.chunk_nbytes))
    start = level.index_nbytes if level.index_location == "start" else 0
    entries: list[tuple[int, int] | None] = [None] * level.n_entries
    body = b""
    for i in range(0, level.n_entries, 2):
        entries[i] = (start + len(body), len(inner))
        body += inner
    index = level.build_index(entries)
    return index + body if start else body + index


def _messages() -> list[w.Message]:
    layout = _layouts()[0].decode()
    return [
        w.Hello(w.VERSION, 12345, 0x7FF, lazyarr.config.document()),
        w.Join([1, 2]),
        w.OpenChannel(),
        w.OpenRegion(7, 4096, 0, 0, "u", "x", layout, {"kind": "local"}, False, "SHARED"),
        w.AttachRegion(7, 8192),
        w.CloseRegion(3, 7),
        w.Request(4, 7, [[0, 3], [5, 6]], []),
        w.Request(5, 7, [[0, 1]], [2, 4]),
        w.Request(12, 7, [[0, 3]], [], True),
        w.Evict(5, 7, 0, 3),
        w.Flush(13, 7, 0, 3),
        w.Retire(14, 7),
        w.BeginRecording(8),
        w.WantTrace(9, 8, 0, 0),
        w.Schedule(10, 10, 0, [7], [0, 0], [[0, 3], [5, 6]], True),
        w.EndRecording(11, 8),
        w.Configure(6, {"timeout": 1.5}),
        w.WantStatistics(7),
        w.Ping(),
        w.Done(4, [{"message": "m", "chunk": [1, 0]}]),
        w.Done(13, [], [], 3, 70_000),
        w.Statistics(7, {"faults": 3}),
    ]


def _packets() -> list[bytes]:
    return [encode(message) for message in _messages()]


def _lines(start: bytes) -> list[bytes]:
    return [start + packet for packet in _packets()]


def _conversations() -> list[bytes]:
    lines = [b"\x04" + _packets()[0], b"\x01" + _packets()[3], b"\x84" + _packets()[0]]
    return [*_lines(b"\0"), *_lines(b"\x91"), b"\n".join(lines)]


def _records() -> list[bytes]:
    hello, join, _, region, attach, close, *_ = _messages()
    told = [(1, join, 0), (4, hello, 0), (1, region, 0), (1, join, 1), (4, hello, 1)]
    told += [(0, attach, 1), (0, w.Retire(14, 7), 1), (0, close, 0), (0, None, 0), (0, None, 1)]
    told += [(1, region, 0), (0, w.Forgotten(7), 0)]
    lines = [bytes([count]) + encode(record_of(client, what)) for count, what, client in told]
    return [b"\n".join(lines[:stop]) for stop in range(1, len(lines) + 1)]


def _references() -> list[bytes]:
    found: list[dict[str, Any]] = [
        {"kind": "packed", "url": "memory://a", "index": {"a": [0, 16], "x/zarr.json": [16, 200]}},
        {"kind": "packed", "url": "", "index": {"c/0": [200, 100]}},
        {"kind": "local", "path": "/proc/self/fdinfo", "writable": False, "identity": None},
        {"kind": "local", "path": "/nowhere", "writable": False, "identity": [1, 2]},
    ]
    return [json.dumps(description).encode() for description in found]


def _answers() -> tuple[bytes, ...]:
    """Return what servers say of a range, and directory pages."""
    page = b"""bytes */99\n<html><a href="?C=N;O=D">Name</a>
        <A class="x" HREF='/x/zarr.json'>zarr.json</A> <a href="http://h/x/c%20d/">c</a></html>"""
    return b"bytes 5-98/99\n", b"bytes 5-98/*\n", page


_MAKERS = {
    "document_v3": lambda: _documents()["zarr.json"],
    "document_v2": _v2,
    "layout": _layouts,
    "npy": _npy,
    "chunk": _chunks,
    "shard_index": _index_seeds,
    "shard": _shards,
    "message": _packets,
    "channel": _conversations,
    "ledger": _records,
    "reference": _references,
    "answer": _answers,
}
