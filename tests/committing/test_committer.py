"""Changed units in the store: what zarr-python reads after they were committed."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr

from lazyarr.committing import Committer
from lazyarr.errors import ChunkError, FormatError
from lazyarr.formats.zarr import parse_node, parse_v2_array
from lazyarr.reading.units import geometry_of
from lazyarr.store import open_store
from lazyarr.store.base import ChangedError
from tests.writer.stores import download

KINDS = {
    "sharded": {"shape": (50, 6), "chunks": (4, 6), "shards": (16, 6)},
    "shards of tiles": {"shape": (50, 33), "chunks": (4, 5), "shards": (8, 10)},
    "chunks": {"shape": (50, 6), "chunks": (4, 6)},
    "tiles": {"shape": (37, 29), "chunks": (8, 8)},
    "small": {"shape": (3000,), "chunks": (7,)},
    "small in shards": {"shape": (3000,), "chunks": (5,), "shards": (100,)},
    "thick": {"shape": (3, 20, 10), "chunks": (5, 4, 4)},
    "no axes": {"shape": (), "chunks": ()},
    "plain": {"shape": (50, 600), "chunks": (4, 600), "shards": (16, 600), "compressors": None},
    "version 2": {"shape": (37, 29), "chunks": (8, 8), "zarr_format": 2},
    "columns": {"shape": (37, 29), "chunks": (8, 8), "zarr_format": 2, "order": "F"},
}
DTYPES = ["<i4", ">f8", "u1", "<c8"]


def make(root, kind, dtype="<i4", fill_value=3):
    """Have zarr-python make an array of random elements; return it and its elements."""
    options = dict(KINDS[kind])
    if "zarr_format" not in options:
        if dtype[0] == ">":
            options["serializer"] = zarr.codecs.BytesCodec(endian="big")
        dtype = np.dtype(dtype).newbyteorder("=")
    array = zarr.create_array(root / "x", dtype=dtype, fill_value=fill_value, **options)
    elements = np.random.default_rng(5).integers(0, 100, array.shape).astype(dtype)
    array[...] = elements
    return array, elements


class Writer:
    """A committer of the array, and what its pager knows."""

    def __init__(self, root, store=None, *, is_native=True):
        x = root / "x"
        if (x / "zarr.json").exists():
            metadata = parse_node((x / "zarr.json").read_bytes(), path="x")
        else:
            metadata = parse_v2_array((x / ".zarray").read_bytes(), None, path="x")
        metadata = metadata.native() if is_native else metadata
        self.dtype = metadata.dtype.to_numpy()
        self.layout = metadata.layout()
        self.geometry = geometry_of(self.layout)
        self.store = store or open_store(root, writable=True)
        self.committer = Committer(self.store, "x", self.layout, self.geometry, url=self.store.url)

    @property
    def units(self):
        return range(self.geometry.n_units)

    def bytes_of(self, elements, unit):
        """Return the bytes of a unit, as they lie in memory."""
        memory = elements.astype(self.dtype).transpose(self.layout.axes).tobytes()
        span = self.geometry.unit_bytes(unit)
        return memory[span.start : span.stop]

    def commit(self, elements, units):
        """Commit units as the pager does; return the keys that were written."""
        keys = []
        for group in self.committer.group(units):
            chunks = {}
            for unit in group:
                chunks.update(self.committer.encode(unit, self.bytes_of(elements, unit)))
            keys += self.committer.put(chunks)
        self.committer.sync()
        return keys


@pytest.mark.parametrize("is_native", [True, False], ids=["native", "stored order"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_zarr_reads_what_was_committed(tmp_path, kind, dtype, is_native):
    """Some units of new elements, and the others as they were."""
    array, old = make(tmp_path, kind, dtype)
    new = np.random.default_rng(6).integers(0, 100, array.shape).astype(old.dtype)
    writer = Writer(tmp_path, is_native=is_native)
    units = writer.units[::3]
    keys = writer.commit(new, units)
    found = zarr.open_array(tmp_path / "x", mode="r")[...]
    is_new = np.zeros(array.shape, bool)
    marks = is_new.transpose(writer.layout.axes)
    for unit in units:
        start, extent = writer.geometry.unit_box(unit)
        marks[tuple(slice(a, a + n) for a, n in zip(start, extent, strict=True))] = True
    assert np.array_equal(found, np.where(is_new, new, old))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("kind", ["sharded", "small in shards", "tiles", "version 2"])
def test_chunks_of_nothing_but_fill_are_taken_away(tmp_path, kind):
    """And objects that hold nothing else."""
    array, _ = make(tmp_path, kind)
    writer = Writer(tmp_path)
    elements = np.full(array.shape, 3, array.dtype)
    keys = writer.commit(elements, writer.units)
    assert keys
    assert not any((tmp_path / key).exists() for key in keys)
    assert np.array_equal(zarr.open_array(tmp_path / "x", mode="r")[...], elements)


@pytest.mark.parametrize("kind", ["sharded", "chunks", "tiles", "plain", "columns"])
def test_rows_that_another_writer_appended_stay(tmp_path, kind):
    """In the same chunk, and in the same shard, behind the array that the committer knows."""
    array, old = make(tmp_path, kind)
    writer = Writer(tmp_path)
    added = np.random.default_rng(7).integers(0, 100, (13, *array.shape[1:])).astype(old.dtype)
    array.append(added)
    new = (old + 1).astype(old.dtype)
    writer.commit(new, writer.units)
    found = zarr.open_array(tmp_path / "x", mode="r")[...]
    assert np.array_equal(found, np.concatenate([new, added]))


def test_groups_are_units_of_the_same_shards(tmp_path):
    """Each unit is in one group; units of other shards are in others."""
    make(tmp_path, "plain")
    assert Writer(tmp_path).committer.group([0, 1, 5, 3, 12]) == [(0, 1, 3), (5,), (12,)]


def test_groups_join_units_of_several_shards(tmp_path):
    """A unit that lies in two shards joins the units of both."""
    zarr.create_array(tmp_path / "x", shape=(90_000,), chunks=(1,), shards=(1500,), dtype="u1")
    writer = Writer(tmp_path)
    assert writer.geometry.n_units > 3
    groups = writer.committer.group([3, 0, 1])
    assert groups == [(3,), (0, 1)]
    assert writer.committer.group([0, 2, 1]) == [(0, 2, 1)]


def test_chunks_without_shards_go_alone(tmp_path):
    """An object for each unit at least."""
    make(tmp_path, "tiles")
    assert Writer(tmp_path).committer.group([4, 2]) == [(4,), (2,)]


def test_damaged_shard_is_not_written_over(tmp_path):
    """Chunks that are to stay could not be told in it."""
    _, elements = make(tmp_path, "plain")
    writer = Writer(tmp_path)
    path = tmp_path / "x/c/0/0"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChunkError, match="lazyarr verify") as caught:
        writer.commit(elements, [0])
    assert (caught.value.key, caught.value.array) == ("x/c/0/0", "x")
    assert path.read_bytes() == data


def test_whole_shard_is_written_over_whatever_it_was(tmp_path):
    """Nothing of it stays, so nothing of it is read."""
    _, elements = make(tmp_path, "plain")
    writer = Writer(tmp_path)
    (tmp_path / "x/c/0/0").write_bytes(b"not a shard")
    writer.commit(elements, range(4))
    assert np.array_equal(zarr.open_array(tmp_path / "x", mode="r")[...], elements)


def test_nested_shards_are_refused(tmp_path):
    """They are only read."""
    inner = zarr.codecs.ShardingCodec(chunk_shape=(2,))
    outer = zarr.codecs.ShardingCodec(chunk_shape=(4,), codecs=[inner])
    zarr.create(
        shape=(16,), chunks=(8,), dtype="i4", codecs=[outer], store=tmp_path / "x", zarr_format=3
    )
    with pytest.raises(FormatError, match="shards hold shards"):
        Writer(tmp_path)


def test_chunks_keep_to_pages(tmp_path):
    """Those that are stored as they lie in memory begin at pages, as the writer has them."""
    _, elements = make(tmp_path, "plain")
    Writer(tmp_path).commit(elements, [1])
    index = (tmp_path / "x/c/0/0").read_bytes()[-(16 * 4 + 4) :]
    offsets = np.frombuffer(index[:64], "<u8")[::2]
    assert list(offsets % 4096) == [0] * 4


def make_paged(root):
    """Have an array made whose units are single chunks, several in a shard."""
    return make(root, "plain")


def test_what_another_writer_put_is_not_written_over_at_once(tmp_path):
    """The second attempt takes the other's chunks of the shard as they are."""
    array, old = make_paged(tmp_path)
    writer = Writer(tmp_path)
    writer.commit(old + 1, [0])
    array[4:8] = 7777  # the second chunk of the same shard
    with pytest.raises(ChangedError, match="flush again") as caught:
        writer.commit(old + 2, [0])
    assert caught.value.key == "x/c/0/0"
    assert np.array_equal(array[:8], np.concatenate([old[:4] + 1, np.full((4, 600), 7777)]))
    writer.commit(old + 2, [0])
    assert np.array_equal(array[:8], np.concatenate([old[:4] + 2, np.full((4, 600), 7777)]))


