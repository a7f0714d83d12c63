"""Committing processes that are killed, and processes that read meanwhile."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import zarr

import lazyarr
from lazyarr.store.files import TEMPORARY_PREFIX
from tests.process.running import command_of
from tests.programs import commits

N_UNITS = 16
KINDS = {"shards": {"shards": (16, 300)}, "chunks": {}, "edges": {"chunks": (4, 320)}}
# Without a compressor and a checksum nothing tells bytes of one chunk from those of another.
UNCHECKED = {"unchecked shards": {"shards": (16, 300), "compressors": None}}


def make(root, kind):
    options = {"chunks": (4, 300), **KINDS.get(kind, {}), **UNCHECKED.get(kind, {})}
    zarr.create_array(root / "x", shape=(64, 300), dtype="i8", fill_value=0, **options)
    zarr.create_group(root)


def generations_of(rows):
    """Return the one generation of each unit."""
    units = [set(np.unique(part).tolist()) for part in np.split(rows >> 24, N_UNITS)]
    assert [len(found) for found in units] == [1] * N_UNITS, units
    return [generation for (generation,) in units]


@pytest.mark.parametrize("kind", KINDS)
def test_killed_process_leaves_whole_chunks(tmp_path, kind):
    """At any moment; who commits next goes on, and takes away what it has left."""
    make(tmp_path, kind)
    committer = commits.open_committer(tmp_path)
    before = [0] * N_UNITS
    for first in range(1000, 101_000, 20_000):
        command = [sys.executable, *command_of(commits.is_killed_often, tmp_path, first, 20)]
        done = subprocess.run(command, check=True, capture_output=True, timeout=60)
        assert done.stdout.count(b"killed") == 20, done.stderr
        zarr_rows = zarr.open_array(tmp_path / "x", mode="r")[...]
        with lazyarr.configure(engine="copy"):
            assert np.array_equal(np.asarray(lazyarr.open(tmp_path)["x"]), zarr_rows)
        found = generations_of(zarr_rows)
        assert all(old <= new for old, new in zip(before, found, strict=True))
        before = found
    assert max(before) >= 81_000
    commits.commit_generation(*committer, list(range(N_UNITS)), 9999)
    left = [path for path in tmp_path.rglob("*") if path.name.startswith(TEMPORARY_PREFIX)]
    assert left == []
    assert generations_of(zarr.open_array(tmp_path / "x")[...]) == [9999] * N_UNITS


@pytest.mark.parametrize("engine", ["userfaultfd", "copy"])
@pytest.mark.parametrize("kind", [*KINDS, *UNCHECKED])
def test_readers_see_whole_chunks_while_a_process_commits(tmp_path, kind, engine):
    """Old or new, never an error: neither for shards that are open, nor for their indexes."""
    make(tmp_path, kind)
    write = [sys.executable, *command_of(commits.commits_without_end, tmp_path, 1, "fill")]
    read = [sys.executable, *command_of(commits.reads_without_end, tmp_path, engine, 40)]
    with subprocess.Popen(write, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"ready\n"
        done = subprocess.run(read, capture_output=True, timeout=60, check=False)
        writer.kill()
    assert done.returncode == 0, done.stderr.decode()
    newest, *_ = map(int, done.stdout.split())
    assert newest > 0
