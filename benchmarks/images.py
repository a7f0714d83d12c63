"""Rows of one kind of data, stored as each contestant wants them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.samples import IMAGES, KINDS, make_rows

__all__ = ["Images", "ImageSize", "prepare_images", "stored_nbytes", "warm"]


@dataclass(frozen=True, slots=True)
class ImageSize:
    """How many rows there are, how large, of what, and how they are chunked.

    Attributes
    ----------
    n_images, height, width : int
        The array's shape; a row of the array is an image.
    chunk_rows, shard_rows : int
        Rows of a chunk and of a shard.
    kind : str
        Of `KINDS`.
    """

    n_images: int
    height: int
    width: int
    chunk_rows: int = 4
    shard_rows: int = 256
    kind: str = IMAGES

    @property
    def shape(self) -> tuple[int, int, int]:
        """The array's shape."""
        return self.n_images, self.height, self.width

    @property
    def dtype(self) -> np.dtype[Any]:
        """The array's elements."""
        return np.dtype(KINDS[self.kind].dtype)

    @property
    def chunks(self) -> tuple[int, int, int]:
        """Shape of a chunk."""
        return self.chunk_rows, self.height, self.width

    @property
    def shards(self) -> tuple[int, int, int]:
        """Shape of a shard."""
        return min(self.shard_rows, self.n_images), self.height, self.width

    @property
    def chunk_nbytes(self) -> int:
        """Bytes of a chunk."""
        return self.dtype.itemsize * self.chunk_rows * self.height * self.width

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.dtype.itemsize * self.n_images * self.height * self.width

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.shape))
        return (
            f"{shape} {self.dtype}, {self.nbytes / 2**20:.0f} MiB, chunks of {self.chunk_rows} "
            f"rows, shards of {self.shards[0]}"
        )

    def blocks(self) -> Iterator[slice]:
        """Give the rows of each shard."""
        step = self.shards[0]
        return (slice(a, min(a + step, self.n_images)) for a in range(0, self.n_images, step))

    def name(self) -> str:
        """Return what tells it from others in the name of a directory."""
        parts = "x".join(map(str, (*self.shape, self.chunk_rows, self.shard_rows)))
        kind = "images" if self.kind == IMAGES else self.kind.replace(" ", "-").replace(",", "")
        return f"{kind}-{parts}"


_FILES = {
    "npy": "images.npy",
    "zarr": "images.zarr",
    "blosc": "images-blosc.zarr",
    "hdf5": "images.h5",
    "blosc2": "images.b2nd",
}
"""By form; all others are made from the first."""


@dataclass(frozen=True, slots=True)
class Images:
    """The rows as files, in every form that a contestant of this machine reads.

    Attributes
    ----------
    directory : Path
        Where the files are.
    size : ImageSize
        What they hold.
    """

    directory: Path
    size: ImageSize

    def path(self, form: str) -> Path:
        """Return where a form is: "npy", "zarr", "blosc", "hdf5" or "blosc2"."""
        return self.directory / _FILES[form]

    def job(self) -> dict[str, Any]:
        """Return what another process needs to know, for JSON."""
        return {"directory": str(self.directory), "size": dataclasses.asdict(self.size)}

    @classmethod
    def of_job(cls, job: dict[str, Any]) -> Images:
        """Return the rows that `job` tells of."""
        return cls(Path(job["directory"]), ImageSize(**job["size"]))


def prepare_images(data: Path, size: ImageSize, forms: Sequence[str] = tuple(_FILES)) -> Images:
    """Return the rows below `data`, uncompressed and in other forms, made now if not there yet.

    Each form appears when it is complete: what was broken off is made again.
    """
    import shutil

    from benchmarks.writers import FORMS

    images = Images(data / size.name(), size)
    images.directory.mkdir(parents=True, exist_ok=True)
    if not images.path("npy").exists():
        _write_npy(images.path("npy"), size)
    for form, (needs, write) in FORMS.items():
        path = images.path(form)
        if form in forms and not path.exists() and find_spec(needs):
            part = path.with_name(f"part-{path.name}")
            shutil.rmtree(part, ignore_errors=True)
            part.unlink(missing_ok=True)
            write(part, np.load(images.path("npy"), mmap_mode="r"), size)
            part.rename(path)
    return images


def _write_npy(path: Path, size: ImageSize) -> None:
    part = path.with_name(f"part-{path.name}")
    with part.open("wb") as file:
        header = {"descr": size.dtype.str, "fortran_order": False, "shape": size.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for rows in size.blocks():
            n_rows = rows.stop - rows.start
            make_rows(size.kind, n_rows, size.height, size.width, seed=rows.start).tofile(file)
    part.rename(path)


def stored_nbytes(path: Path) -> int:
    """Return how large a file is, or all files below a directory."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def warm(directory: Path) -> None:
    """Have every file below a directory in the page cache."""
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.read(1 << 22):
                    pass
