"""What compresses chunks, through `save` and `create_array`, and who reads it."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

import lazyarr
from lazyarr.errors import FormatError
from lazyarr.formats.zarr import ArrayMetadata, parse_node
from lazyarr.writer import create, open_writer
from tests.writer.stores import READERS, new_url, read_array, same

RNG = np.random.default_rng(5)
SMOOTH = np.cumsum(RNG.integers(0, 5, 40_000)).astype("i8").reshape(100, 400)
NOISE = RNG.integers(0, 2**32, (100, 400), "u4")
MOSTLY_ZEROS = np.where(RNG.random((400, 1000)) < 0.01, RNG.normal(size=(400, 1000)), 0)
DTYPES = ["?", "u1", "<i2", ">u4", "<f4", "<f8", "<c16", "f2"]


def codec_of(root, path=""):
    """Return what compresses the chunks of an array."""
    codecs = json.loads((root / path / "zarr.json").read_bytes())["codecs"]
    if codecs[0]["name"] == "sharding_indexed":
        codecs = codecs[0]["configuration"]["codecs"]
    assert (codecs[0]["name"], codecs[-1]["name"]) == ("bytes", "crc32c")
    return [codec["name"] for codec in codecs[1:-1]]


def places_of(root):
    """Return offset and size of every chunk in the shards of an array, and index offsets."""
    node = parse_node((root / "zarr.json").read_bytes(), path="")
    assert isinstance(node, ArrayMetadata)
    (level,) = node.layout().levels
    places, indexes = [], []
    for file in sorted((root / "c").rglob("*")):
        if file.is_file():
            data = file.read_bytes()
            start, stop = level.index_range(len(data))
            indexes.append(start)
            index = level.parse_index(data[start:stop], object_nbytes=len(data))
            places += [p for i in range(len(index)) if (p := index.entry(i)) is not None]
    return places, indexes


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("compressor", ["zstd", "blosc", "none"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shards", [None, (32, 50)])
def test_every_library_reads_every_compressor(tmp_path, reader, compressor, dtype, shards):
    """In shards and without, with an edge and a gap; chunks are of no whole number of pages."""
    array = RNG.integers(0, 100, (70, 50)).astype(dtype)
    array[8:16] = 0
    lazyarr.save(tmp_path / "x", array, chunks=(8, 50), shards=shards, compressor=compressor)
    assert codec_of(tmp_path / "x") == ([] if compressor == "none" else [compressor])
    assert same(READERS[reader](tmp_path / "x"), array)


@pytest.mark.parametrize("reader", READERS)
def test_every_library_reads_large_blosc_chunks(tmp_path, reader):
    """Chunks of several blocks, the last of them shorter."""
    array = np.cumsum(RNG.integers(0, 9, (4, 300_001)), axis=1).astype("f4")
    lazyarr.save(tmp_path / "x", array, chunks=(1, 300_001), compressor="blosc")
    assert same(READERS[reader](tmp_path / "x"), array)


@pytest.mark.parametrize("reader", READERS)
def test_every_library_reads_pages_of_shards(tmp_path, reader):
    """Uncompressed chunks that begin at pages of their shard."""
    array = RNG.integers(0, 100, (70, 4096)).astype("u2")
    lazyarr.save(tmp_path / "x", array, chunks=(1, 4096), shards=(16, 4096), compressor="none")
    assert same(READERS[reader](tmp_path / "x"), array)


@pytest.mark.parametrize("compressor", ["blosc", "none", "auto"])
def test_pager_serves_every_compressor(tmp_path, compressor):
    """By fault, by request, and checked by `verify`."""
    lazyarr.save(tmp_path / "x", SMOOTH, chunks=(8, 400), compressor=compressor)
    x = lazyarr.open(tmp_path / "x")
    assert np.array_equal(x[[3, 99, 50]], SMOOTH[[3, 99, 50]])
    assert same(np.asarray(x), SMOOTH)
    assert lazyarr.verify(tmp_path / "x", progress=False).ok


@pytest.mark.parametrize("compressor", ["blosc", "none"])
def test_damage_is_found(tmp_path, compressor):
    """A flipped bit in any compressor's bytes is an error, and zeros are never read."""
    lazyarr.save(tmp_path / "x", NOISE, chunks=(100, 400), compressor=compressor)
    data = bytearray((tmp_path / "x/c/0/0").read_bytes())
    data[1000] ^= 4
    (tmp_path / "x/c/0/0").write_bytes(data)
    with pytest.raises(lazyarr.ChunkError, match="crc32c"):
        lazyarr.open(tmp_path / "x")[0]


