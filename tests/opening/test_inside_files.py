"""URLs that go on in a file, as ``x.h5/group/array``; how files are named in what is said."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import lazyarr
from lazyarr.cli import main
from lazyarr.opening.nodes import find_file
from tests.engines import engine  # noqa: F401 - a fixture
from tests.servers import http_server  # noqa: F401 - a fixture

X, Y = np.arange(12).reshape(3, 4), np.arange(5.0)


@pytest.fixture
def directory(tmp_path):
    """Files of each format, one in a directory that is called as files are."""
    (tmp_path / "runs.h5").mkdir()
    for name in ("x.h5", "runs.h5/plain"):
        with h5py.File(tmp_path / name, "w") as file:
            file.create_dataset("g/x", data=X, chunks=(2, 4))
            file["g/h/y"] = Y
    np.savez(tmp_path / "a.npz", **{"g/x": X, "y": Y})
    np.save(tmp_path / "x.npy", X)
    lazyarr.save(tmp_path / "runs.h5/z.nc", {"g/x": X})
    return tmp_path


def url_of(directory, where, request):
    """Where the directory is found locally, over the network, and in this process's memory."""
    if where == "http":
        server = request.getfixturevalue("http_server")
        target = Path(server.directory) / "a b"
        target.mkdir()
        for name in ("x.h5", "a.npz", "x.npy"):
            (target / name).write_bytes((directory / name).read_bytes())
        return f"{server.url}/a%20b"
    if where == "memory":
        for name in ("x.h5", "a.npz", "x.npy"):
            with fsspec.open(f"memory://inside/{name}", "wb") as file:
                file.write((directory / name).read_bytes())
        return "memory://inside"
    return directory.as_uri() if where == "file" else str(directory)


@pytest.mark.parametrize("where", ["path", "file", "http", "memory"])
def test_a_url_goes_on_in_a_file(request, engine, directory, where):  # noqa: F811
    """To groups and arrays; they come back from pickles, and name file and place."""
    url = url_of(directory, where, request)
    file = f"{url}/x.h5" if "://" in url else f"file://{url}/x.h5"
    assert lazyarr.open(f"{url}/a.npz/g/x").tolist() == X.tolist()
    with lazyarr.open(f"{url}/x.h5/g/") as group:
        assert (group.url, group.path, sorted(group)) == (file, "g", ["h", "x"])
        assert repr(group) == f"<Dataset g of {file}, mode 'r'>"
        assert group["h/y"].tolist() == Y.tolist()
        assert group.tree().startswith("g\n├── h\n│   └── y")
        assert file in group.info
        again = pickle.loads(pickle.dumps(group))
        assert (again.url, again.path, again["x"].tolist()) == (file, "g", X.tolist())
    x = lazyarr.open(f"{url}/x.h5/g", path="x")
    assert (x.url, x.path) == (file, "g/x")
    assert f"{file}>" in repr(x)
    assert pickle.loads(pickle.dumps(x[1:])).tolist() == X[1:].tolist()
    with pytest.raises(lazyarr.NodeNotFoundError, match=f"'g/z' in {file}: 'g' has 'h', 'x'"):
        lazyarr.open(f"{url}/x.h5/g/z")
    with pytest.raises(lazyarr.NodeNotFoundError, match="one array; open it without a path"):
        lazyarr.open(f"{url}/x.npy/g")
    whole = lazyarr.open(f"{url}/x.npy")
    assert (whole.url, whole.path) == (f"{file.removesuffix('x.h5')}x.npy", "")


def test_the_longest_part_that_is_a_file_counts(directory):
    """Directories are stores, whatever they are called; a file is known by its first bytes too."""
    assert lazyarr.open(directory / "runs.h5/plain/g/x").tolist() == X.tolist()
    assert lazyarr.open(directory / "runs.h5/z.nc/g/x").tolist() == X.tolist()
    assert lazyarr.open(f"{directory}/runs.h5/plain/g/h", format="hdf5")["y"].tolist() == Y.tolist()
    for url in (directory / "none.h5/g", directory / "runs.h5/none/g"):
        with pytest.raises(lazyarr.NodeNotFoundError):
            lazyarr.open(url)
    (directory / "notes.txt").write_text("text")
    with pytest.raises(lazyarr.LazyarrError):
        lazyarr.open(directory / "notes.txt/g")


def test_stores_at_remote_urls_are_called_as_files_may_be():
    """What is there counts; a bucket is no file."""
    lazyarr.save("memory://runs.nc/z", X, overwrite=True)
    assert lazyarr.open("memory://runs.nc/z").tolist() == X.tolist()
    assert find_file("s3://x.h5/g") is None
    assert find_file("s3://x.h5/g", "hdf5")[:2] == ("s3://x.h5", "g")
    assert find_file("s3://b/x.h5/g", "hdf5")[:2] == ("s3://b", "x.h5")


def test_commands_take_such_urls(directory):
    """What they say of paths holds in the file; what is converted is the node alone."""

    def run(*arguments):
        result = CliRunner().invoke(main, [str(each) for each in arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    inside = directory / "x.h5/g"
    assert "g/x" in run("info", inside / "x")
    nodes = json.loads(run("tree", inside, "--json"))
    assert nodes["url"] == (directory / "x.h5").as_uri()
    assert [node["path"] for node in nodes["nodes"]] == ["g", "g/h", "g/h/y", "g/x"]
    assert run("tree", inside).splitlines()[0] == "g"
    assert json.loads(run("verify", inside / "h", "--json", "-q"))["arrays"] == 1
    run("convert", inside, directory / "out.zarr", "-q")
    with lazyarr.open(directory / "out.zarr") as ds:
        assert sorted(ds) == ["h", "x"]
        assert ds["h/y"].tolist() == Y.tolist()


def test_errors_name_the_file(directory):
    """A chunk that cannot be had, and a node that is not there."""
    x = lazyarr.open(directory / "x.h5")["g/x"]
    (directory / "x.h5").unlink()
    url = (directory / "x.h5").as_uri()
    with pytest.raises(lazyarr.ChunkError, match=f"of 'g/x' in {url}, bytes ") as raised:
        x.sum()
    assert (raised.value.url, raised.value.array) == (url, "g/x")
    with pytest.raises(
        lazyarr.NodeNotFoundError, match=f"cannot open {url}: there is no such file"
    ):
        lazyarr.open(directory / "x.h5")
