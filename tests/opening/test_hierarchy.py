"""Where nodes are found, and what is said of those that are not."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pickle
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import lazyarr
from lazyarr.errors import FormatError, StoreWarning
from lazyarr.formats.zarr import ArrayMetadata
from lazyarr.opening.nodes import open_nodes
from lazyarr.opening.survey import walk
from lazyarr.testing.http_server import Behaviour

_numbers = itertools.count()


def consolidate(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr-python: not in the specification yet
        zarr.consolidate_metadata(str(path), **options)


def found_below(url, **options):
    hierarchy = open_nodes(url, **options)
    return {path: type(node) for path, node in walk(hierarchy)}


def make_store(path, zarr_format):
    """A group with arrays at several depths, and files that are no nodes."""
    root = zarr.open_group(str(path), mode="w", zarr_format=zarr_format)
    for name in ("a", "g/h/u", "g/v", "k/l/m/w"):
        root.create_array(name, data=np.arange(6), chunks=(3,))
    (path / "notes").mkdir()
    (path / "notes/readme.txt").write_text("nothing to map")
    (path / "readme.txt").write_text("nothing to map")
    return root


GROUPS = ("g", "g/h", "k", "k/l", "k/l/m")
ARRAYS = ("a", "g/h/u", "g/v", "k/l/m/w")


@settings(max_examples=25, deadline=None)
@given(
    zarr_format=st.sampled_from([2, 3]),
    gone=st.sets(st.sampled_from(GROUPS)),
    copied=st.sampled_from([None, "all", "gaps", "empty"]),
    kind=st.sampled_from(["file", "memory"]),
)
def test_what_can_be_opened_is_listed(tmp_path_factory, zarr_format, gone, copied, kind):
    """Groups without a document, consolidated metadata with gaps or empty: nothing is left out."""
    path = tmp_path_factory.mktemp("store")
    make_store(path, zarr_format)
    if copied is not None:
        consolidate(path)
        leave_out(path, {"all": [], "gaps": GROUPS, "empty": [*GROUPS, *ARRAYS]}[copied])
    for group in gone:
        for name in ("zarr.json", ".zgroup", ".zattrs"):
            (path / group / name).unlink(missing_ok=True)
    url = path if kind == "file" else to_memory(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreWarning)
        ds = lazyarr.open(url)
        names = {name for name, _ in walk(ds._opening.hierarchy)}
        assert names == {*ARRAYS, *GROUPS}
        for name in names:
            node = ds[name]
            assert (
                (node.tolist() == list(range(6)))
                if name in ARRAYS
                else isinstance(node, lazyarr.Dataset)
            )
            assert name in ds
        assert all(name.rpartition("/")[2] in ds.tree() for name in names)
        report = lazyarr.verify(url, progress=False)
    assert report.ok
    assert report.arrays == len(ARRAYS)


def leave_out(path, names):
    """Take nodes out of consolidated metadata."""
    document = path / ("zarr.json" if (path / "zarr.json").exists() else ".zmetadata")
    members = json.loads(document.read_text())
    copies = members.get("consolidated_metadata", members)["metadata"]
    for name in names:
        for key in (name, *(f"{name}/{kind}" for kind in (".zgroup", ".zarray", ".zattrs"))):
            copies.pop(key, None)
    document.write_text(json.dumps(members))


def to_memory(path):
    """Copy a directory to a store in memory."""
    import fsspec

    url = f"memory://hierarchy-{next(_numbers)}"
    for file in path.rglob("*"):
        if file.is_file():
            with fsspec.open(f"{url}/{file.relative_to(path)}", "wb") as target:
                target.write(file.read_bytes())
    return url


def test_a_directory_without_nodes_is_no_group(tmp_path):
    """However deep it is, and whatever it holds; a link to nothing in it is passed over."""
    make_store(tmp_path, 3)
    (tmp_path / "x/y/z").mkdir(parents=True)
    (tmp_path / "x/y/file").write_text("1")
    (tmp_path / "x/nowhere").symlink_to("elsewhere")
    ds = lazyarr.open(tmp_path)
    assert "x" not in ds
    assert sorted(ds) == ["a", "g", "k"]
    with pytest.raises(lazyarr.NodeNotFoundError, match="no array or group 'x'"):
        ds["x"]


def test_looking_for_nodes_ends(tmp_path):
    """A chunk tree whose document is lost is no group, after a bounded number of looks."""
    make_store(tmp_path, 3)
    for n in range(1100):
        (tmp_path / f"lost/c/{n}").mkdir(parents=True)
    ds = lazyarr.open(tmp_path)
    with pytest.warns(StoreWarning, match="'lost' in .* has no document"):
        assert sorted(ds) == ["a", "g", "k"]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_what_others_changed_behind_copies_is_seen(tmp_path, zarr_format):
    """Rows that zarr-python appended, arrays that it made, deleted and renamed, attributes."""
    root = make_store(tmp_path, zarr_format)
    consolidate(tmp_path)
    assert found_below(tmp_path).keys() == {*GROUPS, *ARRAYS}  # without a warning
    root = zarr.open_group(str(tmp_path), mode="r+", use_consolidated=False)
    root["a"].append(np.arange(6, 9))
    root["g"].attrs["k"] = [1]
    root.create_array("g/new", data=np.arange(2))
    os.rename(tmp_path / "g/v", tmp_path / "g/renamed")
    with pytest.warns(StoreWarning, match=r"zarr.consolidate_metadata") as caught:
        ds = lazyarr.open(tmp_path)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert ds["a"].tolist() == list(range(9))
    assert ds["g"].attrs == {"k": [1]}
    assert sorted(ds["g"]) == ["h", "new", "renamed"]
    assert ds["g/new"].tolist() == [0, 1]
    with pytest.raises(lazyarr.NodeNotFoundError):
        ds["g/v"]
    report = lazyarr.verify(tmp_path, progress=False)
    assert report.ok
    assert report.stale == ("a", "g", "g/new", "g/renamed", "g/v")
    assert "zarr.consolidate_metadata" in str(report)
    consolidate(tmp_path)
    assert sorted(lazyarr.open(tmp_path)["g"]) == ["h", "new", "renamed"]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_copies_that_are_true_are_believed(tmp_path, zarr_format):
    """Also where all files have one time, and attributes hold what is not equal to itself."""
    root = make_store(tmp_path / "x", zarr_format)
    root["a"].attrs["nan"] = [float("nan")]
    consolidate(tmp_path / "x")
    shutil.copytree(tmp_path / "x", tmp_path / "y", copy_function=shutil.copyfile)
    for file in (tmp_path / "x").rglob("*"):
        os.utime(file, (1e9, 1e9))
    for name in ("x", "y"):
        ds = lazyarr.open(tmp_path / name)
        assert sorted(ds) == ["a", "g", "k"]
        assert ds["g/h/u"].tolist() == list(range(6))


def test_documents_of_nodes_with_true_copies_are_not_read(tmp_path):
    """What copies are for: nothing but times is looked at."""
    make_store(tmp_path, 3)
    consolidate(tmp_path)
    os.utime(tmp_path / "zarr.json", (2e9, 2e9))
    (tmp_path / "a/zarr.json").write_text("{")
    os.utime(tmp_path / "a/zarr.json", (1e9, 1e9))
    os.chmod(tmp_path / "a/zarr.json", 0)
    assert lazyarr.open(tmp_path)["a"].shape == (6,)


@pytest.mark.parametrize("name", ["", "a", "g/h/u", "g"])
@pytest.mark.parametrize("damage", ["link", "directory"])
def test_a_document_that_is_no_file_is_said_to_be(tmp_path, name, damage):
    """Not that there is no array; others are listed and opened all the same."""
    make_store(tmp_path, 3)
    document = tmp_path / name / "zarr.json"
    document.unlink()
    document.symlink_to("nowhere") if damage == "link" else document.mkdir()
    with pytest.raises(FormatError, match=r"symbolic link to 'nowhere'|it is a directory"):
        lazyarr.open(tmp_path, path=name)
    if name:
        found = found_below(tmp_path)
        assert found.pop(name) is FormatError
        assert {path for path, kind in found.items() if kind is ArrayMetadata} <= {*ARRAYS}
        assert not lazyarr.verify(tmp_path, progress=False).ok


def test_a_node_behind_a_link_to_nothing_is_listed_as_such(tmp_path):
    """The array is somewhere: git-annex and DataLad link directories, too."""
    make_store(tmp_path, 3)
    (tmp_path / "z").symlink_to("../elsewhere")
    assert found_below(tmp_path)["z"] is FormatError
    with pytest.raises(FormatError, match=r"'z' is a symbolic link to '../elsewhere'"):
        lazyarr.open(tmp_path)["z"]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda path: None, "there is no such directory; check the path"),
        (lambda path: path.mkdir(), "no zarr.json, .zarray or .zgroup there"),
    ],
)
def test_a_directory_that_is_not_there_is_said_not_to_be(tmp_path, make, match):
    """Another thing than a directory without a store in it."""
    make(tmp_path / "x")
    with pytest.raises(lazyarr.NodeNotFoundError, match=match):
        lazyarr.open(tmp_path / "x")


@pytest.fixture
def refusing(http_server, tmp_path):
    """A server that refuses what it does not have, as S3 does to those who may not list."""
    http_server.behave(Behaviour(missing_status=403, no_listing=True))
    return http_server


@pytest.mark.parametrize("attributes", [{}, {"k": 1}])
def test_a_node_of_version_2_is_found_where_zarr_json_is_refused(refusing, attributes):
    """Its attributes too, where it has some; a warning says that they may have been refused."""
    root = zarr.open_group(f"{refusing.directory}/x", mode="w", zarr_format=2)
    root.create_array("a", data=np.arange(6), chunks=(3,), attributes=attributes)
    zattrs = f"{refusing.directory}/x/a/.zattrs"
    if not attributes:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(zattrs)
    ds = lazyarr.open(f"{refusing.url}/x")
    maybe = contextlib.nullcontext()
    if not attributes:
        maybe = pytest.warns(StoreWarning, match=r"'a/.zattrs'.*taken for missing")
    with maybe:
        x = ds["a"]
    assert x.tolist() == list(range(6))
    assert x.attrs == attributes


def test_what_is_refused_and_not_of_version_2_is_an_error(refusing):
    """Nothing is known of it; the error is the first refusal."""
    with pytest.raises(lazyarr.StoreError, match=r"'zarr.json'.*403") as caught:
        lazyarr.open(f"{refusing.url}/x")
    assert isinstance(caught.value, PermissionError)


PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"


@pytest.mark.parametrize("url", ["", "/zarr.json"])
def test_a_page_in_place_of_a_document_is_called_so(http_server, url):
    """With its type and its first bytes, and that the URL is probably wrong."""
    (Path(http_server.directory) / "zarr.json").mkdir()
    (Path(http_server.directory) / "zarr.json/index.html").write_bytes(PAGE)
    (Path(http_server.directory) / "zarr.json/zarr.json").write_bytes(PAGE)
    with pytest.raises(lazyarr.LazyarrError, match=r"DOCTYPE html.*URL is probably not") as caught:
        lazyarr.open(f"{http_server.url}{url}")
    assert "text/html" in str(caught.value) or "no content type" in str(caught.value)


def test_a_document_that_is_no_json_is_shown(tmp_path):
    """As far as it takes to see what it is."""
    (tmp_path / "zarr.json").write_bytes(PAGE)
    with pytest.raises(FormatError, match=r"begins with b'<!DOCTYPE"):
        lazyarr.open(tmp_path)


def test_chunks_that_are_refused_are_missing_if_that_is_wished(refusing):
    """By a storage option, in every engine; without it they are errors, and nothing is kept."""
    path = f"{refusing.directory}/x"
    data = np.arange(1, 13).reshape(6, 2)
    lazyarr.save(path, data, chunks=(2, 2), shards=None)
    os.unlink(f"{path}/c/1/0")
    expected = data.copy()
    expected[2:4] = 0
    for engine in ("userfaultfd", "copy"):
        with lazyarr.configure(engine=engine):
            x = lazyarr.open(f"{refusing.url}/x")
            with pytest.raises(lazyarr.ChunkError, match="denied_is_missing"):
                x[2]
            wish = {"denied_is_missing": True}
            x = lazyarr.open(f"{refusing.url}/x", storage_options=wish)
            assert np.array_equal(x[:], expected)
            assert np.array_equal(pickle.loads(pickle.dumps(x))[:], expected)
    assert not lazyarr.verify(f"{refusing.url}/x", progress=False).ok
    report = lazyarr.verify(f"{refusing.url}/x", storage_options=wish, progress=False)
    assert (report.ok, report.chunks_missing) == (True, 1)


def test_a_store_that_is_refused_altogether_is_no_fill_value(refusing):
    """Rights that are lost show, also with the wish: the array's document is refused then."""
    path = f"{refusing.directory}/x"
    lazyarr.save(path, np.arange(1, 13).reshape(6, 2), chunks=(2, 2), shards=None)
    x = lazyarr.open(f"{refusing.url}/x", storage_options={"denied_is_missing": True})
    refusing.behave(Behaviour(status=403))
    with pytest.raises(lazyarr.ChunkError, match="not there any more"):
        x[2]


