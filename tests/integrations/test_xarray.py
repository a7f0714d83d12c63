"""Xarray's engine "lazyarr", beside its engine "zarr"; and lazyarr's arrays in its variables."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
import re
import shutil
import struct
import sys
import tomllib
import warnings
from importlib import import_module
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray
import zarr

import lazyarr
from tests.engines import ARRAYS
from tests.stores import images, write_zarr

pytestmark = [
    pytest.mark.usefixtures("engine"),
    pytest.mark.filterwarnings("ignore:The specified chunks separate"),
    pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning"),
]

DATA = images((24, 6, 8), np.float32)
TIME = np.arange(24) * 2.0


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A store of one variable, and of coordinates, one of them without an index."""
    path = tmp_path_factory.mktemp("xarray") / "d.zarr"
    names = {"x": ["time", "lat", "lon"], "scaled": ["time"], "time": ["time"], "height": ["time"]}
    for name, dimensions in names.items():
        data, chunks = (DATA, (4, 6, 8)) if name == "x" else (TIME, (5,))
        write_zarr(path, data, name=name, chunks=chunks, dimension_names=dimensions)
    zarr.open_group(path)["x"].attrs["coordinates"] = "height"
    return str(path)


@pytest.fixture(params=["opened", "by hand"])
def pair(url, request):
    """A dataset of arrays that are read on touch, a coordinate among them, and a plain one."""

    def dataset(data, time):
        variables = {"x": (("time", "lat", "lon"), data), "scaled": (("time",), time)}
        return xarray.Dataset(variables, {"time": ("time", time), "height": ("time", time)})

    if request.param == "opened":
        return xarray.open_dataset(url, engine="lazyarr"), dataset(DATA, TIME)
    stored = lazyarr.open(url)
    return dataset(stored["x"], stored["time"]), dataset(DATA, TIME)


def anomaly(ds):
    def off(array):
        return array - array.mean(axis=-1, keepdims=True)

    return xarray.apply_ufunc(off, ds["x"], input_core_dims=[["lon"]], output_core_dims=[["lon"]])


DAYS = pd.date_range("2020-01-01", periods=24)

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
    "coarsen": lambda ds: ds.coarsen(time=4).max(),
    "resample": lambda ds: ds.assign_coords(time=DAYS).resample(time="W").mean(),
    "unify_chunks": lambda ds: (
        ds.chunk({"time": 8}).assign(y=ds["x"].chunk({"time": 6})).unify_chunks()
    ),
    "isel of ranges and lists": lambda ds: ds["x"].isel(
        time=[3, 1, 1], lat=slice(4, 1, -2), lon=[0, 7]
    ),
    "isel of an integer and lists": lambda ds: ds["x"].isel(time=-1, lat=[0, 5], lon=[2, 3, 4]),
    "isel of a scalar": lambda ds: ds["x"].isel(time=5, lat=0, lon=1),
    "points of rows": lambda ds: ds["x"].isel(time=xarray.DataArray([1, 3, 9], dims="place")),
    "isel of isel": lambda ds: ds["x"].isel(time=slice(2, 20, 3)).isel(time=[0, 4], lon=slice(5)),
    "transpose": lambda ds: ds["x"].transpose("lon", "time", "lat")[2:4, 1],
    "weighted": lambda ds: ds["x"].weighted(ds["scaled"]).mean("time"),
    "sel": lambda ds: ds.sel(time=[4.0, 6.0]),
    "isel": lambda ds: ds.isel(time=slice(3, 9), lat=2),
    "points": lambda ds: ds["x"].isel(time=xarray.DataArray([1, 3]), lat=xarray.DataArray([0, 2])),
    "concat": lambda ds: xarray.concat([ds, ds], "time"),
    "merge": lambda ds: xarray.merge([ds, ds[["x"]].rename(x="y")], compat="override"),
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


