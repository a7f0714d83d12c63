"""What TensorStore writes is read right, element for element."""

from __future__ import annotations

import numpy as np
import pytest
import tensorstore

LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
BIG = {"name": "bytes", "configuration": {"endian": "big"}}
CRC32C = {"name": "crc32c"}
GZIP = {"name": "gzip", "configuration": {"level": 3}}
ZSTD = {"name": "zstd", "configuration": {"level": 3}}


def transpose(*order):
    return {"name": "transpose", "configuration": {"order": order}}


def blosc(shuffle):
    return {
        "name": "blosc",
        "configuration": {
            "cname": "zstd",
            "clevel": 5,
            "shuffle": shuffle,
            "typesize": 4,
            "blocksize": 0,
        },
    }


def shards(chunk_shape, codecs, location="end", index=(LITTLE, CRC32C)):
    return {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": chunk_shape,
            "codecs": codecs,
            "index_location": location,
            "index_codecs": index,
        },
    }


CODECS = {
    "plain": [LITTLE],
    "big endian": [BIG, GZIP],
    "transposed": [transpose(2, 0, 1), LITTLE, ZSTD, CRC32C],
    "transposed twice": [transpose(2, 0, 1), transpose(1, 0, 2), LITTLE, ZSTD],
    "blosc": [LITTLE, blosc("noshuffle")],
    "blosc shuffle": [LITTLE, blosc("shuffle")],
    "blosc bitshuffle": [LITTLE, blosc("bitshuffle")],
    "shards": [shards((2, 3, 7), [LITTLE, ZSTD, CRC32C])],
    "transposed in transposed shards": [
        transpose(2, 0, 1),
        shards((7, 2, 3), [transpose(1, 2, 0), BIG, ZSTD, CRC32C], "start"),
    ],
    "shards in shards": [
        transpose(1, 2, 0),
        shards(
            (6, 7, 2),
            [
                transpose(2, 0, 1),
                shards((1, 3, 7), [transpose(2, 1, 0), LITTLE, ZSTD], "start", (BIG,)),
            ],
        ),
    ],
}
TYPES = [
    *["bool", "int8", "uint8", "uint64", "float16", "float32", "complex64", "bfloat16"],
    *["float8_e3m4", "float8_e4m3fn", "float8_e4m3b11fnuz", "float8_e5m2", "float8_e8m0fnu"],
]


@pytest.fixture
def check(tmp_path, read_array, same):
    """Return a function that lets TensorStore write part of an array, and compares."""

    def run(codecs, *, data_type="int32", **members):
        metadata = {
            "shape": [10, 12, 7],
            "data_type": data_type,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 6, 7]}},
            "codecs": codecs,
            **members,
        }
        store = tensorstore.open(
            {"driver": "zarr3", "kvstore": f"file://{tmp_path}/x/", "metadata": metadata},
            create=True,
        ).result()
        values = np.arange(10 * 12 * 7).reshape(store.shape) % 251
        store[2:9].write(values.astype(store.dtype.numpy_dtype)[2:9]).result()
        assert same(read_array(tmp_path / "x"), np.asarray(store.read().result()))

    return run


@pytest.mark.parametrize("name", CODECS)
def test_every_chain_of_codecs(check, name):
    """Chunks read as written whatever they go through, however deep the shards."""
    check(CODECS[name])


@pytest.mark.parametrize("data_type", TYPES)
def test_every_data_type(check, data_type):
    """Arrays of every type that TensorStore writes read as written."""
    check([LITTLE, ZSTD], data_type=data_type)


@pytest.mark.parametrize(
    ("data_type", "fill_value"),
    [
        ("float32", "0x7fc00001"),
        ("float64", "-Infinity"),
        ("bfloat16", 1.1),
        ("bfloat16", "NaN"),
        ("float8_e5m2", "NaN"),
        ("float8_e4m3fn", 3),
        ("complex64", ["NaN", "-Infinity"]),
        ("int8", -128),
        ("bool", True),
    ],
)
def test_every_fill_value(check, data_type, fill_value):
    """Chunks that were never written hold the fill value, bit for bit."""
    check([LITTLE], data_type=data_type, fill_value=fill_value)


@pytest.mark.parametrize("name", ["default", "v2"])
@pytest.mark.parametrize("separator", ["/", "."])
def test_every_key_encoding(check, name, separator):
    """Chunks are found under every spelling of their keys."""
    encoding = {"name": name, "configuration": {"separator": separator}}
    check([LITTLE], chunk_key_encoding=encoding, dimension_names=["a", None, "c"])
