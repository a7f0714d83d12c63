"""Fuzz targets: what may come of bytes from somebody who need not be what they say.

Each is a pure function of some bytes that raises when its invariant, its docstring, does
not hold.  Hypothesis, atheris and the replayed corpus all call these.  One module, so that
what lazyarr promises of untrusted input can be read in one place.
"""

from __future__ import annotations

import array
import functools
import itertools
import json
import os
import socket
import warnings
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from lazyarr.client.arrays.describe import describe_group, describe_metadata, describe_tree
from lazyarr.codecs import DamagedChunkError
from lazyarr.errors import ChunkError, FormatError, PagerError, StoreError
from lazyarr.formats.npy import FORMAT
from lazyarr.formats.zarr import (
    ArrayMetadata,
    GroupMetadata,
    Node,
    parse_node,
    parse_v2_array,
    parse_v2_consolidated,
    parse_v2_group,
    resized_document,
)
from lazyarr.layout import Layout, ShardLevel
from lazyarr.layout.document import layout_text, parse_layout, parse_pipeline, pipeline_text
from lazyarr.reading.locator import Locator, ObjectRange
from lazyarr.reading.unit_reader import UnitReader
from lazyarr.reading.units import geometry_of
from lazyarr.reading.workspace import Workspace
from lazyarr.store import open_reference
from lazyarr.store.failure import UnusableAnswerError
from lazyarr.store.http_headers import check_given, parse_content_range
from lazyarr.store.packed import PackedStore
from lazyarr.store.transport_http import parse_links
from lazyarr.wire.channel import Received, channel_pair
from lazyarr.wire.ledger import Ledger, record_of
from lazyarr.wire.packets import decode, encode
from tests.reading.arrays import fetch as fetch_chunks

__all__ = ["PIPELINES", "SHARDED", "TARGETS"]

_LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}


def _named(name: str, **configuration: object) -> dict[str, object]:
    return {"name": name, "configuration": configuration}


def _layout(*codecs: object, shape: tuple[int, ...] = (256,), chunk: tuple[int, ...] = (256,)):
    """Return the layout of an array of uint32 that goes through some codecs."""
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": "uint32",
        "chunk_grid": _named("regular", chunk_shape=chunk),
        "chunk_key_encoding": _named("default"),
        "fill_value": 7,
        "codecs": codecs,
    }
    node = parse_node(json.dumps(document).encode(), path="x")
    assert isinstance(node, ArrayMetadata)
    return node.layout()


# --- documents ------------------------------------------------------------------------


def document_v3(data: bytes) -> None:
    """A ``zarr.json`` is a node that holds together, or a FormatError."""
    try:
        node = parse_node(data, path="a")
    except FormatError:
        return
    _check_node(node)
    if isinstance(node, ArrayMetadata):
        _check_resized(data, node)


def document_v2(data: bytes) -> None:
    """What Zarr v2 has, its attributes behind a zero byte, is a node or a FormatError."""
    first, found, attributes = data.partition(b"\0")
    zattrs = attributes if found else None
    with suppress(FormatError):
        _check_node(parse_v2_array(first, zattrs, path="a"))
    with suppress(FormatError):
        _check_node(parse_v2_group(first, zattrs, path=""))
    with suppress(FormatError):
        _check_node(parse_v2_consolidated(first, path=""))