def test_methods_give_what_they_give_for_plain_arrays(pair, subtests):
    """The same values, dimensions and coordinates; no way raises."""
    ours, plain = pair
    for name, way in WAYS.items():
        with subtests.test(name):
            found, expected = way(ours.copy()), way(plain)
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
        given = ours.chunk({"time": 20}) if kind == "blocks to zarr" else ours
        given.to_zarr(tmp_path / "out.zarr", consolidated=False)
        found = xarray.open_zarr(tmp_path / "out.zarr", consolidated=False)
    with found:
        xarray.testing.assert_identical(found.load(), plain)


def test_a_variable_holds_the_array_itself(url, engine):
    """Nothing is read when it is made; to xarray it has no blocks, to all others its chunks."""
    variable = xarray.Variable(("time", "lat", "lon"), lazyarr.open(url)["x"])
    assert type(variable._data) is ARRAYS[engine]
    assert variable.chunks is None
    assert variable.chunksizes == {}
    assert variable._data.chunks == (4, 6, 8)
    assert "chunks" in dir(variable._data)
    assert not hasattr(variable._data, "nothing")


# --- the engine, beside xarray's own for Zarr ----------------------------------------------


def everything():
    """Return a dataset with each kind of variable that xarray stores."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(24, 6, 8)).round(2)
    values[3, 2, 1] = np.nan
    ds = xarray.Dataset(
        {
            "t": (("time", "lat", "lon"), values, {"units": "K"}),
            "raw": (("time", "lat", "lon"), rng.integers(0, 100, (24, 6, 8), dtype="i4")),
            "flag": ("lat", np.array([True, False] * 3)),
            "label": ("lon", np.array([f"s{i}" for i in range(8)])),
            "code": ("lat", np.array([b"ab", b"c", b"", b"d", b"e", b"f"])),
            "text": ("lat", np.array(["a", "bb", "ccc", "d", "", "é"], dtype=object)),
            "number": ((), 3.5),
            "span": ("time", pd.to_timedelta(np.arange(24), "h")),
            "z": ("lat", np.arange(6) * (1 + 2j)),
        },
        {
            "time": pd.date_range("2020-01-01", periods=24, freq="6h"),
            "lat": np.arange(6.0),
            "lon": np.arange(8.0),
            "height": 2.0,
            "area": (("lat", "lon"), rng.random((6, 8))),
        },
        {"title": "everything", "versions": [1, 2]},
    )
    packing = {"scale_factor": 0.01, "add_offset": 1.0, "_FillValue": -9999}
    ds["t"].encoding = {"dtype": "int16", "chunks": (4, 6, 8), **packing}
    ds["raw"].encoding = {"chunks": (5, 3, 8)}
    return ds


@pytest.fixture(scope="module", params=[2, 3])
def stored(tmp_path_factory, request):
    """A store of everything, in both versions of Zarr."""
    path = tmp_path_factory.mktemp("everything") / "d.zarr"
    everything().to_zarr(path, zarr_format=request.param, consolidated=False)
    return str(path)


def open_both(url, **options):
    """Return what the two engines make of a store."""
    ours = xarray.open_dataset(url, engine="lazyarr", **options)
    return ours, xarray.open_dataset(url, engine="zarr", **{"consolidated": False, **options})


def assert_same(ours, theirs):
    """Fail unless values, dimensions, attributes, data types and blocks are the same."""
    xarray.testing.assert_identical(ours, theirs)
    assert set(ours.coords) == set(theirs.coords)
    for name, variable in theirs.variables.items():
        assert ours.variables[name].dtype == variable.dtype
        assert ours.variables[name].chunks == variable.chunks


OPTIONS = [
    {},
    {"decode_cf": False},
    {"mask_and_scale": False, "drop_variables": "raw"},
    {"mask_and_scale": {"t": False}, "decode_times": False, "decode_coords": False},
    {"drop_variables": ["t", "text"]},
    {"chunks": {}},
    {"chunks": {"time": 6}, "drop_variables": "text"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_store_opens_as_by_the_engine_for_zarr(stored, options):
    """Each kind of variable, decoded or not, with blocks and without."""
    assert_same(*open_both(stored, **options))


def test_variables_know_how_they_are_stored(stored):
    """Chunks, codecs and fill values are there for writing them once more."""
    ours, theirs = open_both(stored, drop_variables="text")
    for name, variable in theirs.variables.items():
        found = ours.variables[name].encoding
        assert found.keys() == variable.encoding.keys() | ({"shards"} & found.keys())
        for key in ("chunks", "preferred_chunks", "shards", "dtype", "fill_value", "_FillValue"):
            np.testing.assert_equal(found.get(key), variable.encoding.get(key))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_stores_are_written_as_they_were(tmp_path, zarr_format):
    """By `to_zarr`: shards, chunks and codecs; a store of one version of Zarr to the same one."""
    ds = everything().drop_vars("text")
    shards = {} if zarr_format == 2 else {"shards": (8, 6, 8)}
    ds["t"].encoding |= {"chunks": (4, 6, 8), **shards}
    ds.to_zarr(tmp_path / "a", zarr_format=zarr_format, consolidated=False)
    ours, theirs = open_both(tmp_path / "a")
    ours.to_zarr(tmp_path / "b", zarr_format=zarr_format, consolidated=False)
    again, _ = open_both(tmp_path / "b")
    xarray.testing.assert_identical(again.load(), theirs)
    before, after = (zarr.open_array(tmp_path / name / "t", mode="r") for name in "ab")
    assert after.metadata == before.metadata


@pytest.mark.parametrize("dtype", ["f4", "i2", "c8"])
def test_fill_values_of_version_3(tmp_path, dtype):
    """They are decoded from the text that xarray writes; Zarr's own one means nothing missing."""
    dimensions = {"chunks": (2,), "dimension_names": ["x"], "fill_value": 0}
    url = write_zarr(tmp_path / "d.zarr", np.array([0, 1, 2], dtype), name="x", **dimensions)
    one, zero = (base64.b64encode(struct.pack("<d", part)).decode() for part in (1.0, 0.0))
    zarr.open_group(url)["x"].attrs["_FillValue"] = {"f4": one, "i2": 1, "c8": [one, zero]}[dtype]
    assert_same(*open_both(url))
    for uses, missing in ((None, 1), (False, 1), (True, 0)):
        options = {"use_zarr_fill_value_as_mask": uses}
        found = xarray.open_dataset(url, engine="lazyarr", **options)["x"]
        assert list(np.flatnonzero(found.isnull())) == [missing]


