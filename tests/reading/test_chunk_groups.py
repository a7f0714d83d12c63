"""Units of many small chunks: the same bytes and the same errors as chunk by chunk."""

from __future__ import annotations

import dataclasses
from contextlib import closing

import google_crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

from lazyarr.errors import ChunkError
from lazyarr.kernel import PAGE_NBYTES
from lazyarr.layout.placement import ChunkTable
from lazyarr.reading.workspace import Workspace
from tests.reading.arrays import CHECKED, KINDS, fetch, load, store_array

ONE_BY_ONE = {"shape": (5000,), "chunks": (1,), "shards": (3000,), "dtype": "u1"}
GROUPS = {
    **KINDS,
    "one by one": ONE_BY_ONE,
    "one by one, compressed": {**ONE_BY_ONE, **CHECKED, "shape": (4500,), "shards": (2500,)},
    "files": {"shape": (300,), "chunks": (1,), "dtype": "u1", "compressors": None},
    "tiles in shards": {
        "shape": (70, 90),
        "chunks": (5, 3),
        "shards": (20, 30),
        "dtype": "u1",
        **CHECKED,
    },
    "thicker than the array": {"shape": (1, 1, 40), "chunks": (1, 2, 1), "shards": None},
    "runs": {"shape": (7, 11, 13), "chunks": (1, 1, 4), "shards": (7, 2, 8), **CHECKED},
}


@pytest.mark.parametrize("kind", GROUPS)
@pytest.mark.parametrize(("fill", "missing"), [(0, 0), (0, 4), (7, 4)])
def test_a_group_is_what_its_chunks_are(tmp_path, kind, fill, missing):
    """Read from the store or fetched, with chunks that are missing and without."""
    stored = store_array(tmp_path, **GROUPS[kind], fill=fill, missing=missing, grouped=True)
    source, workspace = stored.source(), Workspace()
    with closing(source):
        for unit in range(stored.geometry.n_units):
            wanted = stored.unit(unit)
            assert load(source, stored, unit, workspace) == wanted
            assert load(source, stored, unit, workspace, fetched=fetch(source, unit)) == wanted


@pytest.mark.parametrize("kind", ["one by one, compressed", "tiles in shards", "runs", "files"])
def test_the_error_names_the_chunk(tmp_path, kind):
    """Of the one that is damaged among thousands; all others can be had again when it is mended."""
    stored = store_array(tmp_path, **GROUPS[kind], grouped=True)
    source, workspace = stored.source(), Workspace()
    victim = stored.objects()[-1]
    good = victim.read_bytes()
    bad = bytearray(good)
    bad[0] ^= 255
    victim.write_bytes(bad if kind != "files" else b"two")
    with closing(source):
        failed = []
        for unit in range(stored.geometry.n_units):
            try:
                assert load(source, stored, unit, workspace) == stored.unit(unit)
            except ChunkError as error:
                failed.append(error)
        (error,) = failed
        assert error.array == stored.path
        assert str(stored.directory / error.key) == str(victim)
        assert len(error.chunk) == len(stored.geometry.shape)
        assert stored.layout.locate(error.chunk).key == error.key.removeprefix(f"{stored.path}/")
        victim.write_bytes(good)
        for unit in range(stored.geometry.n_units):
            assert load(source, stored, unit, workspace) == stored.unit(unit)


def test_chunks_of_a_shard_are_read_together(tmp_path):
    """One call for each of its two shards, not one for each of thousands."""
    stored = store_array(tmp_path, **ONE_BY_ONE, grouped=True)
    store = stored.open()
    calls = []
    read_range = store.read_range

    def read(*args, **kwargs):
        calls.append(args)
        return read_range(*args, **kwargs)

    store.read_range = read
    source = stored.source(lambda: store)
    with closing(source):
        assert load(source, stored, 0, Workspace()) == stored.unit(0)
    assert len(calls) == 2


def in_a_table(stored):
    """Return an array of files with its chunks in two objects, of which a table says where."""
    objects, entries = [bytearray(b"head"), bytearray()], []
    for place, chunk in enumerate(np.ndindex(stored.layout.grid_shape)):
        file = stored.directory / stored.path / stored.layout.locate(chunk).key
        if not file.exists():
            entries.append(None)
            continue
        number = place // 70 % 2
        start = len(objects[number])
        objects[number] += file.read_bytes()
        entries.append((number, start, len(objects[number])))
    for name, content in zip("ab", objects, strict=True):
        (stored.directory / stored.path / name).write_bytes(content)
    ones = (1,) * len(stored.layout.shape)
    table = ChunkTable(ones, (), (), stored.layout.grid_shape, ("a", "b"), tuple(entries))
    return dataclasses.replace(stored, layout=stored.layout._replace(placement=table))


