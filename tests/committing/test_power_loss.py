"""What the disk has after a power failure, at any moment of a commit: old or new, and whole."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

import lazyarr
from tests.committing.disk import Disk
from tests.programs import commits

N_UNITS = 16
KINDS = {
    "shards": {"shards": (16, 300)},
    "chunks": {},
    # They reach beyond the array, so that what is stored is read before.
    "edges": {"chunks": (4, 320)},
}


def make(root, kind):
    options = {"chunks": (4, 300), **KINDS[kind]}
    zarr.create_array(root / "x", shape=(64, 300), dtype="i8", fill_value=0, **options)
    zarr.create_group(root)


class History:
    """Which generations each unit may have after a failure, as commits go on."""

    def __init__(self, disk, rng, chance):
        self.disk, self.rng, self.chance = disk, rng, chance
        self.allowed = [{0} for _ in range(N_UNITS)]
        self.moments = []
        disk.happened = self.look

    def look(self):
        if self.rng.random() < self.chance:
            self.moments.append((self.disk.state(self.rng), [set(a) for a in self.allowed]))

    def commit(self, committer, units, generation):
        for unit in units:
            self.allowed[unit].add(generation)
        commits.commit_generation(*committer, units, generation)
        for unit in units:
            self.allowed[unit] = {generation}
        self.look()


def rows_of(root, reader):
    if reader == "zarr":
        return zarr.open_array(root / "x", mode="r")[...]
    with lazyarr.configure(engine="copy"):
        return np.asarray(lazyarr.open(root)["x"])


def problem_of(root, files, allowed, reader):
    """Return what is wrong with a disk; None where each unit is one that was committed."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    try:
        rows = rows_of(root, reader)
    except Exception as error:
        return repr(error)
    for unit, generations in enumerate(np.split(rows >> 24, N_UNITS)):
        found = set(np.unique(generations).tolist())
        if len(found) != 1 or not found <= allowed[unit]:
            return f"unit {unit} has {found}, not one of {allowed[unit]}"
    return None


def live_through(root, monkeypatch, kind, seed, *, durable, n_commits=25, chance=0.25):
    make(root, kind)
    rng = np.random.default_rng(seed)
    with monkeypatch.context() as patches:
        disk = Disk(root, patches)
        committer = commits.open_committer(root, durable=durable)
        history = History(disk, rng, chance)
        for generation in range(1, n_commits):
            units = np.flatnonzero(rng.random(N_UNITS) < rng.choice([0.1, 0.6])).tolist()
            history.commit(committer, units, generation)
    return history.moments


@pytest.mark.parametrize("kind", KINDS)
def test_each_object_is_old_or_new_and_whole(tmp_path, monkeypatch, kind):
    """After `sync` new; read by zarr-python and by lazyarr."""
    moments = live_through(tmp_path / "s", monkeypatch, kind, seed=3, durable=True)
    moments = moments[:: -(-len(moments) // 150)]
    assert len(moments) > 75
    for number, (files, allowed) in enumerate(moments):
        reader = "zarr" if number % 2 else "lazyarr"
        assert problem_of(tmp_path / f"{number}", files, allowed, reader) is None


def test_without_fsync_the_model_finds_something(tmp_path, monkeypatch):
    """The disk that is modelled is one that loses data."""
    moments = live_through(tmp_path / "s", monkeypatch, "shards", seed=4, durable=False)
    problems = [
        problem_of(tmp_path / f"{number}", *moment, "zarr")
        for number, moment in enumerate(moments[:60])
    ]
    assert sum(problem is not None for problem in problems) > 10