def test_fill_values_that_are_not_written_by_xarray(tmp_path):
    """Numbers in place of text, and bytes, for which xarray's engine has no decoder."""
    stored = [("f4", -1.0, [0.0, -1.0]), ("S2", "YWI=", [b"cd", b"ab"])]
    for dtype, fill, values in stored:
        url = tmp_path / dtype
        lazyarr.save(
            url,
            {"x": np.array(values, dtype)},
            dimension_names={"x": ["i"]},
            attributes={"x": {"_FillValue": fill}},
        )
        found = xarray.open_dataset(url, engine="lazyarr")["x"]
        assert found.isnull().to_numpy().tolist() == [False, True]


def test_the_other_order_of_bytes(tmp_path):
    """Values are the same, in the order of the machine."""
    ds = xarray.Dataset({"x": ("i", np.arange(5, dtype=">f4"))})
    ds["x"].encoding = {"dtype": ">f4"}
    ds.to_zarr(tmp_path / "d", zarr_format=2, consolidated=False)
    assert_same(*open_both(tmp_path / "d"))


def test_stores_of_netcdf_c(tmp_path):
    """They have names of dimensions and notes of their own, which are no attributes."""
    stored = zarr.create_array(
        tmp_path / "d/x", shape=(2, 3), dtype="i4", zarr_format=2, attributes={"_nczarr_attr": {}}
    )
    stored[...] = np.arange(6).reshape(2, 3)
    zarr.open_group(tmp_path / "d", zarr_format=2, attributes={"_NCProperties": "x", "a": 1})
    document = json.loads((tmp_path / "d/x/.zarray").read_text())
    document["_NCZARR_ARRAY"] = {"dimrefs": ["/lat", "/lon"], "storage": "chunked"}
    (tmp_path / "d/x/.zarray").write_text(json.dumps(document))
    ours, theirs = open_both(tmp_path / "d")
    assert_same(ours, theirs)
    assert ours["x"].dims == ("lat", "lon")
    assert ours["x"].attrs == {}


