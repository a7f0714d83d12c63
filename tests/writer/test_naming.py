"""Options for all arrays of a store, or by the names of arrays."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import lazyarr
from lazyarr.writer.naming import fit_rows
from tests.writer.stores import read_tree, same

IMAGES = np.arange(40 * 64 * 64, dtype="u2").reshape(40, 64, 64)
LABELS = np.arange(200_000, dtype="i8")
DATA = {"train/images": IMAGES, "labels": LABELS}


def open_all(path):
    root = zarr.open_group(path, mode="r")
    return {name: root[name] for name in DATA}


def test_options_by_name(tmp_path):
    """Each array has its own; those that are not named have what lazyarr chooses."""
    lazyarr.save(
        tmp_path / "s",
        DATA,
        chunks={"train/images": (1, 64, 64), "labels": 100},
        shards={"labels": 1000},
        dimension_names={"labels": ["n"]},
        attributes={"": {"by": "me"}, "labels": {"classes": ["a", "b"]}},
    )
    found = open_all(tmp_path / "s")
    assert found["train/images"].chunks == (1, 64, 64)
    assert found["train/images"].shards is not None
    assert (found["labels"].chunks, found["labels"].shards) == ((100,), (1000,))
    assert found["labels"].metadata.dimension_names == ("n",)
    assert found["train/images"].metadata.dimension_names is None
    assert dict(found["labels"].attrs) == {"classes": ["a", "b"]}
    assert dict(zarr.open_group(tmp_path / "s", mode="r").attrs) == {"by": "me"}
    assert all(same(array, DATA[name]) for name, array in read_tree(tmp_path / "s").items())


@pytest.mark.parametrize("attributes", [{"by": "me"}, {"labels": 3}, {"labels": {}, "other": {}}])
def test_attributes_that_are_not_by_name_are_the_roots(tmp_path, attributes):
    """Where a key is no array, or a value no mapping."""
    lazyarr.save(tmp_path / "s", DATA, attributes=attributes)
    assert dict(zarr.open_group(tmp_path / "s", mode="r").attrs) == attributes
    assert dict(open_all(tmp_path / "s")["labels"].attrs) == {}


@pytest.mark.parametrize("option", ["chunks", "shards", "dimension_names"])
def test_names_that_are_no_arrays_are_refused(tmp_path, option):
    """A slip in a name must not give what was not asked for; what there is is named."""
    with pytest.raises(ValueError, match=rf"{option} are given for 'lables'.*'labels'"):
        lazyarr.save(tmp_path / "s", DATA, **{option: {"lables": ["n"]}})
    assert list(tmp_path.iterdir()) == []


def test_a_number_for_all_arrays_is_not_for_small_rows(tmp_path):
    """Labels of 8 bytes in chunks of one row took minutes to read; the warning says what is."""
    words = r"chunks=1 .*'labels' \(8 bytes, now 8192 rows\).*chunks=\{'train/images': 1\}"
    with pytest.warns(UserWarning, match=words) as caught:
        lazyarr.save(tmp_path / "s", DATA, chunks=1)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    found = open_all(tmp_path / "s")
    assert found["labels"].chunks == (8192,)
    assert found["train/images"].chunks == (8, 64, 64)
    assert same(read_tree(tmp_path / "s")["labels"], LABELS)


def test_what_was_asked_for_one_array_is_done(tmp_path):
    """By name, or where there is one array alone: no warning, and chunks as they were wanted."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lazyarr.save(tmp_path / "s", DATA, chunks={"labels": 50_000, "train/images": 1})
        lazyarr.save(tmp_path / "t", LABELS[:10], chunks=2)
        lazyarr.save(tmp_path / "u", {"x": IMAGES}, chunks=16)
    assert open_all(tmp_path / "s")["train/images"].chunks == (1, 64, 64)
    assert zarr.open_array(tmp_path / "t", mode="r").chunks == (2,)


ROWS = st.integers(1, 3000)


@given(st.integers(0, 10**6), st.integers(1, 10**5), st.integers(1, 16), ROWS, st.none() | ROWS)
def test_chunks_are_large_enough_or_hold_all_rows(n_rows, row_length, itemsize, rows, factor):
    """They are a multiple of what was asked for, no larger than needed, and shards hold as many."""
    shards = "auto" if factor is None else rows * factor
    found, outer = fit_rows((n_rows, row_length), itemsize, rows, shards)
    row_nbytes = row_length * itemsize
    assert found % rows == 0
    assert found * row_nbytes >= 2**16 or found >= n_rows
    assert found == rows or (found - rows) * row_nbytes < 2**16
    assert found == rows or found - rows < n_rows
    assert outer == ("auto" if factor is None else found * factor)


@given(st.integers(1, 10**6), st.integers(1, 16), ROWS)
def test_shards_alone_are_fitted_too(n_rows, itemsize, rows):
    """They are objects: of a few bytes each there would be too many."""
    chunks, shards = fit_rows((n_rows,), itemsize, "auto", rows)
    assert chunks == "auto"
    assert shards % rows == 0
    assert math.prod((shards, itemsize)) >= 2**16 or shards >= n_rows