@pytest.mark.parametrize(("dtype", "name"), [
    ("<U4", "<U4"), ("S3", "|S3"), ("M8[s]", "datetime64[s]"), ("f4", "float32"), ("?", "bool"),
])  # fmt: skip
def test_data_types_are_called_what_arrays_call_them(tmp_path, dtype, name):
    """In trees and descriptions."""
    lazyarr.save(tmp_path / "x", {"a": np.zeros(3, dtype)})
    ds = lazyarr.open(tmp_path / "x")
    assert str(ds["a"].dtype) == name
    assert f"(3,) {name}," in ds.tree()
    assert name in ds.info
    assert name in ds["a"].info


@pytest.mark.parametrize("engine", ["userfaultfd", "copy"])
def test_a_path_with_two_colons_is_opened(tmp_path, monkeypatch, engine):
    """By its pager and by who unpickles it, too, whatever their working directory is."""
    data = np.arange(6)
    lazyarr.save(tmp_path / "a::b", {"x": data})
    monkeypatch.chdir(tmp_path)
    with lazyarr.configure(engine=engine):
        x = lazyarr.open("a::b")["x"]
        pickled = pickle.dumps(x)
        monkeypatch.chdir("/")
        assert np.array_equal(x, data)
        assert np.array_equal(pickle.loads(pickled), data)
