"""What `lazyarr convert` reads: Zarr stores, and files of known formats."""

from __future__ import annotations

import functools
import os
import warnings
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy

from lazyarr.client.arrays.text import reason
from lazyarr.errors import EngineWarning, FormatError
from lazyarr.formats.base import GroupDescription
from lazyarr.opening.nodes import find_file, open_nodes
from lazyarr.opening.survey import walk
from lazyarr.store.urls import in_archive, local_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lazyarr.client.arrays.lazyarray import LazyArray
    from lazyarr.formats.base import ArrayDescription

__all__ = ["Array", "Collection", "open_collection"]

_NPY_MAGIC = b"\x93NUMPY"
_ZIP_MAGIC = b"PK"
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

_HDF5_WAY = "HDF5 and NetCDF 4 files are read by names that end with .h5 or .nc: a link will do"
_NETCDF_WAY = "what xarray.open_dataset reads can be given to lazyarr.save"
_ANY_WAY = "whatever gives NumPy arrays can be given to lazyarr.save"
_WAYS = {".cdf": _NETCDF_WAY}


@dataclass(frozen=True, slots=True)
class Array:
    """An array that can be read.

    Attributes
    ----------
    path : str
        Its place in the store to be; "" for the root.
    nbytes : int
        Its size in memory, as far as it is known before it is opened.
    open : callable
        Gives an array-like.
    fill_value : object
        What elements are that were never written.
    attributes : mapping
        What users have put there.
    dimension_names : tuple of (str or None), or None
        Names of the axes.
    """

    path: str
    nbytes: int
    open: Callable[[], numpy.ndarray[Any, Any]]
    fill_value: Any = 0
    attributes: Mapping[str, Any] = field(default_factory=dict)
    dimension_names: tuple[str | None, ...] | None = None


@dataclass(frozen=True, slots=True)
class Collection:
    """What is found in a place.

    Attributes
    ----------
    arrays : list of Array
        The arrays, in the order to write them.
    groups : dict
        The groups' attributes by path, parents first; "" is the root, which is an
        array where it is not here.
    unsupported : list of str
        The arrays that cannot be read, and why.
    """

    arrays: list[Array]
    groups: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    unsupported: list[str] = field(default_factory=list)


def open_collection(url: str, storage_options: Mapping[str, Any] | None) -> Collection:
    """Return the arrays in a place; what is read now is metadata.

    Raises
    ------
    ValueError
        It is a file of another kind, or not there.
    LazyarrError
        There is no such store, or it cannot be read.
    """
    path = local_path(url)
    if path is not None and not os.path.exists(path):
        raise ValueError(f"cannot convert {path}: there is no such file or directory")
    if path is None or not os.path.isfile(path):
        return _open_nodes(url, storage_options)
    if in_archive(url) is not None:
        return _open_nodes(url, storage_options)
    file_format = find_file(url)
    if file_format is not None and not file_format.name.lower().endswith((".npy", ".npz")):
        return _open_nodes(url, storage_options)
    with open(path, "rb") as file:
        magic = file.read(len(_HDF5_MAGIC))
    if magic.startswith(_NPY_MAGIC):
        return _open_npy(path)
    if magic.startswith(_ZIP_MAGIC):
        return _open_npz(path)
    way = _WAYS.get(os.path.splitext(path)[1].lower(), _ANY_WAY)
    way = _HDF5_WAY if magic == _HDF5_MAGIC else way
    raise ValueError(
        f"cannot convert {path}: it is a file of another kind than .npy, .npz, .h5 and .nc; a Zarr "
        f"store is a directory, and {way}"
    )


def _open_npy(path: str) -> Collection:
    # Mapped, so that it may be larger than memory.
    try:
        array: numpy.ndarray[Any, Any] = numpy.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    return Collection([Array("", array.nbytes, lambda: array)])


def _open_npz(path: str) -> Collection:
    """Return the arrays of an archive, each of which is read as a whole in its turn."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {item.filename: item.file_size for item in archive.infolist()}
    except zipfile.BadZipFile as error:
        raise ValueError(f"cannot read {path}: {error}") from error

    names = {name.removesuffix(".npy"): nbytes for name, nbytes in members.items()}
    if not members or not all(name.endswith(".npy") for name in members):
        raise ValueError(
            f"cannot convert {path}: it is an archive of something else than arrays; a Zarr store "
            f"in a zip archive is named 'zip://::{path}'"
        )
    arrays = [
        Array(name, nbytes, functools.partial(_load_member, path, name))
        for name, nbytes in names.items()
    ]
    return Collection(arrays, {"": {}})


def _load_member(path: str, name: str) -> numpy.ndarray[Any, Any]:
    try:
        with numpy.load(path, allow_pickle=False) as archive:
            array: numpy.ndarray[Any, Any] = archive[name]
            return array
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"cannot read {name!r} in {path}: {error}") from error


def _open_nodes(url: str, storage_options: Mapping[str, Any] | None) -> Collection:
    hierarchy = open_nodes(url, storage_options)
    found = Collection([])
    try:
        root = hierarchy.node("")
        nodes = [("", root), *(walk(hierarchy) if isinstance(root, GroupDescription) else ())]
    finally:
        hierarchy.store.close()
    for path, node in nodes:
        if isinstance(node, FormatError):
            found.unsupported.append(f"array {path!r}: {reason(path, node)}")
        elif isinstance(node, GroupDescription):
            found.groups[path] = node.attributes
        else:
            found.arrays.append(_node_array(path, node, url, storage_options))
    return found


def _node_array(
    path: str, metadata: ArrayDescription, url: str, storage_options: Mapping[str, Any] | None
) -> Array:
    def open_lazily() -> LazyArray:
        from lazyarr.dataset import Dataset
        from lazyarr.dataset import open as open_node

        with warnings.catch_warnings():
            # All of it is read, once: copies will do.
            warnings.simplefilter("ignore", EngineWarning)
            array = open_node(url, path=metadata.path, storage_options=storage_options)
        assert not isinstance(array, Dataset)
        return array

    return Array(
        path,
        metadata.nbytes,
        open_lazily,
        metadata.fill_value,
        metadata.attributes,
        metadata.dimension_names,
    )
