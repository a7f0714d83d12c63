from __future__ import annotations

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
import zarr

import lazyarr
from lazyarr.errors import FormatError
from lazyarr.store import open_store
from tests.process.running import command_of
from tests.programs import writers
from tests.writer.stores import download, new_url, partials, read_array, read_tree, same

DATA = np.arange(600, dtype="u2").reshape(30, 20)


def test_array_alone_is_the_root(tmp_path):
    """One array, without a group around it; attributes and names are its own."""
    options = {"attributes": {"k": 1}, "dimension_names": ["row", None]}
    lazyarr.save(tmp_path / "x.zarr", DATA, **options)
    found = zarr.open_array(tmp_path / "x.zarr", mode="r")
    assert dict(found.attrs) == {"k": 1}
    assert found.metadata.dimension_names == ("row", None)
    assert same(found[...], DATA)


def test_shapes_without_elements(tmp_path):
    """Arrays without axes, or with axes of no length, are kept with their shape."""
    shapes = [(), (0,), (0, 5), (5, 0), (3, 0, 2)]
    data = {f"x{i}": np.ones(shape, "i2") for i, shape in enumerate(shapes)}
    lazyarr.save(tmp_path / "x.zarr", data)
    found = read_tree(tmp_path / "x.zarr")
    assert [found[name].shape for name in data] == shapes
    assert found["x0"] == 1


def test_empty_mapping_is_an_empty_group(tmp_path):
    """It opens, and holds nothing."""
    lazyarr.save(tmp_path / "x.zarr", {})
    assert len(zarr.open_group(tmp_path / "x.zarr", mode="r")) == 0


def in_zarr(tmp_path):
    array = zarr.create_array(tmp_path / "in", shape=DATA.shape, dtype=DATA.dtype, chunks=(7, 6))
    array[...] = DATA
    return array


def in_h5py(tmp_path):
    return h5py.File(tmp_path / "in.h5", "w").create_dataset("x", data=DATA, chunks=(7, 6))


def in_lazyarr(tmp_path):
    lazyarr.save(tmp_path / "in", DATA, chunks=(4, 20))
    return lazyarr.open(tmp_path / "in")


@pytest.mark.parametrize("make", [in_zarr, in_h5py, in_lazyarr, lambda _: DATA.tolist()])
def test_array_likes_are_saved(tmp_path, make):
    """Whatever gives slices, and whatever NumPy takes."""
    lazyarr.save(tmp_path / "x.zarr", make(tmp_path), chunks=(4, 20), shards=(8, 20))
    assert np.array_equal(read_array(tmp_path / "x.zarr"), DATA)


def test_dataset_is_saved_with_its_groups(tmp_path):
    """A store that lazyarr opened is a mapping of mappings."""
    lazyarr.save(tmp_path / "a", {"x": DATA, "g/h/y": DATA[:3]})
    with lazyarr.open(tmp_path / "a") as dataset:
        lazyarr.save(tmp_path / "b", dataset)
    assert {k: v.shape for k, v in read_tree(tmp_path / "b").items()} == {
        "x": (30, 20),
        "g/h/y": (3, 20),
    }


def test_store_is_saved_over_itself(tmp_path):
    """On a local file system the old store can be read until the new one is there."""
    lazyarr.save(tmp_path / "x.zarr", DATA, chunks=(4, 20))
    old = lazyarr.open(tmp_path / "x.zarr")
    lazyarr.save(tmp_path / "x.zarr", old, chunks=(9, 20), overwrite=True)
    assert zarr.open_array(tmp_path / "x.zarr", mode="r").shards == (36, 20)
    assert same(read_array(tmp_path / "x.zarr"), DATA)


def test_remote_store_is_not_saved_over_itself():
    """Where the old store is deleted first, its own arrays cannot be the new ones."""
    url = new_url()
    lazyarr.save(url, DATA)
    with pytest.raises(ValueError, match="read from there"):
        lazyarr.save(url, lazyarr.open(url), overwrite=True)
    assert same(np.asarray(lazyarr.open(url)), DATA)


def test_npz_is_saved_array_by_array(tmp_path):
    """An archive of NumPy is a mapping."""
    np.savez(tmp_path / "x.npz", a=DATA, b=DATA[0])
    with np.load(tmp_path / "x.npz") as archive:
        lazyarr.save(tmp_path / "x.zarr", archive)
    found = read_tree(tmp_path / "x.zarr")
    assert same(found["a"], DATA)
    assert same(found["b"], DATA[0])


