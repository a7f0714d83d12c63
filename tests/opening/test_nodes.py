"""Files with several nodes, as a format describes them."""

from __future__ import annotations

import pickle
from array import array

import numpy as np
import pytest

import lazyarr
import lazyarr.opening.nodes
from lazyarr.errors import FormatError, NodeNotFoundError
from lazyarr.formats.base import GroupDescription
from lazyarr.formats.hdf5 import Hdf5Array
from lazyarr.formats.npy import NpyArray
from lazyarr.layout.datatype import DataType
from lazyarr.layout.entries import Entries
from lazyarr.opening.nodes import FileNodes, FilePlace
from lazyarr.opening.survey import walk
from lazyarr.store import RetryingStore, RetryPolicy, open_store


class Group(GroupDescription):
    path: str

    attributes: dict = {}  # noqa: RUF012 - a value: nobody changes it
    consolidated = None
    format_name = ("made-up", "1")


INT32 = DataType("int32", 4, "<i4")
NODES = {
    "": Group(""),
    "g": Group("g"),
    "g/x": NpyArray("g/x", (3,), INT32, 100, False, (1, 0), "many.x"),
    "y": NpyArray("y", (5,), INT32, 112, False, (1, 0), "many.x"),
    "z": FormatError("its codec is not known", path="z"),
}


class ManyArrays:
    """A format whose files have the nodes above."""

    n_reads = 0

    def describe(self, objects, key):
        self.n_reads += 1
        return NODES if objects.size(key) is not None else None


@pytest.fixture
def nodes(tmp_path):
    (tmp_path / "many.x").write_bytes(bytes(100) + np.arange(8, dtype="<i4").tobytes())
    found = FileNodes(
        RetryingStore(open_store(tmp_path), RetryPolicy(timeout_seconds=5, retries=0)),
        FilePlace(str(tmp_path), "many.x", ManyArrays()),
    )
    yield found
    found.store.close()


def test_a_file_is_read_once_for_all_of_its_nodes(nodes):
    """Groups have children; an array that cannot be mapped is one of them."""
    assert nodes.children("") == ("g", "y", "z")
    assert nodes.children("g") == ("x",)
    assert nodes.node("g/x").shape == (3,)
    assert nodes.node("") is NODES[""]
    assert [path for path, _ in walk(nodes)] == ["g", "g/x", "y", "z"]
    assert nodes._place.format.n_reads == 1


def test_what_is_not_there_and_what_cannot_be_mapped_are_told_apart(nodes):
    """Both are errors of `node`; the second one exists."""
    assert nodes.exists("z")
    assert not nodes.exists("g/y")
    with pytest.raises(FormatError, match="its codec is not known"):
        nodes.node("z")
    with pytest.raises(NodeNotFoundError, match=r"no array or group 'g/y' in .*: it has g, g/x, y"):
        nodes.node("g/y")


def test_an_array_of_millions_of_chunks_is_mapped(tmp_path, monkeypatch):
    """Its table goes to the pager, and into a pickle, as a few megabytes."""
    count = 3_000_000
    data = np.arange(5000, dtype="<u8")
    data.tofile(tmp_path / "x.table")
    starts = np.arange(count) % data.size * 8
    bounds = array("q", np.stack([starts, starts + 8], axis=1).tobytes())
    made = Hdf5Array(
        *("", (count,), DataType("uint64", 8, "<u8"), {}, None, bytes(8), {"codecs": ["none"]}),
        *(("made-up", "1"), "x.table", None, (1,), Entries(bounds), ()),
    )

    class ManyChunks:
        def describe(self, objects, key):
            return {"": made}

    def find(name):
        return ManyChunks() if name.endswith(".table") else None

    monkeypatch.setattr(lazyarr.opening.nodes, "find_file_format", find)
    x = lazyarr.open(tmp_path / "x.table")
    for at in (0, 1_234_567, count - 1):
        assert x[at] == at % data.size
    pickled = pickle.dumps(x[-7000:])
    assert len(pickled) < count
    assert (np.asarray(pickle.loads(pickled)) == np.arange(count - 7000, count) % data.size).all()


@pytest.mark.parametrize("mode", ["r", "c"])
def test_arrays_of_one_file_are_mapped_wherever_they_lie_in_it(nodes, tmp_path, monkeypatch, mode):
    """The pager knows where by the layout alone: this format is known in the test alone."""
    monkeypatch.setattr(
        lazyarr.opening.nodes, "find_file_format", lambda name: ManyArrays() if name else None
    )
    with lazyarr.open(tmp_path / "many.x", mode) as ds:
        assert ds["g/x"].tolist() == [0, 1, 2]
        assert np.asarray(ds["y"]).tolist() == [3, 4, 5, 6, 7]
        assert pickle.loads(pickle.dumps(ds["y"])).tolist() == [3, 4, 5, 6, 7]
    report = lazyarr.verify(tmp_path / "many.x", progress=False)
    assert (report.chunks_checked, len(report.damaged)) == (2, 0)
