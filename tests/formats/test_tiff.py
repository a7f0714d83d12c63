"""TIFF files: what tifffile reads is what lazyarr maps; the rest is refused by name."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lazyarr
from lazyarr.formats.tiff import FORMAT
from lazyarr.layout.document import layout_text, parse_layout
from lazyarr.layout.placement import OneRun
from tests.cli.running import run
from tests.engines import ARRAYS, engine, memory_only  # noqa: F401 - a fixture
from tests.servers import http_server  # noqa: F401 - a fixture

RNG = np.random.default_rng(0)
STACK = np.cumsum(RNG.integers(0, 9, (3, 37, 53)), axis=2).astype("u2")
COLOURS = RNG.integers(0, 255, (37, 53, 3)).astype("u1")
VOLUME = RNG.integers(0, 255, (20, 37, 53)).astype("u1")
TILES = {"tile": (16, 32)}
RGB = {"photometric": "rgb"}
GREY = {"photometric": "minisblack"}

# Data, and what tifffile is told beside.
IMAGES = {
    "run": (STACK, GREY),
    "run/big": (STACK, {"byteorder": ">", **GREY}),
    "one": (COLOURS[0, 0], {}),
    "strips": (STACK, {"rowsperstrip": 8, "compression": "zlib", **GREY}),
    "tiles": (STACK, {**TILES, **GREY}),
    "tiles/big": (STACK, {**TILES, **GREY, "byteorder": ">", "bigtiff": True}),
    "deflate/predictor": (STACK, {**TILES, **GREY, "compression": "zlib", "predictor": True}),
    "zstd": (STACK, {"rowsperstrip": 5, **GREY, "compression": "zstd"}),
    "lzw/predictor/big": (
        STACK,
        {**TILES, **GREY, "compression": "lzw", "predictor": True, "byteorder": ">"},
    ),
    "lzma": (STACK, {"compression": "lzma", **GREY}),
    "packbits": (COLOURS, {"compression": "packbits", "rowsperstrip": 10, **RGB}),
    "float": (
        STACK.astype("f4"),
        {"compression": "zlib", "predictor": True, "rowsperstrip": 9, **GREY},
    ),
    "float/big": (
        STACK.astype("f8"),
        {"compression": "lzw", "predictor": True, "byteorder": ">", **TILES, **GREY},
    ),
    "half": (STACK.astype("f2"), {"compression": "zlib", "predictor": True, **GREY}),
    "complex": (STACK.astype("c8"), {"compression": "zlib", **GREY}),
    "rgb": (COLOURS, {"compression": "lzw", "predictor": True, **TILES, **RGB}),
    "separate": (
        COLOURS.transpose(2, 0, 1),
        {"planarconfig": "separate", "rowsperstrip": 7, "compression": "zlib", **RGB},
    ),
    "alpha": (
        RNG.integers(0, 255, (37, 53, 4)).astype("u1"),
        {"extrasamples": ["unassalpha"], **RGB},
    ),
    "bilevel": (STACK[0] % 3 == 0, {"compression": "zlib", **TILES}),
    "bilevel/strips": (STACK[0] % 3 == 0, {"rowsperstrip": 8}),
    "bits/10": (STACK, {"bitspersample": 10, **GREY}),
    "bits/12/big": (STACK, {"bitspersample": 12, "byteorder": ">", **TILES, **GREY}),
    "bits/4": (COLOURS & 15, {"bitspersample": 4, **RGB}),
    "volume": (VOLUME, {"volumetric": True, "tile": (8, 16, 16), **GREY}),
    "volume/strips": (VOLUME, {"volumetric": True, "rowsperstrip": 7, "compression": 8, **GREY}),
    "imagej": (
        STACK.reshape(3, 1, 37, 53),
        {"imagej": True, "metadata": {"axes": "TCYX"}},
    ),
    "imagej/packed": (STACK, {"imagej": True, "compression": "zlib", "metadata": {"axes": "ZYX"}}),
    "ome": (
        RNG.integers(0, 255, (2, 3, 4, 37, 53)).astype("u1"),
        {"ome": True, "metadata": {"axes": "TCZYX"}, "compression": "zlib", **TILES, **GREY},
    ),
    "jpeg": (COLOURS, {"compression": "jpeg", **TILES, **RGB}),
    "jpeg/strips": (COLOURS[..., 0], {"compression": "jpeg", "rowsperstrip": 16, **GREY}),
    "jpeg/colours": (
        COLOURS,
        {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2), **TILES},
    ),
    "no metadata": (STACK, {"metadata": None, "compression": "zlib", **GREY}),
}
RUNS = {"run", "run/big", "one", "alpha", "imagej"}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """A file for each of them."""
    directory = tmp_path_factory.mktemp("tiff")
    found = {name: directory / f"{name.replace('/', '-')}.tif" for name in IMAGES}
    for name, (data, options) in IMAGES.items():
        tifffile.imwrite(found[name], data, **options)
    return found


@pytest.fixture
def make(tmp_path):
    """Write a file by a function; its path."""

    def write(fill, name="x.tif", **options):
        with tifffile.TiffWriter(tmp_path / name, **options) as file:
            fill(file)
        return tmp_path / name

    return write


def series(path):
    """Return what tifffile reads, by the names of nodes."""
    with tifffile.TiffFile(path) as file:
        found = {}
        for i, each in enumerate(file.series):
            for j, level in enumerate(each.levels):
                names = [str(i)] * (len(file.series) > 1) + [str(j)] * (len(each.levels) > 1)
                found["/".join(names)] = level.asarray()
        return found


def assert_same(x, expected):
    """Compare an array with what tifffile has read."""
    assert x.shape == expected.shape
    assert x.dtype == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(np.asarray(x), expected)


@pytest.mark.parametrize("name", IMAGES)
def test_images_are_what_tifffile_reads(paths, engine, name):  # noqa: F811
    """Values, shape and type; elements in the machine's order, or as they are stored."""
    expected = tifffile.imread(paths[name])
    # tifffile packs the bytes of some the other way round; and JPEG changes what it is given.
    if name != "bits/12/big" and "jpeg" not in name:
        np.testing.assert_array_equal(expected, IMAGES[name][0].reshape(expected.shape))
    x = lazyarr.open(paths[name])
    assert type(x) is ARRAYS[engine]
    assert_same(x, expected)
    stored = lazyarr.open(paths[name], byteorder="stored")
    np.testing.assert_array_equal(np.asarray(stored), expected)


