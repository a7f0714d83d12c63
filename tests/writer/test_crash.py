"""A writer that is killed, at any moment, leaves no store, the old one, or the new one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lazyarr.errors import StoreError
from lazyarr.store import open_store
from lazyarr.writer import create, open_writer
from lazyarr.writer.place import ExistingStore, NewPrefix
from lazyarr.writer.session import Session
from lazyarr.writer.stores import Writer
from tests.writer.stores import DyingStore, download, new_url, read_tree, same

ROOT = Path(__file__).parent.parent.parent
OLD = np.arange(1, 171, dtype="i4").reshape(17, 10)
NEW = OLD[:13] * 1000
GRID = {"chunks": (2, 10), "shards": (6, 10)}


@pytest.mark.parametrize("scenario", ["New", "Overwrite", "OverwriteLarge", "Append", "AddArray"])
def test_killed_writer_leaves_a_whole_store_or_none(tmp_path, scenario):
    """Before each file operation, and at random moments; the next writer goes on."""
    program = [sys.executable, str(Path(__file__).parent / "dying.py")]
    result = subprocess.run(
        [*program, scenario, str(tmp_path / "stores"), "5"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["wrong"] == {}
    assert report["n_deaths"] > 25


def die_after(url, n_changes, make_place, act):
    """Write until the store takes no more changes; return whether the writer came to its end."""
    store = DyingStore(open_store(url, writable=True), n_changes)
    try:
        place, is_new = make_place(store)
        with Writer(Session(place, b'{"zarr_format": 3, "node_type": "group"}' if is_new else None,
                            is_new=is_new)) as writer:  # fmt: skip
            act(writer)
    except StoreError:
        return False
    return True


def write_new(writer):
    writer.create_array("g/x", shape=NEW.shape, dtype="i4", **GRID)[...] = NEW


def write_old(url):
    with create(url) as writer:
        writer.create_array("g/x", shape=OLD.shape, dtype="i4", **GRID)[...] = OLD


@pytest.mark.parametrize("overwrite", [False, True])
def test_remote_writer_that_dies_leaves_no_store(tmp_path, overwrite):
    """Where nothing can be renamed: no root, or everything, after any number of changes."""
    for n_changes in range(40):
        url = new_url()
        if overwrite:
            write_old(url)
        is_done = die_after(
            url, n_changes, lambda s: (NewPrefix(s, overwrite=overwrite), True), write_new
        )
        local = download(url, tmp_path / str(n_changes))
        if (local / "zarr.json").exists():
            (found,) = read_tree(local).values()
            assert same(found, NEW) or (overwrite and same(found, OLD))
        with create(url, overwrite=True) as writer:
            write_new(writer)
        if is_done:
            return
    raise AssertionError("it never came to its end")


def test_first_error_is_told():
    """When a store goes away and cannot be cleaned up either, the cause is what is raised."""

    class Gone:
        shape, dtype = (100_000, 1000), np.dtype("u1")

        def __getitem__(self, index):
            raise ZeroDivisionError("the cause")

    url = new_url()

    def act(writer):
        writer.create_array("x", shape=Gone.shape, dtype="u1")[...] = Gone()

    with pytest.raises(ZeroDivisionError, match="the cause"):
        die_after(url, 1, lambda s: (NewPrefix(s, overwrite=False), True), act)


def test_remote_append_that_dies_loses_no_row(tmp_path):
    """Old rows, or old and new ones, after any number of changes; and the next append is whole."""
    for n_changes in range(40):
        url = new_url()
        write_old(url)
        is_done = die_after(
            url,
            n_changes,
            lambda s: (ExistingStore(s), False),
            lambda writer: writer["g/x"].append(NEW),
        )
        (found,) = read_tree(download(url, tmp_path / f"{n_changes}")).values()
        assert same(found, np.concatenate([OLD, NEW])[: len(found)])
        assert len(found) in (len(OLD), len(OLD) + len(NEW))
        with open_writer(url) as writer:
            writer["g/x"].append(OLD[:3])
        (after,) = read_tree(download(url, tmp_path / f"{n_changes}-after")).values()
        assert same(after, np.concatenate([found, OLD[:3]]))
        if is_done:
            return
    raise AssertionError("it never came to its end")
