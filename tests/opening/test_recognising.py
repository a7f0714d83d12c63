"""Files that their names do not tell of: known by their first bytes, or by what is said of them."""

from __future__ import annotations

import os
import pickle
import shutil

import fsspec
import h5py
import numpy as np
import pytest
import safetensors.numpy

import lazyarr

DATA = np.arange(6000.0).reshape(20, 300)


@pytest.fixture
def files(tmp_path):
    """A file of each format, without a suffix; the name of the array in it, by the file's name."""
    with open(tmp_path / "npy", "wb") as file:
        np.save(file, DATA)
    with open(tmp_path / "npz", "wb") as file:
        np.savez(file, x=DATA)
    safetensors.numpy.save_file({"x": DATA}, tmp_path / "safetensors")
    with h5py.File(tmp_path / "hdf5", "w") as file:
        file["x"] = DATA
    return tmp_path


@pytest.mark.parametrize("name", ["npy", "npz", "safetensors", "hdf5"])
@pytest.mark.parametrize("mode", ["r", "c"])
def test_a_file_without_a_suffix_is_known_by_its_first_bytes(files, engine, name, mode):
    """Its views pickle too, and its groups, as references."""
    found = lazyarr.open(files / name, mode)
    x = found if name == "npy" else found["x"]
    np.testing.assert_array_equal(np.asarray(x), DATA)
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(x[3:7]))), DATA[3:7])
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(np.asarray(again if name == "npy" else again["x"]), DATA)
    report = lazyarr.verify(files / name, progress=False)
    assert (report.arrays, report.damaged) == (1, ())


@pytest.mark.parametrize("name", ["npy", "npz", "safetensors", "hdf5"])
def test_a_remote_file_is_known_by_its_first_bytes_where_no_store_is(files, http_server, name):
    """And once it is known, by other processes too: the reference says it."""
    shutil.copy(files / name, http_server.directory)
    found = lazyarr.open(f"{http_server.url}/{name}")
    x = found if name == "npy" else found["x"]
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(x))), DATA)
    with pytest.raises(lazyarr.NodeNotFoundError, match="nothing"):
        lazyarr.open(f"{http_server.url}/nothing")


def test_a_remote_store_is_a_store_whatever_lies_beside_it(tmp_path):
    """Its documents are looked for first, and nothing else is read where they are."""
    url = "memory://recognised/x.npy.zarr"
    lazyarr.save(url, {"x": DATA})
    assert lazyarr.open(url)["x"].shape == DATA.shape
    fsspec.filesystem("memory").rm("recognised", recursive=True)


def test_what_is_said_overrules_the_name(files):
    """In `open` and in `verify`; a directory is a store in any case."""
    shutil.copy(files / "hdf5", files / "x.npy")
    with pytest.raises(lazyarr.FormatError, match="NUMPY"):
        lazyarr.open(files / "x.npy")
    assert lazyarr.open(files / "x.npy", format="hdf5")["x"].shape == DATA.shape
    assert lazyarr.verify(files / "x.npy", format="hdf5", progress=False).ok
    lazyarr.save(files / "y.npy", DATA)
    assert lazyarr.open(files / "y.npy", format="npy").shape == DATA.shape
    with pytest.raises(ValueError, match="format='excel' is not one of zarr, npy"):
        lazyarr.open(files / "x.npy", format="excel")


def test_a_zarr_store_in_an_archive_of_any_name(files):
    """An archive without .npy files says how it is opened."""
    lazyarr.save(files / "s.zarr", {"x": DATA})
    shutil.make_archive(str(files / "a"), "zip", files / "s.zarr")
    os.rename(files / "a.zip", files / "archive")
    with pytest.raises(lazyarr.FormatError, match="format='zarr'"):
        lazyarr.open(files / "archive")
    found = lazyarr.open(files / "archive", format="zarr")
    np.testing.assert_array_equal(np.asarray(found["x"]), DATA)
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(found["x"]))), DATA)


@pytest.mark.parametrize("name", ["npz", "safetensors", "hdf5"])
def test_an_array_may_have_the_name_of_its_file(files, name):
    """It is the array, and not the group that the file is."""
    os.rename(files / name, files / "x")
    assert lazyarr.open(files / "x", path="x").shape == DATA.shape
    assert "x" in lazyarr.open(files / "x").tree()


@pytest.mark.parametrize("content", [b"", b"P", b"CDF\1", b"\x93NUMP", bytes(40)])
def test_other_files_are_none(tmp_path, content):
    """However short they are."""
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(lazyarr.StoreError, match="not a directory"):
        lazyarr.open(tmp_path / "x")