def test_layouts_come_back_from_their_text(paths):
    """As the pager gets them; what is one run of the file has no table."""
    for name, path in paths.items():
        node = FORMAT.describe(lazyarr.store.open_store(path.parent), path.name)[""]
        layout = node.layout()
        assert parse_layout(layout_text(layout)) == layout
        assert isinstance(layout.placement, OneRun) == (name in RUNS)
        assert node.native().native() == node.native()


def test_series_and_levels_are_nodes(make, engine):  # noqa: F811
    """One series of one level is an array; several are a group; and so are several levels."""

    def pyramid(file):
        options = {**TILES, **GREY, "compression": "zlib"}
        file.write(STACK, subifds=2, **options)
        file.write(STACK[:, ::2, ::2], subfiletype=1, **options)
        file.write(STACK[:, ::4, ::4], subfiletype=1, **options)

    def images(file):
        file.write(STACK, **GREY)
        file.write(STACK[0, :5].astype("f4"), **GREY)
        file.write(COLOURS, compression="zlib", **RGB)

    def both(file):
        pyramid(file)
        file.write(COLOURS, **RGB)

    for fill, ome, names in [
        (pyramid, True, ["0", "1", "2"]),
        (pyramid, False, ["0", "1", "2"]),
        (images, True, ["0", "1", "2"]),
        (images, False, ["0", "1", "2"]),
        (both, True, ["0", "0/0", "0/1", "0/2", "1"]),
    ]:
        path = make(fill, ome=ome, bigtiff=True)
        ds, expected = lazyarr.open(path), series(path)
        for name in names:
            if name in expected:
                assert_same(ds[name], expected[name])
        assert [name for name in names if name in expected] == sorted(expected)
        assert sorted(ds) == sorted({name[0] for name in names})


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("nodata", [None, "9"])
def test_tiles_that_are_not_stored(tmp_path, engine, compression, nodata):  # noqa: F811
    """They read as the value for no data, or as zeros."""
    tiles = (None if n % 2 else np.full((32, 32), 7, "u1") for n in range(4))
    tags = [] if nodata is None else [(42113, 2, 0, nodata, True)]
    path = tmp_path / "x.tif"
    options = {"tile": (32, 32), "compression": compression, "extratags": tags}
    tifffile.imwrite(path, tiles, shape=(64, 64), dtype="u1", **options)
    expected = tifffile.imread(path)
    assert expected[0, 63] == int(nodata or 0)
    assert_same(lazyarr.open(path), expected)


