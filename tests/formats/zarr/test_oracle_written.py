"""What `array_document` and `encode` make is valid, and other libraries read it."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
import tensorstore
import zarr
import zarr_metadata

from lazyarr.formats.zarr import (
    GroupMetadata,
    array_document,
    data_type_from_numpy,
    default_chunks,
    default_shards,
    group_document,
    parse_node,
    resized_document,
)

pytestmark = pytest.mark.usefixtures("quiet")

PORTABLE = ["?", "i1", "u1", "<i2", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16"]
STRUCT = [("a", "<i4"), ("b", "<f8")]


def read_zarr(path):
    return zarr.open_array(path, mode="r")[...]


def read_zarrs(path):
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        return zarr.open_array(path, mode="r")[...]


def read_tensorstore(path):
    spec = {"driver": "zarr3", "kvstore": f"file://{path}/"}
    return np.asarray(tensorstore.open(spec).result().read().result())


def document_of(array, **options):
    dtype = data_type_from_numpy(array.dtype)
    chunks = options.pop("chunks", (2, *array.shape[1:]) if array.ndim else ())
    return array_document(shape=array.shape, dtype=dtype, chunks=chunks, **options)


@pytest.mark.parametrize("read", [read_zarr, read_zarrs, read_tensorstore])
@pytest.mark.parametrize("dtype", PORTABLE)
@pytest.mark.parametrize("shards", [None, (6, 8, 5)])
def test_every_library_reads_it(tmp_path, sample, same, write_array, read, dtype, shards):
    """Arrays read the same in zarr-python, zarrs and TensorStore, edges and gaps included."""
    array = sample((10, 7, 5), dtype).copy()
    array[2:4] = 1
    document = document_of(array, chunks=(2, 4, 5), shards=shards, fill_value=1)
    write_array(tmp_path / "x", array, document)
    assert same(read(tmp_path / "x"), array)


@pytest.mark.parametrize("read", [read_zarr, read_zarrs, read_tensorstore])
def test_every_library_reads_default_shapes(tmp_path, sample, same, write_array, read):
    """Arrays in chunks and shards of the default shapes read the same."""
    array = sample((700, 64, 50), "<u2")
    chunks = default_chunks(array.shape, 2)
    shards = default_shards(array.shape, chunks, 2)
    write_array(tmp_path / "x", array, document_of(array, chunks=chunks, shards=shards))
    assert same(read(tmp_path / "x"), array)


@pytest.mark.parametrize("dtype", ["<M8[ns]", "<M8[10s]", "<m8[D]", "<U5", "|S4"])
def test_zarr_python_reads_its_own_types(tmp_path, sample, same, write_array, dtype):
    """Types that only zarr-python has read the same there."""
    array = sample((5, 3), dtype)
    write_array(tmp_path / "x", array, document_of(array))
    assert same(read_zarr(tmp_path / "x"), array)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_tensorstore_reads_ml_types(tmp_path, same, write_array, dtype):
    """Types of ml_dtypes read the same in TensorStore."""
    array = np.arange(15).reshape(5, 3).astype(dtype)
    write_array(tmp_path / "x", array, document_of(array, fill_value=2.0))
    assert same(read_tensorstore(tmp_path / "x"), array)


@pytest.mark.parametrize("dtype", [*PORTABLE, "<M8[ns]", "<m8[generic]", "|V3", STRUCT], ids=str)
@pytest.mark.parametrize("shape", [(10, 7), (0, 3), ()])
def test_documents_validate(dtype, shape):
    """An independent reader of the specification finds nothing wrong and nothing unknown."""
    array = np.zeros(shape, dtype)
    names = ["x", None][: len(shape)]
    document = document_of(array, attributes={"a": [1, None, "ü"]}, dimension_names=names)
    checked = zarr_metadata.ZarrV3ArrayMetadata.from_json(parse_json(document))
    assert not checked.unclaimed_fields


@pytest.mark.parametrize(
    ("dtype", "fill_value"),
    [
        *[("<f4", value) for value in (1.1, np.nan, -np.inf, -0.0, 1e300)],
        *[("<c8", 1 - 2j), ("<u8", 2**64 - 1), ("?", True), ("|V2", b"ab"), (STRUCT, (1, 2.5))],
        *[("<M8[D]", np.datetime64("2020-01-01")), ("<M8[D]", np.datetime64("NaT", "D"))],
    ],
    ids=str,
)
def test_fill_values_validate_and_come_back(dtype, fill_value):
    """Fill values are written as the specification spells them, and read back."""
    document = document_of(np.zeros((3,), dtype), fill_value=fill_value)
    assert zarr_metadata.ZarrV3ArrayMetadata.from_json(parse_json(document))
    with np.errstate(over="ignore"):
        expected = np.array(fill_value, dtype).tobytes()
    assert parse_node(document, path="x").fill == expected


def test_consolidated_group_opens(tmp_path, sample, write_array):
    """A group with consolidated metadata validates, and zarr-python lists it from there."""
    array = sample((5, 3), "<i4")
    document = document_of(array)
    write_array(tmp_path / "g" / "x", array, document)
    inner = group_document({"b": 2})
    (tmp_path / "g" / "zarr.json").write_bytes(inner)
    root = group_document({"a": 1}, consolidated={"g": inner, "g/x": document})
    (tmp_path / "zarr.json").write_bytes(root)
    assert zarr_metadata.ZarrV3GroupMetadata.from_json(parse_json(root))
    group = zarr.open_consolidated(tmp_path)
    assert sorted(name for name, _ in group.members(max_depth=None)) == ["g", "g/x"]
    assert np.array_equal(group["g/x"][...], array)
    node = parse_node(root, path="")
    assert isinstance(node, GroupMetadata)
    assert node.consolidated["g/x"] == parse_node(document, path="g/x")


def test_resized_array_keeps_its_rows(tmp_path, sample, write_array):
    """An array whose document got a new shape reads with the rows that it had."""
    array = sample((5, 3), "<i4")
    document = document_of(array, attributes={"a": 1})
    write_array(tmp_path / "x", array, document)
    (tmp_path / "x" / "zarr.json").write_bytes(resized_document(document, (9, 3)))
    read = zarr.open_array(tmp_path / "x", mode="r")
    assert read.attrs["a"] == 1
    assert np.array_equal(read[:5], array)
    assert not read[5:].any()


def parse_json(document):
    return json.loads(document)
