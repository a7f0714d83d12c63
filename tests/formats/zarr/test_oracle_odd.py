"""Documents and chunks that are odd, and that zarr-python reads, are read with the same values."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import warnings
import zlib

import numcodecs
import numpy as np
import pytest
import zarr

import lazyarr
from lazyarr import ChunkError, FormatError

DATA = np.arange(4, dtype="<i4")


def v2(path, chunk=None, **members):
    """Write an array of version 2 with members of its document replaced, and its first chunk."""
    document = {
        "zarr_format": 2, "shape": [4], "chunks": [4], "dtype": "<i4", "order": "C",
        "fill_value": 0, "filters": None, "compressor": None, **members,
    }  # fmt: skip
    path.mkdir()
    (path / ".zarray").write_text(json.dumps(document))
    if chunk is not None:
        (path / "0").write_bytes(chunk)
    return str(path)


def v3(path, **members):
    """Write an array of version 3 with members of its document replaced, and no chunk."""
    document = {
        "zarr_format": 3, "node_type": "array", "shape": [4], "data_type": "int32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4]}},
        "chunk_key_encoding": {"name": "default"}, "fill_value": 0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}], **members,
    }  # fmt: skip
    path.mkdir()
    (path / "zarr.json").write_text(json.dumps(document))
    return str(path)


def assert_as_zarr_python(url):
    """Both open it, and find the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = zarr.open_array(url, mode="r")[...]
    x = lazyarr.open(url)
    np.testing.assert_array_equal(np.asarray(x), expected, strict=True)
    np.testing.assert_array_equal(np.asarray(lazyarr.open(url, mode="c")), expected)
    return x


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        *[("<i4", value) for value in ("0", "-5", " 7 ", 5.0)], ("<u2", "7"),
        ("<i8", "-123456789012"), *[("<f4", value) for value in ("0.0", "nan", "NaN", "5", "-5e3")],
        *[("<f8", value) for value in ("inf", "-Infinity", " 2 ", "1e-300")],
        ("|b1", None), ("<M8[s]", None), ("<U3", "ab"),
    ],
)  # fmt: skip
def test_fill_values_as_text(tmp_path, dtype, value):
    """As n5-zarr writes them."""
    assert_as_zarr_python(v2(tmp_path / "x", dtype=dtype, fill_value=value))


@pytest.mark.parametrize(
    ("data_type", "value"),
    [("int32", "-5"), ("float32", "nan"), ("float64", "0.5"), ("bool", None)],
)
def test_fill_values_of_version_3(tmp_path, data_type, value):
    """As text, and of booleans null."""
    x = assert_as_zarr_python(v3(tmp_path / "x", data_type=data_type, fill_value=value))
    assert x.fill_value.dtype == data_type.replace("bool", "?")


@pytest.mark.parametrize("value", ["", "x", "5.5", "nan", "0x1f", "1__0", True, "1" * 5000])
def test_text_that_is_no_number_is_refused(tmp_path, value):
    """Of a whole number; nobody can say what elements would be."""
    with pytest.raises(FormatError, match="fill_value"):
        lazyarr.open(v2(tmp_path / "x", fill_value=value))


@pytest.mark.parametrize(
    "members",
    [
        {"chunks": 4}, {"shape": 4}, {"shape": 4, "chunks": 3},
        {"shape": [0], "chunks": [0]}, {"shape": [0, 4], "chunks": [0, 2]},
        {"shape": [4, 0], "chunks": [2, 0]},
    ],
)  # fmt: skip
def test_lengths_of_chunks(tmp_path, members):
    """A number alone where there is one axis; none along an axis that has none."""
    x = assert_as_zarr_python(v2(tmp_path / "x", **members))
    assert 0 not in x.chunks
    assert lazyarr.verify(tmp_path / "x", progress=False).damaged == ()


@pytest.mark.parametrize(
    ("shape", "chunks", "found"), [(4, 4, ((4,), (4,))), ([0], [0], ((0,), (1,)))]
)
def test_lengths_of_chunks_of_version_3(tmp_path, shape, chunks, found):
    """The same, which not every version of zarr-python takes."""
    grid = {"name": "regular", "configuration": {"chunk_shape": chunks}}
    x = lazyarr.open(v3(tmp_path / "x", shape=shape, chunk_grid=grid))
    assert (x.shape, x.chunks) == found
    assert not np.asarray(x).any()


@pytest.mark.parametrize(
    "members", [{"chunks": [0]}, {"shape": [4, 4], "chunks": 4}, {"chunks": True}]
)
def test_chunks_of_no_length_are_refused(tmp_path, members):
    """Where there is something to divide, and where a number does not say it of each axis."""
    with pytest.raises(FormatError, match="chunks"):
        lazyarr.open(v2(tmp_path / "x", **members))


