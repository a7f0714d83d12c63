"""dask names lazyarr's arrays without reading them, and computes on what they hold."""

from __future__ import annotations

import subprocess
import sys

import dask.array
import numpy as np
import pytest
import zarr
from dask.base import tokenize
from dask.sizeof import sizeof

import lazyarr
from tests.engines import memory_only
from tests.stores import images, settle, write_zarr

pytestmark = pytest.mark.usefixtures("engine")

DATA = images((40, 32, 64), np.int32)


@pytest.fixture
def url(tmp_path):
    """A store of two arrays of ten units that nobody has opened before."""
    write_zarr(tmp_path / "d.zarr", DATA, name="x", chunks=(4, 32, 64))
    return write_zarr(tmp_path / "d.zarr", DATA + 1, name="y", chunks=(4, 32, 64))


def n_resident(x):
    """Return how many units of an array are in memory."""
    return x.residency().resident_units


def test_names_are_those_of_stored_arrays_and_views(url, engine):
    """Equal for equal views, different for different ones; and nothing is read for them."""
    ds = lazyarr.open(url)
    x = ds["x"]
    views = [x, ds["y"], x[1:], x[:39], x[::2], x[:, :, ::-1], x.T, x.reshape(-1)]
    if engine == "userfaultfd":
        views.append(x.view("u4"))
    names = [tokenize(view) for view in views]
    assert len(set(names)) == len(names)
    again = lazyarr.open(url)["x"]
    assert [tokenize(again), tokenize(again[1:]), tokenize(again.T)] == [
        names[0],
        names[2],
        names[6],
    ]
    assert tokenize(x[5:20][3:], ensure_deterministic=True) == tokenize(x[8:20])
    assert n_resident(x) == 0
    if engine == "userfaultfd":
        assert sizeof(x) < 10_000


@memory_only
def test_names_are_the_same_in_other_processes(url):
    """Whichever library is imported first, and whatever engine an array has."""
    opening = "x = lazyarr.open({url!r})['x']"
    programs = [
        f"import dask.base, lazyarr; {opening}",
        f"import lazyarr; {opening}; import dask.base",
        f"import dask.base, lazyarr; lazyarr.configure(engine='copy'); {opening}",
    ]
    last = "; print(dask.base.tokenize(x), x.residency().resident_units)"
    found = [
        subprocess.run(
            [sys.executable, "-c", program.format(url=url) + last],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for program in programs
    ]
    assert found == [f"{tokenize(lazyarr.open(url)['x'])} 0\n"] * len(programs)


def test_names_change_with_the_store(url, tmp_path):
    """When chunks, attributes, or all of it are written anew."""
    names = [tokenize(lazyarr.open(url)["x"])]
    stored = zarr.open_array(f"{url}/x")
    changes = [
        lambda: stored.__setitem__(0, 7),
        lambda: stored.attrs.update(a=1),
        lambda: write_zarr(tmp_path / "d.zarr", DATA, name="x", chunks=(4, 32, 64)),
    ]
    for change in changes:
        settle(*(tmp_path / "d.zarr/x").rglob("*"))
        change()
        names.append(tokenize(lazyarr.open(url)["x"]))
    assert len(set(names)) == len(names)


def test_names_of_files(tmp_path):
    """A file has one for what it holds now."""
    names = []
    for fill in (1, 2):
        np.save(tmp_path / "x.npy", np.full(1000, fill))
        names.append(tokenize(lazyarr.open(tmp_path / "x.npy")))
        settle(tmp_path / "x.npy")
    assert names[0] != names[1]


def test_names_of_arrays_that_were_written_to(url):
    """They differ from that of the stored array, and from each other."""
    x = lazyarr.open(url, "c")["x"]
    names = [tokenize(x)]
    for value in (-1, -2):
        x[3, 0, 0] = value
        names.append(tokenize(x))
    assert len(set(names)) == 3
    assert tokenize(x[8:]) == tokenize(lazyarr.open(url, "c")["x"][8:])


def test_names_of_what_has_no_store(url, engine):
    """As of any other array."""
    own = lazyarr.open(url)["x"].copy()
    assert tokenize(np.array(own)) == tokenize(DATA)
    if engine == "userfaultfd":
        assert tokenize(DATA.view(lazyarr.LazyArray)) == tokenize(DATA)


def test_blocks_of_an_array(url):
    """`from_array` aligns its blocks with what is stored."""
    x = lazyarr.open(url)["x"]
    blocks = dask.array.from_array(x)
    np.testing.assert_array_equal((blocks + 1).compute(scheduler="sync"), DATA + 1)
