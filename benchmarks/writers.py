"""Who writes the rows: each library used as its own documentation says, shard after shard."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.images import ImageSize
from benchmarks.samples import LEVEL, Array

__all__ = ["CODECS", "FORMS", "WRITERS", "Writer", "create_zarr", "prepare_zarr"]

CODECS = ("none", "zstd", "zstd, crc32c")
"""How chunks are stored: uncompressed, compressed, and with a checksum too, as lazyarr does."""


class Writer(NamedTuple):
    """The package that must be installed, and what writes rows to a path."""

    needs: str
    write: Callable[[Path, Array, ImageSize], None]


def _write_lazyarr(path: Path, rows: Array, size: ImageSize, compressor: str = "zstd") -> None:
    import lazyarr

    lazyarr.save(path, rows, chunks=size.chunks, shards=size.shards, compressor=compressor)


def _write_lazyarr_blosc(path: Path, rows: Array, size: ImageSize) -> None:
    _write_lazyarr(path, rows, size, "blosc")


def create_zarr(
    path: Path,
    rows: Array,
    *,
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None = None,
    codec: str = CODECS[-1],
) -> Any:
    """Return a new array of zarr-python's, into which `rows` fit."""
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    steps: dict[str, Any] = {"zstd": ZstdCodec(level=LEVEL), "crc32c": Crc32cCodec()}
    return zarr.create_array(
        os.fspath(path),
        shape=rows.shape,
        dtype=rows.dtype,
        chunks=chunks,
        shards=shards,
        compressors=[steps[name] for name in codec.split(", ") if name != "none"],
        overwrite=True,
    )


def prepare_zarr(path: Path, make: Callable[[], Array], **options: Any) -> Path:
    """Have an array at a path, written now if it is not there; options as `create_zarr`'s."""
    if not path.exists():
        rows, part = make(), path.with_name(f"part-{path.name}")
        create_zarr(part, rows, **options)[...] = rows
        part.rename(path)
    return path


def _write_zarr(path: Path, rows: Array, size: ImageSize) -> None:
    array = create_zarr(path, rows, chunks=size.chunks, shards=size.shards)
    for block in size.blocks():
        array[block] = rows[block]


def _write_zarrs(path: Path, rows: Array, size: ImageSize) -> None:
    import zarr
    import zarrs  # noqa: F401 - registers the pipeline

    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    _write_zarr(path, rows, size)


def _write_tensorstore(path: Path, rows: Array, size: ImageSize) -> None:
    import tensorstore

    def grid(shape: tuple[int, ...]) -> dict[str, Any]:
        return {"chunk_shape": list(shape)}

    compression = {"name": "zstd", "configuration": {"level": LEVEL}}
    inner = [{"name": "bytes"}, compression, {"name": "crc32c"}]
    sharding = {"name": "sharding_indexed", "configuration": {**grid(size.chunks), "codecs": inner}}
    metadata = {
        "shape": list(size.shape),
        "data_type": size.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": grid(size.shards)},
        "codecs": [sharding],
    }
    kvstore = {"driver": "file", "path": f"{path}/"}
    spec = {"driver": "zarr3", "kvstore": kvstore, "metadata": metadata}
    array = tensorstore.open(spec, create=True).result()
    for block in size.blocks():
        array[block].write(rows[block]).result()


def _write_hdf5(path: Path, rows: Array, size: ImageSize) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        array = file.create_dataset(
            "images", size.shape, size.dtype, chunks=size.chunks, compression="gzip"
        )
        for block in size.blocks():
            array[block] = rows[block]


def _write_blosc2(path: Path, rows: Array, size: ImageSize) -> None:
    import blosc2

    single = size.dtype.itemsize == 1
    cparams = blosc2.CParams(
        codec=blosc2.Codec.ZSTD,
        clevel=LEVEL,
        filters=[blosc2.Filter.BITSHUFFLE if single else blosc2.Filter.SHUFFLE],
        typesize=size.dtype.itemsize,
    )
    array = blosc2.empty(
        size.shape, size.dtype, urlpath=os.fspath(path), chunks=size.chunks, cparams=cparams
    )
    for block in size.blocks():
        array[block] = rows[block]


def _write_npy(path: Path, rows: Array, size: ImageSize) -> None:  # noqa: ARG001 - as the others
    import numpy as np

    with path.open("wb") as file:
        np.save(file, rows)


WRITERS: dict[str, Writer] = {
    "lazyarr": Writer("lazyarr", _write_lazyarr),
    "lazyarr, blosc": Writer("lazyarr", _write_lazyarr_blosc),
    "zarr-python": Writer("zarr", _write_zarr),
    "zarrs": Writer("zarrs", _write_zarrs),
    "TensorStore": Writer("tensorstore", _write_tensorstore),
    "h5py, gzip": Writer("h5py", _write_hdf5),
    "blosc2, own format": Writer("blosc2", _write_blosc2),
    "numpy.save, uncompressed": Writer("numpy", _write_npy),
}

FORMS = {
    "zarr": WRITERS["zarr-python"],
    "blosc": WRITERS["lazyarr, blosc"],
    "hdf5": WRITERS["h5py, gzip"],
    "blosc2": WRITERS["blosc2, own format"],
}
"""Who writes which form of `Images` that is read; the uncompressed one is there before."""
