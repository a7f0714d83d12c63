"""Groups as datasets of xarray's, of which only coordinates are read when they are opened.

What a store means to xarray is what xarray's own engine ``"zarr"`` makes of it
(``xarray/backends/zarr.py``): the same names, values, attributes and encodings.

Public: ``GroupBackend``, of which `lazyarr.plugins.xarray` makes the engine ``"lazyarr"``, and
``open_group`` and ``open_array``, behind `Dataset.to_xarray` and `LazyArray.to_xarray`.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import os
from collections.abc import Mapping
from contextlib import suppress
from inspect import signature
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy
import xarray
from xarray.backends import (
    AbstractDataStore,
    BackendArray,
    BackendEntrypoint,
    H5NetCDFStore,
    StoreBackendEntrypoint,
    ZarrStore,
)
from xarray.backends.zarr import ZarrArrayWrapper
from xarray.core import indexing

from lazyarr.errors import FormatError
from lazyarr.settings import current

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["GroupBackend", "open_array", "open_group"]

_DIMENSIONS = "_ARRAY_DIMENSIONS"
"""Attribute with the names of an array's axes: xarray's convention for Zarr v2."""


def open_group(
    group: Any,
    url: str,
    storage_options: Mapping[str, Any] | None,
    **options: Any,
) -> xarray.Dataset:
    """Return a group that is open as an `xarray.Dataset`.

    Parameters
    ----------
    group : Dataset
        The group.
    url, storage_options
        What it was opened by, for arrays that lazyarr cannot map.
    **options
        What `xarray.open_dataset` takes: ``decode_cf``, ``chunks``, ``drop_variables``, and so on.
    """
    store = _GroupStore(group, _Place(url, storage_options), is_owner=False)
    return xarray.open_dataset(store, engine=GroupBackend, **options)


def open_array(
    array: Any, dimensions: tuple[str | None, ...] | None, **options: Any
) -> xarray.DataArray:
    """Return an array that is open as an `xarray.DataArray`, without coordinates.

    Parameters
    ----------
    array : LazyArray or CopyArray
        The array, which may be a view.
    dimensions : tuple, optional
        Names of its axes; None for those of a view that are not the stored array's.
    **options
        What `xarray.open_dataset` takes.
    """
    store = _ArrayStore(array, dimensions)
    found: xarray.DataArray = xarray.open_dataset(store, engine=GroupBackend, **options)[store.name]
    return found if array.path else found.rename(None)


class GroupBackend(BackendEntrypoint):
    """An engine of xarray's for groups that are open.

    Opening reads metadata, and the coordinates that xarray makes indexes of.  All other variables
    are read when they are used, into memory that lazyarr keeps up to its memory limit.
    """

    supports_groups = True

    def open_source(self, source: Any, path: str, mode: str, **options: Any) -> Any:  # noqa: ARG002 - for those that open stores
        """Return the node at a path of a store; `options` are those of `lazyarr.open`."""
        raise TypeError(f"expected a group that lazyarr has opened, found {source!r:.80}")

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        mask_and_scale: Any = True,
        decode_times: Any = True,
        concat_characters: Any = True,
        decode_coords: Any = True,
        drop_variables: str | Iterable[str] | None = None,
        use_cftime: bool | None = None,
        decode_timedelta: Any = None,
        group: str | None = None,
        mode: str = "r",
        consolidated: bool | None = None,
        storage_options: Mapping[str, Any] | None = None,
        use_zarr_fill_value_as_mask: bool | None = None,
    ) -> xarray.Dataset:
        """Return a group of a store; see `xarray.open_dataset` for what decodes values.

        Parameters
        ----------
        filename_or_obj : str, os.PathLike or lazyarr.Dataset
            What `lazyarr.open` takes, or a group that it gave.
        mask_and_scale, decode_times, concat_characters, decode_coords, use_cftime, decode_timedelta
            What is decoded, as xarray's engine ``"zarr"`` takes it.
        drop_variables : str or iterable of str, optional
            Variables to leave out; they are not looked at.
        group : str, optional
            The group to open; the root by default.
        mode : {"r", "c"}
            As in `lazyarr.open`.
        consolidated, storage_options
            As in `lazyarr.open`.
        use_zarr_fill_value_as_mask : bool, optional
            Whether elements that are Zarr's fill value are missing; by default in Zarr v2 alone.
        """
        store = (
            filename_or_obj
            if isinstance(filename_or_obj, _GroupStore)
            else self._open(
                filename_or_obj,
                group,
                mode=mode,
                consolidated=consolidated,
                storage_options=storage_options,
            )
        )
        dropped = [drop_variables] if isinstance(drop_variables, str) else drop_variables
        return store.decode(
            frozenset(dropped or ()),
            use_fill_value=use_zarr_fill_value_as_mask,
            mask_and_scale=mask_and_scale,
            decode_times=decode_times,
            concat_characters=concat_characters,
            decode_coords=decode_coords,
            use_cftime=use_cftime,
            decode_timedelta=decode_timedelta,
        )

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str | None = None,
        mode: str = "r",
        consolidated: bool | None = None,
        storage_options: Mapping[str, Any] | None = None,
        **decoders: Any,
    ) -> dict[str, xarray.Dataset]:
        """Return a group and all groups below it, by their paths from it; as `open_dataset`."""
        root = self._open(
            filename_or_obj,
            group,
            mode=mode,
            consolidated=consolidated,
            storage_options=storage_options,
        )
        # xarray's names: from the root of the store, unless a group is asked for.
        start = PurePosixPath(".") if group else PurePosixPath("/")
        return {
            str(start / path): self.open_dataset(store, drop_variables=drop_variables, **decoders)
            for path, store in root.walk()
        }

    def open_datatree(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        group: str | None = None,
        mode: str = "r",
        consolidated: bool | None = None,
        storage_options: Mapping[str, Any] | None = None,
        **decoders: Any,
    ) -> xarray.DataTree:
        """Return a group and all groups below it as a tree; as `open_dataset`."""
        groups = self.open_groups_as_dict(
            filename_or_obj,
            drop_variables=drop_variables,
            group=group,
            mode=mode,
            consolidated=consolidated,
            storage_options=storage_options,
            **decoders,
        )
        tree = xarray.DataTree.from_dict(groups)
        for path, ds in groups.items():
            tree[path].set_close(ds.close)
        return tree

    def _open(
        self,
        source: Any,
        group: str | None,
        *,
        mode: str,
        consolidated: bool | None,
        storage_options: Mapping[str, Any] | None,
    ) -> _GroupStore:
        """Return a group of what xarray was given."""
        path = (group or "").strip("/")
        if isinstance(source, Mapping):
            found: Any = source[path] if path else source
            place, is_owner = _Place(source.url, storage_options), False  # type: ignore[attr-defined]
        else:
            options: Any = {"consolidated": consolidated, "storage_options": storage_options}
            found = self.open_source(source, path, mode, **options)
            place, is_owner = _Place(os.fspath(source), storage_options), True
        return _GroupStore(_require_group(found), place, is_owner=is_owner)


# xarray finds them out for engines that it knows by name, and needs them of all.
GroupBackend.open_dataset_parameters = tuple(signature(GroupBackend.open_dataset).parameters)[1:]


class _Place(NamedTuple):
    """What a store was opened by."""

    url: str
    storage_options: Mapping[str, Any] | None


def _require_group(node: Any) -> Any:
    if not isinstance(node, Mapping):
        raise FormatError(
            f"cannot open {node.url} as a dataset: there is an array at {node.path or '/'!r}, "
            f"and no group; {_how_to_open(node)}.to_xarray() makes a DataArray of it",
            path=node.path,
        )
    return node


def _how_to_open(node: Any) -> str:
    url = node.url.removeprefix("file://")
    inside = f", path={node.path!r}" if node.path else ""
    return f"lazyarr.open({url!r}{inside})"


class _GroupStore(AbstractDataStore):
    """A group of a store as xarray reads one."""

    def __init__(self, group: Any, place: _Place, *, is_owner: bool) -> None:
        self._group = group
        self._place = place
        self._is_owner = is_owner
        self._arrays: dict[str, Any] = {}
        self._by_zarr: Any = None
        self._dropped: frozenset[str] = frozenset()
        self._use_fill_value: bool | None = None

    def __dask_tokenize__(self) -> Any:
        """Return what xarray names blocks of dask's by."""
        from dask.base import normalize_token

        return "lazyarr", self._group.url, normalize_token(self._arrays)

    def walk(self) -> Iterator[tuple[str, _GroupStore]]:
        """Yield this group and all groups below it with their paths from here, parents first."""
        yield ".", self
        for name, node in self._group.items():
            if isinstance(node, Mapping):
                below = _GroupStore(node, self._place, is_owner=self._is_owner)
                yield from ((f"{name}/{path}", store) for path, store in below.walk())

    def decode(
        self, dropped: frozenset[str], *, use_fill_value: bool | None, **decoders: Any
    ) -> xarray.Dataset:
        """Return the group with values decoded when they are read, as xarray is asked to."""
        self._dropped, self._use_fill_value = dropped, use_fill_value
        return StoreBackendEntrypoint().open_dataset(self, **decoders)

    def get_attrs(self) -> dict[str, Any]:
        """Return the group's attributes."""
        return _own_attributes(self._group)

    def get_encoding(self) -> dict[str, Any]:
        """Return where the group was found."""
        return {"source": self._group.url}

    def get_variables(self) -> dict[str, xarray.Variable]:
        """Return the group's arrays, none of them read."""
        found = ((name, self._variable(name)) for name in self._group if name not in self._dropped)
        return {name: variable for name, variable in found if variable is not None}

    def close(self) -> None:
        """Let go of the group; variables that are still in use stay valid."""
        if self._is_owner:
            self._group.close()

    def _variable(self, name: str) -> xarray.Variable | None:
        """Return an array as a variable; None for a group."""
        try:
            node = self._group[name]
        except FormatError as error:
            return self._read_otherwise(name, error)
        if isinstance(node, Mapping):
            return None
        self._arrays[name] = node
        encoding = _encoding(node)
        dimensions = _dimensions(name, node)
        encoding["preferred_chunks"] = dict(zip(dimensions, node.chunks, strict=True))
        return self._make_variable(node, dimensions, encoding)

    def _make_variable(
        self, array: Any, dimensions: tuple[str | None, ...], encoding: dict[str, Any]
    ) -> xarray.Variable:
        attributes = _own_attributes(array)
        stored = array.encoding
        # By the type of ``scale_factor`` xarray chooses that of decoded values.
        for key, dtype in stored.get("attribute_types", {}).items():
            if key in attributes:
                value = numpy.asarray(attributes[key]).astype(dtype)
                attributes[key] = value if value.ndim else value[()]
        fill = attributes.get("_FillValue")
        if array.dtype.kind == "S" and isinstance(fill, str) and stored["format"] != "zarr":
            attributes["_FillValue"] = fill.encode()
        is_zarr, is_v2 = stored["format"] == "zarr", stored["version"] == "2"
        if is_v2:
            attributes.pop(_DIMENSIONS, None)
        use_fill_value = is_v2 if self._use_fill_value is None else self._use_fill_value
        if is_zarr and use_fill_value:
            # Zarr v2 has one fill value, and xarray writes _FillValue there.
            if stored.get("fill_value") is not None:
                attributes["_FillValue"] = array.fill_value
        elif is_zarr:
            if not is_v2:
                encoding["fill_value"] = array.fill_value
            if "_FillValue" in attributes:
                attributes["_FillValue"] = _decode_fill(attributes["_FillValue"], array.dtype)
        data = indexing.LazilyIndexedArray(_StoredArray(array))
        return xarray.Variable(dimensions, data, attributes, encoding)

    def _read_otherwise(self, name: str, error: FormatError) -> xarray.Variable:
        """Return an array that lazyarr cannot map, as strings of any length, by another engine.

        Raises
        ------
        FormatError
            Where no engine that is installed opens the array: what it was given, and how to do
        without the array.
        """
        for read in (self._read_by_zarr, self._read_by_h5netcdf):
            with suppress(Exception):
                return read(name)
        joint = ", or" if "; " in error.message else ";"
        message = f"{error.message}{joint} leave it out with drop_variables=[{name!r}]"
        raise FormatError(message, path=error.path) from error

    def _read_by_zarr(self, name: str) -> xarray.Variable:
        if self._by_zarr is None:
            # Without consolidated metadata the documents of all arrays are read once more.
            with suppress(Exception):
                self._by_zarr = self._open_by_zarr(consolidated=True)
        self._by_zarr = self._by_zarr or self._open_by_zarr(consolidated=False)
        array = self._by_zarr.zarr_group[name]
        if _DIMENSIONS in array.attrs or getattr(array.metadata, "dimension_names", None):
            variable: xarray.Variable = self._by_zarr.open_store_variable(name)
            return variable
        # That does not take axes without names.
        wrapped: Any = ZarrArrayWrapper
        data = indexing.LazilyIndexedArray(wrapped(array))
        return xarray.Variable(_made_up(name, array.ndim), data, dict(array.attrs))

    def _open_by_zarr(self, *, consolidated: bool) -> Any:
        place: Any = self._place.url
        path = self._group.path
        inside, _, archive = self._group.url.partition("::file://")
        if inside.startswith("zip://") and archive:
            from zarr.storage import ZipStore

            place = ZipStore(archive, mode="r")
            path = f"{inside.removeprefix('zip://')}/{path}".strip("/")
        return ZarrStore.open_group(
            place,
            group=path or None,
            mode="r",
            consolidated=consolidated,
            storage_options=self._place.storage_options,
            use_zarr_fill_value_as_mask=self._use_fill_value,
        )

    def _read_by_h5netcdf(self, name: str) -> xarray.Variable:
        # Of a local file; the store closes it when nobody has the variable any more.
        path = self._group.url.removeprefix("file://")
        store = H5NetCDFStore.open(path, group=self._group.path or None, phony_dims="access")
        variable: xarray.Variable = store.open_store_variable(name, store.ds.variables[name])
        if any(str(dimension).startswith("phony_dim_") for dimension in variable.dims):
            variable.dims = _made_up(name, variable.ndim)
            variable.encoding.pop("preferred_chunks", None)  # by the names of before
        return variable


