"""References of kerchunk and VirtualiZarr: what they lead to is what the files have."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import h5py
import kerchunk.combine
import kerchunk.df
import kerchunk.hdf
import numpy as np
import pytest
import tifffile
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import lazyarr
from lazyarr.collecting import without_collection
from lazyarr.testing import Behaviour
from tests.engines import ARRAYS, engine, memory_only  # noqa: F401 - a fixture
from tests.servers import http_server, s3_bucket, s3_server  # noqa: F401 - fixtures
from tests.store.forked import succeeds_in_child
from tests.stores import settle

VALUES = np.random.default_rng(3).integers(0, 900, (64, 40, 20)).astype("i2")
FORMS = ("json", "parquet")

pytestmark = pytest.mark.filterwarnings("ignore:The 'fastparquet' engine is deprecated")


def write_hdf5(path: Path) -> None:
    """Write a file with chunks of several kinds, groups and attributes."""
    with h5py.File(path, "w") as file:
        options = {"chunks": (8, 20, 20), "compression": "gzip", "shuffle": True}
        file.create_dataset("x", data=VALUES, **options)
        file["x"].attrs["units"] = "K"
        file.create_dataset("g/plain", data=VALUES[0].astype("f8"), chunks=(7, 20))
        file.create_dataset("g/whole", data=VALUES[:, 0, 0].astype(">f4"))
        file.create_dataset("sparse", (100,), "i4", chunks=(10,), fillvalue=7)[20:30] = range(10)
        file.create_dataset("many", data=np.arange(600.0), chunks=(2,))
        file["scalar"] = 2.5


def references_of(path: str | Path, **options) -> dict:
    # It holds h5py's lock while it waits for zarr-python's thread, which may collect garbage.
    with without_collection():
        return kerchunk.hdf.SingleHdf5ToZarr(str(path), **options).translate()


def write_references(refs: dict, directory: Path, form: str) -> str:
    """Write references in a form and return their path."""
    if form == "json":
        path = directory / "refs.json"
        path.write_text(json.dumps(refs))
        return str(path)
    url = str(directory / "refs.parq")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas, by way of kerchunk
        kerchunk.df.refs_to_dataframe(refs, url, record_size=5)
    return url


@pytest.fixture
def hdf5(tmp_path):
    """An HDF5 file in an empty directory."""
    directory = tmp_path / "data"
    directory.mkdir()
    write_hdf5(directory / "a.h5")
    return directory / "a.h5"


def equals_file(ds: lazyarr.Dataset, path: Path) -> bool:
    """Whether all arrays are what h5py reads."""
    with h5py.File(path) as file:
        for name in ("x", "g/plain", "g/whole", "sparse", "many", "scalar"):
            np.testing.assert_array_equal(np.asarray(ds[name]), file[name][()])
    return True


@pytest.mark.parametrize("form", FORMS)
def test_references_are_what_h5py_reads(hdf5, tmp_path, engine, form):  # noqa: F811
    """Values and types, with groups, attributes, a pickle, a fork and a private copy."""
    url = write_references(references_of(hdf5), tmp_path, form)
    with lazyarr.open(url) as ds:
        x = ds["x"]
        assert type(x) is ARRAYS[engine]
        assert (x.chunks, x.dtype, x.attrs["units"]) == ((8, 20, 20), "i2", "K")
        assert sorted(ds["g"]) == ["plain", "whole"]
        assert "(64, 40, 20)" in ds.tree()
        assert "no chunk is named" not in x.info
        assert succeeds_in_child(lambda: bool((np.asarray(x[9]) == VALUES[9]).all()))
        assert equals_file(ds, hdf5)
        assert (pickle.loads(pickle.dumps(x[5:7])) == VALUES[5:7]).all()
    group = lazyarr.open(f"{url}/g")
    assert (pickle.loads(pickle.dumps(group))["plain"] == VALUES[0]).all()
    assert (np.asarray(lazyarr.open(f"{url}/g/plain")) == VALUES[0]).all()
    with pytest.raises(lazyarr.NodeNotFoundError):
        lazyarr.open(f"{url}/g/none")
    changed = lazyarr.open(url, "c", path="x")
    changed[3] = -1
    assert (np.asarray(changed[3]) == -1).all()
    assert (np.asarray(lazyarr.open(url, path="x")[3]) == VALUES[3]).all()
    report = lazyarr.verify(url, progress=False)
    assert report.ok
    assert report.chunks_missing == 9  # of `sparse`


@pytest.mark.parametrize("form", FORMS)
def test_they_are_what_zarr_reads_through_fsspec(hdf5, tmp_path, form):
    """The dataset of xarray is that of engine="kerchunk", decoded and as it is stored."""
    with xr.set_options(keep_attrs=True):
        data = xr.Dataset(
            {"t": (("time", "x"), np.where(VALUES[:, :, 0] > 800, np.nan, VALUES[:, :, 0]))},
            {"time": xr.date_range("2001-01-01", periods=64)},
        )
    packed = {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -1, "zlib": True}
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf", encoding={"t": packed})
    url = write_references(references_of(tmp_path / "a.nc"), tmp_path, form)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zarr-python, of consolidated metadata
        expected = xr.open_dataset(url, engine="kerchunk").load()
    with lazyarr.open(url) as ds:
        xr.testing.assert_identical(ds.to_xarray().load(), expected)
        blocks = ds.to_dask()["t"]
        raw = xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf", decode_cf=False)
        np.testing.assert_array_equal(blocks.compute(scheduler="sync"), raw["t"].values)
    expected.close()
    raw.close()


def test_opening_reads_no_target_and_a_row_reads_one_chunk(hdf5, http_server, engine):  # noqa: F811
    """One request for the references, none for what they lead to; then one range of bytes."""
    refs = references_of(hdf5)
    served = Path(http_server.directory)
    shutil.copy(hdf5, served / "a.h5")
    text = json.dumps(refs).replace(json.dumps(str(hdf5))[1:-1], "{{u}}/a.h5")
    document = {**json.loads(text), "templates": {"u": http_server.url}}
    (served / "refs.json").write_text(json.dumps(document))
    with lazyarr.open(f"{http_server.url}/refs.json") as ds:
        x = ds["g/plain"]
        assert {request.path for request in http_server.requests()} == {"/refs.json"}
        _, start, nbytes = refs["refs"]["g/plain/2.0"]
        with h5py.File(hdf5) as file:
            np.testing.assert_array_equal(np.asarray(x[15]), file["g/plain"][15])
        read = [(r.path, r.range) for r in http_server.requests() if r.method == "GET"]
        expected = ("/a.h5", f"bytes={start}-{start + nbytes - 1}")
        assert expected in read
        assert len(read) <= -(-VALUES[0].size * 8 // (7 * 20 * 8))
        assert equals_file(ds, hdf5)


def test_targets_on_three_stores(hdf5, tmp_path, http_server, s3_server, s3_bucket, engine):  # noqa: F811
    """A file here, one on a web server and one in a bucket, by one document in that bucket."""
    s3 = fsspec.filesystem("s3", **s3_server.storage_options)
    bucket = s3_bucket.removeprefix("s3://")
    s3.put(str(hdf5), f"{bucket}/data/a.h5")
    shutil.copy(hdf5, Path(http_server.directory) / "a b.h5")
    refs = references_of(hdf5, inline_threshold=0)["refs"]
    places = {"x": "data/a.h5", "g": f"{http_server.url}/a%20b.h5?v=1", "sparse": str(hdf5)}
    for key, value in refs.items():
        if isinstance(value, list):
            value[0] = places.get(key.partition("/")[0], str(hdf5))
    s3.pipe(f"{bucket}/refs.json", json.dumps({"version": 1, "refs": refs}).encode())
    options = {**s3_server.storage_options, "remote_protocol": "file"}
    with lazyarr.open(f"{s3_bucket}/refs.json", storage_options=options) as ds:
        assert equals_file(ds, hdf5)
    # A document on a server must not read files of this machine, unless it is told to.
    with lazyarr.open(f"{s3_bucket}/refs.json", storage_options=s3_server.storage_options) as ds:
        assert (np.asarray(ds["x"][5]) == VALUES[5]).all()
        with pytest.raises(lazyarr.ChunkError, match="it is a file of this machine"):
            ds["sparse"][20:30].sum()


@pytest.mark.parametrize("is_remote", [False, True])
def test_a_target_that_fails_fails_its_chunks_alone(tmp_path, http_server, engine, is_remote):  # noqa: F811
    """A missing or shorter file is an error that names it and the bytes, never the fill value."""
    directory = Path(http_server.directory) if is_remote else tmp_path
    base = f"{http_server.url}/" if is_remote else ""
    data = np.arange(40_000, dtype="i8")
    for number in range(4):
        data[number * 10_000 : (number + 1) * 10_000].tofile(directory / f"part{number}")
    refs = plain_references(tmp_path, [])
    refs["refs"] |= {f"x/{number}": [f"{base}part{number}", 0, 80_000] for number in range(4)}
    refs["refs"]["x/2"] = [f"{base}part2"]
    (tmp_path / "refs.json").write_text(json.dumps(refs))
    (directory / "part1").unlink()
    with (directory / "part3").open("r+b") as file:
        file.truncate(79_992)
    with lazyarr.open(tmp_path / "refs.json") as ds:
        x = ds["x"]
        assert x[5] == 5
        assert x[25_000] == 25_000
        with pytest.raises(lazyarr.ChunkError, match=rf"bytes \[0, 80000\) of {base}part1: there"):
            x[15_000]
        with pytest.raises(
            lazyarr.ChunkError, match=rf"bytes \[0, 80000\) of {base}part3: .*79992"
        ):
            x[35_000]
        report = lazyarr.verify(tmp_path / "refs.json", progress=False)
        assert len(report.damaged) == 2
        data[10_000:20_000].tofile(directory / "part1")
        assert x[15_000] == 15_000


@memory_only
@pytest.mark.parametrize("form", FORMS)
def test_pages_are_shared_until_something_changes(tmp_path, engine, form):  # noqa: F811
    """With references written anew, or a target in another's place, who opens again sees that."""
    data = np.arange(40_000, dtype="i8")
    (data + 1).tofile(tmp_path / "b")
    data.tofile(tmp_path / "a")
    settle(tmp_path / "a", tmp_path / "b")
    n_chunks = 4 if form == "parquet" else 400  # few references take another way than many
    url = write_references(plain_references(tmp_path, ["a"] * n_chunks), tmp_path, form)
    settle(*(path for path in Path(url).parent.rglob("*") if path.is_file()))
    first = lazyarr.open(url, path="x")
    assert first[5] == 5
    second = lazyarr.open(url, path="x")
    assert second.residency().resident_nbytes > 0
    names = ["b"] + ["a"] * (n_chunks - 1)
    write_references(plain_references(tmp_path, names), tmp_path, form)
    third = lazyarr.open(url, path="x")
    assert third[5] == 6
    assert (third[10_005], first[10_005]) == (10_005, 10_005)
    (data + 2).tofile(tmp_path / "new")
    (tmp_path / "new").replace(tmp_path / "b")
    assert lazyarr.open(url, path="x")[5] == 7
    assert third[5] == 6


