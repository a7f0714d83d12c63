"""From stored chunks to a unit's bytes."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from lazyarr.errors import ChunkError
from lazyarr.formats.npy import FORMAT
from lazyarr.kernel import PAGE_NBYTES
from lazyarr.reading.unit_reader import UnitReader
from lazyarr.reading.units import geometry_of
from lazyarr.reading.workspace import Workspace
from lazyarr.store import open_store
from lazyarr.testing import FaultyStore, Misbehaviour
from tests.reading.arrays import CHECKED, KINDS, fetch, load, store_array
from tests.stores import settle


@pytest.fixture
def workspace():
    """The buffers of one thread."""
    made = Workspace()
    yield made
    made.close()


@pytest.fixture
def sharded(tmp_path):
    """An array of 20 units in five shards, every chunk with its checksum."""
    return store_array(tmp_path, **KINDS["shards"])


@pytest.mark.parametrize("fetch_first", [False, True], ids=["local", "remote"])
@pytest.mark.parametrize(("fill", "missing"), [(0, 0), (0, 5), (7, 5)])
@pytest.mark.parametrize("kind", KINDS)
def test_units_are_what_zarr_python_wrote(tmp_path, workspace, kind, fill, missing, fetch_first):
    """Every unit, in any order, with the same buffers; chunks that are not stored too."""
    stored = store_array(tmp_path, fill=fill, missing=missing, **KINDS[kind])
    source = stored.source()
    for unit in [*range(stored.geometry.n_units), *reversed(range(stored.geometry.n_units))]:
        fetched = fetch(source, unit) if fetch_first else None
        assert load(source, stored, unit, workspace, fetched=fetched) == stored.unit(unit)
    source.close()


def test_unit_that_is_not_stored_and_zero_needs_no_bytes(tmp_path, workspace):
    """The caller installs zeros; one stored chunk among the tiles is enough to need them."""
    stored = store_array(tmp_path, missing=8, **KINDS["tiles"])
    source = stored.source()
    assert [source.load(unit, workspace) for unit in range(3)] == [False, False, True]
    (tmp_path / "group/x/c/2/0").unlink()
    assert source.load(2, workspace)
    (tmp_path / "group/x/c/2/1").unlink()
    assert not source.load(2, workspace)
    source.close()


def test_unit_that_is_not_stored_and_not_zero_is_filled(tmp_path, workspace):
    """Only zeros can do without bytes."""
    stored = store_array(tmp_path, fill=7, missing=3, **KINDS["rows"])
    source = stored.source()
    assert source.load(0, workspace)
    assert bytes(workspace.unit.view[:72]) == b"\7\0\0\0" * 18
    source.close()


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [((9096,), (5000,)), ((2, 4500), (1, 3000)), ((5000,), (8192,)), ((70, 130), (9, 40))],
)
def test_padding_behind_the_array_is_zero(tmp_path, workspace, shape, chunks):
    """Whatever the buffer has held before, and though the chunk itself may be longer."""
    stored = store_array(tmp_path, shape=shape, chunks=chunks, dtype="u1", fill=9)
    source = stored.source()
    geometry = stored.geometry
    for unit in range(geometry.n_units):
        assert source.load(unit, workspace)
    span = geometry.unit_bytes(geometry.n_units - 1)
    padding = geometry.n_pages * PAGE_NBYTES - span.stop
    assert 0 < padding < PAGE_NBYTES
    assert bytes(workspace.unit.view[span.size : span.size + padding]) == bytes(padding)
    source.close()


def test_threads_load_at_once(sharded):
    """Each with a workspace of its own, all from one source."""
    source = sharded.source()
    wrong: list[int] = []

    def load_all(first: int) -> None:
        workspace = Workspace()
        for unit in range(first, first + sharded.geometry.n_units):
            unit %= sharded.geometry.n_units
            if load(source, sharded, unit, workspace) != sharded.unit(unit):
                wrong.append(unit)
        workspace.close()

    threads = [threading.Thread(target=load_all, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    source.close()
    assert wrong == []


# --- the store ----------------------------------------------------------------------


def test_store_is_opened_when_it_is_needed_and_once(sharded, workspace):
    """Importing what a remote one needs takes longer than opening an array may."""
    opened = []

    def open_store():
        opened.append(sharded.open())
        return opened[-1]

    source = sharded.source(open_store)
    source.close()
    assert opened == []
    threads = [threading.Thread(target=fetch, args=(source, unit)) for unit in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    source.load(0, workspace)
    source.close()
    assert len(opened) == 1
    assert repr(source) == "<UnitReader: array 'group/x' in file:///test>"


@pytest.mark.parametrize("kind", ["rows", "shards", "tiles"])
def test_source_tells_whether_what_it_gave_is_what_is_stored(tmp_path, workspace, kind):
    """Until a chunk, or a shard, that it has read is another one."""
    stored = store_array(tmp_path, missing=3, **KINDS[kind])
    objects = stored.objects()
    settle(*objects)
    source = stored.source()
    assert source.is_unchanged()
    for unit in range(stored.geometry.n_units):
        source.load(unit, workspace)
    assert source.is_unchanged()
    objects[-1].write_bytes(objects[-1].read_bytes())
    assert not source.is_unchanged()
    source.close()


def test_source_of_a_store_that_can_not_tell(sharded, workspace):
    """What was read is believed to have changed; what was not is not."""
    source = sharded.source(lambda: FaultyStore(sharded.open()))
    assert source.is_unchanged()
    source.load(0, workspace)
    assert not source.is_unchanged()
    source.close()


def test_index_is_read_once_for_all_chunks_of_a_shard(sharded, workspace):
    """It costs a request each time."""
    store = FaultyStore(sharded.open())
    source = sharded.source(lambda: store)
    for unit in range(sharded.geometry.n_units):
        source.load(unit, workspace)
    methods = [call.method for call in store.calls]
    assert (methods.count("read_suffix"), methods.count("read_range")) == (5, 20)
    source.close()


def test_bytes_read_are_counted(tmp_path, workspace):
    """Those of the chunks, as they are stored."""
    stored = store_array(tmp_path, shape=(60,), chunks=(20,), dtype="u1", compressors=None)
    counts: list[int] = []
    source = stored.source(count_fetched=counts.append)
    source.load(0, workspace)
    fetch(source, 1)
    assert counts == [20, 20]
    source.close()


# --- what goes wrong on the way ---------------------------------------------------------


def test_bad_transfer_heals(sharded, workspace):
    """Bytes that are wrong once are read once more, chunk and index alike."""
    for n_before in range(2):
        store = FaultyStore(sharded.open())
        source = sharded.source(lambda store=store: store)
        plan = iter([None] * n_before + [Misbehaviour.WRONG])
        store._plan = lambda *_, plan=plan: next(plan, None)
        assert load(source, sharded, 3, workspace) == sharded.unit(3)
        source.close()


class Replacing:
    """A store whose writer puts something else just before each of the first ranges is read."""

    def __init__(self, inner, n_times):
        self.inner, self.n_times, self.n_reads = inner, n_times, 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def read_range(self, key, start, stop, *, into=None):
        self.n_reads += 1
        good = self.inner.read(key) if self.n_reads == 1 else self.good
        self.good = good
        is_bad = self.n_reads <= self.n_times
        self.inner.write(key, bytes(3 * self.n_reads) if is_bad else good)
        return self.inner.read_range(key, start, stop, into=into)


def test_chunk_heals_as_long_as_its_object_is_replaced(tmp_path, workspace):
    """A writer that puts it all the time does not look like damage."""
    stored = store_array(tmp_path, **KINDS["rows"])
    store = Replacing(stored.open(), n_times=4)
    source = stored.source(lambda: store)
    assert load(source, stored, 0, workspace) == stored.unit(0)
    # The first right one was read up to the size of the last wrong one.
    assert store.n_reads == 6
    source.close()


def test_bad_transfer_of_what_was_fetched_heals(sharded, workspace):
    """The chunk is read again where it is decoded."""
    store = FaultyStore(sharded.open())
    source = sharded.source(lambda: store)
    fetch(source, 0)
    store.misbehave(Misbehaviour.WRONG)
    fetched = fetch(source, 1)
    assert load(source, sharded, 1, workspace, fetched=fetched) == sharded.unit(1)
    source.close()


@pytest.mark.parametrize("kind", ["rows", "tiles", "shards", "index at the start"])
@pytest.mark.parametrize(
    "how", [Misbehaviour.DROPPED, Misbehaviour.FORBIDDEN, Misbehaviour.UNAVAILABLE]
)
def test_transport_error_is_never_a_missing_chunk(tmp_path, workspace, kind, how):
    """Retrying is the store's business; here it is an error, at once, with its cause."""
    stored = store_array(tmp_path, **KINDS[kind])
    store = FaultyStore(stored.open())
    source = stored.source(lambda: store)
    store.misbehave(how, times=None)
    for step in (lambda: source.load(0, workspace), lambda: fetch(source, 0)):
        store.calls.clear()
        with pytest.raises(ChunkError) as caught:
            step()
        keys = [call.key for call in store.calls]
        assert len(keys) == len(set(keys)) > 0, (
            "tried again, though that has taken its time already"
        )
        assert caught.value.reason in str(caught.value.__cause__)
    store.behave()
    assert load(source, stored, 0, workspace) == stored.unit(0)
    source.close()