class _ArrayStore(_GroupStore):
    """One array as xarray reads a group that has nothing else."""

    def __init__(self, array: Any, dimensions: tuple[str | None, ...] | None) -> None:
        super().__init__(array, _Place(array.url, None), is_owner=False)
        self.name = PurePosixPath(array.path).name or "array"
        self._arrays = {self.name: array}
        self._dimensions = dimensions

    def get_attrs(self) -> dict[str, Any]:
        """Return no attributes: they are the array's."""
        return {}

    def get_variables(self) -> dict[str, xarray.Variable]:
        """Return the array, which is not read."""
        (array,) = self._arrays.values()
        encoding: dict[str, Any] = {}
        dimensions = self._dimensions
        if dimensions is None:
            prefix = f"{self.name}_" if array.path else ""
            dimensions = tuple(f"{prefix}dim_{axis}" for axis in range(array.ndim))
        if len(array.chunks) == array.ndim:
            encoding["preferred_chunks"] = dict(zip(dimensions, array.chunks, strict=True))
        return {self.name: self._make_variable(array, dimensions, encoding)}


def _dimensions(name: str, array: Any) -> tuple[str | None, ...]:
    """Return the names of an array's axes; made up where the store has none."""
    names: tuple[str | None, ...] | None = array.dimension_names
    if names is not None:
        return names
    return _made_up(name, array.ndim)


