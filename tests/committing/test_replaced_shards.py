"""Readers that keep the index of a shard which is replaced by another."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from lazyarr.formats.zarr import parse_node
from lazyarr.reading.unit_reader import UnitReader
from lazyarr.reading.units import geometry_of
from lazyarr.reading.workspace import Workspace
from lazyarr.store import open_store


@pytest.fixture
def array(tmp_path):
    """Return an array whose chunks have no checksum, and are stored as they are."""
    return zarr.create_array(
        tmp_path / "x", shape=(16, 1024), chunks=(1, 1024), shards=(16, 1024), dtype="i4",
        fill_value=0, compressors=None,
    )  # fmt: skip


def reader_of(root):
    layout = parse_node((root / "x/zarr.json").read_bytes(), path="x").layout()
    store = open_store(root)
    return UnitReader(lambda: store, layout, geometry_of(layout), url=store.url, path="x")


def row(source, unit, *, quickly):
    """Return a unit; by the quick way, as the pager does, where that has it."""
    workspace = Workspace()
    found = source.load_quickly(unit, workspace, may_wait=True) if quickly else None
    if found is None:
        found = source.load(unit, workspace)
    return np.frombuffer(workspace.unit.view[:4096], "i4").copy() if found else np.zeros(1024, "i4")


@pytest.mark.parametrize("quickly", [False, True])
def test_index_is_not_used_for_another_file(tmp_path, array, quickly):
    """The file was closed, as of many some are; the next one at its name is another."""
    array[...] = np.arange(1, 17)[:, None]
    source = reader_of(tmp_path)
    assert (row(source, 3, quickly=quickly) == 4).all()
    source.rest()
    array[:3] = 5
    array[2] = 3
    array[:2] = 0  # not stored any more, so that the others move up
    for unit in range(16):
        expected = 0 if unit < 2 else unit + 1
        assert (row(source, unit, quickly=quickly) == expected).all(), unit
    source.close()
