"""What zarr-python writes is read right, element for element."""

from __future__ import annotations

import json

import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    ShardingCodec,
    TransposeCodec,
    ZstdCodec,
)
from zarr.codecs import numcodecs as v3_numcodecs
from zarr.testing.strategies import array_metadata

from lazyarr.formats.zarr import GroupMetadata, parse_node, parse_v2_array, parse_v2_consolidated

pytestmark = pytest.mark.usefixtures("quiet")

DTYPES = [
    *["?", "i1", "u1", "<i2", ">i2", "<u4", "<i8", ">u8", "<f2", "<f4", ">f8", "<c8", ">c16"],
    *["<M8[ns]", "<M8[10s]", "<m8[D]", "<U5", "|S4", "|V3"],
    [("a", "<i4"), ("b", "|S3"), ("c", "<f8")],
]
V3_COMPRESSORS = [
    None,
    GzipCodec(level=5),
    ZstdCodec(level=0),
    ZstdCodec(level=-5),
    [ZstdCodec(level=19, checksum=True), Crc32cCodec()],
    BloscCodec(cname="lz4", shuffle="bitshuffle"),
    BloscCodec(cname="zstd", shuffle="shuffle"),
    BloscCodec(cname="zlib", shuffle="noshuffle"),
    [GzipCodec(), ZstdCodec()],
]
V3_NUMCODECS = [
    *[["LZ4"], ["Zlib"], ["BZ2"], ["LZMA"], ["GZip"], ["Blosc"], ["Zstd"], ["Shuffle"]],
    *[["CRC32"], ["CRC32C"], ["Adler32"], ["Fletcher32"], ["JenkinsLookup3"]],
    *[["Shuffle", "Zstd"], ["LZ4", "GZip"]],
]
V2_COMPRESSORS = [
    None,
    numcodecs.GZip(),
    numcodecs.Zlib(),
    numcodecs.BZ2(),
    numcodecs.LZMA(),
    numcodecs.LZ4(),
    numcodecs.Zstd(3),
    numcodecs.Blosc("zstd"),
    numcodecs.Blosc("lz4", shuffle=0),
    numcodecs.Blosc("lz4", shuffle=-1),
]


@pytest.fixture
def check(tmp_path, read_array, sample, same):
    """Return a function that lets zarr-python write part of an array, and compares."""

    def run(dtype, *, shape=(10, 7, 5), rows=slice(0, 6), **options):
        array = zarr.create_array(tmp_path / "x", shape=shape, dtype=np.dtype(dtype), **options)
        array[rows if shape else ...] = sample(shape, dtype)[rows if shape else ...]
        assert same(read_array(tmp_path / "x"), zarr.open_array(tmp_path / "x", mode="r")[...])

    return run


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_data_type(check, dtype, zarr_format):
    """Arrays of every type of a fixed size read as written, missing chunks as the fill value."""
    check(dtype, zarr_format=zarr_format, chunks=(4, 3, 5))


def test_struct_in_struct(check):
    """A struct with a member that is a struct reads as written."""
    check([("a", "<i4"), ("n", [("x", "<f4"), ("y", "<i2")])], chunks=(4, 3, 5))


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("compressors", V3_COMPRESSORS, ids=str)
@pytest.mark.parametrize("dtype", ["u1", ">f8"])
def test_every_v3_compressor(check, dtype, compressors, sharded):
    """Chunks compressed with the codecs of zarr-python read as written, in shards or not."""
    check(dtype, compressors=compressors, chunks=(2, 7, 5), shards=(4, 7, 5) if sharded else None)


@pytest.mark.parametrize("names", V3_NUMCODECS, ids="-".join)
@pytest.mark.parametrize("dtype", ["u1", "<i4"])
def test_every_numcodecs_compressor(check, dtype, names):
    """Chunks compressed with the codecs of numcodecs read as written."""
    compressors = [getattr(v3_numcodecs, name)() for name in names]
    check(dtype, compressors=compressors, chunks=(4, 3, 5))


@pytest.mark.parametrize("compressor", V2_COMPRESSORS, ids=str)
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_v2_compressor(check, compressor, order):
    """Chunks of Zarr v2 read as written, in either order."""
    check(">i4", zarr_format=2, compressors=compressor, order=order, chunks=(4, 3, 5))


