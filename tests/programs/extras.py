"""Programs of tests/test_extras.py, each with no other library than one extra brings."""

from __future__ import annotations

import json
import os

import numpy as np

import lazyarr


def _data(directory):
    return np.load(os.path.join(directory, "x.npy"))


def xarray(directory):
    """Datasets of Zarr 2 and 3, decoded; arrays that are put into one by hand."""
    import xarray

    expected = 0.5 * _data(directory)
    for name in ("v2.zarr", "v3.zarr"):
        url = os.path.join(directory, name)
        with xarray.open_dataset(url, engine="lazyarr") as ds:
            np.testing.assert_array_equal(ds["t"], expected)
            assert str(ds["time"].values[1])[:10] == "2020-01-02"
        with lazyarr.open(url) as found:
            np.testing.assert_array_equal(found.decoded()["t"].isel(time=1), expected[1])
            by_hand = xarray.Dataset({"t": (("time", "y", "x"), found["t"])})
            assert float(by_hand["t"].mean()) == 2 * expected.mean()
        assert xarray.open_datatree(url, engine="lazyarr")["t"].shape == expected.shape


def dask(directory):
    """Blocks, names and sums."""
    import dask.array

    x, expected = lazyarr.open(os.path.join(directory, "x.npy")), _data(directory)
    assert dask.base.tokenize(x) == dask.base.tokenize(x)
    assert lazyarr.stats()["units_loaded"] == 0
    for blocks in (x.to_dask(), dask.array.from_array(x)):
        assert blocks.sum().compute() == expected.sum()


def hdf5(directory):
    """Every filter; and files are written."""
    expected = _data(directory)
    with lazyarr.open(os.path.join(directory, "x.h5")) as ds:
        assert len(ds) == 4
        for name in ds:
            np.testing.assert_array_equal(ds[name], expected)
    _convert(directory, "x.nc")


def tiff(directory):
    """Every compression; and files are written."""
    expected = _data(directory)
    for name in ("zstd.tif", "lzw.tif", "zlib.tif"):
        np.testing.assert_array_equal(lazyarr.open(os.path.join(directory, name)), expected)
    _convert(directory, "new.tif")


def kerchunk(directory):
    """References in Parquet files."""
    for name in ("refs.json", "refs.parq"):
        found = lazyarr.open(os.path.join(directory, name))["x"]
        np.testing.assert_array_equal(found, _data(directory))


def icechunk(directory):
    """A repository, by its branch."""
    found = lazyarr.open(os.path.join(directory, "ice"), storage_options={"branch": "main"})
    np.testing.assert_array_equal(found["x"], _data(directory))


def ray(directory):
    """Arrays as arguments of tasks."""
    import ray

    x = lazyarr.open(os.path.join(directory, "x.npy"))
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        found = ray.get(ray.remote(lambda array: int(array[1].sum())).remote(x))
    finally:
        ray.shutdown()
    assert found == _data(directory)[1].sum()


def ml(directory):
    """Types that NumPy does not have."""
    assert lazyarr.open(os.path.join(directory, "x.safetensors"))["x"].dtype.name == "bfloat16"


def torch(directory):
    """Samples."""
    from lazyarr.torch import Dataset

    expected = _data(directory)
    samples = Dataset(lazyarr.open(os.path.join(directory, "x.npy")))
    np.testing.assert_array_equal(samples[1], expected[1])


def remote(directory, url, options):
    """A store behind a URL."""
    found = lazyarr.open(url, storage_options=json.loads(options))
    np.testing.assert_array_equal(found, _data(directory))


def _convert(directory, name):
    from click.testing import CliRunner

    from lazyarr.cli import main

    arguments = ["convert", "-q", os.path.join(directory, "x.npy"), os.path.join(directory, name)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
