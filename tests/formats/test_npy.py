"""``.npy`` files: what NumPy reads is what lazyarr maps, and what is damaged is refused."""

from __future__ import annotations

import io
import os
import pickle
import struct
import urllib.parse
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lazyarr
from lazyarr.formats.npy import parse_header
from lazyarr.formats.registry import find_file_format
from lazyarr.formats.runs import run_chunks
from lazyarr.layout.placement import is_run
from tests.engines import ARRAYS, engine, memory_only  # noqa: F401 - a fixture
from tests.servers import http_server  # noqa: F401 - a fixture

LARGE = np.arange(700 * 1000, dtype=np.float64).reshape(700, 1000)
RECORDS = np.array(
    [(1, b"ab", [1.5, 2]), (2, b"c", [3, 4])], [("é", ">i2"), ("b", "S3"), ("c", "f4", 2)]
)
DATA = {
    "several chunks": LARGE,
    "Fortran order": np.asfortranarray(LARGE[:300]),
    "long rows": np.arange(3 * 300_000, dtype="<u4").reshape(3, 300_000),
    "big endian": np.arange(1000, dtype=">i4").reshape(10, 100),
    "big endian, large": LARGE.astype(">f8"),
    "structured": RECORDS,
    "field not in Latin-1": np.array([(1, 2.5)], [("поле", ">i2"), ("b", "f8")]),
    "no axes": np.array(5.5),
    "no elements": np.zeros((0, 4), "<i2"),
    "an axis of no length": np.zeros((3, 0, 2)),
    "text": np.array(["abc", "é"]),
    "bytes": np.array([b"abc", b""]),
    "dates": np.array(["2024-01-01", "NaT"], "M8[D]"),
    "complex": np.array([1 + 2j, 3j], "<c8"),
    "booleans": np.array([True, False]),
    "half": np.arange(5, dtype="<f2"),
}

LATIN_1 = ((1, 0), (2, 0))
FILES = [
    (name, version)
    for name in DATA
    for version in (None, *LATIN_1, (3, 0))
    if name != "field not in Latin-1" or version not in LATIN_1  # NumPy does not write these
]


def npy(data: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, data, version, allow_pickle=False)
    return file.getvalue()


def with_header(text: str, version: tuple[int, int] = (1, 0), data: bytes = b"") -> bytes:
    header = text.encode("utf-8")
    return (
        b"\x93NUMPY"
        + bytes(version)
        + struct.pack("<H" if version == (1, 0) else "<I", len(header))
        + header
        + data
    )


@pytest.mark.filterwarnings("ignore:Stored array in format")
@pytest.mark.parametrize(("name", "version"), FILES)
def test_a_file_is_what_numpy_loads(tmp_path, engine, name, version):  # noqa: F811
    """Values, shape and strides; elements in the machine's order, or as they are stored."""
    path = tmp_path / "x.npy"
    path.write_bytes(npy(DATA[name], version))
    expected = np.load(path)
    x = lazyarr.open(path)
    assert type(x) is ARRAYS[engine]
    assert x.shape == expected.shape
    assert x.dtype == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(np.asarray(x), expected)
    assert lazyarr.open(path, byteorder="stored").dtype == expected.dtype
    if engine == "userfaultfd" and x.size:
        assert x.strides == expected.strides


@pytest.mark.parametrize("where", ["memory", "memory root", "http"])
def test_files_elsewhere(request, engine, where):  # noqa: F811
    """Over the network, and in the memory of this process."""
    content = npy(LARGE)
    if where == "http":
        server = request.getfixturevalue("http_server")
        (Path(server.directory) / "a b.npy").write_bytes(content)
        url = f"{server.url}/{urllib.parse.quote('a b.npy')}"
    else:
        url = "memory://x.npy" if where == "memory root" else "memory://d/x.npy"
        with fsspec.open(url, "wb") as file:
            file.write(content)
    x = lazyarr.open(url)
    np.testing.assert_array_equal(np.asarray(x[690:]), LARGE[690:])
    np.testing.assert_array_equal(np.asarray(x), LARGE)


@memory_only
def test_writes_stay_here(tmp_path, engine):  # noqa: F811
    """In mode "c"; a pickle has them, and the file does not."""
    path = tmp_path / "x.npy"
    path.write_bytes(npy(LARGE))
    x = lazyarr.open(path, mode="c")
    x[3] = 7
    there = pickle.loads(pickle.dumps(x))
    assert (there[3] == 7).all()
    np.testing.assert_array_equal(there[4:], LARGE[4:])
    np.testing.assert_array_equal(np.load(path), LARGE)


def test_a_view_is_pickled(tmp_path, engine):  # noqa: F811
    """As a reference, which is short."""
    path = tmp_path / "x.npy"
    path.write_bytes(npy(np.asfortranarray(LARGE)))
    x = lazyarr.open(path)
    pickled = pickle.dumps(x[5:9, ::3])
    assert len(pickled) < 4096
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickled)), LARGE[5:9, ::3])


@memory_only
def test_a_forked_child_reads(tmp_path, engine):  # noqa: F811
    """Pages that nobody has read before."""
    path = tmp_path / "x.npy"
    path.write_bytes(npy(LARGE))
    x = lazyarr.open(path)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if (np.asarray(x) == LARGE).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_what_it_is_is_told(tmp_path, engine):  # noqa: F811
    """Its format, no attributes, no shards."""
    path = tmp_path / "x.npy"
    path.write_bytes(npy(LARGE))
    x = lazyarr.open(path)
    assert "npy format  1.0" in x.info
    assert x.attrs == {}


