"""Who reads the images: each library used as its own documentation says, defaults otherwise."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np

from benchmarks.images import Images

__all__ = ["MANY", "READERS", "Reader", "checksum", "installed_readers"]

_CACHE_NBYTES = 4 << 30


def checksum(rows: Any) -> int:
    """Return the sum of rows, eight bytes at a time: every byte is read, and little else is done.

    Rows are whole and contiguous, and their sum does not depend on their order.
    """
    return int(rows.reshape(-1).view(np.uint64).sum())


class Reader:
    """The images, opened by one library, which is imported here and not before.

    Attributes
    ----------
    needs : str
        The package that must be installed.
    form : str
        What it reads of `Images`.
    """

    needs: ClassVar[str]
    form: ClassVar[str]

    def __init__(self, images: Images) -> None:
        raise NotImplementedError

    def row(self, index: int) -> Any:
        """Return one image."""
        raise NotImplementedError

    def rows(self, start: int, stop: int) -> Any:
        """Return images that follow one another."""
        raise NotImplementedError

    def take(self, indices: Sequence[int]) -> Any:
        """Return images here and there; indices ascend."""
        raise NotImplementedError


class _Indexed(Reader):
    """A library whose arrays are indexed as NumPy's are."""

    array: Any

    def row(self, index: int) -> Any:
        return self.array[index]

    def rows(self, start: int, stop: int) -> Any:
        return self.array[start:stop]

    def take(self, indices: Sequence[int]) -> Any:
        return self.array[list(indices)]


class _Lazyarr(_Indexed):
    needs = "lazyarr"
    form = "zarr"

    def __init__(self, images: Images) -> None:
        import lazyarr

        self.array = lazyarr.open(images.path(self.form))


class _LazyarrRaw(_Lazyarr):
    """The plain array over the same memory: everything comes by page faults."""

    def __init__(self, images: Images) -> None:
        super().__init__(images)
        self.array = np.asarray(self.array)


class _LazyarrBlosc(_Lazyarr):
    form = "blosc"


class _LazyarrBloscRaw(_LazyarrRaw):
    form = "blosc"


class _Zarr(_Indexed):
    needs = "zarr"
    form = "zarr"

    def __init__(self, images: Images) -> None:
        import zarr

        self.array = zarr.open_array(os.fspath(images.path(self.form)), mode="r")

    def take(self, indices: Sequence[int]) -> Any:
        return self.array.oindex[np.array(indices)]


class _Zarrs(_Zarr):
    needs = "zarrs"

    def __init__(self, images: Images) -> None:
        import zarr
        import zarrs  # noqa: F401 - registers the pipeline

        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
        super().__init__(images)


class _TensorStore(Reader):
    needs = "tensorstore"
    form = "zarr"
    context: ClassVar[dict[str, Any]] = {}

    def __init__(self, images: Images) -> None:
        import tensorstore

        kvstore = {"driver": "file", "path": f"{images.path(self.form)}/"}
        spec = {"driver": "zarr3", "kvstore": kvstore, "recheck_cached_data": "open"}
        context = tensorstore.Context(self.context)
        self.array = tensorstore.open(spec, context=context, read=True).result()

    def row(self, index: int) -> Any:
        return self.array[index].read().result()

    def rows(self, start: int, stop: int) -> Any:
        return self.array[start:stop].read().result()

    def take(self, indices: Sequence[int]) -> Any:
        return self.array[np.array(indices)].read().result()


class _TensorStoreCached(_TensorStore):
    context: ClassVar[dict[str, Any]] = {"cache_pool": {"total_bytes_limit": _CACHE_NBYTES}}


class _H5py(_Indexed):
    needs = "h5py"
    form = "hdf5"

    def __init__(self, images: Images) -> None:
        import h5py

        # More slots than chunks: one that is hit twice drops what it held.
        file = h5py.File(
            images.path(self.form), "r", rdcc_nbytes=_CACHE_NBYTES, rdcc_nslots=100_003
        )
        self.array = file["images"]


class _Blosc2(_Indexed):
    needs = "blosc2"
    form = "blosc2"

    def __init__(self, images: Images) -> None:
        import blosc2

        self.array = blosc2.open(os.fspath(images.path(self.form)), mode="r")


class _Memmap(_Indexed):
    needs = "numpy"
    form = "npy"

    def __init__(self, images: Images) -> None:
        self.array = np.load(images.path(self.form), mmap_mode="r")


READERS: dict[str, type[Reader]] = {
    "lazyarr": _Lazyarr,
    "lazyarr, plain ndarray": _LazyarrRaw,
    "lazyarr, blosc": _LazyarrBlosc,
    "lazyarr, blosc, plain ndarray": _LazyarrBloscRaw,
    "zarr-python": _Zarr,
    "zarrs": _Zarrs,
    "TensorStore": _TensorStore,
    "TensorStore, 4 GiB cache": _TensorStoreCached,
    "h5py, gzip, 4 GiB cache": _H5py,
    "blosc2, own format": _Blosc2,
    "numpy.memmap, uncompressed": _Memmap,
}


_FEW = ("lazyarr", "lazyarr, plain ndarray", "lazyarr, blosc", "zarr-python", "TensorStore")

MANY = tuple(name for name in READERS if name not in _FEW)
"""Who need not take part where a run shows only that a part works, after all have in another."""


def installed_readers(without: Sequence[str] = ()) -> list[str]:
    """Return the names of those whose library is installed, but for some."""
    names = [name for name, reader in READERS.items() if find_spec(reader.needs)]
    return [name for name in names if name not in without]