@pytest.mark.parametrize("n_columns", [2048, 4096, 100_000])
def test_uncompressed_chunks_begin_at_pages(tmp_path, n_columns):
    """And so does the index; bytes of a chunk are those in memory."""
    array = RNG.integers(1, 100, (10, n_columns)).astype("u2")
    options = {"chunks": (1, n_columns), "shards": (4, n_columns), "compressor": "none"}
    lazyarr.save(tmp_path / "x", array, **options)
    places, indexes = places_of(tmp_path / "x")
    assert len(places) == 10
    assert {offset % 4096 for offset, _ in places} | {start % 4096 for start in indexes} == {0}
    offset, nbytes = places[1]
    assert nbytes == 2 * n_columns + 4
    stored = (tmp_path / "x/c/0/0").read_bytes()[offset : offset + nbytes - 4]
    assert stored == array[1].tobytes()


@pytest.mark.parametrize(
    ("compressor", "n_columns"), [("none", 2047), ("zstd", 4096), ("blosc", 4096)]
)
def test_other_chunks_follow_one_another(tmp_path, compressor, n_columns):
    """Compressed ones, and those of less than a page."""
    array = RNG.integers(1, 100, (10, n_columns)).astype("u2")
    options = {"chunks": (1, n_columns), "shards": (10, n_columns)}
    lazyarr.save(tmp_path / "x", array, compressor=compressor, **options)
    places, _ = places_of(tmp_path / "x")
    assert [offset for offset, _ in places] == [
        0, *itertools.accumulate(nbytes for _, nbytes in places[:-1])
    ]  # fmt: skip


def test_appended_chunks_begin_at_pages(tmp_path):
    """Also where a shard that was there is put together anew."""
    array = RNG.integers(1, 100, (10, 4096)).astype("u1")
    options = {"chunks": (1, 4096), "shards": (4, 4096), "compressor": "none"}
    lazyarr.save(tmp_path / "x", array, **options)
    with open_writer(tmp_path / "x") as writer:
        writer[""].append(array[:3])
        writer[""][0] = 7
    places, indexes = places_of(tmp_path / "x")
    assert len(places) == 13
    assert {offset % 4096 for offset, _ in places} | {start % 4096 for start in indexes} == {0}
    expected = np.concatenate([array, array[:3]])
    expected[0] = 7
    for name, read in READERS.items():
        assert same(read(tmp_path / "x"), expected), name


@pytest.mark.parametrize("shuffle", ["noshuffle", "shuffle", "bitshuffle"])
@pytest.mark.parametrize("cname", ["zstd", "lz4", "blosclz", "zlib"])
def test_blosc_of_other_writers_is_read(tmp_path, cname, shuffle):
    """zarr-python's, in shards and behind a checksum."""
    other = zarr.create_array(
        tmp_path / "x", shape=SMOOTH.shape, dtype="i8", chunks=(8, 400), shards=(40, 400),
        compressors=[BloscCodec(cname=cname, shuffle=shuffle), Crc32cCodec()],
    )  # fmt: skip
    other[...] = SMOOTH
    assert same(np.asarray(lazyarr.open(tmp_path / "x")), SMOOTH)
    assert same(read_array(tmp_path / "x"), SMOOTH)


@pytest.mark.parametrize("compressor", ["blosc", "none"])
def test_other_writers_extend_every_compressor(tmp_path, compressor):
    """zarr-python appends in the same codecs, and lazyarr after it."""
    options = {"chunks": (2, 400), "shards": (8, 400), "compressor": compressor}
    lazyarr.save(tmp_path / "x", SMOOTH, **options)
    zarr.open_array(tmp_path / "x", mode="r+").append(SMOOTH[:3])
    with open_writer(tmp_path / "x") as writer:
        writer[""].append(SMOOTH[:5])
    assert same(read_array(tmp_path / "x"), np.concatenate([SMOOTH, SMOOTH[:3], SMOOTH[:5]]))


CHOICES = {
    "numbers of several bytes": (SMOOTH, ["blosc"]),
    "noise": (NOISE, []),
    "mostly zeros": (MOSTLY_ZEROS, ["zstd"]),
    "all zeros": (np.zeros((100, 400)), ["zstd"]),
    "too little to judge by": (NOISE[:10], ["zstd"]),
    "no elements": (NOISE[:0], ["zstd"]),
    "no axes": (np.float64(3), ["zstd"]),
    "text": (np.array(["some words that repeat"] * 4000), ["zstd"]),
}


