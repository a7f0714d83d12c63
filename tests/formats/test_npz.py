"""``.npz`` archives: what NumPy loads is what lazyarr maps, and what is damaged is refused."""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lazyarr
from tests.cli.running import run
from tests.engines import ARRAYS, engine  # noqa: F401 - a fixture
from tests.servers import http_server  # noqa: F401 - a fixture

LARGE = np.random.default_rng(1).integers(0, 30, (900, 700)).astype("f8")
ARRAYS_IN = {
    "large": LARGE,
    "fortran": np.asfortranarray(LARGE[:200]),
    "big endian": np.arange(1000, dtype=">i4").reshape(10, 100),
    "records": np.array([(1, 2.5), (2, 3.5)], [("a", ">i2"), ("b", "f4")]),
    "no axes": np.array(5.5),
    "no elements": np.zeros((0, 4), "<i2"),
    "many axes": np.arange(24, dtype="u1").reshape(1, 2, 3, 4),
    "a/b/deep": np.arange(5),
    "wide": np.zeros(3, [(f"f{n}", "u1") for n in range(400)]),
}
SAVERS = {"stored": np.savez, "deflated": np.savez_compressed}


@pytest.mark.parametrize("how", SAVERS)
def test_an_archive_is_what_numpy_loads(tmp_path, engine, how):  # noqa: F811
    """Values, shapes and types; names with slashes are in groups."""
    path = tmp_path / "x.npz"
    SAVERS[how](path, **ARRAYS_IN)
    with lazyarr.open(path) as ds, np.load(path) as expected:
        for name in expected.files:
            x, data = ds[name], expected[name]
            assert type(x) is ARRAYS[engine]
            assert (x.shape, x.dtype) == (data.shape, data.dtype.newbyteorder("="))
            np.testing.assert_array_equal(np.asarray(x), data)
        assert sorted(ds["a"]) == ["b"]
        assert (pickle.loads(pickle.dumps(ds["large"][5:7])) == LARGE[5:7]).all()
        assert "npz format" in ds["large"].info
    assert lazyarr.verify(path, progress=False).ok


@pytest.mark.parametrize("how", SAVERS)
@pytest.mark.parametrize("name", ["large", "no axes"])
def test_what_is_damaged_is_found(tmp_path, how, name):
    """By the CRC-32 of the member; and it is not converted."""
    path = tmp_path / "x.npz"
    SAVERS[how](path, **ARRAYS_IN)
    report = lazyarr.verify(path, progress=False)
    assert report.ok
    assert report.unguarded == ()
    assert report.decoded_nbytes == sum(array.nbytes for array in ARRAYS_IN.values())
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
    start = member.header_offset + 30 + len(member.filename) + data[member.header_offset + 28]
    data[start + member.compress_size - 3] ^= 1
    path.write_bytes(data)
    with np.load(path) as archive, pytest.raises((zipfile.BadZipFile, ValueError, zlib.error)):
        archive[name]
    report = lazyarr.verify(path, progress=False)
    assert [error.array for error in report.damaged] == [name]
    assert "CRC-32" in str(report) or "deflated" in str(report)
    result = run("verify", "-q", path)
    assert (result.exit_code, "DAMAGED" in result.stdout) == (1, True)
    result = run("convert", "-q", path, tmp_path / "out.zarr")
    assert result.exit_code == 1
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("how", SAVERS)
def test_an_archive_elsewhere(http_server, engine, how):  # noqa: F811
    """Over the network, of which little is read to open it."""
    path = Path(http_server.directory) / "x.npz"
    SAVERS[how](path, **ARRAYS_IN)
    with lazyarr.open(f"{http_server.url}/x.npz") as ds:
        np.testing.assert_array_equal(np.asarray(ds["large"][890:]), LARGE[890:])
        assert ds["a/b/deep"].tolist() == [0, 1, 2, 3, 4]


def test_names_are_those_of_a_zip_that_any_program_has_written(tmp_path):
    """With directories, comments, extra fields and other members: these are told of alone."""
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = b"a comment"
        archive.writestr("d/", b"")
        info = zipfile.ZipInfo("d/x.npy")
        info.extra = b"\xfe\xca\x04\x00abcd"
        file = io.BytesIO()
        np.save(file, LARGE[:9])
        archive.writestr(info, file.getvalue())
        archive.writestr("readme.txt", "text")
        archive.writestr("b.npy", file.getvalue(), zipfile.ZIP_BZIP2)
        archive.writestr("objects.npy", b"")
    with lazyarr.open(path) as ds:
        np.testing.assert_array_equal(np.asarray(ds["d/x"]), LARGE[:9])
        for name, text in [("readme.txt", "no .npy file"), ("b", "method of compression is 12")]:
            with pytest.raises(lazyarr.FormatError, match=text):
                ds[name]
        with pytest.raises(lazyarr.FormatError, match="it begins with"):
            ds["objects"]


def test_an_archive_that_is_cut_off_is_refused(tmp_path):
    """Its directory is at its end."""
    path = tmp_path / "x.npz"
    np.savez(path, a=LARGE)
    content = path.read_bytes()
    for data in (b"", content[:-30], content[: len(content) // 2], b"x" * 100):
        path.write_bytes(data)
        with pytest.raises(lazyarr.FormatError, match=r"cannot map 'x\.npz'.*no zip archive"):
            lazyarr.open(path)


def test_a_way_out_of_the_archive_is_refused(tmp_path):
    """Names are paths below the root, or the archive is none of NumPy's."""
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../x.npy", b"")
    with pytest.raises(lazyarr.FormatError, match=r"has a member called '\.\./x'"):
        lazyarr.open(path)


@pytest.mark.parametrize("at", [0.3, 0.6, 0.9])
def test_damage_is_an_error_and_never_other_values(tmp_path, engine, at):  # noqa: F811
    """The archive has a checksum of what is deflated."""
    path = tmp_path / "x.npz"
    np.savez_compressed(path, a=LARGE)
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 0x10
    path.write_bytes(content)
    with lazyarr.open(path) as ds, pytest.raises(lazyarr.ChunkError):
        ds["a"][3].sum()


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=12), st.integers(0, 2000), st.sampled_from(sorted(SAVERS)))
def test_changed_archives_are_read_as_numpy_reads_them_or_refused(change, at, how):
    """No other exception; and where NumPy reads an array, the same one."""
    from lazyarr.formats.npz import FORMAT

    file = io.BytesIO()
    SAVERS[how](file, a=np.arange(30, dtype="i2"), b=np.zeros(7))
    data = bytearray(file.getvalue())
    data[at : at + len(change)] = change[: max(0, len(data) - at)]

    class Objects:
        url = "memory://"

        def size(self, key):
            return len(data)

        def read_range(self, key, start, stop):
            assert 0 <= start <= stop <= len(data)
            return memoryview(data)[start:stop]

    try:
        nodes = FORMAT.describe(Objects(), "x.npz")
    except lazyarr.FormatError:
        return
    for name, x in nodes.items():
        if not hasattr(x, "shape"):
            continue
        assert x.layout().nbytes == x.nbytes
        try:
            with np.load(io.BytesIO(data)) as archive:
                expected = archive[name]
        except Exception:
            continue  # NumPy looks at checksums too, which lazyarr does when it reads
        assert (x.shape, x.dtype.to_numpy()) == (expected.shape, expected.dtype)
        stored = bytes(data[x.start : getattr(x, "stop", x.start + x.nbytes)])
        found = x.codec.decode(stored, x.nbytes) if hasattr(x, "codec") else stored
        assert bytes(found) == expected.tobytes("F" if x.is_fortran else "C")
