"""`lazyarr convert`."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

import lazyarr
from tests.cli.running import run, run_command
from tests.stores import images, write_zarr

DATA = images((64, 32, 128))

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture
def dst(tmp_path):
    return tmp_path / "out.zarr"


def read(url, path=None):
    """Return an array as zarr-python reads it."""
    return zarr.open_array(str(url), path=path, mode="r")


@pytest.mark.parametrize(
    "data",
    [
        DATA,
        np.asfortranarray(np.arange(600.0).reshape(20, 30)),
        np.arange(100, dtype=">i4"),
        np.array(3.5),
        np.zeros((0, 3)),
        np.array(["2020-01-01", "NaT"], "M8[s]"),
        np.array([1 + 2j, np.nan]),
    ],
    ids=["images", "fortran", "big-endian", "scalar", "empty", "dates", "complex"],
)
def test_npy_files_are_converted(tmp_path, dst, data):
    """Any array without objects becomes the root of a store with the same elements."""
    np.save(tmp_path / "x.npy", data)
    result = run("convert", tmp_path / "x.npy", dst)
    assert (result.exit_code, result.stdout) == (0, "")
    x = lazyarr.open(dst)
    assert (x.shape, x.dtype.newbyteorder("=")) == (data.shape, data.dtype.newbyteorder("="))
    np.testing.assert_array_equal(np.array(x), data)
    report = lazyarr.verify(dst, progress=False)
    assert not report.damaged
    assert report.ok == (data.size > 0)  # of an empty array nothing can be checked


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [("zstd", 3)]),
        (["--level", "7"], [("zstd", 7)]),
        (["--compressor", "blosc"], [("blosc", 1)]),
        (["--compressor", "blosc", "--level", "9"], [("blosc", 9)]),
        (["--compressor", "none"], []),
        (["--compressor", "auto"], [("blosc", 1)]),
    ],
    ids=str,
)
def test_compressor_is_what_is_asked_for(tmp_path, dst, options, expected):
    """With its level; what is tried on samples is the array itself, and counted once."""
    np.save(tmp_path / "x.npy", np.arange(100_000))
    result = run("convert", tmp_path / "x.npy", dst, *options)
    assert result.exit_code == 0, result.stderr
    (sharding,) = json.loads((dst / "zarr.json").read_bytes())["codecs"]
    codecs = sharding["configuration"]["codecs"]
    named = [(c["name"], c["configuration"]) for c in codecs[1:-1]]
    assert [(n, c.get("level", c.get("clevel"))) for n, c in named] == expected
    assert np.array_equal(read(dst)[...], np.arange(100_000))
    assert "781k/781k" in result.stderr


@pytest.mark.parametrize(
    ("options", "exit_code", "words"),
    [
        (["--compressor", "gzip"], 2, "'gzip' is not one of"),
        (["--level", "0"], 2, "0 is not in the range"),
        (["--compressor", "blosc", "--level", "10"], 1, "level of compressor 'blosc' is 10"),
        (["--compressor", "none", "--level", "1"], 1, "leave it out"),
    ],
    ids=str,
)
def test_wrong_compressors_are_refused(tmp_path, dst, options, exit_code, words):
    """And nothing is written."""
    np.save(tmp_path / "x.npy", np.arange(1000))
    result = run("convert", tmp_path / "x.npy", dst, *options)
    assert result.exit_code == exit_code
    assert words in result.stderr
    assert not dst.exists()


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_npz_files_are_converted(tmp_path, dst, write):
    """An archive becomes a group; names with slashes lie in groups."""
    write(tmp_path / "x.npz", DATA, **{"labels": np.arange(5), "g/y": np.ones(3)})
    assert run("convert", tmp_path / "x.npz", dst).exit_code == 0
    with lazyarr.open(dst) as ds:
        assert sorted(ds) == ["arr_0", "g", "labels"]
        np.testing.assert_array_equal(np.array(ds["arr_0"]), DATA)
        assert ds["g/y"].tolist() == [1, 1, 1]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_stores_are_converted(tmp_path, dst, zarr_format):
    """Elements, fill values, attributes and groups of both versions are kept."""
    root = zarr.open_group(
        str(tmp_path / "s"), mode="w", zarr_format=zarr_format, attributes={"title": "t"}
    )
    root.create_group("empty", attributes={"why": "not"})
    root.create_group("g", attributes={"n": [1]})
    options = {"fill_value": np.nan, "attributes": {"unit": "m"}}
    tiles = root.create_array("g/tiles", shape=(40, 50), chunks=(7, 9), dtype="f4", **options)
    tiles[:20] = np.arange(1000).reshape(20, 50)
    root.create_array("s", shape=(), dtype="i8")[...] = 5
    assert run("convert", tmp_path / "s", dst).exit_code == 0
    with lazyarr.open(dst) as ds:
        assert (ds.attrs, ds["empty"].attrs, ds["g"].attrs) == (
            {"title": "t"},
            {"why": "not"},
            {"n": [1]},
        )
        assert list(ds["empty"]) == []
        x = ds["g/tiles"]
        assert (x.attrs, x.chunks, np.isnan(x.fill_value)) == ({"unit": "m"}, (40, 50), True)
        np.testing.assert_array_equal(np.array(x), tiles[...])
        assert ds["s"] == 5


def test_dimension_names_and_the_root_array_are_kept(tmp_path, dst):
    """A store that is an array stays one, with its fill value and its names."""
    options = {"chunks": (16, 8, 32), "dimension_names": ["n", None, "x"], "fill_value": 9}
    url = write_zarr(tmp_path / "x", DATA, **options, attributes={"a": 1})
    assert run("convert", url, dst).exit_code == 0
    x = lazyarr.open(dst)
    assert (x.dimension_names, x.fill_value, x.attrs) == (("n", None, "x"), 9, {"a": 1})
    np.testing.assert_array_equal(read(dst)[...], DATA)


def test_elements_that_were_never_written_are_not_stored(tmp_path, dst):
    """What is all fill value in the source takes no space."""
    array = zarr.create_array(
        tmp_path / "x", shape=(1024, 1024), chunks=(64, 64), dtype="i4", fill_value=-1
    )
    array[:64] = 1
    run("convert", tmp_path / "x", dst, "--chunks", 64, "--shards", "none")
    assert len([path for path in (dst / "c").rglob("*") if path.is_file()]) == 1
    assert lazyarr.open(dst)[1000, 1000] == -1


def test_the_layout_can_be_chosen(tmp_path, dst):
    """Rows or lengths for chunks and shards, and how hard zstd tries."""
    np.save(tmp_path / "x.npy", DATA)
    layout = ["--chunks", "8", "--shards", "32", "--level", "9"]
    assert run("convert", tmp_path / "x.npy", dst, *layout).exit_code == 0
    x = read(dst)
    assert (x.chunks, x.shards) == ((8, 32, 128), (32, 32, 128))
    assert '"level": 9' in json.dumps(x.metadata.to_dict(), default=str)
    layout = ["--chunks", "8,16,128", "--shards", "none", "--overwrite"]
    assert run("convert", tmp_path / "x.npy", dst, *layout).exit_code == 0
    assert (read(dst).chunks, read(dst).shards) == ((8, 16, 128), None)


def test_a_layout_leaves_arrays_of_other_shapes_alone(tmp_path, dst):
    """Lengths for three axes are for those arrays that have three."""
    np.savez(tmp_path / "x.npz", images=DATA, labels=np.arange(64))
    assert run("convert", tmp_path / "x.npz", dst, "--chunks", "4,32,128").exit_code == 0
    assert (read(dst, "images").chunks, read(dst, "labels").chunks) == ((4, 32, 128), (64,))


def test_rows_of_several_arrays_fit_each(tmp_path, dst):
    """A number for all of them gives none chunks of a few bytes, and what was done is said."""
    np.savez(tmp_path / "x.npz", images=np.zeros((64, 64, 64), "u2"), labels=np.arange(100_000))
    result = run("convert", tmp_path / "x.npz", dst, "--chunks", 16)
    assert result.exit_code == 0
    assert "labels: chunks of 8192 rows, for 16 would have less than 64 KiB" in result.stderr
    assert "images:" not in result.stderr
    assert (read(dst, "labels").chunks, read(dst, "images").chunks) == ((8192,), (16, 64, 64))


def test_files_with_groups_are_converted(tmp_path, dst):
    """Groups, attributes and names of dimensions too; arrays that cannot be are left out."""
    with h5py.File(tmp_path / "x.nc", "w") as file:
        x = file.create_dataset("g/x", data=DATA, chunks=(8, 32, 128), compression="gzip")
        x.attrs["units"] = "m"
        x.dims[0].label = "time"
        file.create_dataset("part", (9, 4), ">f4", chunks=(2, 4), fillvalue=2.5)[3] = 1
        file["text"] = "abc"
    result = run("convert", tmp_path / "x.nc", dst)
    assert result.exit_code == 1
    assert "array 'text': its elements are strings of variable length" in result.stderr
    assert run("convert", "--skip", tmp_path / "x.nc", dst).exit_code == 0
    x, part = read(dst, "g/x"), read(dst, "part")
    np.testing.assert_array_equal(x[...], DATA)
    assert (x.attrs["units"], x.metadata.dimension_names) == ("m", ("time", None, None))
    assert (part.fill_value, part[:4].tolist()) == (2.5, [[2.5] * 4] * 3 + [[1] * 4])


def test_files_by_other_names_are_known_by_their_first_bytes(tmp_path, dst):
    """Or by what is said of them."""
    with h5py.File(tmp_path / "x.dat", "w") as file:
        file["x"] = [1]
    assert run("convert", tmp_path / "x.dat", dst).exit_code == 0
    assert read(dst, "x")[...].tolist() == [1]
    result = run("convert", "--format", "npy", tmp_path / "x.dat", tmp_path / "y.zarr")
    assert result.exit_code == 1
    assert "expected b'\\x93NUMPY'" in result.stderr
    assert run("convert", "--format", "excel", tmp_path / "x.dat", dst).exit_code == 2


@pytest.mark.parametrize(
    ("content", "way"),
    [
        (b"CDF\1something", "xarray"),
        (b"time,value", "whatever gives NumPy arrays"),
    ],
)
def test_files_of_other_kinds_say_what_reads_them(tmp_path, dst, content, way):
    """By their first bytes; what is read says where it goes."""
    (tmp_path / "x").write_bytes(content)
    result = run("convert", tmp_path / "x", dst)
    assert result.exit_code == 1
    assert way in result.stderr
    assert "lazyarr.save" in result.stderr


def test_a_layout_that_fits_nothing_is_an_error(tmp_path, dst):
    """Nothing is left of the attempt."""
    np.save(tmp_path / "x.npy", DATA)
    result = run("convert", tmp_path / "x.npy", dst, "--chunks", "4,4")
    assert result.exit_code == 1
    assert "Error: cannot create array" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npy"]


def test_what_is_there_is_not_overwritten(tmp_path, dst):
    """Without --overwrite, which the message names, an old store stays."""
    lazyarr.save(dst, np.arange(3))
    np.save(tmp_path / "x.npy", DATA)
    result = run("convert", tmp_path / "x.npy", dst)
    assert result.exit_code == 1
    assert "pass --overwrite" in result.stderr
    assert lazyarr.open(dst).tolist() == [0, 1, 2]
    assert run("convert", tmp_path / "x.npy", dst, "--overwrite").exit_code == 0
    assert lazyarr.open(dst).shape == DATA.shape


def test_a_store_can_take_its_own_place(tmp_path):
    """With --overwrite a local store is rewritten: the old one stays until all is read."""
    url = write_zarr(tmp_path / "x", DATA, chunks=(16, 8, 32))
    assert run("convert", url, url, "--overwrite", "--chunks", "4").exit_code == 0
    np.testing.assert_array_equal(read(url)[...], DATA)
    assert read(url).chunks == (4, 32, 128)


@pytest.mark.parametrize("chunk", ["c/0/0/0", "c/3/3/3"])
def test_a_damaged_source_is_an_error(tmp_path, dst, chunk):
    """A chunk that cannot be had ends it with a message, never with a signal or a store."""
    url = write_zarr(tmp_path / "x", DATA, chunks=(16, 8, 32))
    os.truncate(Path(url) / chunk, 5)
    done = run_command("convert", "-q", url, dst)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: chunk (")
    assert not dst.exists()


def test_a_damaged_scalar_is_an_error(tmp_path, dst):
    """Also where the array has no axis to take a part of."""
    url = write_zarr(tmp_path / "x", np.array(5))
    os.truncate(Path(url) / "c", 3)
    done = run_command("convert", "-q", url, dst)
    assert (done.returncode, dst.exists()) == (1, False)


def test_arrays_that_can_not_be_converted_are_not_passed_over(tmp_path, dst):
    """They end it, or are left out where that is asked for."""
    root = tmp_path / "s"
    zarr.open_group(str(root), mode="w")
    write_zarr(root, np.arange(4), "x")
    document = json.loads((root / "x" / "zarr.json").read_text())
    (root / "text").mkdir()
    (root / "text" / "zarr.json").write_text(json.dumps({**document, "data_type": "string"}))
    result = run("convert", root, dst)
    assert result.exit_code == 1
    assert "array 'text': data_type 'string'" in result.stderr
    assert "--skip" in result.stderr
    result = run("convert", root, dst, "--skip")
    assert result.exit_code == 0
    assert "left out: array 'text'" in result.stderr
    with lazyarr.open(dst) as ds:
        assert list(ds) == ["x"]


def damaged_npz():
    """Return an archive with some bytes of a member changed."""
    file = io.BytesIO()
    np.savez_compressed(file, x=images((1000,)))
    data = bytearray(file.getvalue())
    data[200:220] = bytes(20)
    return bytes(data)


def objects_npy():
    file = io.BytesIO()
    np.save(file, np.array([{}]), allow_pickle=True)
    return file.getvalue()


def objects_npz():
    file = io.BytesIO()
    np.savez(file, x=np.array([{}]))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "it is a file, not a directory"),
        (b"", "it is a file, not a directory"),
        (b"PK\3\4 and no more", "no zip archive"),
        (b"\x93NUMPY\1\0", "its header has 0 bytes"),
        (b"\x93NUMPY\1\0\4\0{}  ", "its header cannot be read"),
        (objects_npy(), "Python objects"),
        (objects_npz(), "Python objects"),
        (damaged_npz(), "'x'"),
    ],
    ids=["junk", "empty", "no-zip", "no-header", "no-shape", "objects", "objects-zip", "damaged"],
)
def test_files_that_can_not_be_read_are_errors(tmp_path, dst, content, message):
    """One line says why, whatever is wrong with a file, and nothing is left behind."""
    (tmp_path / "x").write_bytes(content)
    result = run("convert", "-q", tmp_path / "x", dst)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_source_that_is_not_there_is_named(tmp_path, dst):
    """It is no store without a document."""
    result = run("convert", tmp_path / "x.npy", dst)
    assert result.exit_code == 1
    assert f"{tmp_path / 'x.npy'}: there is no such file" in result.stderr


def test_an_archive_of_other_things_is_refused(tmp_path, dst):
    """Members that are no arrays are not dropped silently."""
    import zipfile

    np.savez(tmp_path / "x.npz", x=np.arange(3))
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr("notes.txt", "hello")
    result = run("convert", tmp_path / "x.npz", dst)
    assert result.exit_code == 1
    assert "'notes.txt'" in result.stderr
    assert "it is no .npy file" in result.stderr


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "zarr.json"])
def test_names_can_not_leave_the_store(tmp_path, dst, name):
    """An archive from anywhere writes below its destination or nowhere."""
    np.savez(tmp_path / "x.npz", **{name: np.arange(3)})
    result = run("convert", tmp_path / "x.npz", dst)
    assert result.exit_code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npz"]


def test_progress_and_messages_go_to_stderr(tmp_path, dst):
    """Standard output stays empty; --quiet leaves out the bar."""
    np.save(tmp_path / "x.npy", DATA)
    done = run_command("convert", tmp_path / "x.npy", dst)
    assert (done.returncode, done.stdout) == (0, "")
    assert "512k/512k" in done.stderr
    assert done.stderr.endswith(f"wrote {dst}: 1 array, 512 KiB in memory\n")
    done = run_command("convert", "--quiet", "--overwrite", tmp_path / "x.npy", dst)
    assert done.stderr == f"wrote {dst}: 1 array, 512 KiB in memory\n"


def test_remote_stores_are_read_and_written(tmp_path, s3_bucket, s3_server):
    """Options of the source and of the destination are apart."""
    options = json.dumps(s3_server.storage_options)
    np.savez(tmp_path / "x.npz", x=DATA)
    there = f"{s3_bucket}/x.zarr"
    result = run("convert", tmp_path / "x.npz", there, "--dst-storage-options", options)
    assert result.exit_code == 0
    back = tmp_path / "back.zarr"
    assert run("convert", there, back, "--storage-options", options).exit_code == 0
    np.testing.assert_array_equal(read(back, "x")[...], DATA)
    result = run("convert", tmp_path / "x.npz", there, "--dst-storage-options", options)
    assert result.exit_code == 1


def test_remote_files_of_numpys_are_converted(dst, http_server):
    """By any URL that `lazyarr.open` takes."""
    data = np.arange(60.0).reshape(6, 10)
    np.save(f"{http_server.directory}/x.npy", data)
    assert run("convert", f"{http_server.url}/x.npy", dst, "--quiet").exit_code == 0
    np.testing.assert_array_equal(read(dst)[...], data)