@memory_only
def test_an_array_pickles_and_a_changed_file_is_read_anew(tmp_path, engine):  # noqa: F811
    """What is opened then shares nothing with what was opened before."""
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, STACK, rowsperstrip=8, compression="zlib", **GREY)
    before = lazyarr.open(path)
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(before[1:]))), STACK[1:])
    tifffile.imwrite(tmp_path / "y.tif", STACK + 1, compression="zlib", **GREY, **TILES)
    os.replace(tmp_path / "y.tif", path)
    np.testing.assert_array_equal(np.asarray(lazyarr.open(path)), STACK + 1)


def test_commands_take_files(make, tmp_path):
    """The command line tells what is in one, and makes a store of it; xarray has its axes."""

    def fill(file):
        file.write(STACK, metadata={"axes": "ZYX"}, compression="zlib", **TILES, **GREY)
        file.write(COLOURS, **RGB)

    path = make(fill, "x.ome.tif", ome=True)
    tree = run("tree", path).stdout
    assert "── 0  (3, 37, 53) uint16" in tree
    assert "tiff format" in run("info", path).stdout
    assert json.loads(run("info", "--json", path).stdout)["format"] == "tiff"
    assert run("verify", path).exit_code == 0
    assert run("convert", path, tmp_path / "x.zarr").exit_code == 0
    made = lazyarr.open(tmp_path / "x.zarr")
    assert_same(made["0"], STACK)
    assert_same(made["1"], COLOURS)
    assert made["0"]._source.metadata.dimension_names == ("Z", "Y", "X")
    assert lazyarr.open(path).to_xarray()["0"].dims == ("Z", "Y", "X")
    named = tmp_path / "by another name"
    named.write_bytes(path.read_bytes())
    assert_same(lazyarr.open(named)["1"], COLOURS)


SHAPES = st.builds(
    lambda before, *lengths: (*before, *lengths),
    st.lists(st.integers(1, 4), max_size=2),
    st.integers(1, 40),
    st.integers(1, 40),
)
DTYPES = st.sampled_from(["u1", "i1", "u2", "i2", "u4", "f2", "f4", "f8"])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_image_is_what_tifffile_reads(tmp_path, data):
    """Of any shape, type, order of bytes, strips or tiles, and compression."""
    shape, dtype = data.draw(SHAPES), data.draw(DTYPES)
    compression = data.draw(st.sampled_from([None, "zlib", "lzw", "zstd", "packbits"]))
    options = {"byteorder": data.draw(st.sampled_from("<>")), "compression": compression}
    if compression in ("zlib", "lzw", "zstd"):
        options["predictor"] = data.draw(st.booleans())
    if data.draw(st.booleans()):
        options["tile"] = (data.draw(st.sampled_from([16, 32])), 16)
    else:
        options["rowsperstrip"] = data.draw(st.integers(1, 20))
    kind = data.draw(st.sampled_from(["minisblack", "rgb", "separate"]))
    options["photometric"] = kind
    if kind == "rgb":
        shape = (*shape[:3], 3)
    elif kind == "separate":
        shape = (*shape[:-2], 3, *shape[-2:])
        options |= {"photometric": "rgb", "planarconfig": "separate"}
    content = RNG.integers(0, 99, shape[-5:]).astype(dtype)
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, content, **options)
    assert_same(lazyarr.open(path), tifffile.imread(path))


# --- attributes -----------------------------------------------------------------------


