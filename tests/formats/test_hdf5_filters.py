"""Filters of HDF5 that pack numbers, or need a library: what h5py reads is what lazyarr maps."""

from __future__ import annotations

import contextlib
import importlib
import math
import struct
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t, h5z
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lazyarr
from lazyarr.codecs.by_imagecodecs import Lzf, Szip
from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.codecs.packed import NarrowIntegers, Nbit, ScaleOffset
from lazyarr.codecs.registry import make_codec
from tests.engines import engine  # noqa: F401 - a fixture
from tests.formats.write_plugins import plugins_data

INTEGERS = ["|u1", "|i1", "<i2", ">u2", "<u4", ">i4", "<i8", ">u8"]
FLOATS = ["<f4", ">f4", "<f8", ">f8"]


def same(x, expected):
    """Whether arrays are the same, also in the bits of numbers that are none."""
    x = np.asarray(x)
    assert x.shape == expected.shape
    return x.tobytes() == expected.astype(expected.dtype.newbyteorder("="), copy=False).tobytes()


def create(file, name, data, chunks, filters, *, fill=None, tid=None):
    """Create a dataset by functions that each add a filter to its properties."""
    creation = h5p.create(h5p.DATASET_CREATE)
    creation.set_chunk(chunks)
    if fill is not None:
        creation.set_fill_value(np.asarray(fill, data.dtype))
    for add in filters:
        add(creation)
    tid = h5t.py_create(data.dtype) if tid is None else tid
    dataset = h5d.create(file.id, name.encode(), tid, h5s.create_simple(data.shape), creation)
    dataset.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(data))


def scale_offset(kind, factor):
    # Not by `set_scaleoffset`, which takes no negative factors.
    values = (h5z.SO_FLOAT_DSCALE if kind == "f" else h5z.SO_INT, factor % 2**32)
    return lambda creation: creation.set_filter(6, h5z.FLAG_OPTIONAL, values)


def nbit(creation):
    creation.set_filter(5, h5z.FLAG_OPTIONAL, ())


def lzf(creation):
    creation.set_filter(h5z.FILTER_LZF, h5z.FLAG_OPTIONAL, ())


def szip(block, mask):
    return lambda creation: creation.set_szip(mask, block)


@st.composite
def numbers(draw, dtype, shape):
    """Elements of a type: alike, in a narrow range, anywhere, at the ends of the type."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    if dtype.kind == "f":
        spread = draw(st.sampled_from([0.0, 1.0, 1e4]))
        return (
            random.normal(size=shape) * spread + draw(st.sampled_from([0, -273.15, 1e6]))
        ).astype(dtype)
    info = np.iinfo(dtype)
    start = draw(st.sampled_from([info.min, 0, 7, info.max // 2]))
    stop = draw(st.sampled_from([start, start + 1, start + 100, info.max]))
    native = dtype.newbyteorder("=")
    return random.integers(start, min(stop, info.max), shape, native, True).astype(dtype)


@st.composite
def datasets(draw):
    """Data, chunks, filters and a fill value."""
    dtype = np.dtype(draw(st.sampled_from([*INTEGERS, *FLOATS])))
    shape = tuple(draw(st.lists(st.integers(1, 14), min_size=1, max_size=3)))
    chunks = tuple(draw(st.integers(1, n + 2 if n > 1 else 1)) for n in shape)
    chunks = tuple(min(c, n) for c, n in zip(chunks, shape, strict=True))
    data = draw(numbers(dtype, shape))
    bits = 8 * dtype.itemsize
    packing = []
    if draw(st.booleans()):
        if dtype.kind == "f":
            factor = draw(st.integers(-2, 5))
        else:
            factor = draw(st.sampled_from([0, 0, 0, 3, bits - 1, bits]))
        packing = [scale_offset(dtype.kind, factor)]
    elif dtype.kind != "f" and draw(st.booleans()):
        packing = [nbit]
    others = [h5p.PropDCID.set_shuffle] * draw(st.integers(0, 1))
    compressors = [lambda creation: creation.set_deflate(4), lzf]
    is_szip = math.prod(chunks) >= 8 and not packing and draw(st.booleans())
    if is_szip:
        compressors = [szip(draw(st.sampled_from([4, 8])), draw(st.sampled_from([4, 32])))]
    others += draw(st.lists(st.sampled_from(compressors), max_size=1))
    others += [h5p.PropDCID.set_fletcher32] * draw(st.integers(0, 1))
    others = draw(st.permutations(others))
    # libaec takes whole elements alone, so what a checksum adds to a chunk would be lost.
    others = sorted(others, key=lambda add: add is h5p.PropDCID.set_fletcher32 and is_szip)
    fill = draw(st.sampled_from([None, data.flat[0], 0, 3]))
    return data, chunks, [*packing, *others], fill


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(datasets(), min_size=4, max_size=4))
def test_what_filters_have_packed_is_what_h5py_reads(tmp_path, drawn):
    """Whatever the type, the chunks, the order of filters and what fill value elements have."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        for k, (data, chunks, filters, fill) in enumerate(drawn):
            create(file, f"x{k}", data, chunks, filters, fill=fill)
    with h5py.File(path) as file:
        expected = {name: file[name][...] for name in file}
    with lazyarr.open(path) as ds:
        for name, values in expected.items():
            assert same(ds[name][...].copy(), values)