LZMA = {"format": 1, "check": -1, "preset": None, "filters": None}
COMPRESSORS = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zlib": zlib.compress,
    "bz2": bz2.compress,
    "lzma": lzma.compress,
    "zstd": lambda data: bytes(numcodecs.Zstd().encode(data)),
    "blosc": lambda data: bytes(numcodecs.Blosc().encode(np.frombuffer(data, "i4"))),
}


@pytest.mark.parametrize("name", ["gzip", "zlib", "bz2", "zstd"])
@pytest.mark.parametrize("level", ["6", 6.0, None, 6])
def test_levels_however_they_are_spelled(tmp_path, name, level):
    """They are what a writer had; readers do not need them."""
    chunk = COMPRESSORS[name](DATA.tobytes())
    url = v2(tmp_path / "x", chunk, compressor={"id": name, "level": level})
    assert assert_as_zarr_python(url)[3] == 3


@pytest.mark.parametrize(
    "members",
    [
        {"blocksize": None}, {"blocksize": "0"}, {"clevel": "5"}, {"clevel": None},
        {"shuffle": None}, {"shuffle": "1"}, {"cname": None}, {"typesize": None},
    ],
)  # fmt: skip
def test_parameters_of_blosc_however_they_are_spelled(tmp_path, members):
    """The buffer says all that it takes to read it."""
    compressor = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}
    chunk = COMPRESSORS["blosc"](DATA.tobytes())
    assert_as_zarr_python(v2(tmp_path / "x", chunk, compressor=compressor | members))


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("rest", ["zeros", "garbage", "stream", "cut stream"])
def test_what_follows_a_stream(tmp_path, name, rest):
    """It is left aside, is more content, or is damage, as zarr-python has it."""
    compress = COMPRESSORS[name]
    more = compress(b"" if name != "blosc" else bytes(4))
    tails = {
        "zeros": bytes(10), "garbage": b"garbage", "stream": more, "cut stream": more[:-3],
    }  # fmt: skip
    chunk = compress(DATA.tobytes()) + tails[rest]
    config = LZMA if name == "lzma" else {}
    url = v2(tmp_path / "x", chunk, compressor={"id": name, **config})
    try:
        zarr.open_array(url, mode="r")[...]
    except Exception:
        # Empty frames that follow are frames (RFC 8878); numcodecs takes the first for all.
        if (name, rest) != ("zstd", "stream"):
            with pytest.raises(ChunkError):
                lazyarr.open(url)[...].sum()
        return
    assert_as_zarr_python(url)


@pytest.mark.parametrize("name", ["gzip", "bz2", "lzma", "zstd"])
def test_several_streams_are_one_content(tmp_path, name):
    """Wherever it is cut, also in the middle of an element."""
    data, compress = DATA.tobytes(), COMPRESSORS[name]
    for at in (1, 7, 8, 15):
        config = (
            {"format": 1, "check": -1, "preset": None, "filters": None} if name == "lzma" else {}
        )
        chunk = compress(data[:at]) + compress(data[at:])
        url = v2(tmp_path / str(at), chunk, compressor={"id": name, **config})
        np.testing.assert_array_equal(lazyarr.open(url)[...], DATA)


@pytest.mark.parametrize("name", ["gzip", "zlib", "bz2", "lzma", "blosc"])
def test_a_cut_stream_is_damage(tmp_path, name):
    """What follows is left aside, what is missing is not made up."""
    config = LZMA if name == "lzma" else {}
    chunk = COMPRESSORS[name](DATA.tobytes())
    url = v2(tmp_path / "x", chunk[:-2], compressor={"id": name, **config})
    with pytest.raises(ChunkError):
        lazyarr.open(url)[...].sum()


@pytest.mark.parametrize(
    "dtype",
    [
        [["a", "<i4"], ["", "|V4"], ["b", "<f8"]],
        [["a", "|i1"], ["", "|V3"], ["b", "<i4"], ["", "|V4"]],
        [["", "|V2"], ["a", ">i2"]],
    ],
)
def test_structs_with_padding(tmp_path, dtype):
    """A field without a name gets the one that NumPy gives it."""
    native = np.dtype([tuple(field) for field in dtype])
    x = lazyarr.open(
        v2(tmp_path / "x", bytes(range(4 * native.itemsize)), dtype=dtype, fill_value=None)
    )
    stored = np.frombuffer(bytes(range(4 * native.itemsize)), native)
    assert x.dtype.names == native.names
    for name in native.names:
        np.testing.assert_array_equal(np.asarray(x[name]), stored[name])