def plain_references(directory: Path, names: list[str]) -> dict:
    """Return references of an array without codecs, whose chunks lie in some files."""
    length = 40_000 // (len(names) or 4)
    zarray = {"zarr_format": 2, "shape": [40_000], "chunks": [length], "dtype": "<i8", "order": "C"}
    zarray |= {"compressor": None, "filters": None, "fill_value": 0}
    refs = {".zgroup": json.dumps({"zarr_format": 2}), "x/.zarray": json.dumps(zarray)}
    for number, name in enumerate(names):
        refs[f"x/{number}"] = [str(directory / name), number * length * 8, length * 8]
    return {"version": 1, "refs": refs}


def test_references_and_targets_in_memory(hdf5, engine):  # noqa: F811
    """Another process gets copies of what lies in this one's memory."""
    memory = fsspec.filesystem("memory")
    memory.pipe("/kerchunk/data/a.h5", hdf5.read_bytes())
    refs = references_of(hdf5)["refs"]
    for value in refs.values():
        if isinstance(value, list):
            value[0] = "data/a.h5"
    memory.pipe("/kerchunk/refs.json", json.dumps({"version": 1, "refs": refs}).encode())
    text = json.dumps(refs).replace('"data/a.h5"', '"kerchunk/data/a.h5"')
    memory.pipe("/kerchunk.json", text.encode())
    try:
        for url in ("memory://kerchunk/refs.json", "memory://kerchunk.json"):
            with lazyarr.open(url) as ds:
                assert equals_file(ds, hdf5)
    finally:
        memory.rm("/kerchunk", recursive=True)
        memory.rm("/kerchunk.json")


