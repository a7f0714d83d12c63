"""HDF5 and NetCDF 4 files: what h5py reads is what lazyarr maps; the rest is refused by name."""

from __future__ import annotations

import ctypes
import itertools
import os
import pickle
import re
import sys
from pathlib import Path

import fsspec
import h5netcdf
import h5py
import numpy as np
import pytest
import xarray
from h5py import h5d, h5p, h5s, h5t
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lazyarr
from lazyarr.codecs.shuffle import Bitshuffle, Lz4Blocks, Shuffle
from lazyarr.codecs.zstd import Zstd
from lazyarr.formats.hdf5 import FORMAT, _data_type
from lazyarr.formats.registry import find_file_format
from lazyarr.layout.document import layout_text, parse_layout
from lazyarr.layout.placement import OneRun
from lazyarr.plugins.xarray import LazyarrBackend
from tests.engines import ARRAYS, engine, memory_only  # noqa: F401 - a fixture
from tests.servers import http_server  # noqa: F401 - a fixture

RNG = np.random.default_rng(0)
NUMBERS = np.cumsum(RNG.normal(size=(60, 50, 7)), axis=0)
RECORDS = np.array(
    [(1, 2.5, b"ab", [1, 2])], [("é", ">i2"), ("b", "f4"), ("c", "S4"), ("d", "u1", 2)]
)
DATES = np.array(["2024-01-01", "NaT"], "M8[s]")
ALL_FILTERS = {"compression": "gzip", "shuffle": True, "fletcher32": True}