def _made_up(name: str, n_axes: int) -> tuple[str, ...]:
    return tuple(f"{name}_dim_{axis}" for axis in range(n_axes))


def _own_attributes(node: Any) -> dict[str, Any]:
    """Return the attributes that users have given a node, free to be changed."""
    # NCZarr keeps notes of its own among them, and xarray hides those.
    attributes = copy.deepcopy(node.attrs)
    return {name: value for name, value in attributes.items() if not name.lower().startswith("_nc")}


def _decode_fill(value: Any, dtype: numpy.dtype[Any]) -> Any:
    """Return a ``_FillValue`` of Zarr v3, which xarray writes as text where JSON has no number."""
    from xarray.backends.zarr import FillValueCoder

    if dtype.kind == "S" and isinstance(value, str):
        return base64.standard_b64decode(value)
    is_text = isinstance(value, str) or (isinstance(value, list) and isinstance(value[0], str))
    if dtype.kind in "biu" or (dtype.kind in "fc" and is_text):
        return FillValueCoder.decode(value, dtype)
    return value


def _encoding(array: Any) -> dict[str, Any]:
    """Return how an array is stored, for xarray to write it the same way."""
    # Copied: zarr-python adds to what it is given of a codec.
    stored = copy.deepcopy(array.encoding)
    if stored["format"] in ("hdf5", "netcdf"):
        return {"chunksizes": array.chunks, "original_shape": array.shape}
    if stored["format"] != "zarr":
        return {}
    encoding: dict[str, Any] = {"chunks": array.chunks, "shards": array.shards}
    if stored["version"] == "2":
        import numcodecs

        compressor, filters = stored.get("compressor"), stored.get("filters")
        encoding["compressors"] = (numcodecs.get_codec(dict(compressor)),) if compressor else ()
        encoding["filters"] = tuple(numcodecs.get_codec(dict(each)) for each in filters or ())
    else:
        codecs = stored["codecs"]
        if array.shards is not None:
            (sharding,) = (each for each in codecs if _codec_name(each) == "sharding_indexed")
            codecs = sharding["configuration"]["codecs"]
        names = [_codec_name(codec) for codec in codecs]
        if "bytes" in names:
            place = names.index("bytes")
            encoding["filters"] = tuple(codecs[:place])
            encoding["serializer"] = codecs[place]
            encoding["compressors"] = tuple(codecs[place + 1 :])
    return encoding