def test_attributes_say_what_the_file_says(make, tmp_path):
    """As values that JSON can hold: of the file, of a series, and how levels belong together."""
    path = tmp_path / "x.tif"
    metadata = {"axes": "TYX", "Info": "text", "spacing": 0.5}
    tifffile.imwrite(path, STACK, imagej=True, resolution=(3, 4), metadata=metadata)
    x = lazyarr.open(path)
    assert x._source.metadata.dimension_names == ("T", "Y", "X")
    assert x.attrs["imagej"]["spacing"] == 0.5
    assert x.attrs["imagej"]["Info"] == "text"
    assert x.attrs["resolution"] == {"x": 3, "y": 4, "unit": "none"}
    assert "tiff format  42" in x.info

    def pyramid(file):
        options = {**TILES, **GREY, "metadata": {"axes": "ZYX", "Name": "first"}}
        file.write(STACK[:, :36, :52], subifds=1, resolutionunit="CENTIMETER", **options)
        file.write(STACK[:, :36:2, :52:2], subfiletype=1, **TILES, **GREY)

    ds = lazyarr.open(make(pyramid, "y.ome.tif", ome=True))
    assert ds.attrs["ome_xml"].startswith("<?xml")
    assert ds.attrs["name"] == "first"
    (scales,) = ds.attrs["multiscales"]
    assert [axis["name"] for axis in scales["axes"]] == ["z", "y", "x"]
    transformations = [each["coordinateTransformations"][0] for each in scales["datasets"]]
    assert [each["scale"] for each in transformations] == [[1, 1, 1], [1, 2, 2]]
    tags = [(42113, 2, 0, "-9", True), (42112, 2, 0, "<GDALMetadata/>", True)]
    tifffile.imwrite(
        path, STACK.astype("i2"), extratags=tags, description="words", metadata=None, **GREY
    )
    x = lazyarr.open(path)
    assert x.attrs["description"] == "words"
    assert x._source.metadata.document["fill_value"] == -9


# --- files elsewhere, damaged and hostile ---------------------------------------------


class InMemory:
    """A store of one object, as far as a format needs one."""

    def __init__(self, data, url="memory://u"):
        self.data = data
        self.url = url
        self.n_reads = self.nbytes = 0

    def size(self, key):
        return len(self.data)

    def read_range(self, key, start, stop):
        assert 0 <= start <= stop <= len(self.data)
        self.n_reads += 1
        self.nbytes += stop - start
        return memoryview(self.data)[start:stop]


def describe(path_or_data, url="memory://u"):
    data = path_or_data if isinstance(path_or_data, bytes) else path_or_data.read_bytes()
    objects = InMemory(data, url)
    return FORMAT.describe(objects, "x.tif"), objects


@memory_only
def test_a_file_over_http(http_server, paths, engine):  # noqa: F811
    """Tiles that are not touched are not read."""
    (Path(http_server.directory) / "a b.tif").write_bytes(paths["tiles"].read_bytes())
    assert_same(lazyarr.open(f"{http_server.url}/a%20b.tif"), STACK)


def test_a_file_is_listed_in_few_reads(tmp_path):
    """A directory alone; many that lie together; and none of the pixels between them."""
    large = np.zeros((2048, 2048), "u1")
    tifffile.imwrite(tmp_path / "x.tif", large, compression="zlib", **TILES)
    nodes, objects = describe(tmp_path / "x.tif", "http://u")
    assert nodes[""].shape == (2048, 2048)
    assert objects.n_reads <= 6
    tifffile.imwrite(tmp_path / "y.tif", np.zeros((2000, 8, 8), "u1"), **GREY, compression="zlib")
    nodes, objects = describe(tmp_path / "y.tif", "http://u")
    assert len(nodes[""].layout().placement.entries) == 2000
    assert objects.n_reads <= 10
    with tifffile.TiffWriter(tmp_path / "z.tif") as file:
        for _ in range(8):
            file.write(np.zeros((1000, 1000), "u1"), contiguous=False)
    nodes, objects = describe(tmp_path / "z.tif", "http://u")
    assert objects.nbytes < 10 * 2**16
    assert objects.n_reads <= 40


