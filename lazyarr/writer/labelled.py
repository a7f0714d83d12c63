"""Names of axes, attributes and coordinates that come with the elements of an array-like.

They are stored, or refused with an error that says how to keep them; none is dropped silently.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy

__all__ = ["Labelled", "expand", "label"]

_HDF5_OWN = frozenset(
    {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Dimid", "_Netcdf4Coordinates"}
    | {"_NCProperties", "_nc3_strict"}
)
"""Attributes that HDF5 and NetCDF use for themselves."""


class Labelled(NamedTuple):
    """An array-like, with the attributes and names of axes that are stored with it.

    Attributes
    ----------
    data : array-like
        The elements, encoded as they are to be stored.
    attributes : dict
        The array's attributes.
    dimension_names : tuple of (str or None), or None
        Names of the axes.
    """

    data: Any
    attributes: dict[str, Any]
    dimension_names: tuple[str | None, ...] | None


def label(data: Any, *, name: str = "") -> Labelled:
    """Return an array-like with the attributes and names of axes that it has.

    Parameters
    ----------
    data : array-like
        Attributes and names of axes are taken from `xarray.Variable`, `xarray.DataArray` and
        the arrays of zarr, h5py and lazyarr.  xarray's are encoded as its ``encoding`` says.
    name : str
        The array's name, for messages.

    Raises
    ------
    TypeError
        When the array-like has labels that one array cannot hold; the message says how to
        save them.
    """
    xarray, pandas = sys.modules.get("xarray"), sys.modules.get("pandas")
    if isinstance(data, Labelled):
        return data
    if xarray is not None and isinstance(data, xarray.DataArray):
        if data.coords:
            _refuse(
                name,
                f"it has coordinates, {', '.join(map(str, data.coords))}, which one array cannot "
                "hold; save data.to_dataset(name=...), or data.variable to do without them",
            )
        data = data.variable
    if xarray is not None and isinstance(data, xarray.Variable):
        return _encode(data, name)
    if pandas is not None and isinstance(data, pandas.Series):
        _check_series(data, name, pandas)
    _refuse_tables(data, name)
    _refuse_units(data, name)
    return Labelled(data, _attributes(data), _dimension_names(data))


def expand(data: Any) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Return a group's attributes and its members, which are arrays or groups.

    Raises
    ------
    TypeError
        When xarray cannot encode a dataset.
    """
    xarray: Any = sys.modules.get("xarray")
    if xarray is not None and isinstance(data, xarray.Dataset):
        return _encode_dataset(data)
    if xarray is not None and isinstance(data, xarray.DataTree):
        attributes, members = _encode_dataset(data.to_dataset(inherit=False))
        return attributes, {**members, **data.children}
    return _attributes(data), data


