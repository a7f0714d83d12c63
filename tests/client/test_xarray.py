"""xarray takes lazyarr's arrays for arrays, not for dask's, whose `chunks` mean something else."""

from __future__ import annotations

import pickle

import dask.array
import numpy as np
import pytest
import xarray

import lazyarr
from tests.engines import ARRAYS
from tests.stores import images, write_zarr

DATA = images((24, 6, 8), np.float32)

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    path = tmp_path_factory.mktemp("xarray") / "d.zarr"
    write_zarr(path, DATA, name="x", chunks=(4, 6, 8))
    return write_zarr(path, np.arange(24) * 2.0, name="time", chunks=(5,))


@pytest.fixture
def pair(url, engine):
    """A Dataset of arrays that fill on touch, a coordinate among them, and a plain one."""
    stored = lazyarr.open(url)

    def dataset(data, time):
        variables = {"x": (("time", "lat", "lon"), data), "scaled": (("time",), time)}
        return xarray.Dataset(variables, {"time": ("time", time), "height": ("time", time)})

    return dataset(stored["x"], stored["time"]), dataset(DATA, np.arange(24) * 2.0)


def anomaly(ds):
    def off(array):
        return array - array.mean(axis=-1, keepdims=True)

    return xarray.apply_ufunc(off, ds["x"], input_core_dims=[["lon"]], output_core_dims=[["lon"]])


WAYS = {
    "load": lambda ds: ds.copy().load(),
    "compute": lambda ds: ds.compute(),
    "persist": lambda ds: ds.persist(),
    "copy": lambda ds: ds.copy(),
    "deep copy": lambda ds: ds.copy(deep=True),
    "variable": lambda ds: ds["x"].variable.load(),
    "data array": lambda ds: ds["x"].compute(),
    "coordinate": lambda ds: ds["height"].load(),
    "chunk": lambda ds: ds.chunk({"time": 5}),
    "chunk, compute": lambda ds: ds.chunk({"time": 5}).compute(),
    "apply_ufunc": anomaly,
    "apply_ufunc of blocks": lambda ds: xarray.apply_ufunc(
        np.sqrt, ds.chunk({"time": 7}), dask="parallelized"
    ),
    "with blocks": lambda ds: ds["x"] + ds["x"].chunk({"time": 3}),
    "where": lambda ds: ds.where(ds["x"] > 30000),
    "isnull": lambda ds: ds.isnull().any(),
    "mean": lambda ds: ds.mean("time"),
    "median": lambda ds: ds["x"].median("lat"),
    "rolling": lambda ds: ds["x"].rolling(time=3).mean(),
    "groupby": lambda ds: ds.groupby(ds["height"] % 6).mean(),
    "resample": lambda ds: ds.coarsen(time=4).max(),
    "weighted": lambda ds: ds["x"].weighted(ds["scaled"]).mean("time"),
    "sel": lambda ds: ds.sel(time=[4.0, 6.0]),
    "isel": lambda ds: ds.isel(time=slice(3, 9), lat=2),
    "points": lambda ds: ds["x"].isel(time=xarray.DataArray([1, 3]), lat=xarray.DataArray([0, 2])),
    "concat": lambda ds: xarray.concat([ds, ds], "time"),
    "merge": lambda ds: xarray.merge([ds, ds[["x"]].rename(x="y")]),
    "stack": lambda ds: ds.stack(place=("lat", "lon")),
    "interp": lambda ds: ds["x"].interp(time=[1.0, 3.0]),
    "sortby": lambda ds: ds.sortby("height", ascending=False),
    "dot": lambda ds: xarray.dot(ds["x"], ds["scaled"]),
    "quantile": lambda ds: ds["x"].quantile(0.3, "time"),
    "pickle": lambda ds: pickle.loads(pickle.dumps(ds)),
    "map_blocks": lambda ds: xarray.map_blocks(lambda part: part + 1, ds.chunk({"time": 8})),
    "to_dataframe": lambda ds: ds.to_dataframe().to_xarray(),
    "roll": lambda ds: ds.roll(time=2),
    "diff": lambda ds: ds.diff("time"),
    "cumsum": lambda ds: ds["x"].cumsum("time"),
}


@pytest.mark.parametrize("way", WAYS)
def test_methods_give_what_they_give_for_plain_arrays(pair, way):
    """The same values, dimensions and coordinates; no way raises."""
    ours, plain = pair
    found, expected = WAYS[way](ours), WAYS[way](plain)
    xarray.testing.assert_allclose(found, expected)
    assert found.nbytes == expected.nbytes
    assert found.chunksizes == expected.chunksizes


@pytest.mark.parametrize("kind", ["netcdf", "zarr", "blocks to zarr"])
def test_datasets_are_written(pair, tmp_path, kind):
    """To files of both formats, with dask's blocks or without."""
    ours, plain = pair
    if kind == "netcdf":
        ours.to_netcdf(tmp_path / "out.nc", engine="h5netcdf")
        found = xarray.open_dataset(tmp_path / "out.nc", engine="h5netcdf")
    else:
        given = ours.chunk({"time": 6}) if kind == "blocks to zarr" else ours
        given.to_zarr(tmp_path / "out.zarr", consolidated=False)
        found = xarray.open_zarr(tmp_path / "out.zarr", consolidated=False)
    with found:
        xarray.testing.assert_identical(found.load(), plain)


def test_a_variable_holds_the_array_itself(pair, engine):
    """Nothing is read when it is made; to xarray it has no blocks, to all others its chunks."""
    variable = pair[0]["x"].variable
    assert type(variable._data) is ARRAYS[engine]
    assert variable.chunks is None
    assert variable.chunksizes == {}
    assert variable._data.chunks == (4, 6, 8)
    assert "chunks" in dir(variable._data)
    assert not hasattr(variable._data, "nothing")


def test_dask_takes_the_chunks_for_blocks_of_its_own(url, engine):
    """`from_array` aligns its blocks with what is stored."""
    x = lazyarr.open(url)["x"]
    blocks = dask.array.from_array(x)
    np.testing.assert_array_equal((blocks + 1).compute(scheduler="sync"), DATA + 1)
