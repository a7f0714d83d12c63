"""Regions made of what a client says: checked first, and read from no sooner than needed."""

from __future__ import annotations

import os

import numpy as np
import pytest

from lazyarr.errors import LazyarrError, PagerError
from lazyarr.kernel import PAGE_NBYTES, create_memfd, resize_memfd
from lazyarr.layout.document import layout_text
from lazyarr.memory_kind import MemoryKind
from lazyarr.pager.memory.clients import Arena
from lazyarr.pager.service.region_opening import open_region
from lazyarr.reading.rotation import Rotation
from lazyarr.reading.workspace import Workspace
from lazyarr.store import open_store
from lazyarr.wire.messages import OpenRegion

DATA = np.arange(5 * 4096, dtype="u1").reshape(5, 4096)
SETTINGS = {"timeout_seconds": 5.0, "retries": 0}


def layout(path):
    """Return how lazyarr reads a file of NumPy's, as text."""
    from lazyarr.formats.npy import FORMAT

    np.save(path / "x.npy", DATA)
    store = open_store(path)
    try:
        return layout_text(FORMAT.describe(store, "x.npy")[""].layout())
    finally:
        store.close()


@pytest.fixture
def arena():
    memfds = create_memfd("pages"), create_memfd("map")
    for memfd in memfds:
        resize_memfd(memfd, 16 * PAGE_NBYTES)
    made = Arena(*memfds)
    yield made
    made.release()


def message(path, **changes):
    store = open_store(path)
    try:
        reference, descriptors = store.reference()
    finally:
        store.close()
    for descriptor in descriptors:
        os.close(descriptor)
    fields = {
        "region": 1, "address": 1 << 40, "offset": 0, "map_offset": 0, "url": str(path),
        "path": "x.npy", "layout": layout(path), "store": reference, "is_remote": False,
        "kind": MemoryKind.SHARED.name,
    }  # fmt: skip
    return OpenRegion(**(fields | changes))


def opened(told, descriptors, arena, count=lambda *_: None):
    return open_region(
        told,
        descriptors,
        arena,
        count=count,
        share=lambda n, work, workspace: [work(part, workspace) for part in range(n)],
        rotation=Rotation(8),
        **SETTINGS,
    )


def test_a_region_is_what_the_message_says(tmp_path, arena):
    """Its kind and size; its units are those of the layout, and come from the store."""
    counted = []
    told = message(tmp_path)
    region, geometry = opened(told, (), arena, lambda *count: counted.append(count))
    assert (region.kind, region.memory_nbytes) == (MemoryKind.SHARED, DATA.nbytes)
    assert (region.n_units, geometry.n_units) == (1, 1)
    assert region.label == f"'x.npy' in {tmp_path}"
    assert not region.source.is_open
    workspace = Workspace()
    assert region.source.load(0, workspace)
    assert bytes(workspace.unit.view[: DATA.nbytes]) == DATA.tobytes()
    assert counted == [("bytes_fetched", DATA.nbytes)]
    workspace.close()
    region.close()


def test_the_store_is_opened_by_the_first_load(tmp_path, arena):
    """To open one may take longer than a fault can wait: a store that is gone is no error here."""
    told = message(tmp_path)
    region, _ = opened(told._replace(store=told.store | {"path": "/nowhere"}), (), arena)
    workspace = Workspace()
    with pytest.raises(LazyarrError):
        region.source.load(0, workspace)
    workspace.close()
    region.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"layout": "{}"},
        {"layout": "no JSON"},
        {"kind": "HUGE"},
        {"address": 0},
        {"address": 4097},
        {"address": (1 << 64) - 4096},
        {"offset": -1},
        {"offset": 100},
        {"offset": 13 * PAGE_NBYTES},
        {"map_offset": -1},
        {"map_offset": 16 * PAGE_NBYTES},
    ],
    ids=repr,
)
def test_what_no_client_can_have_is_refused_and_its_descriptors_are_closed(
    tmp_path, arena, changes
):
    """A wrong place would let the pager write to another array's memory."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(LazyarrError):
        opened(message(tmp_path)._replace(**changes), (descriptor,), arena)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_private_memory_needs_no_place_in_a_memory_object(tmp_path, arena):
    """It lies in none."""
    region, _ = opened(message(tmp_path, kind="PRIVATE", offset=-1), (), arena)
    assert region.backing_at(0) is None
    region.close()
    with pytest.raises(PagerError, match="expected a kind of memory of SHARED, PRIVATE"):
        opened(message(tmp_path, kind="shared"), (), arena)
