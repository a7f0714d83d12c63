"""Notices about arrays that are loaded again and again."""

from __future__ import annotations

import warnings

import pytest

from lazyarr.client.session.notices import warn_of_reloads
from lazyarr.errors import PerformanceWarning


def notice(name: str) -> dict[str, object]:
    """Return the counts of an array, as the pager sends them."""
    return {"url": "s3://b/x.zarr", "array": name, "units": 4, "units_loaded": 16}


def test_each_array_is_a_warning_that_names_it():
    """With what was counted, and where to read about it: the caller's line."""
    with pytest.warns(PerformanceWarning) as shown:
        warn_of_reloads([notice("a"), notice("b")])
    texts = [str(warning.message) for warning in shown]
    assert [text.split(":")[0] for text in texts] == ["array 'a' of s3", "array 'b' of s3"]
    assert all("its 4 units of chunks were loaded 16 times" in text for text in texts)
    assert {warning.filename for warning in shown} == {__file__}


def test_shuffles_are_told_which_order_to_read_in():
    """By the line of code that does it."""
    with pytest.warns(PerformanceWarning, match=r"sampler=lazyarr\.torch\.ChunkShuffle\(x\)"):
        warn_of_reloads([notice("a") | {"is_shuffled": True}])


def test_no_notice_is_no_warning():
    """As nearly every answer has none."""
    with warnings.catch_warnings(record=True) as shown:
        warn_of_reloads([])
    assert shown == []
