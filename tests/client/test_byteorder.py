"""Arrays are of the machine's byte order, whatever order their store has, unless asked for."""

from __future__ import annotations

import itertools
import json
import pickle

import numba
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ZstdCodec

import lazyarr
from tests.engines import memory_only
from tests.process.running import run_program
from tests.programs import byteorder as programs

STRUCT = np.dtype(
    [("a", ">u2"), ("b", "<f4", (2, 2)), ("c", [("d", ">M8[s]"), ("e", "S3")]), ("f", ">U2")]
)
DTYPES = [">i2", ">u4", ">f8", ">c8", ">c16", ">M8[ns]", ">m8[D]", ">U5", ">f2", STRUCT]
SHAPE = (13, 9, 11)

pytestmark = pytest.mark.usefixtures("engine")


def numbers(dtype, shape=SHAPE):
    """Return elements of a type, all of them different."""
    dtype = np.dtype(dtype)
    count = np.arange(int(np.prod(shape)))
    if dtype.fields:
        data = np.zeros(count.shape, dtype)
        for name in dtype.names:
            member = numbers(dtype[name].base, count.shape)
            data[name] = member.reshape(-1, *[1] * len(dtype[name].shape))
        return data.reshape(shape)
    return (count % 60000 if dtype.itemsize == 2 else count).astype(dtype).reshape(shape)


def write_v2(path, data, chunks, *, fill_value=None):
    """Write version 2 by hand, with one chunk left out, whose elements are the fill value."""
    path.mkdir()
    descr = data.dtype.descr if data.dtype.fields else data.dtype.str
    document = {
        "zarr_format": 2, "shape": data.shape, "chunks": chunks, "dtype": as_lists(descr),
        "order": "C", "fill_value": fill_value, "filters": None, "compressor": {"id": "zlib"},
    }  # fmt: skip
    (path / ".zarray").write_text(json.dumps(document))
    import zlib

    counts = [-(-n // c) for n, c in zip(data.shape, chunks, strict=True)]
    for place in itertools.product(*map(range, counts)):
        chunk = np.zeros(chunks, data.dtype)
        part = data[tuple(slice(i * c, (i + 1) * c) for i, c in zip(place, chunks, strict=True))]
        chunk[tuple(slice(n) for n in part.shape)] = part
        (path / ".".join(map(str, place))).write_bytes(zlib.compress(chunk.tobytes()))
    return str(path)


def as_lists(descr):
    if isinstance(descr, str):
        return descr
    return [[name, as_lists(kind), *shape] for name, kind, *shape in descr]


def native(data):
    return data.astype(data.dtype.newbyteorder("="))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("chunks", [(3, 9, 11), (5, 4, 3), (13, 9, 11)])
def test_version_2_is_native_unless_asked_for_as_stored(tmp_path, dtype, chunks, engine):
    """Units of a chunk, of tiles, of an odd size; numbers, dates, text, structs of mixed orders."""
    data = numbers(dtype)
    url = write_v2(tmp_path / "x.zarr", data, chunks)
    x, stored = lazyarr.open(url), lazyarr.open(url, byteorder="stored")
    assert x.dtype.isnative
    assert x.dtype == native(data).dtype
    assert stored.dtype == data.dtype
    for each, expected in ((x, native(data)), (stored, data)):
        np.testing.assert_array_equal(each[4], expected[4], strict=True)
        np.testing.assert_array_equal(each[[7, 1]], expected[[7, 1]], strict=True)
        np.testing.assert_array_equal(np.asarray(each), expected, strict=True)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(each[2:5])), expected[2:5])
    assert lazyarr.verify(url, progress=False).ok


CODECS = {
    "plain": [],
    "zstd": [ZstdCodec()],
    "zstd, crc32c": [ZstdCodec(), Crc32cCodec()],
    "blosc, crc32c": [BloscCodec(typesize=4), Crc32cCodec()],
    "crc32c": [Crc32cCodec()],
}


