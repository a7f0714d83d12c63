"""What lazyarr writes is what any reader of Zarr reads, bit for bit."""

from __future__ import annotations

import json
import tempfile
import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import zarr
import zarr_metadata
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import lazyarr
from tests.writer.stores import READERS, read_array, read_tree, same

PORTABLE = ("?", "i1", "u1", "<i2", ">i2", "u4", ">i8", "f2", ">f4", "f8", "c8", ">c16")
OTHERS = ("<M8[ns]", ">M8[D]", "m8[s]", "U3", ">U2", "S4")


@st.composite
def arrays(draw, dtypes=PORTABLE, min_dims=0):
    """Draw arrays of any memory layout, in which runs of zeros are frequent."""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    shape = draw(hnp.array_shapes(min_dims=min_dims, max_dims=4, min_side=0, max_side=9))
    n_elements = int(np.prod(shape, dtype=int))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    numbers = rng.integers(0, 100, n_elements) * (rng.random(n_elements) < draw(st.floats(0, 1)))
    array = numbers.reshape(shape).astype(dtype)
    layout = draw(st.sampled_from(["C", "F", "reversed", "strided", "broadcast"]))
    if layout == "F":
        return np.asfortranarray(array)
    if not shape or layout == "C":
        return array
    if layout == "reversed":
        return array[::-1]
    if layout == "strided":
        return np.repeat(array, 2, axis=0)[::2]
    return np.broadcast_to(array[:1], (3, *shape[1:])) if shape[0] else array


@st.composite
def grids(draw, shape):
    """Draw chunks, shards and compressor, chosen by lazyarr or not."""
    return draw(_grids(shape)) | {
        "compressor": draw(st.sampled_from(["zstd", "blosc", "none", "auto"]))
    }


@st.composite
def _grids(draw, shape):
    if draw(st.booleans()):
        return {"chunks": "auto", "shards": draw(st.sampled_from(["auto", None]))}
    chunks = tuple(draw(st.integers(1, n + 2)) for n in shape)
    shards = tuple(n * draw(st.integers(1, 3)) for n in chunks)
    return {"chunks": chunks, "shards": draw(st.sampled_from(["auto", None, shards]))}


@settings(max_examples=120)
@given(st.data(), arrays())
def test_every_library_reads_what_save_wrote(data, array):
    """zarr-python, zarrs and TensorStore agree with the array that was saved, and its type."""
    options = data.draw(grids(array.shape))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.zarr"
        lazyarr.save(path, array, **options)
        expected = array.astype(array.dtype.newbyteorder("<"))
        for name, read in READERS.items():
            found = read(path)
            assert found.dtype == expected.dtype, name
            assert same(found, expected), name


@pytest.mark.filterwarnings("ignore::UserWarning:zarr")
@settings(max_examples=60)
@given(st.data(), arrays(OTHERS, min_dims=1))
def test_zarr_python_reads_its_own_types(data, array):
    """Dates, durations and text are read the same by zarr-python."""
    options = data.draw(grids(array.shape))
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no document specifies these types
        path = Path(directory) / "x.zarr"
        lazyarr.save(path, array, **options)
        expected = array.astype(array.dtype.newbyteorder("<"))
        for name in ("lazyarr.formats.zarr", "zarr"):
            found = READERS[name](path)
            assert found.dtype == expected.dtype, name
            assert same(found, expected), name


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_tensorstore_reads_types_of_ml_dtypes(tmp_path, dtype):
    """Types that zarr-python lacks are read the same by TensorStore."""
    array = np.arange(-40, 80).reshape(8, 15).astype(dtype)
    lazyarr.save(tmp_path / "x.zarr", array, chunks=(2, 15))
    for name in ("lazyarr.formats.zarr", "tensorstore"):
        assert same(READERS[name](tmp_path / "x.zarr"), array), name


def test_structs_come_back(tmp_path):
    """Structs of any byte order are stored little endian, field by field."""
    array = np.zeros(7, [("a", ">i4"), ("b", "u1"), ("c", [("d", ">f8"), ("e", "S3")])])
    array["a"] = range(7)
    array["c"]["d"] = np.pi
    array["c"]["e"] = b"xyz"
    lazyarr.save(tmp_path / "x.zarr", array, chunks=2)
    found = read_array(tmp_path / "x.zarr")
    assert found.dtype == array.dtype.newbyteorder("<")
    assert np.array_equal(found, array)