def test_what_the_plugins_of_hdf5_have_written(tmp_path, engine):  # noqa: F811
    """Those of hdf5plugin 7.1, each with several parameters.

    They are no part of the tests' environment, for they break what netCDF4 does in the same
    process.  `python tests/formats/write_plugins.py`, where they are installed, writes the file.
    """
    path = Path(__file__).with_name("plugins.h5")
    with lazyarr.open(path) as ds:
        assert len(ds) == 43
        for name in ds:
            assert same(ds[name][...].copy(), plugins_data(name.partition(" ")[0])), name


def test_arrays_behind_each_filter_open(tmp_path, engine):  # noqa: F811
    """By both engines; `info` names the filters as HDF5 does."""
    data = np.cumsum(np.arange(3000, dtype="i4") % 7).reshape(60, 50)
    options = {
        "lzf": {"compression": "lzf", "shuffle": True, "fletcher32": True},
        "szip": {"compression": "szip", "compression_opts": ("nn", 8)},
        "scaleoffset": {"scaleoffset": 0, "compression": "gzip"},
    }
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, given in options.items():
            file.create_dataset(name, data=data, chunks=(16, 50), **given)
    ds = lazyarr.open(tmp_path / "x.h5")
    for name in options:
        assert same(ds[name], data)
        assert name in ds[name].info
    assert lazyarr.verify(tmp_path / "x.h5", progress=False).ok


@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize("order", ["LE", "BE"])
@pytest.mark.parametrize("kind", ["I", "U"])
def test_integers_of_which_some_bits_mean_nothing(tmp_path, chunk, order, kind):
    """In one run and in chunks, by nbit or not, of either sign; so do fill values."""
    cases = {(1, 5, 2): 1, (2, 12, 0): 1, (2, 9, 7): 1, (4, 20, 3): 100, (8, 33, 31): 10**6}
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for (size, precision, offset), step in cases.items():
            tid = getattr(h5t, f"STD_{kind}{8 * size}{order}").copy()
            tid.set_precision(precision)
            tid.set_offset(offset)
            data = np.arange(16 if kind == "U" else -16, 32 if kind == "U" else 0)[:15] * step
            filters = [] if chunk is None else [nbit, h5p.PropDCID.set_shuffle]
            creation = h5p.create(h5p.DATASET_CREATE)
            creation.set_fill_value(np.array(data[3]))
            if chunk is not None:
                creation.set_chunk((chunk,))
                for add in filters:
                    add(creation)
            name = f"{size}-{precision}-{offset}"
            for part, stop in (("whole", 15), ("none", 0)):
                space = h5s.create_simple((15,))
                dataset = h5d.create(
                    file.id, f"{name}/{part}".encode(), tid, space, creation, _lcpl()
                )
                if stop:
                    dataset.write(h5s.ALL, h5s.ALL, data)
    with h5py.File(tmp_path / "x.h5") as file, lazyarr.open(tmp_path / "x.h5") as ds:
        for name in file:
            for part in ("whole", "none"):
                expected = file[name][part][...]
                assert ds[name][part].dtype == expected.dtype.newbyteorder("=")
                assert same(ds[name][part], expected), name