@pytest.mark.parametrize("kind", ["files", "tiles", "scalar", "transposed"])
@pytest.mark.parametrize(("fill", "missing"), [(0, 0), (0, 4), (7, 4)])
def test_a_group_that_a_table_lists_is_what_its_chunks_are(tmp_path, kind, fill, missing):
    """Read from the store or fetched, with chunks that are missing and without."""
    stored = store_array(tmp_path, **GROUPS[kind], fill=fill, missing=missing, grouped=True)
    stored = in_a_table(stored)
    source, workspace = stored.source(), Workspace()
    with closing(source):
        for unit in range(stored.geometry.n_units):
            wanted = stored.unit(unit)
            assert load(source, stored, unit, workspace) == wanted
            assert load(source, stored, unit, workspace, fetched=fetch(source, unit)) == wanted


def test_chunks_that_a_table_lists_are_read_together(tmp_path):
    """One call for each object; and the error names the one chunk that is damaged."""
    kind = {"shape": (300,), "chunks": (1,), "dtype": "u1", **CHECKED}
    stored = in_a_table(store_array(tmp_path, **kind, grouped=True))
    store = stored.open()
    calls = []
    read_range = store.read_range

    def read(*args, **kwargs):
        calls.append(args)
        return read_range(*args, **kwargs)

    store.read_range = read
    source = stored.source(lambda: store)
    with closing(source):
        assert load(source, stored, 0, Workspace()) == stored.unit(0)
        assert len(calls) == 2
        _, start, stop = stored.layout.placement.entries[100]
        file = stored.directory / stored.path / "b"
        bad = bytearray(file.read_bytes())
        bad[stop - 1] ^= 1
        file.write_bytes(bad)
        with pytest.raises(ChunkError) as raised:
            load(source, stored, 0, Workspace())
        assert (raised.value.chunk, raised.value.byte_range) == ((100,), (start, stop))
        assert raised.value.key == f"{stored.path}/b"


def test_what_is_gone_from_a_shard_is_the_fill_value(tmp_path):
    """Also where it was decoded, by the index of a version that is gone by now."""
    kind = {**ONE_BY_ONE, **CHECKED, "shape": (4096,), "shards": (4096,), "dtype": "u2"}
    stored = store_array(tmp_path, **kind, grouped=True)
    (file,) = stored.objects()
    whole = file.read_bytes()
    index_nbytes = 16 * 4096 + 4
    entries = np.frombuffer(whole[-index_nbytes:-4], "<u8").reshape(-1, 2).copy()

    def write(data: bytes) -> None:
        index = entries.tobytes()
        file.write_bytes(data + index + google_crc32c.value(index).to_bytes(4, "little"))

    # The first chunk lies last, and so is decoded last.
    data = bytearray(whole[:-index_nbytes])
    start, nbytes = map(int, entries[0])
    entries[0] = len(data), nbytes
    data += data[start : start + nbytes]
    write(data)
    source, workspace = stored.source(), Workspace()
    with closing(source):
        assert load(source, stored, 1, workspace) == stored.unit(1)
        data[-1] ^= 255
        entries[:1000] = 2**64 - 1
        write(data)
        assert load(source, stored, 0, workspace) == bytes(2000) + stored.unit(0)[2000:]


def test_padding_does_not_take_memory_for_a_whole_group(tmp_path):
    """Chunks that reach far beyond the array are decoded one after the other."""
    stored = store_array(
        tmp_path, shape=(64, 1), chunks=(1, 1 << 18), dtype="u1", compressors=None, grouped=True
    )
    source, workspace = stored.source(), Workspace()
    with closing(source):
        assert stored.geometry.n_units == 1
        assert load(source, stored, 0, workspace) == stored.unit(0)
    assert workspace.nbytes < 8 << 18


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=3).flatmap(
        lambda shape: st.tuples(
            st.just(tuple(shape)), st.tuples(*(st.integers(1, n + 1) for n in shape))
        )
    ),
    st.sampled_from(["u1", "u2", "c16"]),
    st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_any_small_array_is_right(tmp_path_factory, shapes, dtype, is_sharded):
    """Whatever its chunks are; and it is one unit if it is no more than a page."""
    shape, chunks = shapes
    options = {"dtype": dtype, "chunks": chunks}
    if is_sharded:
        options["chunks"] = tuple(2 * n for n in chunks)
        options["serializer"] = ShardingCodec(
            chunk_shape=chunks, codecs=[BytesCodec(), Crc32cCodec()]
        )
        options["compressors"] = None
    directory = tmp_path_factory.mktemp("any")
    stored = store_array(directory, shape=shape, grouped=True, missing=1, **options)
    assert stored.geometry.n_units == 1 or stored.geometry.nbytes > PAGE_NBYTES
    source, workspace = stored.source(), Workspace()
    with closing(source):
        for unit in range(stored.geometry.n_units):
            assert load(source, stored, unit, workspace) == stored.unit(unit)