@pytest.mark.parametrize("name", ["refs.parq", "refs"])
def test_parquet_files_on_a_server(hdf5, http_server, engine, name):  # noqa: F811
    """By their name, or by what is there; a server that lists nothing will do."""
    served = Path(http_server.directory)
    refs = references_of(hdf5)
    for value in refs["refs"].values():
        if isinstance(value, list):
            value[0] = "../a.h5"
    shutil.copy(hdf5, served / "a.h5")
    Path(write_references(refs, served, "parquet")).rename(served / name)
    http_server.requests()
    with lazyarr.open(f"{http_server.url}/{name}") as ds:
        x = ds["x"]
        assert not any(
            ".parq" in request.path[1:].partition("/")[2] for request in http_server.requests()
        )
        assert (np.asarray(x[9]) == VALUES[9]).all()
        paths = [r.path for r in http_server.requests() if r.method == "GET"]
        assert paths.count(f"/{name}/x/refs.0.parq") == 1
        assert f"/{name}/x/refs.1.parq" not in paths
        assert (pickle.loads(pickle.dumps(x[5:7])) == VALUES[5:7]).all()
    if name.endswith("parq"):
        assert (np.asarray(lazyarr.open(f"{http_server.url}/{name}/x")[9]) == VALUES[9]).all()


