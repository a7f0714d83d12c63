"""What a source says of its arrays is said by the Zarr v3 store that `lazyarr convert` makes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import zarr

import lazyarr
from tests.cli.running import run

xarray = pytest.importorskip("xarray")
NAN = float("nan")


@pytest.fixture
def netcdf(tmp_path):
    """Return a NetCDF file whose attributes hold numbers that JSON does not have."""
    pytest.importorskip("netCDF4")
    dataset = xarray.Dataset(
        {
            "plain": ("x", np.array([1.0, np.nan, 3.0], "f4"), {"valid_range": [-np.inf, np.inf]}),
            "both": ("x", np.array([1.0, np.nan, 3.0]), {"odd": NAN}),
            "packed": ("x", np.array([1.0, np.nan, 3.0])),
            "whole": ("x", np.array([1, 2, 3], "i4")),
        },
        {"x": [0.5, 1.5, 2.5]},
        {"title": "t", "limit": np.inf},
    )
    dataset["both"].encoding = {"_FillValue": np.nan, "missing_value": np.nan}
    dataset["packed"].encoding = {"dtype": "i2", "_FillValue": -9, "scale_factor": 0.5}
    dataset["whole"].encoding = {"_FillValue": 2}
    dataset.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    return tmp_path / "a.nc"


def converted(netcdf):
    result = run("convert", netcdf, netcdf.parent / "a.zarr", "--quiet")
    assert result.exit_code == 0, result.stderr
    return netcdf.parent / "a.zarr"


def saved(netcdf):
    lazyarr.save(netcdf.parent / "b.zarr", lazyarr.open(netcdf))
    return netcdf.parent / "b.zarr"


@pytest.mark.parametrize("make", [converted, saved])
def test_numbers_that_json_does_not_have_come_through(netcdf, make):
    """Every float variable that xarray writes to NetCDF has a _FillValue of NaN."""
    store = make(netcdf)
    with xarray.open_dataset(netcdf, engine="netcdf4") as source:
        for engine, options in (("zarr", {"consolidated": False}), ("lazyarr", {})):
            with xarray.open_dataset(store, engine=engine, **options) as found:
                xarray.testing.assert_identical(found.load(), source.load())
                for name in ("plain", "packed", "whole"):
                    fills = [d[name].encoding["_FillValue"] for d in (found, source)]
                    assert np.array_equal(*fills, equal_nan=True)
    text = json.loads((store / "both/zarr.json").read_text(), parse_constant=str)
    assert text["attributes"] == {"_FillValue": "AAAAAAAA+H8=", "odd": "NaN"}


def test_names_of_axes_are_not_among_the_attributes_of_zarr_v3(tmp_path):
    """Zarr v2 has no other place for them; other attributes of that name stay."""
    group = zarr.open_group(tmp_path / "v2", mode="w", zarr_format=2)
    for name, dimensions in (("a", ["y", "x"]), ("odd", ["y"])):
        array = group.create_array(name, shape=(2, 3), dtype="f8", fill_value=None)
        array.attrs.update({"_ARRAY_DIMENSIONS": dimensions, "units": "m"})
    assert run("convert", tmp_path / "v2", tmp_path / "v3", "--quiet").exit_code == 0
    found = zarr.open_group(tmp_path / "v3", mode="r")
    assert dict(found["a"].attrs) == {"units": "m"}
    assert found["a"].metadata.dimension_names == ("y", "x")
    assert dict(found["odd"].attrs) == {"_ARRAY_DIMENSIONS": ["y"], "units": "m"}


def saved_by_zarr(source):
    group = zarr.open_group(source, mode="r")
    lazyarr.save(source.parent / "b.zarr", dict(group.arrays()))
    return source.parent / "b.zarr"


@pytest.mark.parametrize("make", [converted, saved, saved_by_zarr])
def test_what_is_missing_in_zarr_v2_is_missing_in_zarr_v3(tmp_path, make):
    """There the fill value says so, of arrays that xarray has written."""
    fills = {"i2": -9999, "f4": np.nan, "u1": 0, "c8": 1 + 2j}
    dataset = xarray.Dataset(
        {dtype: ("x", np.array([3, 1, fill], dtype)) for dtype, fill in fills.items()}
    )
    dataset["unsaid"] = ("x", [0, 1, 2])
    for dtype, fill in fills.items():
        dataset[dtype].encoding = {"_FillValue": np.array(fill, dtype)[()], "dtype": dtype}
    dataset.to_zarr(tmp_path / "v2.zarr", zarr_format=2, consolidated=False)
    with xarray.open_zarr(tmp_path / "v2.zarr", consolidated=False) as source:
        source.load()
    assert all(source[name].isnull()[2] for name in fills)
    # An array that xarray does not open has no such meaning.
    other = zarr.open_group(tmp_path / "v2.zarr").create_array("zeros", shape=2, dtype="u1")
    assert other.metadata.fill_value == 0
    store = make(tmp_path / "v2.zarr")
    assert [dict(zarr.open_group(store)[name].attrs) for name in ("zeros", "unsaid")] == [{}, {}]
    shutil.rmtree(store / "zeros")
    for engine, options in (("zarr", {"consolidated": False}), ("lazyarr", {})):
        with xarray.open_dataset(store, engine=engine, **options) as found:
            xarray.testing.assert_identical(found.load(), source)