def npy(data: bytes) -> None:
    """An ``.npy`` file is an array that holds together, or a FormatError; nothing is unpickled."""
    store = _OneObject(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, for headers that Python 2 wrote
            found = (FORMAT.describe(store, "x.npy") or {}).get("")
    except FormatError:
        return
    assert found is not None
    assert found.start + found.nbytes <= len(data)
    for each in (found, found.native()):
        _check_layout(each.layout())
        text = layout_text(each.layout())
        assert layout_text(parse_layout(text)) == text
    assert found.dtype.to_numpy().itemsize == found.dtype.itemsize
    assert not found.dtype.to_numpy().hasobject
    describe_metadata("memory://u", found)


class _OneObject:
    """A store of one object, as far as a format needs one."""

    url = "memory://u"

    def __init__(self, data: bytes) -> None:
        self._data = data

    def size(self, key: str) -> int:
        return len(self._data)

    def read_range(self, key: str, start: int, stop: int) -> memoryview:
        assert 0 <= start <= stop <= len(self._data)
        return memoryview(self._data)[start:stop]


def _check_node(node: Node | FormatError) -> None:
    if isinstance(node, ArrayMetadata):
        _check_array(node)
    elif isinstance(node, GroupMetadata) and node.consolidated is not None:
        below = sorted(node.consolidated.items())
        describe_group("u", node, below)
        describe_tree(node.path, below)
        for child in node.consolidated.values():
            _check_node(child)


def _check_array(node: ArrayMetadata) -> None:
    """Do all that opening an array does but for mapping memory."""
    for each in (node, node.native()):
        layout = each.layout()
        assert layout.nbytes == node.nbytes
        _check_layout(layout)
        text = layout_text(layout)
        assert layout_text(parse_layout(text)) == text
    describe_metadata("u", node)
    assert _parse_again(node) == (node.shape, node.chunk_shape, node.codecs, node.dtype)
    _check_type(node)


def _check_type(node: ArrayMetadata) -> None:
    """Check that NumPy takes the type, and arrays of it and of this shape."""
    dtype = node.dtype.to_numpy()
    assert dtype.itemsize == node.dtype.itemsize == len(node.fill)
    assert not dtype.hasobject
    element = np.frombuffer(node.fill, dtype)
    assert np.broadcast_to(element[0:1].reshape(()), node.shape).shape == node.shape
    assert repr(node.fill_value)


def _parse_again(node: ArrayMetadata) -> tuple[object, ...]:
    """Return what the document says that is kept of an array for those who look at it."""
    document = json.dumps(node.document).encode()
    again: Node
    if node.zarr_format == 2:
        again = parse_v2_array(document, None, path=node.path)
    else:
        again = parse_node(document, path=node.path)
    assert isinstance(again, ArrayMetadata)
    assert again.fill == node.fill
    return again.shape, again.chunk_shape, again.codecs, again.dtype


def layout(data: bytes) -> None:
    """What describes a layout gives one that holds together and can be sent on, or FormatError."""
    try:
        found = parse_layout(data)
    except FormatError:
        return
    text = layout_text(found)
    assert layout_text(parse_layout(text)) == text
    pipeline = pipeline_text(found.pipeline)
    assert pipeline_text(parse_pipeline(pipeline)) == pipeline
    _check_layout(found)


def _check_layout(found: Layout) -> None:
    """Check that every chunk has a place, as far as the first and the last one show it."""
    geometry = geometry_of(found)
    assert geometry.nbytes == found.nbytes <= 2**62
    assert found.chunk_nbytes <= 2**62
    assert sorted(found.axes) == list(range(len(found.shape)))
    finder = Locator(found, "a")
    if all(found.grid_shape):
        for place in (0, -1):
            chunk = tuple(range(n)[place] for n in found.grid_shape)
            address = found.locate(chunk)
            if address is not None:
                for entry, level in zip(address.entries, found.levels, strict=True):
                    assert 0 <= entry < level.n_entries
            where = finder.find(chunk)
            if isinstance(where, ObjectRange) and where.stop is not None:
                assert 0 <= where.start <= where.stop <= 2**63
    if geometry.n_units:
        last = geometry.n_units - 1
        assert geometry.unit_bytes(last).stop == geometry.nbytes
        assert geometry.unit_at(geometry.nbytes - 1) == last
        found.locate(geometry.first_chunk(last))


def _check_resized(data: bytes, node: ArrayMetadata) -> None:
    resized = parse_node(resized_document(data, node.shape), path="a")
    assert repr(resized) == repr(node)  # NaN is not equal to itself


# --- chunks ---------------------------------------------------------------------------

PIPELINES: tuple[Layout, ...] = (
    _layout(_LITTLE, _named("zstd", level=1, checksum=False)),
    _layout(_LITTLE, _named("zstd", level=1, checksum=True), {"name": "crc32c"}),
    _layout(_LITTLE, _named("gzip", level=1)),
    _layout(_LITTLE, _named("numcodecs.zlib", level=1)),
    _layout(_LITTLE, _named("numcodecs.bz2", level=1)),
    _layout(_LITTLE, _named("numcodecs.lzma", preset=0)),
    _layout(
        _LITTLE,
        _named("numcodecs.lzma", format=3, filters=[{"id": 3, "dist": 4}, {"id": 33, "preset": 0}]),
    ),
    _layout(_LITTLE, _named("numcodecs.lz4")),
    *(
        _layout(
            _LITTLE,
            _named("blosc", cname=name, clevel=5, shuffle=shuffle, typesize=4, blocksize=0),
        )
        for name, shuffle in [
            ("lz4", "shuffle"),
            ("zstd", "bitshuffle"),
            ("blosclz", "noshuffle"),
            ("zlib", "shuffle"),
        ]
    ),
    _layout(_LITTLE, _named("numcodecs.shuffle", elementsize=4), _named("gzip", level=1)),
    _layout(_named("numcodecs.delta", dtype="<u4"), _LITTLE, _named("zstd", level=1)),
    _layout(
        _named("numcodecs.fixedscaleoffset", offset=1, scale=2, dtype="<u4", astype="<u2"), _LITTLE
    ),
    _layout(_LITTLE, _named("numcodecs.fletcher32")),
    _layout(_LITTLE, _named("numcodecs.base64")),
    _layout(_LITTLE, _named("gzip", level=1), _named("zstd", level=1), {"name": "crc32c"}),
)
"""What the first byte of a chunk's input says that the rest went through."""


def chunk(data: bytes) -> None:
    """A stored chunk fills its memory to the last byte, twice alike, or is damaged."""
    if not data:
        return
    layout = PIPELINES[data[0] % len(PIPELINES)]
    first = _decode(layout, data[1:], b"\xaa")
    assert first == _decode(layout, data[1:], b"\x55")


def _decode(layout: Layout, stored: bytes, before: bytes) -> bytes | None:
    # Another memory each time: a byte that no codec wrote differs.
    out = bytearray(before * layout.chunk_nbytes)
    try:
        layout.decode(memoryview(stored), memoryview(out))
    except DamagedChunkError as error:
        return None if error.reason else b"no reason"
    return bytes(out)


# --- shards ---------------------------------------------------------------------------


def shard_index(data: bytes) -> None:
    """Every entry of a shard index lies in the shard, or the index is damaged."""
    if len(data) < 2:
        return
    level = ShardLevel(
        (1 + data[0] % 5, 1 + data[0] // 5 % 3),
        "start" if data[1] & 1 else "end",
        bool(data[1] & 2),
        bool(data[1] & 4),
    )
    size = None if data[1] & 8 else len(data) - 2 + (data[1] >> 4) * 100
    try:
        index = level.parse_index(memoryview(data)[2:], object_nbytes=size)
    except DamagedChunkError:
        return
    entries = [index.entry(i) for i in range(level.n_entries)]
    assert len(index) == level.n_entries
    assert index.n_stored == sum(entry is not None for entry in entries)
    limit = 2**63 - 1 if size is None else size
    assert all(0 <= sum(entry) <= limit for entry in entries if entry is not None)
    if level.checksum or size is not None:
        assert level.build_index(entries) == data[2:]


def _sharding(chunk_shape: tuple[int, ...], location: str, *codecs: object, check: bool = True):
    index = [_LITTLE, {"name": "crc32c"}] if check else [_LITTLE]
    return _named(
        "sharding_indexed",
        chunk_shape=chunk_shape,
        codecs=codecs,
        index_codecs=index,
        index_location=location,
    )


SHARDED: tuple[Layout, ...] = (
    _layout(_sharding((64,), "end", _LITTLE, check=False)),
    _layout(_sharding((64,), "start", _LITTLE, _named("zstd"), check=False)),
    _layout(_sharding((64,), "end", _LITTLE, {"name": "crc32c"})),
    *(
        _layout(_sharding((64,), a, _sharding((16,), b, _LITTLE, check=False), check=False))
        for a, b in itertools.product(("start", "end"), repeat=2)
    ),
    _layout(
        _named("transpose", order=[1, 0]),
        _sharding((4, 2), "end", _LITTLE, _named("gzip"), check=False),
        shape=(9, 7),
        chunk=(8, 4),
    ),
)
"""What the first byte of a shard's input says that the rest is a shard of."""


def shard(data: bytes) -> None:
    """Units of a shard are read, all ways alike, or are a ChunkError that names everything."""
    if not data:
        return
    layout = SHARDED[data[0] % len(SHARDED)]
    geometry = geometry_of(layout)
    fd = os.memfd_create("shard", os.MFD_CLOEXEC)
    os.write(fd, data[1:])
    keys = {layout.locate(geometry.first_chunk(unit)).key for unit in range(geometry.n_units)}
    index = {f"x/{key}": (0, len(data) - 1) for key in keys}
    store = PackedStore(fd, index, "packed")
    source = UnitReader(lambda: store, layout, geometry, url="u", path="x")
    try:
        for unit in range(geometry.n_units):
            found = [_load(source, unit, fetch=fetch) for fetch in (False, True)]
            if isinstance(found[0], ChunkError):
                assert isinstance(found[1], ChunkError)
                assert all(error.key and error.reason and error.array == "x" for error in found)
            else:
                assert found[0] == found[1]
    finally:
        source.close()


def _load(source: UnitReader, unit: int, *, fetch: bool) -> bytes | ChunkError:
    workspace = _workspace()
    try:
        fetched = fetch_chunks(source, unit) if fetch else None
        if not source.load(unit, workspace, fetched):
            return b""
    except ChunkError as error:
        return error
    return bytes(workspace.unit.view[:256])


@functools.cache
def _workspace() -> Workspace:
    return Workspace()


# --- wire -----------------------------------------------------------------------------


def message(data: bytes) -> None:
    """A packet is a message that can be sent on, as it is and in a record, or a PagerError."""
    try:
        found = decode(data)
    except PagerError:
        return
    assert repr(decode(encode(found))) == repr(found)  # NaN is not equal to itself
    record = record_of(0, found)
    assert repr(decode(encode(record))) == repr(record)


def channel(data: bytes) -> None:
    """What is sent on a channel, lines with descriptors, is heard, and no descriptor stays."""
    before = sorted(os.listdir("/proc/self/fd"))
    here, there = channel_pair()
    with socket.socket(fileno=here.detach()) as sender:
        for line in data.split(b"\n")[:20]:
            _send_line(sender, line)
            _hear(there)
    assert there.receive() is None
    there.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


def _send_line(sender: socket.socket, line: bytes) -> None:
    """Send a packet and as many descriptors as its first byte says; the first holds the packet."""
    count, packet = (line[0] % 16, line[1:]) if line else (0, line)
    with open(os.memfd_create("packet", os.MFD_CLOEXEC), "r+b", buffering=0) as file:
        file.write(packet)
        if line[:1] > b"\x7f":
            packet = b"spilled"
        rights = array.array("i", [file.fileno()] * count)
        sender.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if count else [])


def _hear(there) -> None:
    for peek in (True, False):
        try:
            received = there.hear(peek=peek)
        except PagerError:
            continue
        for descriptor in received.descriptors if received is not None else ():
            os.close(descriptor)


def ledger(data: bytes) -> None:
    """A ledger enters records, one a line, or raises PagerError, and owns no descriptor it lost."""
    before = sorted(os.listdir("/proc/self/fd"))
    kept = Ledger()
    for line in data.split(b"\n")[:20]:
        count, packet = (line[0] % 8, line[1:]) if line else (0, line)
        with suppress(PagerError):
            found = decode(packet)
            kept.enter(Received(found, tuple(os.dup(2) for _ in range(count))))
    for client in tuple(kept.clients):
        kept.enter(Received(record_of(client, None), ()))
    assert not kept.clients
    for region in kept.regions.values():
        assert region.addresses
    for client in {c for region in kept.regions.values() for c in region.addresses}:
        kept.enter(Received(record_of(client, None), ()))
    assert not kept.regions
    assert sorted(os.listdir("/proc/self/fd")) == before


def reference(data: bytes) -> None:
    """A store's description opens a store that reads, or raises StoreError; no descriptor stays."""
    before = sorted(os.listdir("/proc/self/fd"))
    try:
        description = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(description, dict) or description.get("kind") == "fsspec":
        return
    fd = os.memfd_create("packed", os.MFD_CLOEXEC)
    os.write(fd, bytes(range(256)))
    with suppress(StoreError):
        store = open_reference(description, (fd,))
        try:
            for key in ("x/zarr.json", "a", "c/0"):
                with suppress(StoreError):
                    _check_object(store, key)
        finally:
            store.close()
    assert sorted(os.listdir("/proc/self/fd")) == before


def _check_object(store, key: str) -> None:
    size = store.size(key)
    whole = store.read(key) if size is None or size < 1 << 20 else b""
    assert (whole is None) == (size is None)


def answer(data: bytes) -> None:
    """What a server says of a range is that range, and a directory page has names below it."""
    first, _, page = str(data, "latin-1").partition("\n")
    assert all(
        name.strip("/") and "/" not in name[:-1] for name in parse_links(page, "http://h/x/")
    )
    with suppress(UnusableAnswerError):
        given = parse_content_range(first)
        check_given(given, 5, 99)
        assert given.start == 5 <= given.stop <= 99


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        document_v3,
        document_v2,
        layout,
        npy,
        chunk,
        shard_index,
        shard,
        message,
        channel,
        ledger,
        reference,
        answer,
    )
}