@pytest.mark.parametrize("kind", ["tiles", "version 2"])
def test_chunk_that_another_writer_put_since_is_found_out(tmp_path, kind):
    """Where each chunk is an object; also one that is to be deleted."""
    array, old = make(tmp_path, kind)
    writer = Writer(tmp_path)
    writer.commit((old + 1).astype(old.dtype), [0])
    array[:8] = 55
    for elements in (old, np.full_like(old, 3)):
        with pytest.raises(ChangedError):
            writer.commit(elements, [0])
        assert (array[:8] == 55).all()
        writer.commit(elements, [0])
        assert np.array_equal(array[:8], elements[:8])
        array[:8] = 55


def test_row_that_is_appended_between_encoding_and_putting_is_found_out(tmp_path):
    """A chunk that reaches beyond the array was put together with what was there before."""
    array, old = make(tmp_path, "tiles")
    writer = Writer(tmp_path)
    last = writer.units[-1]
    chunks = writer.committer.encode(last, writer.bytes_of(old, last))
    array.append(np.full((1, 29), 9, old.dtype))
    with pytest.raises(ChangedError):
        writer.committer.put(chunks)
    writer.commit(old, [last])
    assert (array[37] == 9).all()


def test_units_of_one_shard_from_many_threads(tmp_path):
    """Nobody's chunks are lost, and nobody is taken for another writer."""
    array, old = make_paged(tmp_path)
    new = (old + 1).astype(old.dtype)
    writer = Writer(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda unit: writer.commit(new, [unit]), list(writer.units) * 3))
    assert np.array_equal(array[...], new)