def test_a_file_that_is_cut_off_is_refused(tmp_path, engine):  # noqa: F811
    """When it is opened; and when it is cut off afterwards, reading fails: never zeros."""
    path = tmp_path / "x.npy"
    content = npy(LARGE)
    path.write_bytes(content[:-1])
    with pytest.raises(lazyarr.FormatError, match="cut off"):
        lazyarr.open(path)
    path.write_bytes(content)
    x = lazyarr.open(path)
    os.truncate(path, len(content) // 2)
    assert x[:9].sum() == LARGE[:9].sum()
    with pytest.raises(lazyarr.ChunkError):
        x[690:].sum()


def test_a_file_that_is_gone_is_an_error(tmp_path, engine):  # noqa: F811
    """Before it is opened, and after."""
    path = tmp_path / "x.npy"
    with pytest.raises(lazyarr.NodeNotFoundError, match="no such file"):
        lazyarr.open(path)
    path.write_bytes(npy(LARGE))
    x = lazyarr.open(path)
    with pytest.raises(lazyarr.NodeNotFoundError, match="one array"):
        lazyarr.open(path, path="a")
    path.unlink()
    if engine == "userfaultfd":  # the other one has the file open, and so reads it still
        with pytest.raises(lazyarr.ChunkError, match=r"not there any more|is gone"):
            x[690:].sum()


def test_a_directory_is_a_store_whatever_it_is_called(tmp_path, engine):  # noqa: F811
    """Only a file is an array of NumPy's."""
    lazyarr.save(tmp_path / "x.npy", LARGE[:3])
    np.testing.assert_array_equal(np.asarray(lazyarr.open(tmp_path / "x.npy")), LARGE[:3])
    assert find_file_format("x.zarr") is None


DAMAGED = {
    "nothing": b"",
    "another file": b"PK\x03\x04" * 40,
    "magic alone": b"\x93NUMPY",
    "version 4": with_header("{}", (4, 0)),
    "no end": with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}")[:20],
    "long": with_header(" " * 20_000, (2, 0)),
    "endless": b"\x93NUMPY\x02\x00" + b"\xff" * 64,
    "no literal": with_header("os.system('x')"),
    "deep": with_header("(" * 5000),
    "no members": with_header("{}", (3, 0)),
    "more members": with_header(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (), 'x': 1}", (3, 0), bytes(4)
    ),
    "no shape": with_header("{'descr': '<f4', 'fortran_order': False, 'shape': 3}", (3, 0)),
    "negative": with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"),
    "huge": with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (2**40, 2**40)}"),
    "huge, as a number": with_header(
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**40}, {2**40})}}"
    ),
    "a boolean": with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}"),
    "many axes": with_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {(1,) * 65}}}"),
    "an unknown type": with_header("{'descr': '<q9', 'fortran_order': False, 'shape': (3,)}"),
    "objects": with_header(
        "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}", data=bytes(24)
    ),
    "objects inside": with_header(
        "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (3,)}", data=bytes(24)
    ),
    "no bytes": with_header("{'descr': '|S0', 'fortran_order': False, 'shape': (3,)}"),
}


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused(tmp_path, name):
    """With an error that names the file; nothing is evaluated or unpickled."""
    path = tmp_path / "x.npy"
    path.write_bytes(DAMAGED[name])
    with pytest.raises(lazyarr.FormatError, match=r"cannot map 'x\.npy'"):
        lazyarr.open(path)


def test_gaps_between_fields_are_refused(tmp_path):
    """A struct that NumPy has aligned has some."""
    np.save(tmp_path / "x.npy", np.zeros(3, np.dtype([("a", "u1"), ("b", "f8")], align=True)))
    with pytest.raises(lazyarr.FormatError, match="repack"):
        lazyarr.open(tmp_path / "x.npy")


@given(st.binary(max_size=60), st.integers(0, 127))
def test_changed_headers_are_headers_or_refused(change, at):
    """Whatever stands in them."""
    data = bytearray(npy(np.zeros((4, 3), ">i2"))[:128])
    data[at : at + len(change)] = change[: 128 - at]
    try:
        found = parse_header(bytes(data), path="", file="x.npy")
    except lazyarr.FormatError:
        return
    assert found.dtype.to_numpy().itemsize == found.dtype.itemsize
    assert found.layout().nbytes == found.nbytes


@given(st.lists(st.integers(0, 5000), max_size=4), st.sampled_from([1, 3, 8, 5000, 2**21]))
def test_chunks_are_runs_of_a_sensible_size(shape, itemsize):
    """About a mebibyte, where there is as much and rows and elements are not longer."""
    chunk = run_chunks(tuple(shape), itemsize)
    full = tuple(n or 1 for n in shape)
    assert len(chunk) == len(shape)
    assert all(1 <= c <= n for c, n in zip(chunk, full, strict=True))
    assert is_run(full, chunk)
    nbytes = int(np.prod(chunk, dtype=object)) * itemsize
    total = int(np.prod(full, dtype=object)) * itemsize
    assert nbytes <= max(1 << 20, itemsize)
    assert nbytes >= min(total, 1 << 19)