@pytest.mark.filterwarnings("ignore::UserWarning:zarr")
@pytest.mark.parametrize("kind", CHOICES)
def test_auto_picks_what_suits_the_data(tmp_path, kind):
    """Each array of a store has its own compressor."""
    array, expected = CHOICES[kind]
    lazyarr.save(tmp_path / "x", {"a": array, "zeros": np.zeros(30_000)}, compressor="auto")
    assert codec_of(tmp_path / "x", "a") == expected
    assert codec_of(tmp_path / "x", "zeros") == ["zstd"]
    assert same(read_array(tmp_path / "x/a"), np.asarray(array))


def test_auto_writes_the_same_bytes_again(tmp_path):
    """The choice is by sizes, never by a clock."""
    for name in ("a", "b"):
        lazyarr.save(tmp_path / name, SMOOTH, compressor="auto")
    files = [
        {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*")
         if p.is_file()}
        for name in ("a", "b")
    ]  # fmt: skip
    assert files[0] == files[1]


@pytest.mark.parametrize("url", ["local", "memory"])
def test_created_array_waits_for_its_first_elements(tmp_path, url):
    """Appended rows decide, and what comes later is stored alike; one without any has zstd."""
    url = new_url() if url == "memory" else tmp_path / "x"
    with create(url) as writer:
        options = {"shape": (0, 400), "dtype": "i8", "compressor": "auto", "chunks": (8, 400)}
        array = writer.create_array("g/a", **options)
        writer.create_array("never", **options)
        array.append(SMOOTH[:0])
        writer["g/a"].append(SMOOTH[:50])
        array.append(NOISE[:7])
        array[55:57] = 3
    expected = np.concatenate([SMOOTH[:50], NOISE[:7]])
    expected[55:57] = 3
    ds = lazyarr.open(url)
    assert "blosc" in str(ds["g/a"].info)
    assert "zstd" in str(ds["never"].info)
    assert np.array_equal(ds["g/a"], expected)
    assert ds["never"].shape == (0, 400)


def test_array_that_is_added_decides_too(tmp_path):
    """In a store that exists, with consolidated metadata that says the same."""
    lazyarr.save(tmp_path / "x", {"a": SMOOTH}, consolidated=True)
    with open_writer(tmp_path / "x") as writer:
        options = {"shape": NOISE.shape, "dtype": "u4", "compressor": "auto"}
        writer.create_array("b", **options)[...] = NOISE
    root = json.loads((tmp_path / "x/zarr.json").read_bytes())
    document = json.loads((tmp_path / "x/b/zarr.json").read_bytes())
    assert root["consolidated_metadata"]["metadata"]["b"] == document
    assert codec_of(tmp_path / "x", "b") == []
    assert same(zarr.open_array(tmp_path / "x/b", mode="r")[...], NOISE)


@pytest.mark.parametrize(
    "options",
    [
        {"compressor": "gzip"},
        {"compressor": None},
        {"compressor": "none", "level": 1},
        {"compressor": "blosc", "level": 10},
        {"compressor": "auto", "level": 10},
        {"level": 23},
    ],
    ids=str,
)
def test_wrong_options_are_refused_before_anything_is_written(tmp_path, options):
    """By `save` and by `create_array`, with the array's name."""
    with pytest.raises(FormatError, match=r"cannot create array 'a': .*(compressor|level)"):
        lazyarr.save(tmp_path / "x", {"a": SMOOTH}, **options)
    with (
        pytest.raises(FormatError, match="cannot create array 'a'"),
        create(tmp_path / "y") as writer,
    ):
        writer.create_array("a", shape=(3,), dtype="i4", **options)
    assert list(tmp_path.iterdir()) == []


def test_level_reaches_the_compressor(tmp_path):
    """The strongest level of each makes less of the same data."""
    sizes = {}
    for compressor, level in (("zstd", 1), ("zstd", 19), ("blosc", 1), ("blosc", 9)):
        root = tmp_path / f"{compressor}{level}"
        lazyarr.save(root, MOSTLY_ZEROS, chunks=(400, 1000), compressor=compressor, level=level)
        sizes[compressor, level] = (root / "c/0/0").stat().st_size
        assert same(read_array(root), MOSTLY_ZEROS)
    assert sizes["zstd", 19] < sizes["zstd", 1]
    assert sizes["blosc", 9] < sizes["blosc", 1]