@pytest.mark.parametrize("kind", ["plain", "tiles", "version 2"])
@pytest.mark.parametrize("place", ["memory", "s3"])
def test_object_stores(tmp_path, kind, place, request):
    """As in a directory; and what another has put since is found out."""
    _, old = make(tmp_path, kind)
    url, options = f"memory://committer-{kind}", {}
    if place == "s3":
        options = request.getfixturevalue("s3_server").storage_options
        url = request.getfixturevalue("s3_bucket") + "/store"
    store = open_store(url, options, writable=True)
    for path in (tmp_path / "x").rglob("*"):
        if path.is_file():
            store.write(path.relative_to(tmp_path).as_posix(), path.read_bytes())
    writer = Writer(tmp_path, store)
    new = (old + 1).astype(old.dtype)
    keys = writer.commit(new, writer.units)
    download(url, tmp_path / "copy", options)
    assert np.array_equal(zarr.open_array(tmp_path / "copy/x", mode="r")[...], new)
    other = open_store(url, options, writable=True)
    theirs = (tmp_path / keys[0]).read_bytes()
    other.write(keys[0], theirs)
    with pytest.raises(ChangedError):
        writer.commit(old + 2, [0])
    assert other.read(keys[0]) == theirs
    writer.commit(new, writer.units)
    shutil.rmtree(tmp_path / "copy")
    download(url, tmp_path / "copy", options)
    assert np.array_equal(zarr.open_array(tmp_path / "copy/x", mode="r")[...], new)
