"""Stored arrays of many kinds, written by zarr-python, and what a source must give of them."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, TransposeCodec, ZstdCodec

from lazyarr.formats.zarr import ArrayMetadata, parse_node, parse_v2_array
from lazyarr.kernel import PAGE_NBYTES
from lazyarr.layout import Layout
from lazyarr.layout.geometry import Geometry
from lazyarr.reading.fetcher import Fetcher, Urgency
from lazyarr.reading.unit_reader import UnitReader
from lazyarr.reading.units import geometry_of
from lazyarr.reading.workspace import Fetched, Workspace
from lazyarr.store import Store, open_store

CHECKED = {"compressors": [ZstdCodec(level=1), Crc32cCodec()]}
BARE: dict[str, Any] = {"compressors": None}
NESTED = ShardingCodec(
    chunk_shape=(8, 6),
    codecs=[ShardingCodec(chunk_shape=(2, 6), codecs=[BytesCodec(), ZstdCodec(), Crc32cCodec()])],
)
AT_START = ShardingCodec(
    chunk_shape=(4, 6), codecs=[BytesCodec(), Crc32cCodec()], index_location="start"
)
BIG = BytesCodec(endian="big")

KINDS: dict[str, dict[str, Any]] = {
    "one axis": {"shape": (50,), "chunks": (7,)},
    "rows": {"shape": (10, 6), "chunks": (3, 6)},
    "rows of rows": {"shape": (3, 5, 4), "chunks": (1, 2, 4)},
    "tiles": {"shape": (10, 9), "chunks": (4, 5)},
    "tiles of odd items": {"shape": (10, 9), "chunks": (4, 5), "dtype": "c16"},
    "tiles wider than the array": {"shape": (5, 3), "chunks": (4, 8)},
    "scalar": {"shape": (), "chunks": ()},
    "one byte": {"shape": (1,), "chunks": (1000,), "dtype": "u1"},
    "not compressed": {"shape": (50,), "chunks": (7,), **BARE},
    "shards": {"shape": (40, 6), "chunks": (2, 6), "shards": (8, 6), **CHECKED},
    "shards of tiles": {"shape": (20, 20), "chunks": (4, 5), "shards": (8, 10), **CHECKED},
    "shards of shards": {"shape": (40, 6), "chunks": (16, 6), "serializer": NESTED, **BARE},
    "index at the start": {"shape": (40, 6), "chunks": (8, 6), "serializer": AT_START, **BARE},
    "big endian": {"shape": (10, 9), "chunks": (4, 5), "dtype": "i2", "serializer": BIG},
    "transposed": {
        "shape": (10, 6),
        "chunks": (10, 2),
        "filters": [TransposeCodec(order=(1, 0))],
    },
    "version 2": {"shape": (10, 9), "chunks": (4, 9), "zarr_format": 2},
    "version 2, columns first": {
        "shape": (10, 9),
        "chunks": (4, 5),
        "zarr_format": 2,
        "order": "F",
    },
}


@dataclass
class Stored:
    """An array in a directory, and its bytes in the order of its memory."""

    directory: Path
    layout: Layout
    geometry: Geometry
    truth: bytes
    path: str = "group/x"

    def open(self) -> Store:
        """Return its store."""
        return open_store(self.directory, writable=True)

    def source(self, open_store: Callable[[], Store] | None = None, **options: Any) -> UnitReader:
        """Return its source, on another store if wanted."""
        return UnitReader(
            open_store or self.open,
            self.layout,
            self.geometry,
            url="file:///test",
            path=self.path,
            **options,
        )

    def objects(self) -> list[Path]:
        """Return the files that hold chunks."""
        files = (self.directory / self.path).rglob("*")
        return sorted(f for f in files if f.is_file() and not f.name.startswith((".z", "zarr")))

    def unit(self, unit: int) -> bytes:
        """Return the bytes of a unit."""
        return self.truth[slice(*self.geometry.unit_bytes(unit))]


def store_array(
    directory: Path,
    *,
    shape: tuple[int, ...],
    fill: int = 0,
    missing: int = 0,
    grouped: bool = False,
    **options: Any,
) -> Stored:
    """Write an array of random elements, of which the first `missing` rows are the fill value.

    Chunks that hold nothing but the fill value are not stored.  Units are as small as they can
    be, however little that is, unless they are to be `grouped`, as they are in use.
    """
    options = {"dtype": "i4", **options}
    rng = np.random.default_rng(7)
    data = rng.integers(1, 100, shape).astype(options["dtype"])
    if shape:
        data[:missing] = fill
    store = zarr.storage.LocalStore(directory)
    config = {"write_empty_chunks": False}
    array = zarr.create_array(
        store, name="group/x", shape=shape, fill_value=fill, config=config, **options
    )
    array[...] = data
    layout = _metadata(directory / "group/x").layout()
    geometry = Geometry(layout.shape, layout.chunk_shape, layout.itemsize, PAGE_NBYTES)
    if grouped:
        geometry = geometry_of(layout)
    in_memory = data.transpose(layout.axes)
    if "big" in repr(options.get("serializer")):
        in_memory = in_memory.astype(in_memory.dtype.newbyteorder(">"))
    return Stored(directory, layout, geometry, in_memory.tobytes())


def _metadata(node: Path) -> ArrayMetadata:
    if (node / ".zarray").exists():
        return parse_v2_array((node / ".zarray").read_bytes(), None, path="group/x")
    metadata = parse_node((node / "zarr.json").read_bytes(), path="group/x")
    assert isinstance(metadata, ArrayMetadata)
    return metadata


def fetch(source: UnitReader, unit: int) -> Fetched:
    """Return the encoded chunks of a unit as they come over a network; raise what went wrong."""
    results: queue.SimpleQueue[Fetched | BaseException] = queue.SimpleQueue()
    fetcher = Fetcher(4, failed=results.put)
    fetcher.submit(source, unit, results.put, urgency=Urgency.REQUEST)
    fetcher.flush()
    result = results.get(timeout=60)
    fetcher.close()
    if isinstance(result, BaseException):
        raise result
    return result


def load(
    source: UnitReader, stored: Stored, unit: int, workspace: Workspace, **options: Any
) -> bytes:
    """Return a unit as it would be installed."""
    nbytes = stored.geometry.unit_bytes(unit).size
    if source.load(unit, workspace, **options):
        return bytes(workspace.unit.view[:nbytes])
    return bytes(nbytes)
