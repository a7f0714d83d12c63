"""The data: synthetic 16-bit images, stored as each contestant wants them.

The images look like a camera's in the one way that matters here: zstd 3 makes
half of them, and gives them back at about the speed of real ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["LEVEL", "ImageSize", "Images", "make_images", "prepare_images", "warm"]

LEVEL = 3
"""Level of zstd, everywhere."""

_BACKGROUND = 100
_SIGNAL = 1000
_NOISE = 4


@dataclass(frozen=True, slots=True)
class ImageSize:
    """How many images there are, how large, and how they are chunked.

    Attributes
    ----------
    n_images, height, width : int
        The array's shape; a row of the array is an image.
    chunk_rows, shard_rows : int
        Rows of a chunk and of a shard.
    """

    n_images: int
    height: int
    width: int
    chunk_rows: int = 4
    shard_rows: int = 256

    @property
    def shape(self) -> tuple[int, int, int]:
        """The array's shape."""
        return self.n_images, self.height, self.width

    @property
    def chunks(self) -> tuple[int, int, int]:
        """Shape of a chunk."""
        return self.chunk_rows, self.height, self.width

    @property
    def shards(self) -> tuple[int, int, int]:
        """Shape of a shard."""
        return min(self.shard_rows, self.n_images), self.height, self.width

    @property
    def nbytes(self) -> int:
        """Bytes of all images."""
        return 2 * self.n_images * self.height * self.width

    def blocks(self) -> Iterator[slice]:
        """Give the rows of each shard."""
        step = self.shards[0]
        return (slice(a, min(a + step, self.n_images)) for a in range(0, self.n_images, step))


@dataclass(frozen=True, slots=True)
class Images:
    """The images as files, in every form that a contestant of this machine reads.

    Attributes
    ----------
    directory : Path
        Where the files are.
    size : ImageSize
        What they hold.
    """

    directory: Path
    size: ImageSize

    @property
    def zarr(self) -> Path:
        """Zarr v3: zstd 3 with crc32c, in shards."""
        return self.directory / "images.zarr"

    @property
    def npy(self) -> Path:
        """Uncompressed."""
        return self.directory / "images.npy"

    @property
    def hdf5(self) -> Path:
        """HDF5: gzip 4, the same chunks."""
        return self.directory / "images.h5"

    @property
    def blosc2(self) -> Path:
        """Blosc2's own: zstd with shuffle, the same chunks."""
        return self.directory / "images.b2nd"


def make_images(n_images: int, height: int, width: int, *, seed: int) -> np.ndarray[Any, Any]:
    """Return images, the same for the same seed: a smooth signal, a background, noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    images = np.empty((n_images, height, width), np.uint16)
    for image in images:
        along_x, along_y = rng.uniform(0.005, 0.05, 2)
        phase_x, phase_y = rng.uniform(0, 2 * np.pi, 2)
        signal = np.sin(along_x * x + phase_x) * np.cos(along_y * y + phase_y)
        noise = rng.standard_normal((height, width), np.float32)
        image[:] = np.clip(_BACKGROUND + _SIGNAL * np.maximum(signal, 0) + _NOISE * noise, 0, None)
    return images


def prepare_images(data: Path, size: ImageSize) -> Images:
    """Return the images below `data`, made now where they are not there yet.

    Each form appears when it is complete: what was broken off is made again.
    """
    import shutil

    name = "x".join(map(str, (*size.shape, size.chunk_rows, size.shard_rows)))
    images = Images(data / f"images-{name}", size)
    images.directory.mkdir(parents=True, exist_ok=True)
    forms: list[tuple[Path, Callable[[Path, ImageSize], None], str]] = [
        (images.npy, _write_npy, "numpy"),
        (images.zarr, _write_zarr, "zarr"),
        (images.hdf5, _write_hdf5, "h5py"),
        (images.blosc2, _write_blosc2, "blosc2"),
    ]
    for path, write, needs in forms:
        if not path.exists() and find_spec(needs):
            part = path.with_name(f"part-{path.name}")
            shutil.rmtree(part, ignore_errors=True)
            part.unlink(missing_ok=True)
            write(part, size)
            part.rename(path)
    return images


def warm(directory: Path) -> None:
    """Have every file below a directory in the page cache."""
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.read(1 << 22):
                    pass


def _shards(size: ImageSize) -> Iterator[tuple[slice, np.ndarray[Any, Any]]]:
    for rows in size.blocks():
        yield rows, make_images(rows.stop - rows.start, *size.shape[1:], seed=rows.start)


def _write_npy(path: Path, size: ImageSize) -> None:
    with path.open("wb") as file:
        header = {"descr": "<u2", "fortran_order": False, "shape": size.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for _, images in _shards(size):
            images.tofile(file)


def _write_zarr(path: Path, size: ImageSize) -> None:
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    array = zarr.create_array(
        os.fspath(path),
        shape=size.shape,
        dtype="uint16",
        chunks=size.chunks,
        shards=size.shards,
        compressors=[ZstdCodec(level=LEVEL), Crc32cCodec()],
    )
    for rows, images in _shards(size):
        array[rows] = images


def _write_hdf5(path: Path, size: ImageSize) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        array = file.create_dataset(
            "images", size.shape, "uint16", chunks=size.chunks, compression="gzip"
        )
        for rows, images in _shards(size):
            array[rows] = images


def _write_blosc2(path: Path, size: ImageSize) -> None:
    import blosc2

    cparams = blosc2.CParams(
        codec=blosc2.Codec.ZSTD, clevel=LEVEL, filters=[blosc2.Filter.SHUFFLE], typesize=2
    )
    array = blosc2.empty(
        size.shape, np.uint16, urlpath=os.fspath(path), chunks=size.chunks, cparams=cparams
    )
    for rows, images in _shards(size):
        array[rows] = images