def test_strings_of_any_length_need_another_library(stored, tmp_path, monkeypatch):
    """They are read by zarr; an error says what is the matter where zarr is not installed."""
    assert xarray.open_dataset(stored, engine="lazyarr")["text"].values[2] == "ccc"
    assert lazyarr.open(stored).to_xarray()["text"].values[2] == "ccc"
    archive = shutil.make_archive(tmp_path / "d", "zip", stored)
    assert xarray.open_dataset(archive, engine="lazyarr")["text"].values[2] == "ccc"
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(lazyarr.FormatError, match="text"):
        xarray.open_dataset(stored, engine="lazyarr")
    xarray.open_dataset(stored, engine="lazyarr", drop_variables="text")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_strings_along_axes_without_names(tmp_path, zarr_format):
    """The other library does not name these axes, so they get the names that others get."""
    root = zarr.create_group(tmp_path / "z.zarr", zarr_format=zarr_format)
    root.create_group("g").create_array("x", data=np.arange(1.0, 4.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of types that Zarr v3 does not describe
        root["g"].create_array("vs", shape=(3,), chunks=(2,), dtype="str")[:] = ["a", "bb", "ccc"]
    archive = shutil.make_archive(tmp_path / "z", "zip", tmp_path / "z.zarr")
    for url in (tmp_path / "z.zarr/g", f"{archive}/g"):
        ds = xarray.open_dataset(url, engine="lazyarr")
        assert ds["vs"].dims == ("vs_dim_0",)
        assert ds["vs"].values.tolist() == ["a", "bb", "ccc"]
        assert ds["vs"][1:].values.tolist() == ["bb", "ccc"]
        assert ds["x"].values.tolist() == [1, 2, 3]
        ds.close()
    tree = xarray.open_datatree(tmp_path / "z.zarr", engine="lazyarr")
    assert tree["g/vs"].values.tolist() == ["a", "bb", "ccc"]


def test_strings_in_files_of_hdf5(tmp_path):
    """In groups too, however the group is named; what nobody reads can be left out."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("sub/g1")
        group["vs"] = np.array(["a", "bb", "ccc"], dtype=h5py.string_dtype())
        group["x"] = np.arange(3.0)
    path = tmp_path / "x.h5"
    for ds in (
        xarray.open_dataset(path, engine="lazyarr", group="sub/g1"),
        xarray.open_dataset(f"{path}/sub/g1", engine="lazyarr"),
    ):
        assert ds["vs"].dims == ("vs_dim_0",)
        assert ds["vs"].astype("U").values.tolist() == ["a", "bb", "ccc"]
        assert ds["x"].dims == ("x_dim_0",)
        ds.close()
    path = tmp_path / "broken.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(3.0)
        file["broken"] = h5py.ExternalLink("nowhere.h5", "/x")
    for read in (xarray.open_dataset, xarray.open_datatree):
        with pytest.raises(lazyarr.FormatError, match=r"drop_variables=\['broken'\]"):
            read(path, engine="lazyarr")
        read(path, engine="lazyarr", drop_variables=["broken"]).close()


@pytest.fixture
def large(tmp_path):
    """A store of ten units, and of times, that nobody has opened before."""
    ds = xarray.Dataset(
        {"x": (("time", "a", "b"), images((40, 32, 64), np.int32))},
        {"time": pd.date_range("2020-01-01", periods=40), "far": ("a", np.arange(32.0))},
    )
    ds["x"].encoding = {"chunks": (4, 32, 64)}
    ds.to_zarr(tmp_path / "large", consolidated=False)
    return tmp_path / "large"


@pytest.mark.parametrize("options", [{}, {"decode_cf": False}, {"group": "g"}], ids=str)
def test_netcdf_files_open_as_by_the_engine_for_them(tmp_path, options):
    """Each kind of variable, strings of any length by that engine, and groups."""
    ds = everything().drop_vars("z")
    encoding = {"raw": {"chunksizes": (5, 3, 8), "zlib": True}}
    tree = xarray.DataTree.from_dict({"/": ds, "/g": ds[["flag", "text"]]})
    tree.to_netcdf(tmp_path / "d.nc", engine="h5netcdf", encoding={"/": encoding})
    ours = xarray.open_dataset(tmp_path / "d.nc", engine="lazyarr", **options)
    with xarray.open_dataset(tmp_path / "d.nc", engine="h5netcdf", **options) as theirs:
        xarray.testing.assert_identical(ours, theirs)
        for name, variable in theirs.variables.items():
            assert ours.variables[name].dtype == variable.dtype
        if "raw" in ours:
            assert ours["raw"].encoding["chunksizes"] == (5, 3, 8)
    if not options:
        ours.to_netcdf(tmp_path / "again.nc", engine="h5netcdf")
        with xarray.open_dataset(tmp_path / "again.nc", engine="h5netcdf") as again:
            xarray.testing.assert_identical(again, ours)


def n_loaded():
    """Return how many units the pager has loaded; none when there is no pager yet."""
    return lazyarr.stats().get("units_loaded", 0)


def test_opening_reads_coordinates_alone(large, engine):
    """Those that have an index, and times; a variable is read when it is used."""
    before = n_loaded()
    ds = xarray.open_dataset(large, engine="lazyarr")
    assert "far" in repr(ds)
    xarray.open_dataset(large, engine="lazyarr", chunks={})
    stored = lazyarr.open(large)
    blocks = stored.to_xarray(chunks={})
    assert stored["x"].residency().resident_units == 0
    if engine == "userfaultfd":
        assert n_loaded() == before + 1
        with lazyarr.configure(readahead=0):
            ds["x"].variable[5].load()
        assert n_loaded() == before + 2
        blocks["x"].variable[10:12].compute(scheduler="sync")
        assert n_loaded() == before + 3
        ds["x"].load()  # with the coordinates that it has
        assert n_loaded() == before + 12


def test_loaded_variables_are_the_memory_itself(large, engine):
    """No copy is made of what fits; what is written to goes to a copy, or to memory of mode "c"."""
    ds = xarray.open_dataset(large, engine="lazyarr").load()
    if engine == "userfaultfd":
        assert isinstance(ds["x"].variable._data, lazyarr.LazyArray)
        assert ds["x"].variable._data.residency().resident_units == 10
        with pytest.raises(ValueError, match="Assignment destination is a view"):
            ds["x"][0, 0, 0] = -1
        ds["x"] = ds["x"].load().copy()
        ds["x"] += 1
        assert ds["x"][0, 0, 0] == 1
    for mode, is_loaded in (("r", False), ("c", False), ("c", True)):
        ours = xarray.open_dataset(large, engine="lazyarr", mode=mode)
        ours = ours.load() if is_loaded else ours
        ours["x"][0, 0, 0] = -1
        ours["x"] += 0
        assert ours["x"][0, 0, 0] == -1
    assert xarray.open_dataset(large, engine="lazyarr")["x"][0, 0, 0] == 0


def test_what_is_larger_than_the_memory_limit_is_computed_by_parts(tmp_path):
    """Nothing is loaded as a whole that does not fit."""
    data = images((64, 64, 64), np.int32)
    url = write_zarr(
        tmp_path / "d", data, name="x", chunks=(1, 64, 64), dimension_names=list("abc")
    )
    with lazyarr.configure(memory_limit=2**19):
        assert int(xarray.open_dataset(url, engine="lazyarr")["x"].max()) == data.max()


def test_variables_are_loaded_side_by_side(large):
    """`load_async` gives what `load` gives."""
    ours, theirs = open_both(large)
    xarray.testing.assert_identical(asyncio.run(ours.load_async()), theirs)


def test_a_chunk_that_cannot_be_had(large):
    """It is an exception when its variable is loaded, and takes nothing else with it."""
    (large / "x/c/3/0/0").write_bytes(b"damaged")
    ours, theirs = open_both(large)
    with pytest.raises(lazyarr.ChunkError, match="chunk"):
        ours.load()
    xarray.testing.assert_identical(ours.isel(time=slice(12)), theirs.isel(time=slice(12)))


def test_groups(tmp_path):
    """A group by its name, all of them as a dict, and as a tree."""
    inner = xarray.Dataset({"y": (("x", "b"), np.ones((3, 2)))}, {"x": [1, 2, 3]})
    outer = xarray.Dataset({"z": ("x", np.zeros(3))}, {"x": [1, 2, 3]}, {"a": 1})
    tree = xarray.DataTree.from_dict({"/": outer, "/g": inner, "/g/h": inner})
    tree.to_zarr(tmp_path / "d", consolidated=False)
    options = {"consolidated": False}
    for group in (None, "g", "/g"):
        ours = xarray.open_datatree(tmp_path / "d", engine="lazyarr", group=group)
        theirs = xarray.open_datatree(tmp_path / "d", engine="zarr", group=group, **options)
        xarray.testing.assert_identical(ours, theirs)
        ours.close()
        found = xarray.open_groups(tmp_path / "d", engine="lazyarr", group=group, decode_cf=False)
        expected = xarray.open_groups(
            tmp_path / "d", engine="zarr", group=group, decode_cf=False, **options
        )
        assert found.keys() == expected.keys()
        for path, ds in expected.items():
            xarray.testing.assert_identical(found[path], ds)
    assert_same(*open_both(tmp_path / "d", group="g/h"))
    with pytest.raises(lazyarr.NodeNotFoundError, match="nothing"):
        xarray.open_dataset(tmp_path / "d", engine="lazyarr", group="nothing")
    advice = re.escape(f"lazyarr.open('{tmp_path / 'd'}', path='g/y').to_xarray()")
    with pytest.raises(lazyarr.FormatError, match=f"there is an array at 'g/y'.*{advice}"):
        xarray.open_dataset(tmp_path / "d", engine="lazyarr", group="g/y")


def test_consolidated_metadata(tmp_path):
    """It is at the root, and holds for groups too."""
    inner = xarray.Dataset({"y": ("x", np.ones(3))}, {"x": [1, 2, 3]})
    xarray.DataTree.from_dict({"/g": inner}).to_zarr(tmp_path / "d", zarr_format=2)
    for consolidated in (None, True, False):
        ours = xarray.open_dataset(
            tmp_path / "d", engine="lazyarr", group="g", consolidated=consolidated
        )
        xarray.testing.assert_identical(ours, inner)


def test_arrays_of_an_open_dataset(stored):
    """`to_xarray` and `decoded` give what xarray opens; closing what they give closes nothing."""
    _, theirs = open_both(stored)
    with lazyarr.open(stored) as ds:
        for ours in (ds.to_xarray(), ds.decoded(), xarray.open_dataset(ds, engine="lazyarr")):
            assert_same(ours, theirs)
            assert ours.encoding["source"] == ds.url
            ours.close()
        undecoded = ds.to_xarray(decode_cf=False, drop_variables="text", chunks={})
        assert undecoded["t"].chunks[0] == (4,) * 6
        assert undecoded["t"].attrs["scale_factor"] == 0.01
        assert ds["t"].shape == (24, 6, 8)
        found = ds.to_xarray()
    xarray.testing.assert_identical(found, theirs)


def test_one_array(stored):
    """`to_xarray` of an array gives what that of its group gives, but for the coordinates."""
    ds = lazyarr.open(stored)
    for options in ({}, {"decode_cf": False}, {"chunks": {}}):
        theirs = ds.to_xarray(**options)
        for name in ("t", "raw", "flag", "code", "number", "span", "z", "lat"):
            ours = ds[name].to_xarray(**options)
            expected = theirs[name]
            indexes = [name] if name in expected.coords else []
            expected = expected.reset_coords(drop=True) if not indexes else expected
            expected = expected.drop_vars([each for each in expected.coords if each not in indexes])
            xarray.testing.assert_identical(ours, expected)
            assert ours.dtype == expected.dtype
            assert ours.chunks == expected.chunks
    with lazyarr.open(stored) as opened:
        t = opened["t"]
    np.testing.assert_array_equal(t.to_xarray(), ds.to_xarray()["t"])


def test_one_array_that_is_a_view(tmp_path):
    """Axes have their names for as long as they are the stored array's."""
    lazyarr.save(
        tmp_path / "d", {"x": DATA}, dimension_names={"x": ["time", "lat", "lon"]}, chunks={"x": 4}
    )
    x = lazyarr.open(tmp_path / "d")["x"]
    for view in (x, x[3:9], x[::-2, 1:], x[:1, :1, :1], x[:0]):
        assert view.to_xarray().dims == ("time", "lat", "lon")
        np.testing.assert_array_equal(view.to_xarray(), view)
    for view in (x.T, x[..., 0], x.reshape(24, 8, 6), x.reshape(-1), x[None]):
        found = view.to_xarray(chunks={"x_dim_0": 2})
        assert found.dims == tuple(f"x_dim_{axis}" for axis in range(view.ndim))
        np.testing.assert_array_equal(found, view)
    lazyarr.save(tmp_path / "x.zarr", DATA)
    alone = lazyarr.open(tmp_path / "x.zarr").to_xarray()
    assert alone.name is None
    assert alone.dims == ("dim_0", "dim_1", "dim_2")
    assert lazyarr.open(tmp_path / "x.zarr").residency().resident_units == 0


def test_axes_without_names(tmp_path):
    """They get names that no other array has."""
    lazyarr.save(tmp_path / "d", {"x": np.arange(6).reshape(2, 3), "y": np.arange(3)})
    ours = lazyarr.open(tmp_path / "d").to_xarray()
    assert ours.sizes == {"x_dim_0": 2, "x_dim_1": 3, "y_dim_0": 3}


def test_arrays_say_what_their_elements_are_not(stored):
    """Attributes by which they are decoded stand in the `repr`; `decoded` applies them."""
    ds = lazyarr.open(stored)
    named = "scale_factor, add_offset, _FillValue"  # in Zarr v2 by way of its fill value
    assert f"not decoded: {named} (see Dataset.decoded)" in repr(ds["t"])
    assert "not decoded" not in repr(ds["raw"])
    assert ds["t"][0, 0, 0] != ds.decoded()["t"][0, 0, 0]


def test_datasets_travel_as_references(large, engine):
    """Nothing of the values is in the pickle; nor of loaded ones, where they are memory."""
    ours, theirs = open_both(large)
    loaded = [ours.copy().load()] if engine == "userfaultfd" else []
    for ds in (ours, ours.chunk({"time": 4}), *loaded):
        pickled = pickle.dumps(ds)
        assert len(pickled) < 2**14
        xarray.testing.assert_identical(pickle.loads(pickled), theirs)


def test_what_is_not_there(tmp_path):
    """The errors are lazyarr's."""
    with pytest.raises(lazyarr.NodeNotFoundError, match="no such directory"):
        xarray.open_dataset(tmp_path / "nothing.zarr", engine="lazyarr")


def test_the_engine_is_known_by_name_alone():
    """Xarray opens a `.zarr` by its own engine, and finds this one by the entry point."""
    document = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    entry = document["project"]["entry-points"]["xarray.backends"]["lazyarr"]
    module, _, name = entry.partition(":")
    backend = getattr(import_module(module), name)
    assert type(xarray.backends.list_engines()["lazyarr"]) is backend
    assert not backend().guess_can_open("d.zarr")


def test_without_xarray(stored, monkeypatch):
    """It says what to install."""
    monkeypatch.delitem(sys.modules, "lazyarr.integrations.xarray", raising=False)
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"pip install 'lazyarr\[xarray\]'"):
        lazyarr.open(stored).to_xarray()