def test_requests_to_targets_overlap_and_failed_ones_are_made_again(hdf5, http_server, engine):  # noqa: F811
    """Several chunks are asked for at once; one answer of the server's is an error."""
    shutil.copy(hdf5, Path(http_server.directory) / "a.h5")
    refs = json.dumps(references_of(hdf5)).replace(str(hdf5), f"{http_server.url}/a.h5")
    (hdf5.parent / "refs.json").write_text(refs)
    x = lazyarr.open(hdf5.parent / "refs.json", path="x")
    http_server.behave(Behaviour(hold=True))
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(lambda: np.asarray(x[[9, 17, 25, 33, 41]]))
        n_held = http_server.wait_for_held(2)
        http_server.behave(Behaviour(status=503), times=1)
        http_server.let_go(100)
        assert (read.result() == VALUES[[9, 17, 25, 33, 41]]).all()
    assert n_held >= 2


def test_no_secret_is_told(tmp_path, http_server, engine):  # noqa: F811
    """Neither of the references' URL, nor of a target's, nor of options: in errors and names."""
    host = http_server.url.removeprefix("http://")
    served = Path(http_server.directory)
    refs = plain_references(tmp_path, [])
    refs["refs"]["x/0"] = [f"http://me:secret@{host}/gone?signature=secret", 0, 80_000]
    (served / "refs.json").write_text(json.dumps(refs))
    options = {"remote_options": {"headers": {"X-Token": "secret"}}}
    url = f"http://me:secret@{host}/refs.json?signature=secret"
    with lazyarr.open(url, storage_options=options) as ds:
        x = ds["x"]
        with pytest.raises(lazyarr.ChunkError, match="there is no such file") as caught:
            x[5]
        told = [str(caught.value), repr(caught.value), caught.value.url, ds.url, repr(ds), ds.info]
        told += [x.info, repr(x), x.url]
    with pytest.raises(lazyarr.NodeNotFoundError) as nothing:
        lazyarr.open(url.replace("refs", "none"), storage_options=options)
    assert not any("secret" in text for text in [*told, str(nothing.value)])