@pytest.mark.parametrize(
    ("dtype", "name", "options"),
    [
        ("<i4", "Delta", {"dtype": "<i4"}),
        ("<i4", "Delta", {"dtype": "<i4", "astype": "<i8"}),
        ("<f8", "FixedScaleOffset", {"offset": 0, "scale": 100, "dtype": "<f8", "astype": "<i4"}),
        ("<f8", "Quantize", {"digits": 3, "dtype": "<f8"}),
        ("<f4", "BitRound", {"keepbits": 5}),
        ("<f4", "AsType", {"encode_dtype": "<f8", "decode_dtype": "<f4"}),
        ("?", "PackBits", {}),
    ],
    ids=str,
)
def test_every_v3_filter(check, dtype, name, options):
    """Chunks that went through a filter of numcodecs read as zarr-python reads them."""
    codec = getattr(v3_numcodecs, name)(**options)
    check(dtype, filters=[codec], chunks=(4, 3, 5))


@pytest.mark.parametrize(
    ("dtype", "codec"),
    [
        (">i4", numcodecs.Delta(">i4")),
        ("<f8", numcodecs.FixedScaleOffset(0, 100, "<f8", "<i4")),
        ("?", numcodecs.PackBits()),
        ("<i4", numcodecs.Shuffle(4)),
        ("<f2", numcodecs.AsType("<f8", "<f2")),
    ],
    ids=str,
)
def test_every_v2_filter(check, dtype, codec):
    """Chunks of Zarr v2 that went through a filter read as zarr-python reads them."""
    check(dtype, zarr_format=2, filters=[codec], chunks=(4, 3, 5))


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("dtype", "fill_value"),
    [
        *[(dtype, value) for dtype in ("<f2", ">f8", "<c8") for value in (np.nan, -np.inf, -0.0)],
        *[("<f4", 1.1), ("u1", 255), (">i2", -1), ("?", True), ("<U5", "aß"), ("|S4", b"ab")],
        *[("<M8[s]", np.datetime64("2020-01-01")), ("<m8[D]", np.timedelta64("NaT", "D"))],
        ("|V3", b"abc"),
    ],
    ids=str,
)
def test_every_fill_value(check, dtype, fill_value, zarr_format):
    """Chunks that were never written hold the fill value."""
    check(dtype, fill_value=fill_value, zarr_format=zarr_format, chunks=(4, 3, 5))


@pytest.mark.parametrize("dtype", ["<f4", "<M8[s]", "|S3", "?"])
def test_v2_without_fill_value(check, dtype):
    """A fill value of null reads as zarr-python's default."""
    check(dtype, fill_value=None, zarr_format=2, chunks=(4, 3, 5))


@pytest.mark.parametrize(
    ("zarr_format", "name", "separator"),
    [(3, "default", "/"), (3, "default", "."), (3, "v2", "."), (3, "v2", "/"), (2, "v2", "/")],
)
@pytest.mark.parametrize("shape", [(10, 7), ()])
def test_every_key_encoding(check, shape, zarr_format, name, separator):
    """Chunks are found under every spelling of their keys."""
    encoding = {"name": name, "separator": separator}
    check("<i4", shape=shape, zarr_format=zarr_format, chunk_key_encoding=encoding)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0,)])
def test_arrays_of_no_elements(check, shape):
    """An axis of no length leaves no chunks, in shards or not."""
    check("<i4", shape=shape, chunks=(2,) * len(shape), shards=(4,) * len(shape))


@pytest.mark.parametrize("dtype", ["u1", ">u4"])
@pytest.mark.parametrize("location", ["start", "end"])
def test_shards_inside_of_transposed_shards(check, dtype, location):
    """Two levels of shards with a transposition at each read as written."""
    index = [BytesCodec(endian="big"), Crc32cCodec()]
    stored = BytesCodec(endian="big" if dtype.startswith(">") else "little")
    inner = ShardingCodec(
        chunk_shape=(2, 3, 1),
        codecs=[TransposeCodec(order=(2, 0, 1)), stored, ZstdCodec(checksum=True), Crc32cCodec()],
        index_codecs=index,
        index_location=location,
    )
    outer = ShardingCodec(
        chunk_shape=(6, 6, 2),
        codecs=[TransposeCodec(order=(1, 0, 2)), inner],
        index_location=location,
    )
    check(
        dtype,
        shape=(20, 13, 14),
        chunks=(12, 12, 12),
        filters=[TransposeCodec(order=(1, 2, 0))],
        serializer=outer,
        compressors=None,
    )


