"""A chunk that is not stored is the fill value; a store that is not there never is."""

from __future__ import annotations

import os
import shutil
import time
import zipfile

import numpy as np
import pytest

import lazyarr
from lazyarr.testing import serve_directory

DATA = np.arange(1, 81_921, dtype="u4").reshape(40, 2048)


@pytest.fixture(params=["userfaultfd", "copy"])
def engine(request):
    with lazyarr.configure(engine=request.param):
        yield request.param


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a store, in a directory and in an archive."""
    monkeypatch.chdir(tmp_path)
    lazyarr.save("x.zarr", {"a": DATA}, chunks=(4, 2048), shards=(20, 2048))
    with zipfile.ZipFile("x.zip", "w") as archive:
        for path in sorted(p for p in (tmp_path / "x.zarr").rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(tmp_path / "x.zarr"))
    return tmp_path


@pytest.mark.filterwarnings("ignore::lazyarr.EngineWarning")
@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("x.zarr", {}),
        ("file://x.zarr", {}),
        ("simplecache::x.zarr", {}),
        ("simplecache::file://x.zarr", {"simplecache": {"cache_storage": "kept"}}),
        ("filecache::x.zarr", {"filecache": {"cache_storage": "kept"}}),
        ("zip://::x.zip", {}),
        ("zip://::file://x.zip", {}),
        ("zip://", {"fo": "x.zip"}),
        ("zip://a::x.zip", {}),
        ("dir://x.zarr::.", {}),
    ],
)
def test_relative_paths_mean_the_same_in_every_process(here, engine, url, options):
    """The pager has a working directory of its own."""
    found = lazyarr.open(url, storage_options=options)
    x = found["a"] if isinstance(found, lazyarr.Dataset) else found
    os.chdir("/")
    assert np.array_equal(x[7], DATA[7])
    assert np.asarray(x)[39, 2047] == 81_920
    assert not os.path.exists("/kept")


@pytest.mark.filterwarnings("ignore::lazyarr.EngineWarning")
@pytest.mark.parametrize(("zarr_format", "shards"), [(2, None), (3, None), (3, (8, 2048))])
@pytest.mark.parametrize("was_read", [False, True])
def test_a_store_that_vanishes_from_a_server_is_no_zeros(
    tmp_path, engine, shards, zarr_format, was_read
):
    """Not even where it never had a chunk; the error says that the array is not there."""
    import zarr

    array = zarr.create_array(
        os.fspath(tmp_path / "x.zarr"),
        shape=DATA.shape,
        chunks=(4, 2048),
        shards=shards,
        dtype="u4",
        fill_value=7,
        zarr_format=zarr_format,
    )
    array[:8] = DATA[:8]
    with serve_directory(tmp_path) as server:
        x = lazyarr.open(f"{server.url}/x.zarr")
        if was_read:
            assert (x[39] == 7).all()
            assert np.array_equal(x[3], DATA[3])
            time.sleep(1.1)  # so long it is believed to be there
        (tmp_path / "x.zarr").rename(tmp_path / "y.zarr")
        for row in (5, 15):
            with pytest.raises(lazyarr.ChunkError, match=r"not there any more|is gone"):
                x[row]
        (tmp_path / "y.zarr").rename(tmp_path / "x.zarr")
        assert np.array_equal(x[5], DATA[5])
        assert (x[15] == 7).all()


@pytest.mark.filterwarnings("ignore::lazyarr.EngineWarning")
def test_an_array_that_is_deleted_from_its_group_is_no_zeros(tmp_path, engine):
    """The directory of the store is still there."""
    lazyarr.save(tmp_path / "x.zarr", {"a": DATA, "b": DATA}, chunks=(4, 2048), shards=None)
    group = lazyarr.open(tmp_path / "x.zarr")
    array = group["a"]
    shutil.rmtree(tmp_path / "x.zarr/a")
    with pytest.raises(lazyarr.ChunkError, match="the array is not there any more"):
        array[5]
    assert np.array_equal(group["b"][5], DATA[5])


def annex(path):
    """Leave a link in the place of a file, as git-annex does where the content is not there."""
    path.unlink()
    path.symlink_to("../.git/annex/objects/1")


def make_directory(path):
    """Leave a directory in the place of a file."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("shards", [None, (16, 2048)])
@pytest.mark.parametrize("damage", [annex, make_directory])
@pytest.mark.parametrize("threads", [1, 8])
def test_a_chunk_that_is_something_else_is_no_fill_value(tmp_path, engine, damage, shards, threads):
    """A link to nothing, a directory: ChunkError names it, other chunks are read."""
    lazyarr.save(tmp_path / "x.zarr", DATA, chunks=(4, 2048), shards=shards)
    damage(tmp_path / "x.zarr/c/1/0")
    with lazyarr.configure(threads=threads):
        x = lazyarr.open(tmp_path / "x.zarr")
        lost = slice(16, 32) if shards else slice(4, 8)
        for _ in range(2):  # what failed is tried again
            with pytest.raises(lazyarr.ChunkError, match=r"symbolic link|it is a directory"):
                x[lost.start + 1]
        assert np.array_equal(x[0], DATA[0])
        assert np.array_equal(x[lost.stop :], DATA[lost.stop :])
    report = lazyarr.verify(tmp_path / "x.zarr", progress=False)
    assert not report.ok
    assert {error.key for error in report.damaged} == {"c/1/0"}
