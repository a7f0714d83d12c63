"""joblib tells arrays and groups apart by what they hold, not by where it is stored."""

from __future__ import annotations

import subprocess
import sys

import joblib
import numpy as np
import pytest

import lazyarr

pytestmark = pytest.mark.usefixtures("engine")

DATA = np.arange(24.0).reshape(6, 4)


def store(url, data=DATA, **attributes):
    """Write a group of two arrays, one of them in a group below; return it."""
    lazyarr.save(
        url, {"x": data, "g/y": np.arange(3)}, attributes={"x": attributes}, overwrite=True
    )
    return lazyarr.open(url)


def test_what_was_overwritten_is_computed_anew(tmp_path):
    """Results of joblib's memory are not those of what was stored in the same place before."""
    memory = joblib.Memory(tmp_path / "memory", verbose=0)

    @memory.cache
    def total(x):
        return float(x.sum())

    @memory.cache
    def total_of_group(ds):
        return float(ds["x"].sum())

    for add in (0, 1, 0):
        ds = store(tmp_path / "d.zarr", DATA + add)
        assert total(ds["x"]) == (DATA + add).sum()
        assert total_of_group(ds) == (DATA + add).sum()


def test_hashes_are_those_of_elements(tmp_path, engine):
    """Equal for equal elements wherever they are, in another process, too; of a group as well."""
    ds = store(tmp_path / "a.zarr")
    elsewhere = store(tmp_path / "b.zarr")
    x = ds["x"]
    assert joblib.hash(x) == joblib.hash(elsewhere["x"])
    assert joblib.hash([x, {"x": x[1:]}]) == joblib.hash([x, {"x": elsewhere["x"][1:]}])
    assert joblib.hash(ds) == joblib.hash(elsewhere)
    views = [x, x[1:], x[:5], x.T, x.reshape(4, 6), x[:, 0], x[0, 0:1], x.view("i8")]
    assert len({joblib.hash(view) for view in views}) == len(views)
    program = (
        "import joblib, lazyarr, sys\n"
        "with lazyarr.configure(engine=sys.argv[2]):\n"
        "    ds = lazyarr.open(sys.argv[1])\n"
        "print(joblib.hash(ds['x']), joblib.hash(ds))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "a.zarr", engine],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    assert found.split() == [joblib.hash(x), joblib.hash(ds)]


def test_hashes_of_groups_differ_with_all_that_they_hold(tmp_path):
    """Elements, attributes of arrays and of the group, names."""
    groups = [store(tmp_path / "0"), store(tmp_path / "1", DATA + 1), store(tmp_path / "2", a=1)]
    lazyarr.save(tmp_path / "3", {"x": DATA, "g/y": np.arange(3)}, attributes={"": {"a": 1}})
    lazyarr.save(tmp_path / "4", {"x": DATA, "g/z": np.arange(3)})
    groups += [lazyarr.open(tmp_path / "3"), lazyarr.open(tmp_path / "4"), groups[0]["g"]]
    assert len({joblib.hash(ds) for ds in groups}) == len(groups)


def test_what_was_written_in_this_process_counts(tmp_path):
    """In mode "c"."""
    store(tmp_path / "d.zarr")
    ds = lazyarr.open(tmp_path / "d.zarr", mode="c")
    before = joblib.hash(ds["x"]), joblib.hash(ds)
    ds["x"][2, 2] = -1
    after = joblib.hash(ds["x"]), joblib.hash(ds)
    assert before[0] != after[0]
    assert before[1] != after[1]


def test_arrays_without_axes_or_elements(tmp_path):
    """They have a hash as well."""
    lazyarr.save(tmp_path / "d.zarr", {"one": np.array(3.0), "none": np.empty((0, 3))})
    ds = lazyarr.open(tmp_path / "d.zarr")
    assert joblib.hash(ds["one"]) != joblib.hash(ds["none"])
    assert joblib.hash(ds) == joblib.hash(lazyarr.open(tmp_path / "d.zarr"))