def test_many_files_are_one_array(tmp_path, engine):  # noqa: F811
    """Combined by kerchunk; what it combines is what xarray does."""
    paths = [tmp_path / f"{number}.nc" for number in range(3)]
    for number, path in enumerate(paths):
        data = xr.Dataset(
            {"t": (("time", "x"), VALUES[number * 4 : number * 4 + 4, 0].astype("f4"))},
            {"time": np.arange(4.0) + 4 * number, "x": np.arange(20)},
        )
        data.to_netcdf(path, engine="h5netcdf", encoding={"t": {"chunksizes": (2, 20)}})
    combined = kerchunk.combine.MultiZarrToZarr(
        [references_of(path) for path in paths], concat_dims=["time"], identical_dims=["x"]
    )
    (tmp_path / "refs.json").write_text(json.dumps(combined.translate()))
    with lazyarr.open(tmp_path / "refs.json") as ds:
        assert ds["t"].shape == (12, 20)
        np.testing.assert_array_equal(np.asarray(ds["t"]), VALUES[:12, 0])
        np.testing.assert_array_equal(np.asarray(ds["time"]), np.arange(12.0))


@pytest.mark.parametrize("form", FORMS)
def test_what_virtualizarr_writes(hdf5, tmp_path, form):
    """With fletcher32, which kerchunk refuses, and with variables that it has loaded."""
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import LocalStore
    from virtualizarr import open_virtual_dataset
    from virtualizarr.parsers import HDFParser

    filters = {"compression": "gzip", "shuffle": True, "fletcher32": True}
    with h5py.File(hdf5, "w") as file:
        file.create_dataset("x", data=VALUES, chunks=(8, 20, 20), **filters)
        file["loaded"] = VALUES[:, 0, 0]
        if form == "json":  # virtualizarr 2.8 writes no arrays without axes into Parquet files
            file["scalar"] = 2.5
    url = tmp_path / f"refs.{form}"
    with warnings.catch_warnings(), without_collection():
        warnings.simplefilter("ignore")  # of zarr-python's and of pandas
        found = open_virtual_dataset(
            f"file://{hdf5}",
            registry=ObjectStoreRegistry({"file://": LocalStore()}),
            parser=HDFParser(),
            loadable_variables=["loaded", "scalar"],
        )
        found.vz.to_kerchunk(str(url), format=form)
    with lazyarr.open(url) as ds:
        np.testing.assert_array_equal(np.asarray(ds["x"]), VALUES)
        np.testing.assert_array_equal(np.asarray(ds["loaded"]), VALUES[:, 0, 0])
        assert form != "json" or ds["scalar"][()] == 2.5


def test_what_a_document_is_by_name_and_by_format(tmp_path):
    """A document by any other name is told of; one of something else is refused."""
    np.arange(40_000, dtype="i8").tofile(tmp_path / "a")
    (tmp_path / "any").write_text(json.dumps(plain_references(tmp_path, ["a"] * 4)))
    found = lazyarr.open(tmp_path / "any", format="kerchunk")
    assert found["x"][39_999] == 39_999
    assert pickle.loads(pickle.dumps(found["x"]))[5] == 5
    assert lazyarr.verify(tmp_path / "any", format="kerchunk", progress=False).ok
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    with pytest.raises(lazyarr.FormatError, match="no kerchunk references: it has 'zarr_format'"):
        lazyarr.open(tmp_path / "zarr.json")
    with pytest.raises(lazyarr.NodeNotFoundError):
        lazyarr.open(tmp_path / "none.json")
    (tmp_path / "refs.parq").mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for text in ("{", '{"record_size": 5}', '{"record_size": 0, "metadata": {}}'):
        (tmp_path / "refs.parq/.zmetadata").write_text(text)
        with pytest.raises(lazyarr.FormatError, match="as references in Parquet files"):
            lazyarr.open(tmp_path / "refs.parq", format="kerchunk")
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("is_remote", [False, True])
def test_references_to_parts_of_a_store_of_zarr_3(tmp_path, http_server, engine, is_remote):  # noqa: F811
    """Shards too, whose indexes are read from the end of an object that is a part of a file."""
    lazyarr.save(tmp_path / "s.zarr", {"g/x": VALUES}, chunks=(4, 40, 20), shards=(16, 40, 20))
    directory = Path(http_server.directory) if is_remote else tmp_path
    base = http_server.url if is_remote else str(tmp_path)
    refs: dict[str, object] = {}
    content = bytearray(b"before")
    for path in sorted((tmp_path / "s.zarr").rglob("*")):
        if path.is_file():
            key, data = str(path.relative_to(tmp_path / "s.zarr")), path.read_bytes()
            refs[key] = [f"{base}/all", len(content), len(data)]
            content += data
    (directory / "all").write_bytes(content + b"behind")
    whole = next(key for key in refs if key.startswith("g/x/c/2"))
    shutil.copy(tmp_path / "s.zarr" / whole, directory / "whole")
    refs[whole] = [f"{base}/whole"]
    del refs[next(key for key in refs if key.startswith("g/x/c/3"))]
    (tmp_path / "refs.json").write_text(json.dumps(refs))
    with lazyarr.open(tmp_path / "refs.json") as ds:
        expected = VALUES.copy()
        expected[48:] = 0
        assert (np.asarray(ds["g/x"][17]) == VALUES[17]).all()
        np.testing.assert_array_equal(np.asarray(ds["g/x"]), expected)


