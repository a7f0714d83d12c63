"""dask names lazyarr's arrays without reading them, and computes on what they hold."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

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


def test_names_of_groups(url, tmp_path):
    """They change with what is below, and nothing is read for them."""
    ds = lazyarr.open(url)
    names = [tokenize(ds)]
    assert names[0] == tokenize(lazyarr.open(url), ensure_deterministic=True)
    assert n_resident(ds["x"]) == 0
    lazyarr.save(tmp_path / "other.zarr", {"x": DATA, "y": DATA + 1})
    names.append(tokenize(lazyarr.open(tmp_path / "other.zarr")))
    mine = lazyarr.open(url, "c")
    mine["x"][0] = 7
    names.append(tokenize(mine))
    changes = [
        lambda: zarr.open_array(f"{url}/y").__setitem__(0, 7),
        lambda: zarr.open_group(url).attrs.update(a=1),
        lambda: zarr.create_group(f"{url}/z"),
        lambda: zarr.create_array(f"{url}/text", shape=(2,), dtype=str),
    ]
    for change in changes:
        settle(*(tmp_path / "d.zarr").rglob("*"))
        change()
        names.append(tokenize(lazyarr.open(url)))
    assert len(set(names)) == len(names)
    # What cannot be mapped may be anything.
    assert tokenize(lazyarr.open(url)) != tokenize(lazyarr.open(url))


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


def test_blocks_are_read_when_they_are_computed(url, engine):
    """`to_dask` and `from_array` read nothing; a block reads its chunks."""
    x = lazyarr.open(url)["x"]
    arrays = [x.to_dask(), x.to_dask(chunks="auto"), dask.array.from_array(x)]
    assert arrays[0].chunks == ((4,) * 10, (32,), (64,))
    assert arrays[0].name == x.to_dask().name != x[1:].to_dask().name
    assert [type(blocks._meta).__mro__[-2] for blocks in arrays[:2]] == [np.ndarray] * 2
    (arrays[0] + 1).sum()
    assert n_resident(x) == 0
    with lazyarr.configure(readahead=0):
        found = arrays[0][:8].compute(scheduler="sync")
    np.testing.assert_array_equal(found, DATA[:8])
    assert type(found) is np.ndarray
    assert n_resident(x) == 2
    for blocks in arrays:
        assert (blocks.shape, blocks.dtype) == (DATA.shape, DATA.dtype)
        np.testing.assert_array_equal((blocks + 1).compute(scheduler="threads"), DATA + 1)
        assert blocks.astype("i8").sum().compute(scheduler="sync") == DATA.astype("i8").sum()


def test_blocks_are_aligned_with_chunks(url, tmp_path):
    """Those of dask's choice hold whole chunks, too."""
    x = lazyarr.open(url)["x"]
    with dask.config.set({"array.chunk-size": "64KiB"}):
        for blocks in (x.to_dask("auto"), dask.array.from_array(x)):
            assert blocks.chunks == ((8,) * 5, (32,), (64,))
    shards = {"chunks": (2, 32, 64), "shards": (8, 32, 64)}
    sharded = lazyarr.open(write_zarr(tmp_path / "s.zarr", DATA, name="x", **shards))["x"]
    assert sharded.to_dask().chunksize == (2, 32, 64)
    assert x.to_dask(chunks=(20, -1, 32)).chunksize == (20, 32, 32)


@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (5, 0)])
def test_small_arrays(tmp_path, shape):
    """Of one element, and of none."""
    lazyarr.save(tmp_path / "d", {"x": np.ones(shape)})
    blocks = lazyarr.open(tmp_path / "d")["x"].to_dask()
    np.testing.assert_array_equal(blocks.compute(scheduler="sync"), np.ones(shape))


def test_views(url):
    """Any view has blocks, also one whose axes are not those of the stored array."""
    x = lazyarr.open(url)["x"]
    views = [lambda a: a[3:], lambda a: a.T, lambda a: a.reshape(-1), lambda a: a[:, None]]
    with dask.config.set({"array.chunk-size": "64KiB"}):
        for view in (*views, lambda a: a[:, 0], lambda a: a[::-2, 5:]):
            for blocks in (view(x).to_dask(), dask.array.from_array(view(x))):
                np.testing.assert_array_equal(blocks.compute(scheduler="sync"), view(DATA))


def test_groups(url):
    """Arrays by their names, and groups below as dicts."""
    write_zarr(url, DATA, name="g/z", chunks=(4, 32, 64))
    found = lazyarr.open(url).to_dask()
    assert sorted(found) == ["g", "x", "y"]
    np.testing.assert_array_equal(found["y"].compute(scheduler="sync"), DATA + 1)
    np.testing.assert_array_equal(found["g"]["z"][5].compute(scheduler="sync"), DATA[5])
    assert found["x"].name != lazyarr.open(url).to_dask("auto")["x"].name


def test_tasks_hold_references(url):
    """And no elements, whether they are loaded or not."""
    x = lazyarr.open(url)["x"]
    x.prefetch()
    for blocks in (x.to_dask(), dask.array.from_array(x)):
        pickled = pickle.dumps(blocks)
        assert len(pickled) < 2**13
        found = pickle.loads(pickled)
        assert found.name == blocks.name
        np.testing.assert_array_equal(found.compute(scheduler="sync"), DATA)


@memory_only
def test_tasks_run_in_other_processes(url):
    """They open the array, and have its pages."""
    blocks = lazyarr.open(url)["x"].to_dask()
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        found = (blocks[:12] * 2).compute(scheduler="processes", pool=pool)
    np.testing.assert_array_equal(found, DATA[:12] * 2)


@memory_only
@pytest.mark.parametrize("first", ["distributed.protocol", "lazyarr.client.arrays.lazyarray"])
def test_distributed_sends_references(url, first):
    """Whichever is imported first; what it sends has no elements."""
    pytest.importorskip("distributed")  # it may not have wheels yet for the newest Python
    program = (
        f"import {first}, lazyarr, dask.base; from distributed.protocol import *;"
        f"x = lazyarr.open({url!r})['x']; dask.base.tokenize(x); sent = serialize(x);"
        "print(sum(map(len, sent[1])) < 10_000, x.residency().resident_units,"
        "type(deserialize(*sent)) is lazyarr.LazyArray)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "True 0 True\n", done.stderr


def test_a_chunk_that_cannot_be_had(url):
    """It is an exception of the task."""
    with open(f"{url}/x/c/2/0/0", "wb") as chunk:
        chunk.write(b"damaged")
    blocks = lazyarr.open(url)["x"].to_dask()
    np.testing.assert_array_equal(blocks[:8].compute(scheduler="sync"), DATA[:8])
    with pytest.raises(lazyarr.ChunkError):
        blocks[8:12].compute(scheduler="sync")


def test_arrays_that_can_be_written_to(url):
    """`from_array` copies them, as any array: what is written later does not show."""
    x = lazyarr.open(url, "c")["x"]
    blocks = dask.array.from_array(x)
    x[...] = 0
    np.testing.assert_array_equal(blocks.compute(scheduler="sync"), DATA)
    assert x.copy().sum() == 0


def test_a_copy_is_a_copy(url):
    """For everybody but `from_array`."""
    x = lazyarr.open(url)["x"]
    for copied in (x.copy(), x.copy("F"), x[2:].copy(order="C")):
        assert not isinstance(copied, type(x))
        assert copied.flags.writeable
    assert x.copy("F").flags.f_contiguous
