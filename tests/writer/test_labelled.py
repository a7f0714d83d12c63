"""What comes with the elements of an array-like is kept, or refused with what keeps it."""

from __future__ import annotations

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

import lazyarr
from lazyarr.errors import FormatError
from tests.writer.stores import read_array, read_tree, same

pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")


def make_dataset():
    """Return a dataset with everything that one can have beside its elements."""
    packed = xr.Variable(("time", "x"), np.array([[0.1, np.nan, 2.0]] * 4), {"units": "K"})
    packed.encoding = {"dtype": "int16", "scale_factor": 0.1, "_FillValue": -99}
    counts = xr.Variable("time", np.arange(4, dtype="int16"), {"range": np.array([0, 3])})
    return xr.Dataset(
        {"t": packed, "n": counts, "ok": ("x", [True, False, True])},
        coords={
            "time": pd.date_range("2020-01-01", periods=4),
            "x": [1, 2, 3],
            "name": ("x", ["a", "bb", "c"]),
            "height": 2.5,
        },
        attrs={"title": "everything", "version": np.int64(3)},
    )


@pytest.mark.parametrize("lazily", [False, True])
def test_dataset_comes_back_as_it_was(tmp_path, lazily):
    """Coordinates, names of axes, attributes, and values encoded as they say; read by xarray."""
    dataset = make_dataset()
    source = dataset.chunk({"time": 2}) if lazily else dataset
    lazyarr.save(tmp_path / "s", source)
    with xr.open_zarr(tmp_path / "s", consolidated=False) as found:
        xr.testing.assert_identical(found.load(), dataset)
        assert found["t"].encoding["dtype"] == np.dtype("int16")
        assert found["n"].dtype == np.dtype("int16")
        assert set(found.coords) == set(dataset.coords)
    stored = zarr.open_group(tmp_path / "s", mode="r")
    assert stored["t"].dtype == np.dtype("int16")
    assert lazyarr.open(tmp_path / "s")["t"].dimension_names == ("time", "x")


def test_missing_value_that_says_the_same_as_the_fill_value(tmp_path):
    """NaN twice, as NetCDF files have it: JSON has none, and one is enough."""
    dataset = xr.Dataset({"t": ("x", np.array([1.0, np.nan]))})
    dataset["t"].encoding = {"_FillValue": np.nan, "missing_value": np.nan}
    lazyarr.save(tmp_path / "s", dataset)
    with xr.open_zarr(tmp_path / "s", consolidated=False) as found:
        xr.testing.assert_identical(found.load(), dataset)
        assert np.isnan(found["t"].encoding["_FillValue"])


def test_what_xarray_has_opened_is_saved(tmp_path):
    """From a store, lazily: the values that are stored are the same."""
    make_dataset().to_zarr(tmp_path / "a", consolidated=False)
    with xr.open_zarr(tmp_path / "a", consolidated=False, chunks=None) as dataset:
        lazyarr.save(tmp_path / "b", dataset)
    with xr.open_zarr(tmp_path / "b", consolidated=False) as found:
        xr.testing.assert_identical(found.load(), make_dataset())


def test_datasets_in_mappings_and_trees_become_groups(tmp_path):
    """With their attributes, to which those that are given are added."""
    dataset = make_dataset()
    lazyarr.save(tmp_path / "s", {"a/b": dataset}, attributes={"by": "me"})
    lazyarr.save(tmp_path / "t", xr.DataTree.from_dict({"/": dataset[["n"]], "/a/b": dataset}))
    for root in ("s", "t"):
        with xr.open_zarr(tmp_path / root, group="a/b", consolidated=False) as found:
            expected = dataset if root == "s" else found.load()
            xr.testing.assert_identical(found.load(), expected)
            assert found.attrs == {"title": "everything", "version": 3}
    assert dict(zarr.open_group(tmp_path / "s", mode="r").attrs) == {"by": "me"}
    assert {"a/b/t", "n", "time"} <= read_tree(tmp_path / "t").keys()


def test_array_without_coordinates_is_one_array(tmp_path):
    """Names of axes, attributes and encoding are kept; those that are given come first."""
    array = make_dataset()["t"].drop_vars(["time", "x", "name", "height"])
    lazyarr.save(tmp_path / "s", array, attributes={"more": 1})
    found = zarr.open_array(tmp_path / "s", mode="r")
    assert found.metadata.dimension_names == ("time", "x")
    assert dict(found.attrs) == {"units": "K", "scale_factor": 0.1, "_FillValue": -99, "more": 1}
    assert found[0].tolist() == [1, -99, 20]
    lazyarr.save(tmp_path / "t", {"x": array.variable}, dimension_names=["a", "b"])
    assert lazyarr.open(tmp_path / "t")["x"].dimension_names == ("a", "b")


FRAME = pd.DataFrame({"a": [1, 2, 3], "b": [0.5, 1.5, 2.5]}, index=pd.Index([3, 4, 5], name="n"))


class Quantity(np.ndarray):
    unit, to = object(), None


