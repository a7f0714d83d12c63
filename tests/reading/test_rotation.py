"""However many arrays are open, few of them hold descriptors."""

from __future__ import annotations

import os

from lazyarr.reading.rotation import Rotation
from lazyarr.reading.workspace import Workspace
from lazyarr.store import Store, open_reference, store_reference
from tests.reading.arrays import CHECKED, load, store_array


def test_sources_take_turns_at_holding_descriptors(tmp_path):
    """All give the right bytes, those that have rested too."""
    stored = store_array(tmp_path, shape=(40, 6), chunks=(2, 6), shards=(8, 6), **CHECKED)
    rotation, workspace = Rotation(3), Workspace()
    before = len(os.listdir("/proc/self/fd"))
    store = stored.open()
    reference = store_reference(store)

    def open_again() -> Store:
        return open_reference(reference.description, reference.descriptors)

    sources = [stored.source(open_again, rotation=rotation) for _ in range(20)]
    for unit in (0, 1, 5):
        for source in sources:
            assert load(source, stored, unit, workspace) == stored.unit(unit)
            source.load_quickly(unit, workspace, may_wait=True)
        # Three with all of their files, and one directory for all of them.
        assert len(os.listdir("/proc/self/fd")) - before <= 3 * 5 + 2
    assert repr(rotation) == "<Rotation: 3 of 3>"
    store.close()
    for source in sources:
        source.close()
    assert repr(rotation) == "<Rotation: 0 of 3>"
    assert len(os.listdir("/proc/self/fd")) == before