@pytest.mark.parametrize("codecs", CODECS)
@pytest.mark.parametrize("shards", [None, (16, 64, 64)])
def test_version_3_is_native_unless_asked_for_as_stored(tmp_path, codecs, shards, engine):
    """Chunks of 256 KiB, which are installed while they are decoded where that can be."""
    data = (np.arange(40 * 64 * 64) * 2654435761 % 65521).astype("f4").reshape(40, 64, 64)
    z = zarr.create_array(
        str(tmp_path / "x.zarr"),
        shape=data.shape,
        dtype="f4",
        chunks=(16, 64, 64),
        shards=shards,
        fill_value=2.5,
        serializer=BytesCodec(endian="big"),
        compressors=CODECS[codecs],
    )
    z[:32] = data[:32]
    data[32:] = 2.5
    x, stored = (lazyarr.open(tmp_path / "x.zarr", byteorder=b) for b in ("native", "stored"))
    assert (x.dtype.str, stored.dtype.str, x.fill_value) == ("<f4", ">f4", 2.5)
    assert type(x.fill_value) is np.float32
    for row in (9, 31, 0, 39, 17):
        x.evict()
        raw = np.asarray(x)
        assert (raw[row, 13] == data[row, 13]).all()
        np.testing.assert_array_equal(x[row], data[row], strict=True)
    np.testing.assert_array_equal(np.asarray(x), data, strict=True)
    np.testing.assert_array_equal(np.asarray(stored), data)
    assert x.sum() == data.sum()


def test_a_fill_value_is_turned_around(tmp_path, engine):
    """Of elements without a chunk, and as the attribute."""
    url = write_v2(tmp_path / "x.zarr", numbers(">i4", (6, 5)), (2, 5), fill_value=258)
    (tmp_path / "x.zarr" / "1.0").unlink()
    x = lazyarr.open(url)
    assert (x.fill_value, x[2].tolist(), x[0, 1]) == (258, [258] * 5, 1)
    assert lazyarr.open(url, byteorder="stored").fill_value == 258


@memory_only
def test_two_orders_never_share_pages(tmp_path, engine):
    """In one process and in another one that gets both by pickle, mode "c" among them."""
    data = numbers(">i4")
    url = write_v2(tmp_path / "x.zarr", data, (3, 9, 11))
    np.save(tmp_path / "x.npy", data)
    (tmp_path / ".zgroup").write_text('{"zarr_format": 2}')
    ended = run_program(programs.two_orders_never_share_pages, url, tmp_path / "x.npy")
    assert ended.returncode == 0, ended.stderr
    for order in ("native", "stored"):
        group = pickle.loads(pickle.dumps(lazyarr.open(tmp_path, byteorder=order)))
        assert group["x.zarr"].dtype.isnative == (order == "native")


@memory_only
def test_other_processes_decode_it_too(tmp_path, engine):
    """With processes beside the worker, and after another worker has taken over."""
    data = numbers(">f4", (64, 64, 64))
    url = write_v2(tmp_path / "x.zarr", data, (4, 64, 64))
    np.save(tmp_path / "x.npy", data)
    ended = run_program(programs.other_processes_decode_it_too, url, tmp_path / "x.npy")
    assert ended.returncode == 0, ended.stderr


@memory_only
def test_compiled_code_takes_it(tmp_path, engine):
    """Many libraries have no arrays of the other order, or none that are fast."""
    data = numbers(">f8", (6, 5))
    url = write_v2(tmp_path / "x.zarr", data, (2, 5))

    @numba.njit
    def total(array):
        return array.sum()

    assert total(np.asarray(lazyarr.open(url))) == data.sum()


def test_an_order_that_there_is_not_is_refused(tmp_path, engine):
    """Before anything is opened."""
    with pytest.raises(ValueError, match="byteorder='big' is not one of 'native' and 'stored'"):
        lazyarr.open(tmp_path / "nothing", byteorder="big")