@pytest.mark.parametrize("kind", ["shards", "shards of shards"])
def test_object_that_vanishes_after_its_index_was_read_is_no_fill_value(tmp_path, workspace, kind):
    """The index says that there is a chunk: somebody is replacing the store."""
    stored = store_array(tmp_path, **KINDS[kind])
    store = FaultyStore(
        stored.open(),
        plan=lambda method, _: Misbehaviour.MISSING if method == "read_range" else None,
    )
    source = stored.source(lambda: store)
    with pytest.raises(ChunkError, match="the object is gone, though its index was read"):
        source.load(0, workspace)
    source.close()


def test_file_that_vanishes_after_it_was_opened_is_no_fill_value(tmp_path, workspace):
    """It has no index: the error says that the array was opened from it."""
    np.save(tmp_path / "x.npy", np.arange(1000))
    layout = FORMAT.describe(open_store(tmp_path), "x.npy")[""].layout()
    source = UnitReader(
        lambda: open_store(tmp_path), layout, geometry_of(layout), url="file:///t", path="x.npy"
    )
    (tmp_path / "x.npy").unlink()
    with pytest.raises(ChunkError, match="the object is gone, though the array was opened from it"):
        source.load(0, workspace)
    source.close()


def test_short_object_between_size_and_read_is_an_error(tmp_path, workspace):
    """A store that gives fewer bytes than it said is not believed."""
    stored = store_array(tmp_path, **KINDS["rows"])
    store = FaultyStore(stored.open())
    source = stored.source(lambda: store)
    store.misbehave(Misbehaviour.SHORT, times=None)
    with pytest.raises(ChunkError):
        source.load(0, workspace)
    source.close()