TIFFS = {
    "plain": {},
    "zlib": {"compression": "zlib", "predictor": True},
    "lzw": {"compression": "lzw"},
    "float": {"compression": "zstd", "predictor": 3, "dtype": "f4"},
    "packbits": {"compression": "packbits"},
    "lzma": {"compression": "lzma", "dtype": ">u2"},
    "rgb": {"compression": "lzw", "predictor": True, "dtype": "u1", "photometric": "rgb"},
}


@pytest.mark.parametrize("kind", TIFFS)
@pytest.mark.parametrize("version", [0, 1])
def test_what_tifffile_writes(tmp_path, kind, version):
    """References to the tiles of a TIFF file: of one array, which is all of them."""
    options = {"photometric": "minisblack", "dtype": "u2", **TIFFS[kind]}
    dtype = np.dtype(options.pop("dtype"))
    pixels = np.resize(VALUES, (150, 200, 3) if kind == "rgb" else (2, 150, 200)).astype(dtype)
    path = tmp_path / "i.tif"
    tifffile.imwrite(
        path, pixels, tile=(64, 64), byteorder=dtype.str[0].replace("|", "<"), **options
    )
    with tifffile.imread(path, aszarr=True) as store:
        store.write_fsspec(tmp_path / "i.json", url=f"file://{tmp_path}", version=version)
    np.testing.assert_array_equal(np.asarray(lazyarr.open(tmp_path / "i.json")), pixels)


def test_codecs_of_images_are_not_run(tmp_path):
    """They take any amount of memory, and crash on some chunks."""
    refs = plain_references(tmp_path, ["a"])
    zarray = json.loads(refs["refs"]["x/.zarray"]) | {"compressor": {"id": "imagecodecs_jpeg"}}
    refs["refs"]["x/.zarray"] = json.dumps(zarray)
    (tmp_path / "refs.json").write_text(json.dumps(refs))
    with pytest.raises(lazyarr.FormatError, match="'imagecodecs_jpeg' cannot be mapped here"):
        lazyarr.open(tmp_path / "refs.json")["x"]


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_shapes_chunks_filters_and_types(tmp_path_factory, data):
    """Any dataset that kerchunk takes is what h5py reads, in both forms."""
    directory = tmp_path_factory.mktemp("any")
    shape = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=3).map(tuple))
    chunks = data.draw(st.tuples(*(st.integers(1, n) for n in shape)))
    dtype = data.draw(st.sampled_from(["u1", "<i2", ">i4", "<f4", ">f8", "S5", "?", "c8"]))
    filters = data.draw(
        st.sampled_from(
            [
                {},
                {"compression": "gzip"},
                {"shuffle": True},
                {"compression": "gzip", "shuffle": True},
            ]
        )
    )
    count = int(np.prod(shape))
    values = (np.arange(count) * 7 % 100).astype(dtype).reshape(shape)
    with h5py.File(directory / "a.h5", "w") as file:
        file.create_dataset("g/x", data=values, chunks=chunks, **filters)
    refs = references_of(directory / "a.h5", inline_threshold=data.draw(st.sampled_from([0, 60])))
    for form in FORMS:
        with lazyarr.configure(engine="copy"):
            x = lazyarr.open(write_references(refs, directory, form), path="g/x")
            np.testing.assert_array_equal(np.asarray(x), values)