def _encode_dataset(dataset: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    from xarray.conventions import encode_dataset_coordinates

    try:
        variables, attributes = encode_dataset_coordinates(dataset)
    except NotImplementedError as error:  # an index of several levels
        raise TypeError(f"cannot save an xarray.Dataset: {error}") from error
    return dict(attributes), {str(name): _encode(v, str(name)) for name, v in variables.items()}


def _encode(variable: Any, name: str) -> Labelled:
    """Return a variable as `xarray.Dataset.to_zarr` stores it, and `xarray.open_zarr` expects."""
    from xarray.backends.zarr import encode_zarr_variable

    try:
        encoded = encode_zarr_variable(variable, name=name)
    except (NotImplementedError, ValueError, TypeError) as error:
        raise TypeError(
            f"cannot store array {name or '/'!r}: xarray cannot encode it: {error}"
        ) from error
    return Labelled(_Encoded(encoded), dict(encoded.attrs), tuple(map(str, encoded.dims)))


class _Encoded:
    """An array-like that encodes only what is indexed, so that lazy variables stay lazy."""

    def __init__(self, variable: Any) -> None:
        self.shape: tuple[int, ...] = variable.shape
        self.dtype: numpy.dtype[Any] = variable.dtype
        self._variable = variable

    def __getitem__(self, index: tuple[slice, ...]) -> numpy.ndarray[Any, Any]:
        return numpy.asarray(self._variable[index].values)


def _check_series(series: Any, name: str, pandas: Any) -> None:
    index = series.index
    is_plain = isinstance(index, pandas.RangeIndex) and index.start == 0 and index.step == 1
    if not is_plain or index.name is not None or series.attrs:
        _refuse(
            name,
            "it is a pandas.Series with an index or attributes, which one array cannot hold; save "
            "series.to_frame(name).to_xarray() as a store, or series.to_numpy() to do without",
        )


def _refuse_tables(data: Any, name: str) -> None:
    if any(hasattr(data, attribute) for attribute in ("columns", "column_names")):
        kind = f"{type(data).__module__.partition('.')[0]}.{type(data).__name__}"
        way = "table.to_xarray(), which" if hasattr(data, "to_xarray") else "its columns as"
        _refuse(
            name,
            f"it is a {kind}, whose columns and index one array cannot hold; save {way} "
            + ("makes an array of each" if hasattr(data, "to_xarray") else "a mapping of arrays"),
        )


def _refuse_units(data: Any, name: str) -> None:
    # astropy and unyt have `unit`, pint has `units`.  A str, as other libraries have, is no unit.
    for attribute in ("unit", "units"):
        unit = getattr(data, attribute, None)
        if unit is not None and hasattr(data, "to") and not isinstance(unit, str):
            _refuse(
                name,
                f"it is in {unit}, which its elements do not say; save the plain numbers, with "
                f"attributes={{'units': {str(unit)!r}}}",
            )


def _refuse(name: str, why: str) -> NoReturn:
    raise TypeError(f"cannot store array {name or '/'!r}: {why}")


def _attributes(data: Any) -> dict[str, Any]:
    """Return the attributes of a node of zarr, h5py or lazyarr; none for any other array-like."""
    if _library(data) not in ("zarr", "h5py", "lazyarr") or not hasattr(data, "attrs"):
        return {}
    if _library(data) == "h5py":
        return dict(_readable(data.attrs))
    found = dict(data.attrs)
    fill = found.get("_FillValue")
    if isinstance(fill, str) and getattr(data, "encoding", {}).get("format", "zarr") != "zarr":
        found["_FillValue"] = fill.encode()  # a text is one that is encoded already
    if fill is None and "_ARRAY_DIMENSIONS" in found and _has_fill_value_of_v2(data):
        # In Zarr v2 xarray has no other place for what means "missing".
        found["_FillValue"] = data.fill_value
    return found


def _has_fill_value_of_v2(data: Any) -> bool:
    """Return whether an array of zarr or lazyarr is of Zarr v2, and says its fill value."""
    if _library(data) == "zarr":
        version, value = data.metadata.zarr_format, getattr(data.metadata, "fill_value", None)
    else:
        stored = getattr(data, "encoding", {})
        is_v2 = (stored.get("format"), stored.get("version")) == ("zarr", "2")
        version, value = 2 if is_v2 else None, stored.get("fill_value")
    return version == 2 and value is not None and data.dtype.kind in "biufc"


def _readable(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in attributes.items():
        if name not in _HDF5_OWN:
            is_text = isinstance(value, bytes) and name != "_FillValue"
            yield name, value.decode() if is_text else value


def _dimension_names(data: Any) -> tuple[str | None, ...] | None:
    if _library(data) not in ("zarr", "lazyarr"):
        return None
    names = getattr(getattr(data, "metadata", data), "dimension_names", None)
    if names is None and _library(data) == "zarr":  # of Zarr v2, where xarray keeps them there
        names = data.attrs.get("_ARRAY_DIMENSIONS")
    # A view of a lazy array has the metadata of the whole array.  Its names hold for the view
    # only if the view has the same axes in the same order.
    flags = getattr(data, "flags", None)
    is_in_order = flags is None or flags.c_contiguous
    return tuple(names) if names and len(names) == data.ndim and is_in_order else None


def _library(data: Any) -> str:
    return type(data).__module__.partition(".")[0]