# Data, and what h5py is told beside.
DATASETS = {
    "contiguous": (NUMBERS, {}),
    "contiguous/big": (np.arange(300_000, dtype=">u4").reshape(3, -1), {}),
    "scalar": (np.float64(2.5), {}),
    "chunks": (NUMBERS, {"chunks": (7, 16, 7)}),
    "chunks/whole": (NUMBERS[:3], {"chunks": (3, 50, 7)}),
    "chunks/larger": (NUMBERS[:3], {"chunks": (8, 64, 7), "maxshape": (None, None, 7)}),
    "chunks/rows": (NUMBERS.astype("f4"), {"chunks": (5, 50, 7), "compression": "gzip"}),
    "shuffle": (NUMBERS, {"chunks": (7, 16, 7), "shuffle": True}),
    "fletcher32": (NUMBERS.astype("u1"), {"chunks": (7, 11, 7), "fletcher32": True}),
    "all": (NUMBERS, {"chunks": (7, 16, 7), **ALL_FILTERS}),
    "all/big": (NUMBERS.astype(">f4"), {"chunks": (60, 3, 2), **ALL_FILTERS}),
    "all/half": (NUMBERS.astype("f2"), {"chunks": True, **ALL_FILTERS}),
    "all/integers": (NUMBERS.astype("<i2"), {"chunks": (13, 50, 7), **ALL_FILTERS}),
    "empty": (np.zeros((0, 3), "i4"), {"chunks": (2, 3), "maxshape": (None, 3)}),
    "empty/contiguous": (np.zeros((3, 0), "i4"), {}),
    "boolean": (NUMBERS > 0, {"chunks": (7, 16, 7), "compression": "gzip"}),
    "complex": (NUMBERS[0] + 1j, {"chunks": (16, 7), "shuffle": True}),
    "complex/big": (np.array([1 + 2j, 3], ">c8"), {}),
    "bytes": (np.array([b"abc", b"", b"a\0c"]), {}),
    "bytes/chunks": (np.array([b"abc", b""] * 9, "S5"), {"chunks": (4,), **ALL_FILTERS}),
    "records": (np.tile(RECORDS, 30), {"chunks": (8,), **ALL_FILTERS}),
    "records/contiguous": (RECORDS, {}),
    "opaque": (np.array([b"ab\0", b"cde"], "V3"), {}),
    "dates": (DATES.astype(h5py.opaque_dtype(DATES.dtype)), {}),
    "enum": (np.arange(9, dtype="u1"), {"dtype": h5py.enum_dtype({"a": 0, "b": 1}, "u1")}),
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A file with all of them, by their names in groups."""
    found = tmp_path_factory.mktemp("hdf5") / "x.h5"
    with h5py.File(found, "w") as file:
        for name, (data, options) in DATASETS.items():
            file.create_dataset(f"{name}/x", data=data, **options)
    return found


@pytest.fixture
def make(tmp_path):
    """Write a file by a function; its path."""

    def write(fill, name="x.h5", **options):
        with h5py.File(tmp_path / name, "w", **options) as file:
            fill(file)
        return tmp_path / name

    return write


def assert_same(x, expected):
    """Compare an array with what h5py has read."""
    assert x.shape == expected.shape
    assert x.dtype == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(np.asarray(x), expected)


def read(path, name="x"):
    with h5py.File(path) as file:
        return file[name][...]


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_is_what_h5py_reads(path, engine, name):  # noqa: F811
    """Values, shape and type; elements in the machine's order, or as they are stored."""
    expected = np.asarray(read(path, f"{name}/x"))
    if name == "dates":
        expected = DATES
    x = lazyarr.open(path)[f"{name}/x"]
    assert type(x) is ARRAYS[engine]
    assert_same(x, expected)
    stored = lazyarr.open(path, byteorder="stored", path=f"{name}/x")
    assert stored.dtype == expected.dtype
    np.testing.assert_array_equal(np.asarray(stored), expected)


def test_layouts_come_back_from_their_text(path):
    """As the pager gets them; what is one run of the file has no table."""
    nodes = FORMAT.describe(lazyarr.store.open_store(path.parent), path.name)
    for name in DATASETS:
        layout = nodes[f"{name}/x"].layout()
        assert parse_layout(layout_text(layout)) == layout
        assert isinstance(layout.placement, OneRun) == (not DATASETS[name][1].get("chunks"))
        assert nodes[f"{name}/x"].native().native() == nodes[f"{name}/x"].native()


# --- groups, links, attributes --------------------------------------------------------


def test_groups_are_mappings(make, engine):  # noqa: F811
    """Links are followed to datasets; those to groups, and to other files, say where to look."""

    def fill(file):
        file["g/h/x"] = [1, 2]
        file["hard"] = file["g/h/x"]
        file["soft"] = h5py.SoftLink("/g/h/x")
        file["g/near"] = h5py.SoftLink("h/x")
        file["twice"] = h5py.SoftLink("/g/near")
        file["g/h/up"] = file["/"]
        file["group"] = h5py.SoftLink("/g")
        file["round"] = h5py.SoftLink("round")
        file["nothing"] = h5py.SoftLink("/g/y")
        file["other"] = h5py.ExternalLink("y.h5", "/x")
        file["type"] = np.dtype("i4")

    with lazyarr.open(make(fill)) as ds:
        assert list(ds) == ["g", "group", "hard", "nothing", "other", "round", "soft", "twice"]
        assert list(ds["g"]) == ["h", "near"]
        for name in ("hard", "soft", "g/near", "twice", "g/h/x"):
            assert ds[name].tolist() == [1, 2]
        for name, why in {
            "g/h/up": "it is the group '/', by another link",
            "group": "it is a link to '/g', a group; open that",
            "round": "nothing that can be found",
            "nothing": "nothing that can be found",
            "other": "'/x' in another file, 'y.h5'; open that file",
        }.items():
            with pytest.raises(lazyarr.FormatError, match=why):
                ds[name]
        assert "\n├── g\n│   ├── h\n│   │   ├── up  cannot be mapped: it is the group" in ds.tree()
    with lazyarr.open(make(fill), path="g/h") as ds:
        assert ds["x"].tolist() == [1, 2]


def test_attributes_are_plain_values(make):
    """Of the root, groups and datasets; what JSON cannot hold is left out."""

    def fill(file):
        file.attrs.update({"i": np.int16(3), "f": 2.5, "t": "hä", "b": b"by", "a": np.arange(3)})
        file.attrs.update({"s": ["x", "y"], "c": 1 + 2j, "yes": True, "n": h5py.Empty("f4")})
        file.create_group("g").attrs["S"] = np.array([b"a", b"bc"])
        x = file.create_dataset("x", data=[1])
        x.attrs["ref"] = file.ref
        x.attrs["CLASS"] = "IMAGE"
        x.attrs["record"] = RECORDS[0]

    ds = lazyarr.open(make(fill))
    expected = {"i": 3, "f": 2.5, "t": "hä", "b": "by", "a": [0, 1, 2], "s": ["x", "y"]}
    assert ds.attrs == {**expected, "c": [1.0, 2.0], "yes": True, "n": None}
    assert {type(value) for value in ds.attrs.values()} >= {int, float, str, bool}
    assert ds["g"].attrs == {"S": ["a", "bc"]}
    assert ds["x"].attrs == {"CLASS": "IMAGE", "record": [1, 2.5, "ab", [1, 2]]}
    assert "hdf5 format  0" in ds["x"].info


@pytest.mark.parametrize("name", ["x.nc", "x.nc4", "x.h5"])
def test_netcdf_is_what_xarray_reads(tmp_path, name):
    """Variables, names of dimensions, attributes; what NetCDF keeps for itself is hidden."""
    written = xarray.Dataset(
        {
            "t": (("time", "y", "x"), NUMBERS.astype("f4"), {"units": "K", "_FillValue": -9.0}),
            "lat": (("y", "x"), NUMBERS[0], {"valid": [1, 2]}),
            "one": ((), 5),
        },
        {"time": np.arange(60), "y": np.arange(50) / 2},
        {"title": "Test"},
    )
    encoding = {"t": {"chunksizes": (7, 16, 7), "zlib": True, "shuffle": True, "fletcher32": True}}
    written.to_netcdf(tmp_path / name, engine="h5netcdf", encoding=encoding)
    ds = lazyarr.open(tmp_path / name)
    with xarray.open_dataset(tmp_path / name, engine="h5netcdf", decode_cf=False) as expected:
        assert sorted(ds) == sorted(expected.variables)
        assert ds.attrs == expected.attrs
        for each, variable in expected.variables.items():
            np.testing.assert_array_equal(np.asarray(ds[each]), variable.values)
            attrs = {name: np.asarray(value).tolist() for name, value in variable.attrs.items()}
            assert repr(ds[each].attrs) == repr(attrs)  # NaN is not equal to itself
            names = ds[each]._source.metadata.dimension_names
            assert names == (variable.dims or None)
    with (
        xarray.open_dataset(tmp_path / name, engine="h5netcdf") as expected,
        xarray.open_dataset(tmp_path / name, engine=LazyarrBackend) as found,
    ):
        xarray.testing.assert_identical(found, expected)
    assert "netcdf format  4" in ds["t"].info
    assert "time, y, x" in ds["t"].info


def test_netcdf_has_axes_that_are_called_as_what_cannot_be_mapped(tmp_path):
    """Text of any length, along which numbers go."""
    names = np.array(["a", "bcd"], object)
    ds = xarray.Dataset({"t": (("name", "y"), np.ones((2, 3)))}, {"name": names})
    ds.to_netcdf(tmp_path / "d.nc", engine="h5netcdf")
    assert lazyarr.open(tmp_path / "d.nc")["t"].dimension_names == ("name", "y")
    xarray.testing.assert_identical(xarray.open_dataset(tmp_path / "d.nc", engine="lazyarr"), ds)


def test_bytes_of_netcdf_that_are_missing(tmp_path):
    """By a character that stands for none, as by xarray's engine."""
    values = np.array([b"ab", b"cdef", np.nan], dtype=object)
    encoding = {"_FillValue": b"X", "dtype": "S1"}
    xarray.Dataset({"x": ("t", values, {}, encoding)}).to_netcdf(
        tmp_path / "d.nc", engine="h5netcdf"
    )
    found = xarray.open_dataset(tmp_path / "d.nc", engine="lazyarr")
    with xarray.open_dataset(tmp_path / "d.nc", engine="h5netcdf") as expected:
        xarray.testing.assert_identical(found, expected)
    assert found["x"].isnull().to_numpy().tolist() == [False, False, True]


def test_numbers_of_netcdf_are_decoded_to_the_type_of_their_scale(tmp_path):
    """By float32 to that, by float64 to that."""
    ds = xarray.Dataset({name: ("y", np.array([10.0, 10.5, np.nan])) for name in ("f4", "f8")})
    for name in ds:
        scale = {"scale_factor": np.dtype(name).type(0.5), "add_offset": np.dtype(name).type(10)}
        ds[name].encoding = {"dtype": "i2", "_FillValue": -1, **scale}
    ds.to_netcdf(tmp_path / "d.nc", engine="h5netcdf")
    found = xarray.open_dataset(tmp_path / "d.nc", engine="lazyarr")
    with xarray.open_dataset(tmp_path / "d.nc", engine="h5netcdf") as expected:
        xarray.testing.assert_identical(found, expected)
        for name in ds:
            assert found[name].dtype == expected[name].dtype
            assert found[name].encoding["dtype"] == np.dtype("i2")
    types = lazyarr.open(tmp_path / "d.nc")["f4"].encoding["attribute_types"]
    assert types["scale_factor"] == "<f4"


def test_netcdf_names_variables_apart_from_dimensions(make):
    """One of the name of a dimension that it does not go along has another name in the file."""

    def fill(file):
        file["x"] = np.arange(4)
        file["x"].make_scale("This is a netCDF dimension but not a netCDF variable         4")
        file["_nc4_non_coord_x"] = np.arange(3)

    path = make(fill, "x.nc")
    with h5netcdf.File(path, phony_dims="sort") as expected:
        assert set(lazyarr.open(path)) == set(expected.variables) == {"x"}
    assert lazyarr.open(path)["x"].tolist() == [0, 1, 2]
    assert list(lazyarr.open(make(fill))) == ["_nc4_non_coord_x", "x"]


def test_axes_have_the_names_of_scales_and_labels(make):
    """Also of a scale with two axes, as NetCDF numbers them."""

    def fill(file):
        file["s"] = np.arange(4)
        file["s"].make_scale("anything")
        file["x"] = np.zeros((4, 3, 2))
        file["x"].dims[0].attach_scale(file["s"])
        file["x"].dims[2].label = "lab"
        file["two"] = np.zeros((4, 4))
        file["two"].make_scale()
        file["s"].attrs["_Netcdf4Dimid"] = 5
        file["two"].attrs["_Netcdf4Dimid"] = 6
        file["two"].attrs["_Netcdf4Coordinates"] = [6, 5]

    ds = lazyarr.open(make(fill))
    names = {name: ds[name]._source.metadata.dimension_names for name in ds}
    assert names == {"s": ("s",), "x": ("s", None, "lab"), "two": ("two", "s")}
    assert ds["s"].attrs == ds["two"].attrs == {}


# --- where elements are ---------------------------------------------------------------


def test_what_was_never_written_is_the_fill_value(make, engine):  # noqa: F811
    """Chunks, datasets without chunks, and rows that were added since."""

    def fill(file):
        chunked = file.create_dataset("chunks", (50, 40), ">f4", chunks=(7, 40), fillvalue=np.nan)
        chunked[20:22] = 5
        file.create_dataset("contiguous", (500, 400), "i2", fillvalue=-3)
        file.create_dataset("zero", (500, 400), "i2", chunks=(100, 100), compression="gzip")
        grown = file.create_dataset("grown", (3,), "S2", maxshape=(None,), fillvalue=b"ab")
        grown[:] = b"x"
        grown.resize(9, axis=0)
        file.create_dataset("records", (3,), RECORDS.dtype, chunks=(2,))

    path = make(fill)
    ds = lazyarr.open(path)
    for name in ds:
        assert_same(ds[name], read(path, name))
    assert "fill value   NaN" in ds["chunks"].info


@pytest.mark.parametrize("options", [{}, {"libver": "latest"}, {"userblock_size": 1024}], ids=repr)
def test_every_layout_of_a_file_is_read(make, engine, options):  # noqa: F811
    """Other tables of chunks; a block of the user's before all of it; elements in a header."""

    def fill(file):
        file.create_dataset("many", data=NUMBERS, chunks=(1, 25, 7), compression="gzip")
        file.create_dataset("one", data=NUMBERS, chunks=NUMBERS.shape, shuffle=True)
        file.create_dataset("growing", data=NUMBERS, chunks=(9, 9, 9), maxshape=(None, 50, None))
        file.create_dataset("run", data=NUMBERS)
        creation = h5p.create(h5p.DATASET_CREATE)
        creation.set_layout(h5d.COMPACT)
        space = h5s.create_simple((50, 7))
        compact = h5d.create(file.id, b"compact", h5t.IEEE_F64LE, space, creation)
        compact.write(h5s.ALL, h5s.ALL, NUMBERS[0].copy())

    path = make(fill, **options)
    ds = lazyarr.open(path)
    assert len(list(ds)) == 5
    for name in ds:
        assert_same(ds[name], read(path, name))
    assert lazyarr.verify(path, progress=False).ok


def with_filters(file, name, data, chunk, *filters, masks=(0,)):
    """Create a dataset of chunks of one axis that somebody else has encoded."""
    creation = h5p.create(h5p.DATASET_CREATE)
    creation.set_chunk((chunk,))
    for number, values in filters:
        creation.set_filter(number, h5py.h5z.FLAG_OPTIONAL, values)
    kind = h5t.py_create(data.dtype)
    dataset = h5d.create(file.id, name.encode(), kind, h5s.create_simple(data.shape), creation)

    def write(encode):
        for place, start in enumerate(range(0, len(data), chunk)):
            part = np.zeros(chunk, data.dtype)
            part[: len(data[start : start + chunk])] = data[start : start + chunk]
            stored = bytes(encode(part.tobytes()))
            dataset.write_direct_chunk((start,), stored, masks[place % len(masks)])

    return write


def test_filters_that_hdf5_does_not_have_itself(make, engine):  # noqa: F811
    """Those that are registered for it, and that lazyarr has codecs for."""
    import bz2

    import numcodecs
    import zstandard

    data = NUMBERS.astype("f4").ravel()[:5003]

    def blosc(part):
        return numcodecs.blosc.compress(part, b"zstd", 5, numcodecs.blosc.BITSHUFFLE, 0, 4)

    filters = {
        "zstd": (32015, (3,), zstandard.compress),
        "bzip2": (307, (9,), bz2.compress),
        "blosc": (32001, (2, 2, 4, 4000, 5, 1, 1), blosc),
        "lz4": (32004, (0,), Lz4Blocks().encode),
        "bits": (32008, (0, 4, 4, 0, 0), Bitshuffle(4, 0, "none").encode),
        "bits and lz4": (32008, (0, 4, 4, 64, 2), Bitshuffle(4, 64, "lz4").encode),
        "bits and zstd": (32008, (0, 4, 4, 0, 3), Bitshuffle(4, 0, "zstd").encode),
    }

    def fill(file):
        for name, (number, values, encode) in filters.items():
            with_filters(file, name, data, 1000, (number, values))(encode)

    ds = lazyarr.open(make(fill))
    for name in filters:
        assert_same(ds[name], data)


def test_filters_that_were_left_out(make, engine):  # noqa: F811
    """By all chunks or by some, as where compression would have made a chunk longer."""
    data = np.arange(9000, dtype="<u2")
    filters = ((2, (2,)), (32015, (3,)))
    shuffled, zstd = Shuffle(2).encode, Zstd().encode

    def fill(file):
        for chunk in (20, 2500):
            with_filters(file, f"one{chunk}", data, chunk, *filters, masks=(2,))(shuffled)
            with_filters(file, f"both{chunk}", data, chunk, *filters, masks=(3,))(bytes)
            turns = itertools.cycle([lambda part: zstd(shuffled(part)), shuffled, zstd, bytes])
            write = with_filters(file, f"some{chunk}", data, chunk, *filters, masks=(0, 2, 1, 3))
            write(lambda part, turns=turns: next(turns)(part))

    ds = lazyarr.open(make(fill))
    assert len(list(ds)) == 6
    for name in ds:
        assert_same(ds[name], data)


def test_chunks_at_the_edge_that_went_through_no_filter(make, engine):  # noqa: F811
    """As a writer may have it; neither h5py nor a mask tells of that."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    found = {line.split()[-1] for line in lines if re.search(r"/libhdf5[-.][^/]*$", line)}
    # netCDF4 brings one of its own, where it is imported too.
    found = {library for library in found if "h5py" in library} or found
    if len(found) != 1:
        pytest.skip("h5py has HDF5 built in")
    library = found.pop()
    data = np.arange(2000, dtype="<i4").reshape(100, 20)

    def fill(file):
        for name in ("shuffle", "gzip", "ordinary"):
            creation = h5p.create(h5p.DATASET_CREATE)
            creation.set_chunk((30, 7))
            creation.set_shuffle()
            if name == "gzip":
                creation.set_deflate(4)
            if name != "ordinary":
                not_partial = ctypes.c_uint(2)  # H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS
                chosen = ctypes.CDLL(library).H5Pset_chunk_opts
                assert chosen(ctypes.c_int64(creation.id), not_partial) == 0
            space = h5s.create_simple(data.shape)
            created = h5d.create(file.id, name.encode(), h5t.STD_I32LE, space, creation)
            created.write(h5s.ALL, h5s.ALL, data)

    ds = lazyarr.open(make(fill, libver="latest"))
    for name in ds:
        assert_same(ds[name], data)


def test_strings_end_as_numpys_do(make, engine):  # noqa: F811
    """Whatever stands behind the first zero, and whatever they are filled up with."""
    data = np.array([b"ab\0cd", b"abcde", b" a   ", b"     ", b""], "S5")

    def fill(file):
        for name, padding in {"zero": h5t.STR_NULLTERM, "space": h5t.STR_SPACEPAD}.items():
            string = h5t.C_S1.copy()
            string.set_size(5)
            string.set_strpad(padding)
            record = h5t.create(h5t.COMPOUND, 12)
            record.insert(b"n", 0, h5t.STD_I16LE)
            record.insert(b"s", 2, h5t.array_create(string, (2,)))
            for kind, chunk in (("run", None), ("chunks", 2)):
                creation = h5p.create(h5p.DATASET_CREATE)
                if chunk:
                    creation.set_chunk((chunk,))
                    creation.set_deflate(4)
                space, at = h5s.create_simple((5,)), f"{name}-{kind}".encode()
                created = h5d.create(file.id, at, string, space, creation)
                created.write(h5s.ALL, h5s.ALL, data, string)
                rows = np.zeros(5, [("n", "<i2"), ("s", "V5", 2)])
                rows["s"] = data.view("V5")[:, None]
                created = h5d.create(file.id, b"records-" + at, record, space, creation)
                created.write(h5s.ALL, h5s.ALL, rows, record)

    path = make(fill)
    ds = lazyarr.open(path)
    assert len(list(ds)) == 8
    for name in ds:
        assert_same(ds[name], read(path, name))


def test_what_cannot_be_mapped_says_why_and_the_rest_opens(make):
    """By name of the filter or type, with what to do."""

    def fill(file):
        file["good"] = [1, 2, 3]
        file["text"] = "abc"
        file["texts"] = ["a", "bc"]
        file.create_dataset("sequences", (2,), h5py.vlen_dtype("i4"))
        file.create_dataset("references", (2,), h5py.ref_dtype)
        file["null"] = h5py.Empty("f4")
        file.create_dataset("gaps", (2,), np.dtype([("a", "u1"), ("b", "f8")], align=True))
        file.create_dataset("long", (2,), np.longdouble)
        file.create_dataset("arrays", (2,), np.dtype(("i4", (3,))))
        with_filters(file, "sz", np.arange(9), 9, (32017, ()))(bytes)
        file.create_dataset("external", (4,), "i4", external=[("y.bin", 0, 16)])
        virtual = h5py.VirtualLayout((4,), "i4")
        virtual[:] = h5py.VirtualSource("y.h5", "x", (4,))
        file.create_virtual_dataset("virtual", virtual)
        with_filters(file, "unknown", np.arange(9), 9, (32700, ()))(bytes)

    ds = lazyarr.open(make(fill))
    assert ds["good"].tolist() == [1, 2, 3]
    reasons = {
        "text": "strings of variable length",
        "texts": "strings of variable length",
        "sequences": "sequences of variable length",
        "references": "references to other objects",
        "null": "no elements, not even one",
        "gaps": "gaps between the members",
        "long": "none of IEEE 754's",
        "arrays": "arrays themselves",
        "sz": r"filter 'sz' \(32017\).*h5py.*with gzip or zstd",
        "external": "in other files",
        "virtual": "virtual dataset",
        "unknown": r"\(32700\)",
    }
    assert set(ds) == {"good", *reasons}
    for name, why in reasons.items():
        with pytest.raises(lazyarr.FormatError, match=f"cannot map '/{name}': .*{why}"):
            ds[name]


def test_types_that_h5py_would_convert_are_refused():
    """Their bytes are not those of any type of NumPy's."""
    bits, half = h5t.STD_I32LE.copy(), h5t.IEEE_F32LE.copy()
    bits.set_size(3)
    half.set_ebias(7)
    for tid, why in ((bits, "integers of 24 bits in 3 bytes"), (half, "none of IEEE 754's")):
        with pytest.raises(lazyarr.FormatError, match=why):
            _data_type(tid)


# --- files elsewhere, and files that change -------------------------------------------


@pytest.mark.parametrize("where", ["memory", "http"])
def test_files_elsewhere(request, engine, path, where):  # noqa: F811
    """Over the network, and in the memory of this process."""
    if where == "http":
        server = request.getfixturevalue("http_server")
        (Path(server.directory) / "a b.h5").write_bytes(path.read_bytes())
        url = f"{server.url}/a%20b.h5"
    else:
        url = "memory://d/x.h5"
        with fsspec.open(url, "wb") as file:
            file.write(path.read_bytes())
    ds = lazyarr.open(url)
    for name in ("all/x", "contiguous/x", "chunks/rows/x"):
        assert_same(ds[name], read(path, name))


def test_an_object_is_read_in_few_pieces(path):
    """Each costs a round trip: a file of less than a megabyte takes one or two."""

    class Counting:
        url = "http://x"
        n_reads = 0

        def size(self, key):
            return path.stat().st_size

        def read_range(self, key, start, stop):
            self.n_reads += 1
            return memoryview(path.read_bytes())[start:stop]

    objects = Counting()
    assert FORMAT.describe(objects, "x.h5")["all/x"].shape == NUMBERS.shape
    assert objects.n_reads <= 3


@memory_only
def test_many_chunks_take_little(make, engine):  # noqa: F811
    """The table goes to the pager as one message, and is found again from a pickle."""
    data = np.arange(40_000, dtype="<i4").reshape(20_000, 2)
    path = make(lambda file: file.create_dataset("x", data=data, chunks=(1, 2)), libver="latest")
    x = lazyarr.open(path)["x"]
    assert x[19_999].tolist() == data[19_999].tolist()
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(x[5:9000]))), data[5:9000])