def test_a_file_that_is_cut_off_or_gone_is_an_error(tmp_path, engine):  # noqa: F811
    """When it is opened; and when that happens afterwards, reading fails: never zeros."""
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, STACK, compression="zlib", **GREY, **TILES)
    content = path.read_bytes()
    for nbytes in (0, 1, 7, 8, 100, len(content) // 2):
        path.write_bytes(content[:nbytes])
        with pytest.raises(lazyarr.FormatError, match=r"cannot map"):
            lazyarr.open(path)
    path.write_bytes(content)
    x = lazyarr.open(path)
    os.truncate(path, len(content) // 2)
    with pytest.raises(lazyarr.ChunkError):
        x.sum()
    path.unlink()
    with pytest.raises(lazyarr.NodeNotFoundError, match="no such file"):
        lazyarr.open(path)


def test_a_tile_that_is_damaged_is_an_error(tmp_path, engine):  # noqa: F811
    """It names the chunk, and where it lies in the file; the others are read."""
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, STACK, compression="zlib", **GREY, **TILES)
    with tifffile.TiffFile(path) as file:
        page = file.pages[1]
        start, nbytes = page.dataoffsets[0], page.databytecounts[0]
    content = bytearray(path.read_bytes())
    content[start + nbytes // 2] ^= 255
    path.write_bytes(content)
    x = lazyarr.open(path)
    assert x[0].sum() == STACK[0].sum()
    with pytest.raises(lazyarr.ChunkError) as raised:
        x[1, :10].sum()
    assert raised.value.byte_range == (start, start + nbytes)
    report = lazyarr.verify(path, progress=False)
    assert [error.chunk for error in report.damaged] == [(1, 0, 0)]


def test_what_cannot_be_mapped_says_why(tmp_path, monkeypatch):
    """And the rest of the file opens."""
    path = tmp_path / "x.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(COLOURS, compression="jpeg2000", **RGB)
        file.write(STACK, **GREY)
    ds = lazyarr.open(path)
    with pytest.raises(lazyarr.FormatError, match=r"compressed by 'JPEG\w*'"):
        ds["0"]
    assert_same(ds["1"], STACK)
    xml = (
        '<OME><Image><Pixels DimensionOrder="XYZCT" SizeX="53" SizeY="37" SizeZ="1" SizeC="1"'
        ' SizeT="{0}"><TiffData><UUID FileName="a.tif">a</UUID></TiffData>{1}</Pixels></Image>'
        "</OME>"
    )
    other = '<TiffData><UUID FileName="b.tif">b</UUID></TiffData>'
    for text, why in [
        (xml.format(1, other), "several files"),
        (xml.format(10**12, ""), "lazyarr maps up to"),
    ]:
        tifffile.imwrite(path, STACK[0], description=text, metadata=None)
        with pytest.raises(lazyarr.FormatError, match=why):
            lazyarr.open(path)
    path.write_bytes(b"hello" * 10)
    with pytest.raises(lazyarr.FormatError, match="it is no TIFF"):
        lazyarr.open(path)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(lazyarr.FormatError, match=r"pip install 'lazyarr\[tiff\]'"):
        lazyarr.open(path)


def directory(tags, following):
    """Return a directory of a little-endian file: of tags with one long each."""
    entries = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in tags)
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)


IMAGE = [(256, 4), (257, 4), (258, 8), (259, 1), (273, 8), (277, 1), (278, 4), (279, 16)]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        # Each of the directories leads to the next one, and the last one to the first.
        (b"".join(directory(IMAGE, 8 + (k + 1) % 300 * 102) for k in range(300)), "lead back"),
        (directory(IMAGE, 2**31), "goes on beyond its end"),
        (directory([*IMAGE[:-1], (279, 2**31)], 0), None),
        (directory([*IMAGE[:4], (273, 2**31), *IMAGE[5:]], 0), "on to byte"),
        (
            directory([(256, 2**31), (257, 2**31), *IMAGE[2:]], 0),
            "on to byte",
        ),
        (directory([(256, 2**16), (257, 2**31), *IMAGE[2:6], (278, 1), (279, 9)], 0), "damaged"),
        (struct.pack("<H", 5000), "has 5000 tags"),
        # A directory below itself, twice.
        (directory([*IMAGE, (330, 8)], 0), None),
    ],
)
def test_hostile_files_end_in_an_error_at_once(data, why):
    """Or in an array of what is there."""
    content = b"II*\0" + struct.pack("<I", 8) + data
    started = time.monotonic()
    with contextlib.nullcontext() if why is None else pytest.raises(lazyarr.FormatError, match=why):
        nodes, _ = describe(content + bytes(32))
        for node in nodes.values():
            if isinstance(node, lazyarr.FormatError):
                raise node
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("name", ["tiles", "strips", "ome", "imagej"])
def test_changed_bytes_are_refused_or_hold_together(paths, name):
    """Wherever they are in what describes the file."""
    content = paths[name].read_bytes()
    random = np.random.default_rng(1)
    for at in random.integers(0, min(len(content), 2000), 40).tolist():
        data = bytearray(content)
        data[at] ^= int(random.integers(1, 256))
        try:
            nodes, _ = describe(bytes(data))
        except lazyarr.FormatError:
            continue
        for node in nodes.values():
            if hasattr(node, "layout"):
                layout = node.layout()
                assert parse_layout(layout_text(layout)) == layout
                json.dumps(node.attributes)