REFUSED = {
    "coordinates": (lambda: make_dataset()["t"], r"time, x.*data\.to_dataset\(name=\.\.\.\)"),
    "frame": (lambda: FRAME, r"pandas\.DataFrame.*table\.to_xarray\(\)"),
    "index": (lambda: FRAME["a"], r"index.*\.to_frame\(name\)\.to_xarray\(\)"),
    "levels": (
        lambda: FRAME.set_index("a", append=True).to_xarray().stack(z=["n", "a"]),
        "reset_index",
    ),
    "unit": (lambda: np.zeros(3).view(Quantity), "attributes="),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("in_mapping", [False, True])
def test_what_one_array_cannot_hold_is_refused_with_the_way(tmp_path, case, in_mapping):
    """Before anything is written."""
    make, words = REFUSED[case]
    with pytest.raises(TypeError, match=words):
        lazyarr.save(tmp_path / "s", {"g": {"x": make()}} if in_mapping else make())
    assert list(tmp_path.iterdir()) == []


def test_the_ways_that_are_named_work(tmp_path):
    """For a frame and a series: each column an array, the index too."""
    lazyarr.save(tmp_path / "s", FRAME.to_xarray())
    with xr.open_zarr(tmp_path / "s", consolidated=False) as found:
        pd.testing.assert_frame_equal(found.to_dataframe(), FRAME, check_like=True)
    lazyarr.save(tmp_path / "t", FRAME["a"].to_frame("v").to_xarray())
    assert read_tree(tmp_path / "t").keys() == {"v", "n"}


def test_series_without_an_index_of_its_own_is_an_array(tmp_path):
    """Nothing of it is lost."""
    lazyarr.save(tmp_path / "s", {"x": pd.Series([1, 2, 3]), "y": pd.Index([4, 5])})
    assert read_tree(tmp_path / "s")["x"].tolist() == [1, 2, 3]


def test_attributes_of_stores_are_kept(tmp_path):
    """Of arrays and groups of lazyarr, zarr and HDF5, and the names of axes."""
    data = np.arange(12).reshape(3, 4)
    lazyarr.save(
        tmp_path / "a",
        {"g/x": data},
        attributes={"": {"r": 1}, "g/x": {"k": [1]}},
        dimension_names=["u", "v"],
    )
    lazyarr.save(tmp_path / "b", lazyarr.open(tmp_path / "a"))
    lazyarr.save(tmp_path / "c", zarr.open_group(tmp_path / "a", mode="r")["g/x"])
    lazyarr.save(tmp_path / "d", lazyarr.open(tmp_path / "a")["g/x"].T)
    found = lazyarr.open(tmp_path / "b")
    assert found.attrs == {"r": 1}
    for array in (found["g/x"], lazyarr.open(tmp_path / "c")):
        assert (array.attrs, array.dimension_names) == ({"k": [1]}, ("u", "v"))
    assert lazyarr.open(tmp_path / "d").dimension_names is None
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["title"] = "h"
        file["x"] = data
        file["x"].make_scale()
        file["x"].attrs["range"] = np.array([0, 11])
        file["x"].attrs["units"] = np.bytes_(b"m")
        lazyarr.save(tmp_path / "e", file)
    found = lazyarr.open(tmp_path / "e")
    assert found.attrs == {"title": "h"}
    assert found["x"].attrs == {"range": [0, 11], "units": "m"}
    assert same(read_array(tmp_path / "e/x"), data)


NUMPY_ATTRIBUTES = {
    "int": np.int64(3),
    "float": np.float32(0.5),
    "bool": np.True_,
    "text": np.str_("a"),
    "array": np.arange(4, dtype="u1").reshape(2, 2),
    "texts": np.array(["a", "b"]),
    "zero": np.array(7),
    "objects": np.array([1, "a", None], dtype=object),
    "keys": {0: "cat", np.int64(1): "dog"},
    "deep": {"list": [np.float64(1.5), (np.int8(1), np.array([True]))]},
}


@pytest.mark.parametrize("of_group", [False, True])
def test_numpy_values_in_attributes_become_lists_and_numbers(tmp_path, of_group):
    """As zarr-python reads them; the caller's mapping stays as it was."""
    with lazyarr.create(tmp_path / "s") as writer:
        if of_group:
            writer.create_group("x", attributes=NUMPY_ATTRIBUTES)
        else:
            writer.create_array("x", shape=(2,), dtype="u1", attributes=NUMPY_ATTRIBUTES)
    found = dict(zarr.open_group(tmp_path / "s", mode="r")["x"].attrs)
    assert found == {
        "int": 3,
        "float": 0.5,
        "bool": True,
        "text": "a",
        "array": [[0, 1], [2, 3]],
        "texts": ["a", "b"],
        "zero": 7,
        "keys": {"0": "cat", "1": "dog"},
        "objects": [1, "a", None],
        "deep": {"list": [1.5, [1, [True]]]},
    }
    assert isinstance(NUMPY_ATTRIBUTES["array"], np.ndarray)


@pytest.mark.parametrize(
    "value",
    [
        np.datetime64("2020-01-01", "ns"),
        np.timedelta64(3, "ns"),
        np.complex64(1j),
        np.float32("nan"),
        np.array([1.0, np.inf]),
        np.array([b"a"]),
        np.zeros(2, [("a", "i4")]),
        {(1, 2): 3},
        {"s": {1, 2}},
        b"bytes",
    ],
    ids=repr,
)
def test_attributes_that_json_has_not_are_named(value):
    """By the key that leads to them; times would have become numbers without a unit."""
    with pytest.raises(FormatError, match=r"attributes\['outer'\]\['key'\].* which JSON does not"):
        lazyarr.save("memory://never", np.zeros(3), attributes={"outer": {"key": value}})