def _lcpl():
    made = h5p.create(h5p.LINK_CREATE)
    made.set_create_intermediate_group(True)
    return made


def test_chunks_that_left_a_packing_filter_out(tmp_path):
    """As their masks say, each chunk for itself."""
    data = np.arange(100, 400, 10, dtype="<i2")
    shuffle = make_codec("shuffle", {"elementsize": 2})
    with h5py.File(tmp_path / "x.h5", "w") as file:
        create(file, "x", data, (10,), [scale_offset("i", 0), h5p.PropDCID.set_shuffle])
        dataset = file["x"].id
        parameters = dataset.get_create_plist().get_filter(0)[2]
        packed = ScaleOffset("<i2", parameters[2], 0, None).encode
        for k, (mask, encode) in enumerate(
            [(0, lambda part: shuffle.encode(packed(part))), (1, shuffle.encode), (3, bytes)]
        ):
            part = data[10 * k : 10 * k + 10].tobytes()
            dataset.write_direct_chunk((10 * k,), bytes(encode(part)), mask)
        expected = file["x"][...]
    assert same(expected, data)
    assert same(lazyarr.open(tmp_path / "x.h5")["x"], data)


def test_nbit_of_compounds_is_refused_by_name(tmp_path):
    """But not where no member has a bit to spare, for there the filter does nothing."""
    narrow = h5t.STD_I32LE.copy()
    narrow.set_precision(20)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        records = np.zeros(20, [("a", "<i4"), ("b", "S4")])
        records["a"] = np.arange(20)
        create(file, "full", records, (9,), [nbit])
        tid = h5t.create(h5t.COMPOUND, 4)
        tid.insert(b"a", 0, narrow)
        create(file, "narrow", records[["a"]].astype([("a", "<i4")]), (9,), [nbit], tid=tid)
        tid = h5t.array_create(narrow, (2,))
        creation = h5p.create(h5p.DATASET_CREATE)
        creation.set_chunk((9,))
        nbit(creation)
        h5d.create(file.id, b"arrays", tid, h5s.create_simple((9,)), creation)
    ds = lazyarr.open(tmp_path / "x.h5")
    assert same(ds["full"], records)
    for name, why in {"narrow": "integers of 20 bits", "arrays": "arrays themselves"}.items():
        with pytest.raises(lazyarr.FormatError, match=why):
            ds[name]


CODECS = {
    "scale_offset": ScaleOffset("<i4", 63, 0, "00000000"),
    "scale_offset of floats": ScaleOffset(">f8", 40, 3, None),
    "nbit": Nbit(">u4", 63, 20, 3),
    "lzf": Lzf(252),
    "szip": Szip(169, 32, 8, 9),
    "szip of bytes": Szip(32, 8, 10, 11),
}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(CODECS)), st.binary(max_size=400), st.integers(0, 600))
def test_damaged_chunks_are_errors_or_as_long_as_they_must_be(name, data, nbytes):
    """Whatever their bytes are; nothing is written beside the memory that they are for."""
    codec = CODECS[name]
    memory = bytearray(b"\xa5" * (nbytes + 64))
    with contextlib.suppress(DamagedChunkError):
        codec.decode_into(data, memoryview(memory)[32 : 32 + nbytes])
        assert len(memoryview(codec.decode(data, nbytes))) == nbytes
    assert memory[:32] == memory[-32:] == b"\xa5" * 32
    with contextlib.suppress(DamagedChunkError):
        assert len(memoryview(codec.decode(data, nbytes))) <= nbytes