@memory_only
def test_writes_stay_here(make, engine):  # noqa: F811
    """In mode "c"; a pickle has them, and the file does not."""
    path = make(lambda file: file.create_dataset("x", data=NUMBERS, chunks=(7, 50, 7)))
    ds = lazyarr.open(path, mode="c")
    ds["x"][3] = 7
    there = pickle.loads(pickle.dumps(ds))["x"]
    assert (there[3] == 7).all()
    np.testing.assert_array_equal(there[4:], NUMBERS[4:])
    np.testing.assert_array_equal(read(path), NUMBERS)


def test_a_file_that_was_replaced_is_read_anew(make, engine):  # noqa: F811
    """What is opened then shares nothing with what was opened before."""
    path = make(lambda file: file.create_dataset("x", data=NUMBERS, chunks=(7, 50, 7)))
    before = lazyarr.open(path)["x"]
    assert before[0, 0, 0] == NUMBERS[0, 0, 0]
    other = make(lambda file: file.create_dataset("x", data=-NUMBERS, chunks=(9, 50, 7)), "y.h5")
    os.replace(other, path)
    np.testing.assert_array_equal(np.asarray(lazyarr.open(path)["x"]), -NUMBERS)


def test_a_file_that_is_cut_off_or_gone_is_an_error(make, engine):  # noqa: F811
    """When it is opened; and when that happens afterwards, reading fails: never zeros."""
    path = make(lambda file: file.create_dataset("x", data=NUMBERS, chunks=(7, 50, 7)))
    content = path.read_bytes()
    for nbytes in (0, 1, 7, 8, 100, 1000, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:nbytes])
        with pytest.raises(lazyarr.FormatError, match=r"cannot map 'x\.h5' in "):
            lazyarr.open(path)
    path.write_bytes(content)
    x = lazyarr.open(path)["x"]
    os.truncate(path, len(content) // 2)
    with pytest.raises(lazyarr.ChunkError):
        x.sum()
    path.unlink()
    with pytest.raises(lazyarr.NodeNotFoundError, match="no such file"):
        lazyarr.open(path)


def test_a_chunk_that_is_damaged_is_an_error(make, engine):  # noqa: F811
    """It names the dataset, the chunk, and where it lies in the file."""
    path = make(lambda f: f.create_dataset("g/x", data=NUMBERS, chunks=(7, 50, 7), **ALL_FILTERS))
    with h5py.File(path) as file:
        info = file["g/x"].id.get_chunk_info(2)
    content = bytearray(path.read_bytes())
    content[info.byte_offset + 20] ^= 1
    path.write_bytes(content)
    x = lazyarr.open(path)["g/x"]
    assert x[:9].sum() == NUMBERS[:9].sum()
    with pytest.raises(lazyarr.ChunkError) as raised:
        x[14:21].sum()
    assert (raised.value.array, raised.value.key) == ("g/x", "x.h5")
    assert raised.value.byte_range == (info.byte_offset, info.byte_offset + info.size)
    report = lazyarr.verify(path, progress=False)
    assert [error.chunk for error in report.damaged] == [(2, 0, 0)]
    assert report.unguarded == ()


def test_a_table_that_leads_out_of_the_file_is_refused(make):
    """For its array alone."""

    def fill(file):
        file.create_dataset("x", data=NUMBERS, chunks=(7, 50, 7))
        file.create_dataset("run", data=NUMBERS)
        file["good"] = [1, 2]

    path = make(fill)
    content = path.read_bytes()
    with h5py.File(path) as file:
        places = file["x"].id.get_chunk_info(2).byte_offset, file["run"].id.get_offset()
    for place in places:
        address = place.to_bytes(8, "little")
        assert content.count(address) == 1
        content = content.replace(address, (len(content) - 50).to_bytes(8, "little"))
    path.write_bytes(content)
    ds = lazyarr.open(path)
    for name in ("x", "run"):
        with pytest.raises(
            lazyarr.FormatError, match=r"damaged or was cut off|invalid dataset size"
        ):
            ds[name]
    assert ds["good"].tolist() == [1, 2]


def test_what_is_no_hdf5_is_called_what_it_is(tmp_path, monkeypatch):
    """The classic format of NetCDF; something else; and without h5py what to install."""
    (tmp_path / "x.nc").write_bytes(b"CDF\x01" + bytes(100))
    with pytest.raises(lazyarr.FormatError, match=r"classic format.*nccopy"):
        lazyarr.open(tmp_path / "x.nc")
    (tmp_path / "x.hdf5").write_bytes(b"hello" * 100)
    with pytest.raises(lazyarr.FormatError, match="file signature not found"):
        lazyarr.open(tmp_path / "x.hdf5")
    lazyarr.save(tmp_path / "x.h5", {"a": np.arange(3)})
    assert list(lazyarr.open(tmp_path / "x.h5")) == ["a"]
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(lazyarr.FormatError, match=r"pip install 'lazyarr\[hdf5\]'"):
        lazyarr.open(tmp_path / "x.hdf5")
    assert find_file_format("X.HE5") is FORMAT


class InMemory:
    """A store of one object, as far as a format needs one."""

    url = "memory://u"

    def __init__(self, data):
        self.data = data

    def size(self, key):
        return len(self.data)

    def read_range(self, key, start, stop):
        assert 0 <= start <= stop <= len(self.data)
        return memoryview(self.data)[start:stop]


@pytest.mark.parametrize("n_reads", [0, 1, 3])
def test_a_store_that_fails_is_no_damaged_file(path, n_reads):
    """Whatever h5py makes of it, the error is the store's."""

    class Failing(InMemory):
        url = "file:///u"
        n_left = n_reads

        def read_range(self, key, start, stop):
            if not self.n_left:
                raise lazyarr.StoreError("no answer", url="u", key=key, transient=False)
            self.n_left -= 1
            return super().read_range(key, start, stop)

    with pytest.raises(lazyarr.StoreError, match="no answer"):
        FORMAT.describe(Failing(path.read_bytes()), "x.h5")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_changed_bytes_are_refused_or_hold_together(make):
    """Wherever they are in what describes the file."""

    def fill(file):
        file.create_dataset("g/x", data=np.arange(100), chunks=(9,), **ALL_FILTERS)
        file["y"] = RECORDS
        file.attrs["a"] = "text"

    content = make(fill).read_bytes()
    random = np.random.default_rng(1)
    for at in random.integers(0, len(content), 150).tolist():
        data = bytearray(content)
        data[at] ^= int(random.integers(1, 256))
        try:
            nodes = FORMAT.describe(InMemory(bytes(data)), "x.h5")
        except lazyarr.FormatError:
            continue
        for node in nodes.values():
            if hasattr(node, "layout"):
                layout = node.layout()
                assert parse_layout(layout_text(layout)) == layout
                assert node.dtype.to_numpy().itemsize == node.dtype.itemsize


def test_a_heap_in_which_hdf5_would_go_round_for_ever_is_refused(make):
    """One that has an object of no length."""

    def fill(file):
        file.attrs["a"] = ["some", "text"]

    content = bytearray(make(fill).read_bytes())
    at = content.index(b"GCOL") + 16
    while content[at : at + 2] != b"\0\0":  # what is free has the number 0
        at += 16 + -(-int.from_bytes(content[at + 8 : at + 16], "little") // 8) * 8
    content[at + 8 : at + 16] = bytes(8)
    with pytest.raises(lazyarr.FormatError, match=r"its heap at byte .* an object of 0 bytes"):
        FORMAT.describe(InMemory(bytes(content)), "x.h5")


SHAPES = st.lists(st.integers(0, 12), max_size=3).map(tuple)
DTYPES = st.sampled_from(["u1", "<i2", ">i4", "<f4", ">f8", "<c8", "?", "S3"])


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_dataset_is_what_h5py_reads(tmp_path, data):
    """Of any shape and type, with any chunks and filters, written in part."""
    shape, dtype = data.draw(SHAPES), np.dtype(data.draw(DTYPES))
    options = {}
    if shape and data.draw(st.booleans()):
        chunk = tuple(data.draw(st.integers(1, max(1, n))) for n in shape)
        options = {"chunks": chunk, "maxshape": tuple(n or None for n in shape)}
        options |= {name: True for name in ("shuffle", "fletcher32") if data.draw(st.booleans())}
        options["compression"] = data.draw(st.sampled_from([None, "gzip"]))
    content = RNG.integers(0, 99, shape).astype(dtype)
    fill = data.draw(st.sampled_from([None, np.ones(1, "u1").astype(dtype)[0]]))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        x = file.create_dataset("x", shape, dtype, fillvalue=fill, **options)
        if shape and data.draw(st.booleans()):
            x[: shape[0] // 2] = content[: shape[0] // 2]
        else:
            x[...] = content
    assert_same(lazyarr.open(tmp_path / "x.h5")["x"], np.asarray(read(tmp_path / "x.h5")))
