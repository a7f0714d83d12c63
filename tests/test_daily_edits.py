"""Stores as their users change them: rows are added, some are corrected, and all is flushed."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest
import zarr

import lazyarr
from tests.engines import memory_only

pytestmark = [memory_only, pytest.mark.usefixtures("engine")]


@pytest.fixture
def url(tmp_path):
    """A store with an array at the root, and one in a group."""
    lazyarr.save(tmp_path / "x.zarr", {"i": np.arange(100), "g/y": np.zeros((4, 3))})
    return str(tmp_path / "x.zarr")


def stored(url: str, name: str) -> np.ndarray:
    return zarr.open(url, mode="r")[name][...]


@pytest.mark.parametrize("ends", ["flush", "close"])
def test_a_dataset_flushes_arrays_that_append_and_resize_have_returned(url, ends):
    """However often, and in groups below; also when nobody refers to them any more."""
    ds = lazyarr.open(url, "r+")
    x = ds["i"].append([7])
    x = x.append([8])
    x[-2] = 21
    y = ds["g/y"].resize(6)
    y[5] = 5
    assert ds["i"] is x
    del x, y
    getattr(ds, ends)()
    assert stored(url, "i")[-3:].tolist() == [99, 21, 8]
    assert stored(url, "g/y")[5].tolist() == [5, 5, 5]


def test_rows_are_added_and_corrected_every_day(url):
    """The store is closed each time, and opened again at once."""
    for day in range(30):
        with lazyarr.open(url, "r+") as ds:
            x = ds["i"].append([day])
            x[-2] = -day
            if day % 2:
                del x
        assert stored(url, "i")[-2:].tolist() == [-day, day]


def test_plain_views_are_flushed(url):
    """Found by their address; a dataset has a flush of its own."""
    with lazyarr.open(url, "r+") as ds:
        plain = np.asarray(ds["i"])
        plain[5] = -1
        assert lazyarr.flush(plain[3:9]).units == 1
        assert stored(url, "i")[5] == -1
        with pytest.raises(TypeError, match=r"found Dataset; call its flush"):
            lazyarr.flush(ds)
        del plain


@pytest.mark.parametrize("path", ["", "i"])
def test_the_claim_ends_with_the_last_array(url, path):
    """Without any other call of lazyarr's, so that another program can have the store."""
    opened = lazyarr.open(f"{url}/{path}", "r+")
    x = opened if path else opened["i"]
    x[0] = 1
    x.flush()
    if not path:
        opened.close()
    del x, opened
    gc.collect()
    lazyarr.save(url, {"i": np.arange(3)}, overwrite=True)
    assert stored(url, "i").tolist() == [0, 1, 2]


def test_what_a_refusal_leaves_refers_to_no_array(url):
    """Interpreters keep the traceback of the last error."""
    with lazyarr.open(url, "r+") as ds:
        x = ds["i"]
        try:
            del ds["i"]
        except ValueError as error:
            sys.last_value = error
        try:
            del x
            del ds["i"]
        finally:
            del sys.last_value
        assert list(ds) == ["g"]


def test_an_array_that_was_used_can_be_made_smaller(url):
    """What it keeps for itself is no view of the user's; one that is refuses."""
    with lazyarr.open(url, "r+") as ds:
        ds["i"][3] = 1
        assert ds["i"][3] + ds["i"].sum() > 0
        view = ds["i"][:50]
        with pytest.raises(ValueError, match="views of it are referenced"):
            ds["i"].resize(30)
        del view
        assert ds["i"].resize(30).shape == (30,)
    assert stored(url, "i").shape == (30,)


@pytest.mark.parametrize("what", ["flush", "rename", "append", "resize", "delete"])
def test_what_was_written_to_an_array_that_is_gone_is_in_the_store_first(url, what):
    """Edits would move or replace its chunks before they are written back."""
    ds = lazyarr.open(url, "r+")
    for turn in range(10):
        x = lazyarr.open(f"{url}/i", "r+")
        x[5] = turn
        x[99] = -turn
        del x
        if what == "flush":
            ds.flush()
        elif what == "rename":
            ds.rename("i", "j")
            ds.rename("j", "i")
        elif what == "append":
            ds["i"].append([0])
        elif what == "resize":
            ds["i"].resize(200 + turn)
        else:
            ds["new"] = stored(url, "g/y")
            del ds["new"]
        assert stored(url, "i")[[5, 99]].tolist() == [turn, -turn]
    ds.close()
