"""Programs of tests/process/test_writable_attacks.py."""

from __future__ import annotations

import gc

import numpy as np
import zarr

import lazyarr

ROWS = (np.arange(300 * 1000) % 251).astype("u1").reshape(300, 1000)


def require_stored(url, expected):
    np.testing.assert_array_equal(zarr.open(url, mode="r")["x"][...], expected)


def _appended(url):
    ds = lazyarr.open(url, "r+")
    x = ds["x"].append(np.full((5, 1000), 8, "u1"))
    expected = np.concatenate([ROWS, np.full((5, 1000), 8, "u1")])
    x[301] = expected[301] = 1
    x[2, 7] = expected[2, 7] = 2
    return ds, x, expected


def what_append_returned_is_flushed(url):
    ds, x, expected = _appended(url)
    assert ds.flush().units > 0
    require_stored(url, expected)
    x = x.resize(200)
    x[5] = expected[5] = 6
    assert ds.flush().units > 0
    require_stored(url, expected[:200])


def what_append_returned_is_in_the_store_when_it_is_closed(url):
    ds, x, expected = _appended(url)
    ds.close()
    require_stored(url, expected)
    assert x.residency().dirty_units == 0


def what_another_opening_has_opened_is_flushed(url):
    ds, other = lazyarr.open(url, "r+"), lazyarr.open(url, "r+")
    x, expected = other["x"], ROWS.copy()
    x[4] = expected[4] = 1
    assert ds.flush().units > 0
    require_stored(url, expected)


def views_alone_are_flushed(url):
    ds, expected = lazyarr.open(url, "r+"), ROWS.copy()
    view = np.asarray(ds["x"].append(np.empty((0, 1000), "u1")))[3:6]
    gc.collect()
    view[0] = expected[3] = 1
    assert ds.flush().units > 0
    require_stored(url, expected)