@pytest.mark.parametrize("name", CODECS)
def test_chunks_that_are_cut_off_are_refused(name):
    """Wherever that is: what is missing is never made up."""
    content = np.cumsum(np.arange(80) % 5).astype("<u4").tobytes()
    codec = CODECS[name]
    nbytes = getattr(codec, "elements", 63) * (8 if name.endswith("floats") else 4)
    stored = bytes(codec.encode(content[:nbytes].ljust(nbytes, b"\1")))
    for stop in range(len(stored) - (2 if "szip" in name else 0)):
        with pytest.raises(DamagedChunkError):
            codec.decode_into(stored[:stop], memoryview(bytearray(nbytes)))
    codec.decode_into(stored, memoryview(bytearray(nbytes)))


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("scale_offset", {"dtype": "<f2"}),
        ("scale_offset", {"elements": 2**62}),
        ("scale_offset", {"decimals": 2**31}),
        ("scale_offset", {"fill": "00"}),
        ("scale_offset", {"fill": 5}),
        ("nbit", {"precision": 0}),
        ("nbit", {"offset": 13}),
        ("narrow_integers", {"offset": 1}),
        ("szip", {"bits_per_pixel": 25}),
        ("szip", {"pixels_per_block": 7}),
        ("szip", {"pixels_per_scanline": 6}),
        ("szip", {"pixels_per_scanline": 5000}),
        ("lzf", {"content_nbytes": -1}),
    ],
)
def test_parameters_that_no_writer_has_are_refused(name, parameters):
    """Each of them, before any chunk is read."""
    good = [*CODECS.values(), NarrowIntegers("<i4", 32, 0)]
    codec = next(codec for codec in good if codec.name == name)
    make_codec(name, codec.parameters())
    with pytest.raises(lazyarr.FormatError, match=next(iter(parameters)).split("_")[0]):
        make_codec(name, codec.parameters() | parameters)


def test_scale_offset_has_the_header_that_hdf5_writes():
    """The number of bits, a smallest value that is shorter than 8 bytes, and the elements."""
    stored = struct.pack("<IB8s8x", 4, 1, b"\x0a" + bytes(7)) + bytes([0x12, 0xF4])
    out = bytearray(16)
    ScaleOffset(">i4", 4, 0, "07000000").decode_into(stored, memoryview(out))
    assert np.frombuffer(out, ">i4").tolist() == [11, 12, 7, 14]
    too_many = struct.pack("<IB8s8x", 33, 8, bytes(8)) + bytes(100)
    with pytest.raises(DamagedChunkError, match="up to 32 bits expected, found 33"):
        ScaleOffset(">i4", 4, 0, None).decode_into(too_many, memoryview(out))


def test_without_imagecodecs_the_filter_is_named(tmp_path, monkeypatch):
    """With what to install; arrays that do not need it open."""
    from lazyarr.codecs import by_imagecodecs

    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=np.arange(99), chunks=(50,), compression="lzf")
        file["good"] = [1, 2]
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    by_imagecodecs.find_function.cache_clear()
    ds = lazyarr.open(tmp_path / "x.h5")
    with pytest.raises(lazyarr.FormatError, match=r"'lzf' needs imagecodecs.*lazyarr\[hdf5\]"):
        ds["x"]
    assert ds["good"].tolist() == [1, 2]
    monkeypatch.undo()
    importlib.invalidate_caches()
    assert same(lazyarr.open(tmp_path / "x.h5")["x"], np.arange(99))
