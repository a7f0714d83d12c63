"""Zarr stores in zip archives, which are opened by the archive's own URL."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr

import lazyarr
from lazyarr.testing import Behaviour
from tests.cli.running import run
from tests.engines import engine  # noqa: F401 - a fixture
from tests.servers import http_server  # noqa: F401 - a fixture

DATA = np.arange(6000, dtype="i4").reshape(60, 100)


def archive(directory: Path, name: str = "x.zarr.zip", **options: object) -> Path:
    lazyarr.save(directory / "s.zarr", {"g/a": DATA}, chunks=(8, 100), attributes={"g/a": {"k": 1}})
    made = shutil.make_archive(str(directory / "packed"), "zip", directory / "s.zarr", **options)
    return Path(made).rename(directory / name)


def test_an_archive_is_a_store(tmp_path, engine):  # noqa: F811
    """By its path: values, attributes, pickles; and it is verified, listed and converted."""
    path = archive(tmp_path)
    with lazyarr.open(path) as ds:
        np.testing.assert_array_equal(np.asarray(ds["g/a"]), DATA)
        assert ds["g/a"].attrs == {"k": 1}
        assert (pickle.loads(pickle.dumps(ds["g/a"][5:9])) == DATA[5:9]).all()
    assert lazyarr.verify(path, progress=False).ok
    assert "a" in run("tree", path).stdout
    assert run("convert", path, tmp_path / "out.zarr", "--quiet").exit_code == 0
    np.testing.assert_array_equal(np.asarray(lazyarr.open(tmp_path / "out.zarr")["g/a"]), DATA)


@pytest.mark.parametrize("shards", [None, (16, 100)])
def test_members_are_guarded_as_a_whole(tmp_path, shards):
    """What zip's CRC-32 is checked of has a checksum; parts of a member have none."""
    root = zarr.create_group(tmp_path / "s.zarr")
    root.create_array("a", data=DATA, chunks=(8, 100), shards=shards, compressors=None)
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in (tmp_path / "s.zarr").rglob("*"):
            archive.write(file, file.relative_to(tmp_path / "s.zarr"))
    report = lazyarr.verify(path, progress=False)
    assert (report.ok, report.unguarded) == (True, ("a",) if shards else ())
    if shards:
        return
    data = bytearray(path.read_bytes())
    data[data.index(DATA[8:16].tobytes())] ^= 1
    path.write_bytes(data)
    (error,) = lazyarr.verify(path, progress=False).damaged
    assert error.chunk == (1, 0)
    assert "the archive is damaged" in error.reason


def test_what_zarr_python_has_packed(tmp_path):
    """Its own zip store."""
    with zarr.storage.ZipStore(tmp_path / "x.zip", mode="w") as store:
        zarr.create_group(store).create_array("a", data=DATA, chunks=(7, 30))
    with lazyarr.open(tmp_path / "x.zip") as ds:
        np.testing.assert_array_equal(np.asarray(ds["a"]), DATA)


def test_an_archive_elsewhere(http_server, engine):  # noqa: F811
    """Over the network."""
    archive(Path(http_server.directory))
    with lazyarr.open(f"{http_server.url}/x.zarr.zip") as ds:
        np.testing.assert_array_equal(np.asarray(ds["g/a"]), DATA)
    x = lazyarr.open(f"{http_server.url}/x.zarr.zip/g/a")
    np.testing.assert_array_equal(np.asarray(x), DATA)


def test_a_server_without_ranges(http_server):  # noqa: F811
    """Archives cannot be read from it, which the error says."""
    archive(Path(http_server.directory))
    http_server.behave(Behaviour(ignore_range=True))
    with pytest.raises(lazyarr.StoreError, match=r"no parts of objects.*; download it") as caught:
        lazyarr.open(f"{http_server.url}/x.zarr.zip")
    assert "block_size" not in str(caught.value)


def test_a_store_in_a_directory_of_the_archive(tmp_path):
    """By its path there, as the command zip packs a directory."""
    lazyarr.save(tmp_path / "in/s.zarr", {"a": DATA})
    made = shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "in")
    for x in (lazyarr.open(made, path="s.zarr/a"), lazyarr.open(f"{made}/s.zarr/a")):
        np.testing.assert_array_equal(np.asarray(x), DATA)
        assert (pickle.loads(pickle.dumps(x[3:5])) == DATA[3:5]).all()
    assert sorted(lazyarr.open(f"{made}/s.zarr")) == ["a"]
    assert "(60, 100)" in run("info", f"{made}/s.zarr/a").stdout
    with pytest.raises(lazyarr.NodeNotFoundError):
        lazyarr.open(f"{made}/s.zarr/b")


def test_a_directory_is_a_store_whatever_it_is_called(tmp_path):
    """Only a file is an archive."""
    lazyarr.save(tmp_path / "x.zip", {"a": DATA})
    np.testing.assert_array_equal(np.asarray(lazyarr.open(tmp_path / "x.zip")["a"]), DATA)


def test_what_is_no_archive_is_refused(tmp_path):
    """With an error that says so."""
    (tmp_path / "x.zip").write_bytes(b"no archive")
    with pytest.raises(lazyarr.LazyarrError, match="zip"):
        lazyarr.open(tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as made:
        made.writestr("readme.txt", "text")
    with pytest.raises(lazyarr.NodeNotFoundError):
        lazyarr.open(tmp_path / "y.zip")