def test_consolidated_v3(tmp_path):
    """All nodes of a consolidated hierarchy are there, with one that cannot be mapped."""
    root = zarr.open_group(tmp_path, mode="w", attributes={"a": 1})
    group = root.create_group("g", attributes={"b": 2})
    group.create_array("x", shape=(3,), dtype="i4")
    root.create_array("words", shape=(3,), dtype=str)
    zarr.consolidate_metadata(tmp_path)
    node = parse_node((tmp_path / "zarr.json").read_bytes(), path="")
    assert isinstance(node, GroupMetadata)
    assert node.attributes == {"a": 1}
    assert set(node.consolidated) == {"g", "g/x", "words"}
    assert node.consolidated["g"].attributes == {"b": 2}
    alone = (tmp_path / "g" / "x" / "zarr.json").read_bytes()
    assert node.consolidated["g/x"] == parse_node(alone, path="g/x")
    assert "variable length" in str(node.consolidated["words"])


def test_consolidated_v2(tmp_path):
    """The same holds for Zarr v2."""
    root = zarr.open_group(tmp_path, mode="w", zarr_format=2, attributes={"a": 1})
    root.create_group("g").create_array("x", shape=(3,), dtype="i4", attributes={"c": 3})
    root.create_array("words", shape=(3,), dtype=str)
    zarr.consolidate_metadata(tmp_path)
    node = parse_v2_consolidated((tmp_path / ".zmetadata").read_bytes(), path="")
    assert node.attributes == {"a": 1}
    assert set(node.consolidated) == {"g", "g/x", "words"}
    assert node.consolidated["g/x"].attributes == {"c": 3}
    assert "variable length" in str(node.consolidated["words"])


def test_dimension_names(tmp_path):
    """Names of axes are read, and so is their absence."""
    for names in (("t", None), None):
        path = tmp_path / str(names)
        zarr.create_array(path, shape=(3, 4), dtype="u1", dimension_names=names)
        assert parse_node((path / "zarr.json").read_bytes(), path="x").dimension_names == names


def test_documents_are_as_expected(tmp_path):
    """zarr-python still writes what these tests rely on: objects for codecs, a fill value."""
    zarr.create_array(tmp_path, shape=(3,), dtype="i4", chunks=(1,), shards=(2,))
    members = json.loads((tmp_path / "zarr.json").read_bytes())
    assert members["codecs"][0]["name"] == "sharding_indexed"
    assert members["fill_value"] == 0


@settings(suppress_health_check=list(HealthCheck))
@given(array_metadata())
def test_every_document_that_zarr_python_makes(metadata):
    """Documents drawn by zarr-python's own strategies are read, with equal contents."""
    prototype = zarr.core.buffer.default_buffer_prototype()
    documents = {key: data.to_bytes() for key, data in metadata.to_buffer_dict(prototype).items()}
    if metadata.zarr_format == 3:
        array = parse_node(documents["zarr.json"], path="x")
        assert array.dimension_names == metadata.dimension_names
        assert array.chunk_shape == metadata.chunk_grid.chunk_shape
    else:
        array = parse_v2_array(documents[".zarray"], documents[".zattrs"], path="x")
        assert array.chunk_shape == metadata.chunks
    assert array.shape == metadata.shape
    expected = metadata.dtype.to_native_dtype()
    assert array.dtype.to_numpy().newbyteorder("=") == expected.newbyteorder("=")
    assert same_json(array.attributes, metadata.attributes)
    if metadata.fill_value is not None:
        expected = np.asarray(metadata.fill_value).astype(array.dtype.to_numpy())
        # zarr-python spells every NaN "NaN", also those with a sign or other bits.
        is_nan = expected.dtype.kind in "fc" and np.isnan(expected)
        assert is_nan or array.fill == expected.tobytes()


def same_json(one, other):
    """Compare as text: NaN, which attributes may hold, is not equal to itself."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
