"""Who reads the images: each library used as its own documentation says, defaults otherwise."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np

from benchmarks.images import Images

__all__ = ["READERS", "Array", "Reader", "checksum", "installed_readers"]

_CACHE_NBYTES = 4 << 30

Array = np.ndarray[Any, Any]


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
    """

    needs: ClassVar[str] = "numpy"

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

    def __init__(self, images: Images) -> None:
        import lazyarr

        self.array = lazyarr.open(images.zarr)


class _LazyarrRaw(_Indexed):
    """The plain array over the same memory: everything comes by page faults."""

    needs = "lazyarr"

    def __init__(self, images: Images) -> None:
        import lazyarr

        self.array = np.asarray(lazyarr.open(images.zarr))


class _Zarr(_Indexed):
    needs = "zarr"

    def __init__(self, images: Images) -> None:
        import zarr

        self.array = zarr.open_array(os.fspath(images.zarr), mode="r")

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
    context: ClassVar[dict[str, Any]] = {}

    def __init__(self, images: Images) -> None:
        import tensorstore

        kvstore = {"driver": "file", "path": f"{images.zarr}/"}
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

    def __init__(self, images: Images) -> None:
        import h5py

        # More slots than chunks: one that is hit twice drops what it held.
        file = h5py.File(images.hdf5, "r", rdcc_nbytes=_CACHE_NBYTES, rdcc_nslots=100_003)
        self.array = file["images"]


class _Blosc2(_Indexed):
    needs = "blosc2"

    def __init__(self, images: Images) -> None:
        import blosc2

        self.array = blosc2.open(os.fspath(images.blosc2), mode="r")


class _Memmap(_Indexed):
    def __init__(self, images: Images) -> None:
        self.array = np.load(images.npy, mmap_mode="r")


READERS: dict[str, type[Reader]] = {
    "lazyarr": _Lazyarr,
    "lazyarr, plain ndarray": _LazyarrRaw,
    "zarr-python": _Zarr,
    "zarrs": _Zarrs,
    "TensorStore": _TensorStore,
    "TensorStore, 4 GiB cache": _TensorStoreCached,
    "h5py, gzip, 4 GiB cache": _H5py,
    "blosc2, own format": _Blosc2,
    "numpy.memmap, uncompressed": _Memmap,
}


def installed_readers() -> list[str]:
    """Return the names of those whose library is installed."""
    return [name for name, reader in READERS.items() if find_spec(reader.needs)]