# --- messages -------------------------------------------------------------------------


def test_error_names_array_chunk_key_range_and_cause(sharded, workspace):
    """Everything that somebody needs who has to mend the store."""
    shard = sharded.objects()[1]
    data = bytearray(shard.read_bytes())
    data[0] ^= 1
    shard.write_bytes(data)
    source = sharded.source()
    with pytest.raises(ChunkError) as caught:
        source.load(4, workspace)
    error = caught.value
    assert (error.url, error.array, error.chunk) == ("file:///test", "group/x", (4, 0))
    assert error.key == "group/x/c/1/0"
    assert error.byte_range is not None
    assert error.byte_range[0] == 0
    assert error.reason.startswith("crc32c expected ")
    assert error.message == (
        "chunk (4, 0) of 'group/x' in file:///test, "
        f"bytes [0, {error.byte_range[1]}) of group/x/c/1/0: {error.reason}; "
        "run 'lazyarr verify' to list every damaged chunk"
    )
    assert load(source, sharded, 5, workspace) == sharded.unit(5)
    source.close()


def test_error_of_an_index_has_no_range(sharded, workspace):
    """Nobody knows where the chunk would be."""
    shard = sharded.objects()[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    source = sharded.source()
    with pytest.raises(ChunkError) as caught:
        source.load(0, workspace)
    assert (caught.value.key, caught.value.byte_range) == ("group/x/c/0/0", None)
    source.close()


def test_error_of_an_array_at_the_root(tmp_path, workspace):
    """Its keys have no prefix."""
    stored = store_array(tmp_path, shape=(20,), chunks=(10,), **CHECKED)
    stored.directory, stored.path = stored.directory / "group/x", ""
    (stored.directory / "c/1").write_bytes(b"")
    source = stored.source()
    assert load(source, stored, 0, workspace) == stored.unit(0)
    with pytest.raises(ChunkError) as caught:
        source.load(1, workspace)
    assert caught.value.key == "c/1"
    source.close()


def test_a_workspace_gives_back_what_large_units_have_needed():
    """When only small ones came for a while; what is counted for it follows."""
    made = Workspace()
    first_nbytes = made.nbytes
    made.unit.grow(4 << 20)
    assert made.take_growth() == made.counted_nbytes == made.nbytes - first_nbytes > 0
    changes = []
    for _ in range(100):
        made.unit.grow(100_000)
        changes.append(made.take_growth())
    assert sum(1 for change in changes if change) == 1
    assert made.unit.nbytes == -(-100_000 // PAGE_NBYTES) * PAGE_NBYTES
    assert made.counted_nbytes == made.nbytes - first_nbytes
    made.close()
