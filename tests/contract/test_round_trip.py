"""What any writer wrote, any index reads right, against a plain ndarray as the model."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

import lazyarr
from tests.process.running import wait_until

DTYPES = ("u1", "i1", "u2", "<i4", ">i4", "i8", "f2", "<f4", ">f8", "c8", "c16", "?")


@st.composite
def arrays(draw: Any) -> np.ndarray:
    """Draw arrays from a byte to a hundred kilobytes, so that units fill pages or share one."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=60))
    while math.prod(shape) * dtype.itemsize > 100_000:
        shape = tuple(-(-n // 2) for n in shape)
    seed = draw(st.integers(0, 2**32 - 1))
    data = np.random.default_rng(seed).integers(0, 200, shape)
    return data.astype(dtype)


@st.composite
def grids(draw: Any, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Draw a chunk shape, and a shard shape or none."""
    chunks = tuple(draw(st.integers(1, n + 2)) for n in shape)
    # Each may be a file of its own, which zarr-python takes a millisecond to write.
    while math.prod(-(-n // c) for n, c in zip(shape, chunks, strict=True)) > 300:
        chunks = tuple(min(2 * c, n + 2) for n, c in zip(shape, chunks, strict=True))
    if not shape or draw(st.booleans()):
        return chunks, None
    return chunks, tuple(c * draw(st.integers(1, 3)) for c in chunks)


@st.composite
def indexes(draw: Any, shape: tuple[int, ...]) -> Any:
    """Draw anything that NumPy takes as an index, of this shape or of its leading axis."""
    basic = hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True)
    if not shape or 0 in shape:
        return draw(basic)
    advanced = hnp.integer_array_indices(shape[:1], result_shape=hnp.array_shapes(max_dims=2))
    masks = hnp.arrays(bool, shape[:1])
    return draw(st.one_of(basic, advanced, masks, hnp.arrays(bool, shape)))


def write_with_zarr(path: Path, data: np.ndarray, draw: Any, fill: Any) -> None:
    """Write as zarr-python writes, versions 2 and 3, with any of its compressors."""
    chunks, shards = draw(grids(data.shape))
    options: dict[str, Any] = {"compressors": draw(st.sampled_from([None, "auto"]))}
    if draw(st.booleans()):
        options = {"zarr_format": 2, "order": draw(st.sampled_from("CF"))}
        shards = None
    elif draw(st.booleans()):
        codec = draw(
            st.sampled_from(
                [ZstdCodec(level=1), GzipCodec(level=1), BloscCodec(typesize=data.itemsize)]
            )
        )
        options = {"compressors": [codec, Crc32cCodec()]}
        if data.ndim and draw(st.booleans()):
            options["filters"] = [TransposeCodec(order=draw(st.permutations(range(data.ndim))))]
        options["serializer"] = BytesCodec(endian=draw(st.sampled_from(["little", "big"])))
    array = zarr.create_array(
        str(path), shape=data.shape, dtype=data.dtype, chunks=chunks, shards=shards,
        fill_value=fill, config={"write_empty_chunks": draw(st.booleans())}, **options,
    )  # fmt: skip
    array[...] = data


def write_with_tensorstore(path: Path, data: np.ndarray, draw: Any, fill: Any) -> None:
    """Write as TensorStore writes: version 3, sharded or not, index at the start or the end."""
    little = data.astype(data.dtype.newbyteorder("<"))
    chunks, shards = draw(grids(data.shape))
    inner: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}]
    inner.append({"name": "zstd", "configuration": {"level": 1}})
    codecs = inner
    if shards is not None:
        configuration = {
            "chunk_shape": chunks,
            "codecs": inner,
            "index_codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "crc32c"},
            ],
            "index_location": draw(st.sampled_from(["start", "end"])),
        }
        codecs = [{"name": "sharding_indexed", "configuration": configuration}]
    grid = {"name": "regular", "configuration": {"chunk_shape": shards or chunks}}
    metadata = {"shape": data.shape, "chunk_grid": grid, "codecs": codecs, "fill_value": fill}
    metadata["data_type"] = little.dtype.name
    if little.dtype.kind == "c":
        metadata["fill_value"] = [fill, 0]
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{path}/"},
        "metadata": metadata,
        "create": True,
    }
    store = tensorstore.open(spec).result()
    store.write(little).result()


def write_with_lazyarr(path: Path, data: np.ndarray, draw: Any, fill: Any) -> None:
    """Write as lazyarr writes, with chunks of its own choice or of any other."""
    chunks, shards = draw(grids(data.shape))
    if data.ndim == 0 or draw(st.booleans()):
        lazyarr.save(path, data)
        return
    with lazyarr.create(path) as writer:
        array = writer.create_array(
            "x", shape=data.shape, dtype=data.dtype, chunks=chunks, shards=shards, fill_value=fill
        )
        array[...] = data


WRITERS = [write_with_zarr, write_with_tensorstore, write_with_lazyarr]


@pytest.mark.parametrize("write", WRITERS)
@given(draw=st.data(), data=arrays())
@settings(
    max_examples=60,
    # The engine is the same for all examples of a test.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    derandomize=False,
)
def test_any_index_reads_what_was_written(write, engine, draw, data):
    """Raw touches, picks, slices and reductions give what a plain ndarray gives."""
    fill = draw.draw(st.sampled_from([0, 1])) if data.dtype != bool else False
    directory = Path(tempfile.mkdtemp())
    try:
        write(directory / "x.zarr", data, draw.draw, fill)
        opened = lazyarr.open(directory / "x.zarr")
        check(opened["x"] if isinstance(opened, lazyarr.Dataset) else opened, data, draw.draw)
    finally:
        shutil.rmtree(directory)


def check(x: np.ndarray, data: np.ndarray, draw: Any) -> None:
    """Compare a lazy array with its model by some random uses of it."""
    assert (x.shape, x.dtype.newbyteorder("=")) == (data.shape, data.dtype.newbyteorder("="))
    raw = np.asarray(x)
    for _ in range(draw(st.integers(1, 4))):
        index = draw(indexes(data.shape))
        way = draw(st.sampled_from(["pick", "raw", "evict", "prefetch"]))
        if way == "evict":
            x.evict()
        elif way == "prefetch" and draw(st.booleans()):
            x.prefetch(index)
        source = raw if way == "raw" else x
        np.testing.assert_array_equal(np.asarray(source[index]), data[index])
    np.testing.assert_array_equal(raw, data)
    np.testing.assert_array_equal(x + x, data + data)


@pytest.mark.parametrize(
    ("stated", "fill"),
    [
        (0.0, 0.0),
        (-0.0, -0.0),
        (1.5, 1.5),
        ("NaN", np.nan),
        ("Infinity", np.inf),
        ("-Infinity", -np.inf),
        ("0x7fc00123", np.uint32(0x7FC00123).view("f4")),
    ],
)
def test_fill_values_keep_their_bits(tmp_path, engine, stated, fill):
    """What was never written reads as the fill value, bit by bit, by touch and by request."""
    zarr.create_array(str(tmp_path / "x.zarr"), shape=(5000,), dtype="f4", chunks=(1500,))[2000] = 3
    document = json.loads((tmp_path / "x.zarr/zarr.json").read_text())
    document["fill_value"] = stated
    (tmp_path / "x.zarr/zarr.json").write_text(json.dumps(document))
    expected = np.full(5000, fill, "f4")
    expected[1500:3000] = 0
    expected[2000] = 3
    x = lazyarr.open(tmp_path / "x.zarr")
    assert np.asarray(x).tobytes() == expected.tobytes()
    x.evict()
    assert x[[0, 1999, 2000, 4999]].tobytes() == expected[[0, 1999, 2000, 4999]].tobytes()


def test_a_sparse_terabyte(tmp_path, engine):
    """A terabyte opens at once, takes no memory, and reads right where there is something."""
    array = zarr.create_array(
        str(tmp_path / "x.zarr"), shape=(1 << 20, 1 << 20), dtype="u1", chunks=(1, 1 << 20),
        shards=(256, 1 << 20), fill_value=0,
    )  # fmt: skip
    array[5, 7:9] = 3
    x = lazyarr.open(tmp_path / "x.zarr")
    assert x.nbytes == 1 << 40
    assert x[5].sum() == 6
    raw = np.asarray(x) if engine == "userfaultfd" else x
    assert raw[(1 << 20) - 1, 12345] == 0
    assert not x[777_777].any()
    # A page that was touched is there a moment before its unit is taken down.
    assert wait_until(lambda: x.residency().resident_units == 3)