def test_raw_bytes_come_back(tmp_path):
    """Opaque elements of an odd size are kept byte for byte."""
    array = np.frombuffer(bytes(range(240)), "V3").reshape(8, 10)
    lazyarr.save(tmp_path / "x.zarr", array, chunks=(3, 4))
    assert same(read_array(tmp_path / "x.zarr"), array)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.0, 0.0, 1.5])
def test_bits_of_floats_survive(tmp_path, value):
    """NaN payloads and signs of zero, in chunks that hold the fill value's too."""
    bits = np.array([0x7FC00001, 0xFFC00000, 0x80000000, 0, 0x7F800001], "u4")
    array = np.full((20, 5), value, "f4")
    array[3] = array[12] = bits.view("f4")
    with lazyarr.create(tmp_path / "x.zarr") as writer:
        options = {"chunks": (2, 5), "fill_value": value}
        writer.create_array("x", shape=array.shape, dtype="f4", **options)[...] = array
    for name, read in READERS.items():
        assert read(tmp_path / "x.zarr" / "x").tobytes() == array.tobytes(), name


def test_fill_value_is_not_stored(tmp_path):
    """Chunks of nothing else are absent from their shard, and shards of nothing else at all."""
    array = np.zeros((100, 8), "i4")
    array[55] = 1
    lazyarr.save(tmp_path / "x.zarr", array, chunks=(5, 8), shards=(20, 8))
    files = sorted(p.relative_to(tmp_path / "x.zarr") for p in tmp_path.rglob("*") if p.is_file())
    assert [f.as_posix() for f in files] == ["c/2/0", "zarr.json"]
    shard = (tmp_path / "x.zarr/c/2/0").read_bytes()
    entries = np.frombuffer(shard[-4 * 16 - 4 : -4], "<u8").reshape(4, 2)
    assert (entries == 2**64 - 1).all(axis=1).tolist() == [True, True, True, False]
    assert same(read_array(tmp_path / "x.zarr"), array)


def test_one_shard_equals_zarr_pythons(tmp_path):
    """The documents of the same array by lazyarr and by zarr-python mean the same."""
    array = np.arange(800, dtype="i4").reshape(100, 8)
    lazyarr.save(tmp_path / "a", array, chunks=(5, 8), shards=(20, 8), level=0)
    other = zarr.create_array(
        tmp_path / "b", shape=array.shape, dtype="i4", chunks=(5, 8), shards=(20, 8),
        compressors=[zarr.codecs.ZstdCodec(level=0), zarr.codecs.Crc32cCodec()],
    )  # fmt: skip
    other[...] = array
    ours, theirs = (zarr.open_array(tmp_path / name, mode="r").metadata for name in "ab")
    assert ours.to_dict() == theirs.to_dict()


def tree():
    return {
        "images": np.arange(2000, dtype="u2").reshape(50, 8, 5),
        "train/labels": np.arange(50),
        "train/more/deep": np.float32(3.5),
        "test": {"labels": np.arange(5, dtype=">i4"), "none": np.zeros((0, 3))},
    }


def flat(data, prefix=""):
    for name, value in data.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}/")
        else:
            yield prefix + name, np.asarray(value)


def test_tree_opens_everywhere(tmp_path):
    """Arrays and groups are found with consolidated metadata and without."""
    lazyarr.save(tmp_path / "x.zarr", tree(), attributes={"k": [1, None]}, consolidated=True)
    expected = dict(flat(tree()))
    found = read_tree(tmp_path / "x.zarr")
    assert found.keys() == expected.keys()
    for options in ({"use_consolidated": True}, {"use_consolidated": False}):
        group = zarr.open_group(tmp_path / "x.zarr", mode="r", **options)
        assert dict(group.attrs) == {"k": [1, None]}
        members = dict(group.members(max_depth=None))
        assert members.keys() == expected.keys() | {"train", "train/more", "test"}
        for path, array in expected.items():
            assert same(members[path][...], array), path
            assert same(found[path], array), path


def test_documents_validate(tmp_path):
    """An independent reader of the specification finds nothing wrong, nor unknown, in any."""
    lazyarr.save(tmp_path / "x.zarr", tree())
    documents = sorted((tmp_path / "x.zarr").rglob("zarr.json"))
    assert len(documents) == 9
    for path in documents:
        members = json.loads(path.read_bytes())
        is_array = members["node_type"] == "array"
        kind = "ZarrV3ArrayMetadata" if is_array else "ZarrV3GroupMetadata"
        checked = getattr(zarr_metadata, kind).from_json(members)
        assert not checked.unclaimed_fields if is_array else checked is not None