def test_object_store(tmp_path):
    """Objects and documents in memory are those of a directory, and nothing else is left."""
    url = new_url()
    data = {"x": DATA, "g/y": DATA[:3]}
    lazyarr.save(url, data, chunks=(4, 20), shards=(8, 20))
    options = {"chunks": (4, 20), "shards": (8, 20), "consolidated": True}
    lazyarr.save(tmp_path / "local", data, **options)
    remote = download(url, tmp_path / "remote")
    contents = [
        {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (remote, tmp_path / "local")
    ]
    assert contents[0] == contents[1]


def test_s3(s3_server, s3_bucket, tmp_path):
    """A store on S3 is replaced when told, and refused when not."""
    url, options = s3_bucket + "/saved", {"storage_options": s3_server.storage_options}
    lazyarr.save(url, {"old": DATA}, **options)
    with pytest.raises(FileExistsError):
        lazyarr.save(url, {"x": DATA}, **options)
    lazyarr.save(url, {"x": DATA[::-1]}, overwrite=True, **options)
    found = read_tree(download(url, tmp_path / "s3", s3_server.storage_options))
    assert found.keys() == {"x"}
    assert same(found["x"], DATA[::-1])


REFUSED = [
    ({"x": np.array([None])}, {}, TypeError),
    ({"a": DATA, "b/c": np.array(["a", None])}, {}, TypeError),
    (DATA, {"attributes": {"k": object()}}, FormatError),
    ({"x": DATA}, {"attributes": {"k": {1}}}, FormatError),
    ({"x": DATA, "../y": DATA}, {}, ValueError),
    ({"x": DATA, "x/y": DATA}, {}, ValueError),
    ({3: DATA}, {}, ValueError),
    ({"x": DATA, "y": DATA[0]}, {"chunks": (3, 3)}, FormatError),
]


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize(("data", "options", "error"), REFUSED, ids=range(len(REFUSED)))
def test_what_can_not_be_saved_costs_no_old_store(tmp_path, data, options, error, remote):
    """Errors come before anything is written or deleted, and leave nothing behind."""
    url = new_url() if remote else str(tmp_path / "x.zarr")
    lazyarr.save(url, {"old": DATA})
    with pytest.raises(error):
        lazyarr.save(url, data, overwrite=True, **options)
    store = open_store(url)
    assert store.list_names("") == ("old", "zarr.json")
    assert remote or partials(tmp_path) == []


class Failing:
    """An array-like that fails after some reads."""

    shape, dtype = (40_000, 10_000), np.dtype("u1")

    def __init__(self, error):
        self.error = error
        self.n_reads = 2

    def __getitem__(self, index):
        self.n_reads -= 1
        if self.n_reads < 0:
            raise self.error
        n_rows, n_columns = (part.stop - part.start for part in index)
        return np.ones((n_rows, n_columns), "u1")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("gone"), MemoryError()])
@pytest.mark.parametrize("remote", [False, True])
def test_failure_in_the_middle_leaves_nothing(tmp_path, error, remote):
    """Ctrl-C, too: neither a store nor its beginnings."""
    url = new_url() if remote else str(tmp_path / "x.zarr")
    with pytest.raises(type(error)):
        lazyarr.save(url, {"x": DATA, "y": Failing(error)})
    assert not open_store(url).exists_any("")
    assert os.listdir(tmp_path) == []


def test_failure_in_the_middle_leaves_the_old_store(tmp_path):
    """On a local file system."""
    lazyarr.save(tmp_path / "x.zarr", DATA)
    with pytest.raises(OSError, match="gone"):
        lazyarr.save(tmp_path / "x.zarr", Failing(OSError("gone")), overwrite=True)
    assert same(read_array(tmp_path / "x.zarr"), DATA)
    assert os.listdir(tmp_path) == ["x.zarr"]


def test_interrupt_ends_a_save_at_once(tmp_path):
    """Ctrl-C in the terminal, while all threads compress: the directory is clean afterwards."""
    command = [sys.executable, *command_of(writers.saves_without_end, tmp_path / "x.zarr")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        for _ in range(3):
            assert process.stdout.readline() == b"reading\n"
        process.send_signal(2)
        _, errors = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in errors
    assert os.listdir(tmp_path) == []


def test_progress_counts_every_byte(tmp_path, capsys):
    """The bar on stderr ends at the size of all arrays; without it stderr stays empty."""
    lazyarr.save(tmp_path / "quiet.zarr", DATA)
    assert capsys.readouterr() == ("", "")
    data = {"x": np.ones((512, 1024), "u2"), "y": np.ones((1024, 1024), "u1")}
    lazyarr.save(tmp_path / "x.zarr", data, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "100%" in captured.err
    assert "2.00M/2.00M" in captured.err


def test_every_thread_setting_writes_the_same_bytes(tmp_path):
    """One thread or many: objects do not depend on who was first."""
    array = np.random.default_rng(0).integers(0, 50, (400, 3000), "u2")
    roots = []
    for threads in (1, 5):
        roots.append(tmp_path / str(threads))
        with lazyarr.configure(threads=threads):
            lazyarr.save(roots[-1], array, chunks=(7, 3000), shards=(70, 3000))
    files = [
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in roots
    ]
    assert files[0] == files[1]
    assert len(files[0]) == 7


def test_no_thread_is_left(tmp_path):
    """After a save, in a process of its own, only the main thread is there."""
    command = command_of(writers.no_thread_is_left, tmp_path / "x.zarr")
    subprocess.run([sys.executable, "-W", "error", *command], check=True, timeout=60)