def _codec_name(codec: Any) -> Any:
    """Return the name of a codec of Zarr v3, which may be all that there is of it."""
    return codec if isinstance(codec, str) else codec["name"]


class _StoredArray(BackendArray):
    """An array of a store, of which xarray reads what is asked for."""

    __slots__ = ("_array", "dtype", "shape")

    def __init__(self, array: Any) -> None:
        # Not `array`: some code evaluates an attribute of that name.
        self._array = array
        self.dtype = array.dtype
        self.shape = array.shape

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Return what an index selects, loaded."""
        read = self._outer if isinstance(key, indexing.OuterIndexer) else self._read
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.VECTORIZED, read
        )

    async def async_getitem(self, key: indexing.ExplicitIndexer) -> Any:
        """Return the same while other tasks go on (`xarray.Dataset.load_async`)."""
        return await asyncio.to_thread(self.__getitem__, key)

    def _read(self, key: tuple[Any, ...]) -> Any:
        """Return a part, or elements at points."""
        return _load(self._array[key])

    def _outer(self, key: tuple[Any, ...]) -> Any:
        """Return the elements at all combinations of the indexes of several axes."""
        arrays = [axis for axis, index in enumerate(key) if isinstance(index, numpy.ndarray)]
        # NumPy takes an integer beside an index array for an index array too.
        whole = tuple(
            slice(i, i + 1 or None) if isinstance(i, int | numpy.integer) else i for i in key
        )
        index = list(whole)
        for axis, grid in zip(arrays, numpy.ix_(*(key[axis] for axis in arrays)), strict=True):
            index[axis] = grid
        picked = self._array[tuple(index)]
        if arrays and arrays[-1] - arrays[0] >= len(arrays):
            # With a slice between index arrays NumPy puts their axes first.
            picked = numpy.moveaxis(picked, range(len(arrays)), arrays)
        dropped = tuple(
            0 if one is not all_ else slice(None) for one, all_ in zip(key, whole, strict=True)
        )
        return _load(picked[dropped])


def _load(picked: Any) -> Any:
    """Return what was picked, loaded, if it fits the memory limit; as it is otherwise.

    Loaded now, an element that cannot be had is an exception here.  What is too large for that
    is computed on part by part, as lazyarr's arrays are.
    """
    if not hasattr(picked, "prefetch"):
        return picked
    if isinstance(picked, numpy.ndarray):
        with suppress(ValueError):  # larger than the memory limit
            picked.prefetch()  # type: ignore[attr-defined]
    elif picked.nbytes <= current().memory_limit // 4:
        return numpy.array(picked)
    return picked
