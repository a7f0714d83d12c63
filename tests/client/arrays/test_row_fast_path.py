"""The short way to a row's unit gives what the long way gives."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lazyarr
from lazyarr.client.arrays import indexing
from lazyarr.client.arrays.row_fast_path import maybe_rows
from tests.process.running import run_program
from tests.programs import row_fast_path as programs

SHAPE = (41, 4, 512)


@pytest.fixture(scope="module")
def data():
    """Rows of two pages."""
    return np.random.default_rng(0).integers(0, 1000, SHAPE, dtype="u4")


@pytest.fixture(scope="module")
def x(tmp_path_factory, data):
    """Units of four rows, the last one short."""
    url = tmp_path_factory.mktemp("rows") / "x.zarr"
    lazyarr.save(url, data, chunks=(4, 4, 512), shards=(8, 4, 512))
    x = lazyarr.open(url)
    x.advise("random")  # nothing is read ahead
    return x


@given(
    start=st.integers(0, 40),
    stop=st.integers(1, 41),
    rows=st.one_of(
        st.lists(st.integers(-60, 60), max_size=12),
        st.lists(st.integers(-60, 60), min_size=257, max_size=300),
    ),
)
@settings(max_examples=80)
def test_both_ways_find_the_same_units(x, start, stop, rows):
    """Of any rows of any slice; those that are out of range need none."""
    view = x[start:stop]
    short = maybe_rows(view._memory, view)
    if start >= stop:
        assert short is None
        return
    plain, wanted = np.asarray(view), np.array(rows, np.int64)
    assert short.units_of(wanted) == indexing.units_of_rows(view._region, plain, wanted)
    assert [short.units(0, len(view))] == indexing.units_of_view(view._region, plain)
    mask = np.isin(np.arange(len(view)), wanted)
    assert short.units_of(mask) == indexing.units_of_rows(view._region, plain, mask)


@pytest.mark.parametrize(
    "key", [0, -1, 17, np.int64(8), (3,), (-2, 1), (5, 1, 7), (9, ..., 3), (4, [1, 2]), (6, None)]
)
def test_a_row_is_asked_for_and_plain(x, data, key):
    """No more than its unit is loaded, before it is read."""
    x.evict()
    before = lazyarr.stats()
    found = x[key]
    after = lazyarr.stats()
    assert type(found) in (np.ndarray, np.uint32)
    np.testing.assert_array_equal(found, data[key])
    assert after["units_loaded"] - before["units_loaded"] == 1
    assert after["faults"] == before["faults"]
    x[key]
    assert lazyarr.stats()["requests"] == after["requests"]


def test_out_of_range_is_refused(x):
    """As NumPy does."""
    for place in (41, -42):
        with pytest.raises(IndexError, match="out of bounds"):
            x[place]


@pytest.mark.parametrize(
    "view",
    [lambda x: x[::2], lambda x: x.T, lambda x: x[:, 1], lambda x: x[:0], lambda x: x[3, 1, 2:2]],
    ids=["strided", "transposed", "cut", "empty", "empty row"],
)
def test_other_views_go_the_long_way(x, view):
    """Their rows do not follow one another in memory."""
    chosen = view(x)
    assert maybe_rows(getattr(chosen, "_memory", None), chosen) is None


def test_units_that_share_pages_go_the_long_way(tmp_path):
    """A row needs both neighbours of a page, then."""
    lazyarr.save(tmp_path / "x.zarr", np.arange(3000).reshape(30, 100), chunks=(3, 100))
    odd = lazyarr.open(tmp_path / "x.zarr")
    assert maybe_rows(odd._memory, odd) is None
    assert odd[7].tolist() == list(range(700, 800))


def test_a_picked_row_does_not_keep_the_array(x):
    """Nor does the short way keep what it belongs to: no cycle waits for the collector."""
    gc.disable()
    try:
        view = x[2:9]
        row, gone = view[1], weakref.ref(view)
        del view
        assert gone() is None
        assert row.shape == SHAPE[1:]
    finally:
        gc.enable()


def test_a_forked_child_has_a_map_of_its_own(tmp_path, data):
    """Private memory is another region there."""
    lazyarr.save(tmp_path / "x.zarr", data, chunks=(4, 4, 512))
    np.save(tmp_path / "x.npy", data)
    done = run_program(
        programs.a_forked_child_has_a_map_of_its_own, tmp_path / "x.zarr", tmp_path / "x.npy"
    )
    assert done.returncode == 0, done.stderr
