"""`lazyarr convert` to files, compared with what the libraries of their formats read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import h5py
import hypothesis.extra.numpy as nps
import netCDF4
import numpy as np
import pytest
import safetensors.numpy
import tifffile
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import lazyarr
from tests.cli.running import run
from tests.stores import images

ARRAYS = {
    "images": images((40, 64, 300)),
    "g/field": np.linspace(0, 1, 600_001, dtype="f4").reshape(1, 600_001, 1),
    "g/h/flags": np.array([True, False, True]),
    "empty": np.zeros((0, 3), "i8"),
    "scalar": np.array(2.5),
}


def read_npz(path):
    with np.load(path) as found:
        return dict(found)


def read_hdf5(path):
    with h5py.File(path) as file:
        found = {}
        file.visititems(
            lambda name, node: found.update({name: node[()]}) if hasattr(node, "dtype") else None
        )
        return {name: np.asarray(value) for name, value in found.items()}


def read_zip(path):
    with zarr.storage.ZipStore(path, mode="r") as store:
        members = dict(zarr.open_group(store, mode="r").members(max_depth=None))
        return {name: np.asarray(a[...]) for name, a in members.items() if hasattr(a, "dtype")}


READERS = {
    ".npz": read_npz,
    ".safetensors": safetensors.numpy.load_file,
    ".h5": read_hdf5,
    ".zarr.zip": read_zip,
}


@pytest.fixture
def src(tmp_path):
    lazyarr.save(tmp_path / "s.zarr", ARRAYS, attributes={"title": "t", "n": [1, 2]})
    return tmp_path / "s.zarr"


@pytest.fixture
def small_parts(monkeypatch):
    """A mebibyte at a time, so that an array comes in several."""
    monkeypatch.setattr("lazyarr.formats.zarr.defaults.SHARD_NBYTES", 1 << 20)


@pytest.mark.parametrize("suffix", READERS)
def test_a_store_becomes_a_file(tmp_path, src, small_parts, suffix):
    """With the same elements by the same names, and back again."""
    dst = tmp_path / "new" / f"x{suffix}"
    result = run("convert", src, dst)
    assert result.exit_code == 0, result.stderr
    found = READERS[suffix](dst)
    assert found.keys() == ARRAYS.keys()
    for name, data in ARRAYS.items():
        assert (found[name].dtype, found[name].shape) == (data.dtype, data.shape)
        np.testing.assert_array_equal(found[name], data)
    assert os.listdir(dst.parent) == [dst.name]
    back = tmp_path / "back.zarr"
    assert run("convert", "-q", dst, back).exit_code == 0
    np.testing.assert_array_equal(
        zarr.open_group(str(back), mode="r")["g/field"][...], ARRAYS["g/field"]
    )


def test_one_array_becomes_a_npy_file(tmp_path, src, small_parts):
    """By its path in the store; what has several does not."""
    dst = tmp_path / "x.npy"
    assert run("convert", "-q", src / "images", dst).exit_code == 0
    np.testing.assert_array_equal(np.load(dst, mmap_mode="r"), ARRAYS["images"])
    result = run("convert", "-q", src, dst, "--overwrite")
    assert result.exit_code == 1
    assert "holds one array, and there are 5" in result.stderr
    np.testing.assert_array_equal(np.load(dst), ARRAYS["images"])


@pytest.mark.parametrize(
    ("suffix", "name"), [(".npz", "arr_0"), (".safetensors", "array"), (".h5", "array")]
)
def test_an_array_without_a_name_gets_one(tmp_path, suffix, name):
    """Where arrays have names."""
    np.save(tmp_path / "x.npy", ARRAYS["images"])
    dst = tmp_path / f"x{suffix}"
    assert run("convert", "-q", tmp_path / "x.npy", dst).exit_code == 0
    np.testing.assert_array_equal(READERS[suffix](dst)[name], ARRAYS["images"])


def test_attributes_are_kept_or_named(tmp_path):
    """HDF5 has them, and names of axes; of others it is said what they have no place for."""
    root = zarr.open_group(str(tmp_path / "s"), mode="w", attributes={"title": "t", "n": [1, 2]})
    said = {"deep": {"a": [{}]}, "_FillValue": "AAAAAAAA4D8=", "long": list(range(10_000))}
    options = {"dimension_names": ["y", None], "fill_value": 7, "attributes": said}
    root.create_array("x", shape=(3, 2), dtype="f4", **options)
    assert run("convert", "-q", tmp_path / "s", tmp_path / "x.h5").exit_code == 0
    with h5py.File(tmp_path / "x.h5") as file:
        assert (file.attrs["title"], file.attrs["n"].tolist()) == ("t", [1, 2])
        assert file["x"].attrs["deep"] == '{"a": [{}]}'
        assert [dim.label for dim in file["x"].dims] == ["y", ""]
        assert file["x"].attrs["_FillValue"] == np.float32(0.5)
        assert file["x"].attrs["_FillValue"].dtype == file["x"].dtype == "f4"
        assert file["x"].attrs["long"].tolist() == list(range(10_000))
        assert (file["x"].fillvalue, file["x"][...].tolist()) == (7, [[7, 7]] * 3)
    result = run("convert", "-q", tmp_path / "s", tmp_path / "x.npz")
    assert "attributes of 2 nodes, names of axes of 1 array" in result.stderr
    result = run("convert", "-q", tmp_path / "s", tmp_path / "x.safetensors")
    assert "attributes of 2 nodes" in result.stderr
    with safetensors.safe_open(tmp_path / "x.safetensors", "np") as file:
        assert file.metadata() == {"title": "t"}


def to_netcdf(src, dst):
    result = run("convert", "-q", src, dst)
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_datasets_of_xarray_become_netcdf(tmp_path, zarr_format):
    """With dimensions, coordinates, groups and what is missing, as other libraries read them."""
    root = xarray.Dataset(
        {
            "t": (("time", "lat"), [[0.5, np.nan, 2.5], [4, 5, 6.5]], {"units": "K", "n": [1, 2]}),
            "flag": (
                "lat",
                np.array([1, 2, 3], "u1"),
                {"said": ["a", "b"], "ü": "ß", "no": True, "valid_max": 9},
            ),
            "odd": ("lat", np.zeros(3), {"end": "a\0b", "empty": "", "table": [[1, 2], [3, 4]]}),
            "scalar": ((), 7),
        },
        {"time": np.array(["2020-01-01", "2020-01-03"], "M8[ns]"), "lat": [10.0, 20, 30]},
        {"title": "t", "deep": {"a": [{}]}, "none": None},
    )
    root["t"].encoding = {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -9}
    below = xarray.Dataset(
        {"x": (("lat", "y"), np.ones((3, 4), "f4")), "lone": ("y", np.arange(4.0))}
    )
    tree = xarray.DataTree.from_dict({"/": root, "/g/h": below})
    tree.to_zarr(tmp_path / "s.zarr", zarr_format=zarr_format, consolidated=False)
    to_netcdf(tmp_path / "s.zarr", tmp_path / "x.nc")
    with xarray.open_datatree(tmp_path / "s.zarr", engine="zarr", consolidated=False) as source:
        source.load()
    source["/"].attrs |= {"deep": '{"a": [{}]}', "none": "null"}
    source["/flag"].attrs["no"] = 1
    source["/odd"].attrs |= {"end": '"a\\u0000b"', "table": "[[1, 2], [3, 4]]"}
    for engine in ("netcdf4", "h5netcdf", "lazyarr"):
        with xarray.open_datatree(tmp_path / "x.nc", engine=engine) as found:
            xarray.testing.assert_identical(found.load(), source)
            assert found["/t"].encoding["_FillValue"] == np.int16(-9)
    with netCDF4.Dataset(tmp_path / "x.nc") as file:
        assert set(file.variables) == {"t", "flag", "odd", "scalar", "time", "lat"}
        assert {name: len(each) for name, each in file.dimensions.items()} == {"time": 2, "lat": 3}
        below = file["g/h"]
        assert {name: len(each) for name, each in below.dimensions.items()} == {"y": 4}
        assert below["x"].dimensions == ("lat", "y")
        assert file["flag"].getncattr("valid_max").dtype == "u1"
        assert file["t"][...].mask.tolist() == [[False, True, False], [False] * 3]


def test_netcdf_has_a_name_for_each_axis(tmp_path):
    """One that has none gets that of `to_xarray`; a name of two lengths is refused."""
    arrays = {"x": np.ones((2, 3)), "y": np.arange(4), "text": np.array([b"a", b""], "S1")}
    below = {"g/z": np.zeros((7, 3, 0))}
    names = {"y": ["x"], "g/z": ["x", "x_dim_1", "none"]}
    lazyarr.save(tmp_path / "s", arrays | below, dimension_names=names)
    to_netcdf(tmp_path / "s", tmp_path / "x.nc")
    with netCDF4.Dataset(tmp_path / "x.nc") as file:
        assert file["x"].dimensions == ("x_dim_0", "x_dim_1")
        assert file["y"].dimensions == ("x",)
        assert file["g/z"].dimensions == ("x", "x_dim_1", "none")
        assert file["g/z"].shape == (7, 3, 0)
        assert {name: len(each) for name, each in file["g"].dimensions.items()} == {
            "x": 7,
            "none": 0,
        }
        assert file["text"][...].tolist() == [b"a", None]
        np.testing.assert_array_equal(file["x"], arrays["x"])
    with xarray.open_dataset(tmp_path / "x.nc", engine="lazyarr") as found:
        assert found["x"].dims == ("x_dim_0", "x_dim_1")
    lazyarr.save(tmp_path / "t", arrays, dimension_names={"x": ["a", "a"]})
    result = run("convert", "-q", tmp_path / "t", tmp_path / "y.nc")
    assert result.exit_code == 1
    said = "it has 3 elements along 'a', and another array of its group has 2 there"
    assert said in result.stderr
    assert sorted(os.listdir(tmp_path)) == ["s", "t", "x.nc"]


@st.composite
def labelled_arrays(draw):
    """Return arrays of some groups by path, and names of their axes, which may be theirs too."""
    arrays, names = {}, {}
    for group in draw(st.lists(st.sampled_from(["", "g/", "g/h/", "a/"]), min_size=1, unique=True)):
        lengths = {name: draw(st.integers(0, 3)) for name in ("a", "b", "c")}
        # A group takes the name from a dimension.
        taken = {"a", "g"} if not group else {"h"} if group == "g/" else set()
        choice = st.sampled_from(sorted({"a", "b", "c", "x"} - taken))
        for last in draw(st.lists(choice, min_size=1, unique=True)):
            labels = draw(st.lists(st.sampled_from(sorted({*lengths} - taken)), max_size=3))
            shape = tuple(lengths[label] for label in labels)
            dtype = draw(st.sampled_from(["i1", "u2", ">i4", "f4", "f8", "i8", "S1"]))
            numbers = np.arange(1, np.prod(shape, dtype=int) + 1).reshape(shape)
            arrays[group + last] = numbers.astype(dtype)
            names[group + last] = labels
    return arrays, names


@settings(max_examples=25, deadline=None)
@given(labelled_arrays())
def test_any_dimensions_are_those_of_netcdf(tmp_path_factory, drawn):
    """Of coordinates, of other arrays of their names, of groups and of groups below."""
    arrays, names = drawn
    directory = tmp_path_factory.mktemp("any")
    lazyarr.save(directory / "s", arrays, dimension_names=names)
    to_netcdf(directory / "s", directory / "x.nc")
    with netCDF4.Dataset(directory / "x.nc") as file, lazyarr.open(directory / "x.nc") as ds:
        file.set_auto_mask(False)
        for path, data in arrays.items():
            assert file[path].dimensions == tuple(names[path])
            np.testing.assert_array_equal(file[path][...].reshape(data.shape), data)
            assert (ds[path].dimension_names or ()) == tuple(names[path])


@pytest.mark.parametrize(
    ("shape", "dtype", "names", "axes", "n_pages"),
    [
        ((5, 30, 40), "u2", ["t", "y", "x"], "TYX", 5),
        ((5, 30, 40, 3), "u1", None, "QYXS", 5),
        ((2, 3, 30, 4), "f4", ["time", "c", "y", "x"], "QQYX", 6),
    ],
)
def test_stacks_become_tiff(tmp_path, shape, dtype, names, axes, n_pages):
    """Images of their last two axes, or three where the last one is that of colours."""
    data = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    named = {} if names is None else {"dimension_names": {"": names}}
    lazyarr.save(tmp_path / "s.zarr", data, **named)
    result = run("convert", "-q", tmp_path / "s.zarr", tmp_path / "x.tif")
    assert result.exit_code == 0, result.stderr
    assert ("names of axes of 1 array" in result.stderr) == (names is not None and "Q" in axes)
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        (series,) = file.series
        assert (series.axes, len(file.pages), file.is_bigtiff) == (axes, n_pages, False)
        np.testing.assert_array_equal(series.asarray(), data)
    assert run("convert", "-q", tmp_path / "x.tif", tmp_path / "back.zarr").exit_code == 0
    np.testing.assert_array_equal(lazyarr.open(tmp_path / "back.zarr"), data)


def test_several_stacks_become_series_of_a_tiff(tmp_path):
    """With their names, in one file that has larger places where these are needed."""
    arrays = {"g/a": images((3, 20, 30)), "b": np.ones((4, 5))}
    lazyarr.save(tmp_path / "s.zarr", arrays)
    assert run("convert", "-q", tmp_path / "s.zarr", tmp_path / "x.tif").exit_code == 0
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        found = {series.name: series.asarray() for series in file.series}
    for name, data in arrays.items():
        np.testing.assert_array_equal(found[name], data)


def test_the_layout_of_an_archive_is_that_of_a_store(tmp_path, src):
    """Its members are stored as they are, so that they can be mapped."""
    import zipfile

    layout = ("--chunks", 4, "--shards", "none", "--compressor", "none")
    assert run("convert", "-q", src, tmp_path / "x.zip", *layout).exit_code == 0
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
        assert "images/c/9/0/0" in archive.namelist()
    assert lazyarr.verify(tmp_path / "x.zip", progress=False).damaged == ()


@pytest.mark.parametrize("suffix", [".npz", ".zip"])
def test_the_same_arrays_give_the_same_archive(tmp_path, src, suffix):
    """No time of day is in it."""
    for name in ("a", "b"):
        assert run("convert", "-q", src, tmp_path / f"{name}{suffix}").exit_code == 0
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".zip", ".h5"])
def test_what_is_there_stays(tmp_path, suffix):
    """Unless it is to be replaced; a directory is not."""
    np.save(tmp_path / "src.npy", ARRAYS["images"])
    dst = tmp_path / f"x{suffix}"
    dst.write_bytes(b"precious")
    result = run("convert", "-q", tmp_path / "src.npy", dst)
    assert (result.exit_code, "pass --overwrite" in result.stderr) == (1, True)
    assert dst.read_bytes() == b"precious"
    assert run("convert", "-q", "--overwrite", tmp_path / "src.npy", dst).exit_code == 0
    assert dst.stat().st_size > 8
    (tmp_path / f"d{suffix}").mkdir()
    result = run("convert", "-q", "--overwrite", tmp_path / "src.npy", tmp_path / f"d{suffix}")
    assert result.exit_code == 1
    assert sorted(os.listdir(tmp_path)) == sorted(["src.npy", dst.name, f"d{suffix}"])


@pytest.mark.parametrize(
    ("dtype", "suffix"),
    [("M8[s]", ".safetensors"), ("c16", ".safetensors"), ("M8[s]", ".h5"), ("U3", ".h5")],
)
def test_types_that_a_format_does_not_have_are_named(tmp_path, dtype, suffix):
    """And nothing is left behind."""
    np.save(tmp_path / "src.npy", np.zeros(3, dtype))
    result = run("convert", "-q", tmp_path / "src.npy", tmp_path / f"x{suffix}")
    assert result.exit_code == 1
    assert f"is of dtype {np.dtype(dtype)}, which" in result.stderr
    assert os.listdir(tmp_path) == ["src.npy"]


@pytest.mark.parametrize("suffix", [".npy", ".zip"])
def test_a_writer_that_is_killed_leaves_nothing_to_see(tmp_path, suffix):
    """And the next one takes away what is hidden."""
    np.save(tmp_path / "src.npy", np.zeros((32, 1 << 20), "u1"))
    dst = tmp_path / "new" / f"x{suffix}"
    dst.parent.mkdir()
    command = [sys.executable, "-m", "lazyarr", "convert", "-q", tmp_path / "src.npy", dst]
    with subprocess.Popen([*map(str, command)]) as process:
        while process.poll() is None and not [*dst.parent.glob(".*/store/file")]:
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not dst.exists()
    assert os.listdir(dst.parent) != []
    assert run(*map(str, command[3:])).exit_code == 0
    assert os.listdir(dst.parent) == [dst.name]


def test_what_was_written_is_compared(tmp_path, monkeypatch):
    """A file that does not have what the source has is not seen."""
    np.save(tmp_path / "src.npy", ARRAYS["images"])
    monkeypatch.setattr("lazyarr.cli.exporting._bytes_of", lambda block: bytes(block.nbytes))
    result = run("convert", "-q", tmp_path / "src.npy", tmp_path / "x.npy")
    assert result.exit_code == 1
    assert "is not what was read of it, in [0:40, 0:64, 0:300]" in result.stderr
    assert os.listdir(tmp_path) == ["src.npy"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("x.npz", "--chunks", "4"), "--chunks means nothing"),
        (("x.npy", "--compressor", "zstd"), "--compressor means nothing"),
        (("x.json",), "the name of references"),
        (("x.parq",), "the name of references"),
        (("x.lsm",), "lazyarr reads and does not write"),
        (("memory://x.npy",), "files are written to local places"),
    ],
)
def test_what_files_cannot_have_is_wrong_usage(tmp_path, monkeypatch, arguments, words):
    """It is said before anything is read."""
    monkeypatch.chdir(tmp_path)
    result = run("convert", "nothing.npy", *arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())


UNFIT = {
    "x.safetensors": (np.array(["abc"]), np.array([1 + 2j])),
    "x.h5": (np.array(["abc"]), np.array(["2020-01-01"], "M8[s]")),
    "x.npz": (),
}


@pytest.mark.parametrize("name", UNFIT)
def test_arrays_that_a_file_cannot_hold_are_left_out_when_asked_for(tmp_path, name):
    """Each is named; without --skip the first of them ends it, and nothing is left."""
    unfit = {f"unfit{i}": array for i, array in enumerate(UNFIT[name])}
    np.savez(tmp_path / "src.npz", good=np.arange(3), **unfit)
    if unfit:
        result = run("convert", "-q", tmp_path / "src.npz", tmp_path / name)
        assert result.exit_code == 1
        assert "array 'unfit0': it is of dtype <U3, which" in result.stderr
        assert "--skip" in result.stderr
        assert os.listdir(tmp_path) == ["src.npz"]
    result = run("convert", "-q", "--skip", tmp_path / "src.npz", tmp_path / name)
    assert result.exit_code == 0
    assert all(f"left out: array '{name}': it is of dtype" in result.stderr for name in unfit)
    assert f"wrote {tmp_path / name}: 1 array" in result.stderr
    with lazyarr.open(tmp_path / name) as ds:
        assert list(ds) == ["good"]


def test_ctrl_c_says_what_to_do(tmp_path, monkeypatch):
    """A file is not gone on with, so nothing of it stays."""
    np.save(tmp_path / "src.npy", np.arange(3))
    monkeypatch.setattr(
        "lazyarr.cli.exporting._check", lambda *_: signal.raise_signal(signal.SIGINT)
    )
    result = run("convert", "-q", tmp_path / "src.npy", tmp_path / "x.npy")
    assert result.exit_code == 1
    assert "nothing new is kept; give the same command again" in result.stderr
    assert os.listdir(tmp_path) == ["src.npy"]


def test_what_a_file_needs_is_named_where_it_is_not_installed(tmp_path, monkeypatch):
    """With the extra that brings it, before anything is read."""
    np.save(tmp_path / "src.npy", np.arange(3))
    monkeypatch.setitem(sys.modules, "h5py", None)
    result = run("convert", tmp_path / "src.npy", tmp_path / "x.h5")
    assert result.exit_code == 1
    assert "pip install 'lazyarr[hdf5]'" in result.stderr
    assert os.listdir(tmp_path) == ["src.npy"]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([".npy", ".npz", ".h5", ".nc", ".tif", ".zip"]),
    nps.arrays(
        st.sampled_from(["u1", "<i2", ">i4", "f8", "c8", "?", "S1", "S3"]),
        nps.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    ),
)
def test_any_array_comes_back(tmp_path_factory, suffix, data):
    """As lazyarr opens it: shape, type and bits."""
    directory = tmp_path_factory.mktemp("any")
    np.save(directory / "src.npy", data)
    dst = directory / f"x{suffix}"
    result = run("convert", "-q", directory / "src.npy", dst)
    is_no_image = suffix == ".tif" and (data.ndim < 2 or not data.size)
    unfit = {".nc": "c8 ? S3", ".tif": "? S1 S3"}.get(suffix, "").split()
    if is_no_image or data.dtype in map(np.dtype, unfit):
        assert result.exit_code == 1
        assert "which" in result.stderr or "TIFF files hold images" in result.stderr
        return
    assert result.exit_code == 0, result.stderr
    name = {".npz": "arr_0", ".h5": "array", ".nc": "array"}.get(suffix, "")
    found = np.asarray(lazyarr.open(dst, path=name))
    assert (found.shape, found.dtype) == (data.shape, data.dtype.newbyteorder("="))
    assert found.tobytes() == data.astype(found.dtype).tobytes()
