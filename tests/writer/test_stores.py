from __future__ import annotations

import json
import os
import tempfile
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import BytesCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec

import lazyarr
from lazyarr.errors import ChunkError, FormatError, NodeNotFoundError
from lazyarr.store import open_store
from lazyarr.writer import Writer, create, open_writer
from lazyarr.writer.place import ExistingStore
from lazyarr.writer.session import Session
from tests.writer.stores import download, new_url, partials, read_array, read_tree, same

GRID = {"chunks": (2, 3), "shards": (6, 6)}


@pytest.fixture
def writer(tmp_path):
    with create(tmp_path / "x.zarr") as writer:
        yield writer


@st.composite
def steps(draw, n_columns):
    """Draw what is done to an array: rows added, boxes replaced, the store opened again."""
    kind = draw(st.sampled_from(["append", "append", "set", "set", "reopen"]))
    rows = draw(st.integers(0, 15))
    start, seed = draw(st.integers(0, 60)), draw(st.integers(0, 2**16))
    columns = sorted(draw(st.tuples(*[st.integers(0, n_columns)] * 2)))
    return kind, rows, start, slice(*columns), seed


@settings(max_examples=80)
@given(st.data())
def test_any_steps_give_what_numpy_gives(data):
    """Appending and replacing in any order, also across openings, against a plain ndarray."""
    n_columns = data.draw(st.integers(1, 8))
    chunks = (data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5)))
    factors = data.draw(st.none() | st.tuples(st.integers(1, 3), st.integers(1, 3)))
    shards = None if factors is None else tuple(f * c for f, c in zip(factors, chunks, strict=True))
    fill = data.draw(st.sampled_from([0, 3]))
    n_rows = data.draw(st.integers(0, 10))
    model = np.full((n_rows, n_columns), fill, "i4")
    drawn = data.draw(st.lists(steps(n_columns), max_size=12))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.zarr"
        writer = create(path)
        grid = {"chunks": chunks, "shards": shards, "fill_value": fill}
        array = writer.create_array("g/x", shape=model.shape, dtype="i4", **grid)
        for kind, rows, start, columns, seed in drawn:
            numbers = np.random.default_rng(seed).integers(0, 4, (rows, n_columns)).astype("i4")
            if kind == "append":
                array.append(numbers)
                model = np.concatenate([model, numbers])
            elif kind == "set":
                target = model[start : start + rows, columns]
                array[start : start + rows, columns] = numbers[: len(target), columns]
                target[...] = numbers[: len(target), columns]
            else:
                writer.close()
                assert same(read_array(path / "g/x"), model)
                writer = open_writer(path)
                array = writer["g/x"]
            assert array.shape == model.shape
        writer.close()
        assert same(read_array(path / "g/x"), model)
        opened = zarr.open_group(path, mode="r")["g/x"]
        assert opened.shape == model.shape


@pytest.mark.parametrize(
    ("index", "value"),
    [
        ((), 5),
        (..., np.arange(7)),
        (3, np.arange(7)),
        (-1, 8),
        ((slice(2, 5), 3), [1, 2, 3]),
        ((slice(2, 5), -3), 9),
        ((..., slice(1, 3)), np.arange(20).reshape(10, 2)),
        (slice(2, 5), np.arange(21).reshape(3, 7)),
        (slice(8, 100), np.arange(14).reshape(2, 7)),
        (slice(5, 2), 1),
        ((4, 5), 77),
        (np.int64(2), np.ones((1, 7))),
    ],
    ids=str,
)
def test_values_are_broadcast_as_numpy_does(tmp_path, index, value):
    """Numbers, rows, lists, and arrays of other layouts go where NumPy would put them."""
    model = np.arange(70, dtype="f4").reshape(10, 7)
    with create(tmp_path / "x.zarr") as writer:
        array = writer.create_array("x", shape=model.shape, dtype="f4", **GRID)
        array[...] = model
        array[index] = value
    model[index] = value
    assert same(read_array(tmp_path / "x.zarr/x"), model)


def test_array_without_axes_is_set(tmp_path):
    """With an empty tuple and with an Ellipsis; it takes no rows and has no length."""
    with create(tmp_path / "x.zarr") as writer:
        array = writer.create_array("x", shape=(), dtype="i4")
        array[...] = 3
        array[()] = 5
        with pytest.raises(ValueError, match="cannot append"):
            array.append([1])
        with pytest.raises(TypeError, match="no axes"):
            len(array)
    assert read_array(tmp_path / "x.zarr/x") == 5


@pytest.mark.parametrize("rows", [np.zeros((2, 3)), np.zeros(4), np.zeros((1, 2, 4)), 3])
def test_rows_of_another_shape_are_refused(writer, rows):
    """The array stays as it was, and usable."""
    array = writer.create_array("x", shape=(0, 4), dtype="f8")
    with pytest.raises(ValueError, match="cannot append rows of shape"):
        array.append(rows)
    array.append(np.ones((2, 4)))
    assert len(array) == 2


def test_lists_take_the_dtype_of_the_array(writer, tmp_path):
    """When appended, as when assigned; what does not fit is refused."""
    array = writer.create_array("x", shape=(0, 3), dtype="u1")
    array.append([[1, 2, 255]])
    with pytest.raises(OverflowError, match="256"):
        array.append([[1, 2, 256]])
    for refused in (array.append, lambda rows: array.__setitem__(0, rows[0])):
        with pytest.raises(TypeError, match="float64"):
            refused([[1, 2, 2.5]])
    array[0] = [3, 2, 1]
    writer.close()
    assert read_array(tmp_path / "x.zarr/x").tolist() == [[3, 2, 1]]


def test_values_that_do_not_fit_are_refused(writer):
    """Neither cut, nor wrapped around, nor stretched; and the array stays usable."""
    array = writer.create_array("x", shape=(5, 4), dtype="u1")
    for values in (np.ones(4), np.ones(4, "i8"), np.ones(4, "c8"), np.array(["a"])):
        with pytest.raises(TypeError, match="astype"):
            array[0] = values
    with pytest.raises(TypeError, match="astype"):
        array.append(np.ones((1, 4)))
    with pytest.raises(ValueError, match="cannot write elements of shape"):
        array[0] = np.ones(3, "u1")
    with pytest.raises(OverflowError):
        array[0] = 256
    with pytest.raises(TypeError, match="no fixed size"):
        array[0] = np.array([None] * 4)
    array[0] = 255


def test_caller_may_change_what_it_gave(tmp_path):
    """Also while it is compressed, whether it was small enough to be copied or not."""
    with create(tmp_path / "x.zarr") as writer:
        small = writer.create_array("small", shape=(0, 1000), dtype="u2", chunks=(5, 1000))
        large = writer.create_array("large", shape=(0, 2**20), dtype="u2", chunks=(1, 2**20))
        rows, many = np.empty((50, 1000), "u2"), np.empty((20, 2**20), "u2")
        for value in range(1, 20):
            rows[...] = value
            small.append(rows)
        for value in (1, 2):
            many[...] = value
            large.append(many)
            many[...] = 9
            small[value] = (row := np.full(1000, 100 + value, "u2"))
            row[...] = 9
    found = read_array(tmp_path / "x.zarr/small")
    expected = np.repeat(np.arange(1, 20), 50).astype("u2")
    expected[1:3] = [101, 102]
    assert np.array_equal(found[:, 500], expected)
    assert set(np.unique(read_array(tmp_path / "x.zarr/large"))) == {1, 2}


def test_append_puts_whole_shards_only(tmp_path):
    """Rows wait for the rest of their shard; it is written once, at the end at the latest."""
    url = new_url()
    with create(url) as writer:
        array = writer.create_array("x", shape=(0, 4), dtype="u1", chunks=(2, 4), shards=(6, 4))
        seen = []
        for _ in range(14):
            array.append(np.ones((1, 4), "u1"))
            writer._session._encoding.drain()
            writer._session._putting.drain()
            seen.append(len(writer._session.place.list_names("x/c")))
    assert seen == [0] * 5 + [1] * 6 + [2] * 3


def test_many_open_shards_are_bounded(tmp_path):
    """Columns of shards that all wait are put early, and read again: slow, but right."""
    from lazyarr.writer import sink

    grid = {"chunks": (4, 2**18), "shards": (8, 2**18)}
    model = np.random.default_rng(0).integers(0, 2**16, (9, 2**20), "u2")
    kept = sink._OPEN_NBYTES
    sink._OPEN_NBYTES = 2**21
    try:
        with create(tmp_path / "x.zarr") as writer:
            array = writer.create_array("x", shape=(0, 2**20), dtype="u2", **grid)
            for row in model:
                array.append(row[None])
                held = writer._session._sinks["x"]._open.values()
                assert sum(opened.nbytes for opened in held) <= 2**21 + 2**22
    finally:
        sink._OPEN_NBYTES = kept
    assert same(read_array(tmp_path / "x.zarr/x"), model)


class SlowFirst:
    """A store whose first change of an object takes until there is a second, or half a second."""

    def __init__(self, inner):
        self._inner = inner
        self.url, self.read, self.close = inner.url, inner.read, inner.close
        self.size, self.list_names = inner.size, inner.list_names
        self._is_second = threading.Event()
        self._n_changes = 0

    def _change(self, change, *arguments):
        self._n_changes += 1
        is_first = self._n_changes == 1
        if is_first:
            self._is_second.wait(0.5)
        change(*arguments)
        if not is_first:
            self._is_second.set()

    def write(self, key, data):
        self._change(self._inner.write, key, data)

    def delete(self, key):
        self._change(self._inner.delete, key)


@pytest.mark.parametrize("values", [(1, 2), (1, 0), (0, 1)])
def test_last_write_to_an_object_wins(tmp_path, values):
    """However long the store takes for the one before; and what is read back is the newest."""
    url = new_url()
    lazyarr.save(url, np.full(6, 9, "i4"), chunks=3, shards=6)
    place = ExistingStore(SlowFirst(open_store(url, writable=True)))
    with Writer(Session(place, None, is_new=False)) as writer:
        for value in values:
            writer[""][:] = value
            writer._session._encoding.drain()  # else both are one change
        writer[""][1] = 7
    expected = np.full(6, values[1], "i4")
    expected[1] = 7
    assert same(read_array(download(url, tmp_path / "x")), expected)


def test_properties_of_an_array(writer):
    """Shape, dtype, chunks and shards are those of the store."""
    array = writer.create_array("g/x", shape=[10, 4], dtype=">u2", chunks=(2, 4), shards=(4, 4))
    assert (array.path, array.shape, array.ndim, len(array)) == ("g/x", (10, 4), 2, 10)
    assert (array.dtype, array.chunks, array.shards) == (np.dtype("<u2"), (2, 4), (4, 4))
    assert repr(array) == "<ArrayWriter 'g/x' (10, 4) uint16>"
    assert writer.create_array("y", shape=3, dtype=float).shape == (3,)


def test_groups_and_attributes(tmp_path):
    """Of the root, of groups and of arrays, with consolidated metadata and without."""
    with create(tmp_path / "x.zarr", attributes={"a": 1}, consolidated=True) as writer:
        writer.create_group("g", attributes={"b": [2, None]})
        names = {"attributes": {"c": "ü"}, "dimension_names": ["t"]}
        writer.create_array("g/x", shape=(3,), dtype="i4", **names)
    for consolidated in (True, False):
        root = zarr.open_group(tmp_path / "x.zarr", mode="r", use_consolidated=consolidated)
        assert dict(root.attrs) == {"a": 1}
        assert dict(root["g"].attrs) == {"b": [2, None]}
        assert dict(root["g/x"].attrs) == {"c": "ü"}
        assert root["g/x"].metadata.dimension_names == ("t",)


def test_names_are_given_once(writer):
    """Neither arrays nor groups take the place of another node."""
    writer.create_array("g/x", shape=(3,), dtype="i4")
    for name in ("g/x", "g"):
        with pytest.raises(FileExistsError):
            writer.create_array(name, shape=(3,), dtype="i4")
        with pytest.raises(FileExistsError):
            writer.create_group(name)
    with pytest.raises(ValueError, match="is an array"):
        writer.create_array("g/x/y", shape=(3,), dtype="i4")
    with pytest.raises(ValueError, match="cannot create"):
        writer.create_array("../x", shape=(3,), dtype="i4")


def test_exception_takes_the_store_away(tmp_path):
    """Leaving ``with`` by an exception leaves nothing, and the exception goes on."""

    def fail():
        with create(tmp_path / "x.zarr") as writer:
            writer.create_array("x", shape=(3,), dtype="i4")[...] = 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert os.listdir(tmp_path) == []


def test_closed_writer_is_not_used(tmp_path):
    """Closing twice is nothing; writing after it is an error."""
    with create(tmp_path / "x.zarr") as writer:
        array = writer.create_array("x", shape=(3,), dtype="i4")
    writer.close()
    writer.abort()
    for use in (
        lambda: array.append([1]),
        lambda: array.__setitem__(0, 1),
        lambda: writer.create_array("y", shape=(3,), dtype="i4"),
        lambda: writer.create_group("y"),
        lambda: writer["x"],
    ):
        with pytest.raises(ValueError, match="it is closed"):
            use()
    assert repr(writer) == f"<Writer 'file://{tmp_path}/x.zarr', closed>"
    assert zarr.open_array(tmp_path / "x.zarr/x", mode="r").shape == (3,)


class Failing:
    shape, dtype = (3, 4), np.dtype("i4")

    def __getitem__(self, index):
        raise OSError("gone")


def test_who_drops_a_writer_is_told_what_is_lost(tmp_path):
    """It was not closed, so nothing is published."""
    writer = create(tmp_path / "x.zarr")
    writer.create_array("x", shape=(3,), dtype="u1")[:] = 1
    with pytest.warns(ResourceWarning, match="neither closed nor aborted"):
        del writer
    assert not (tmp_path / "x.zarr").exists()


def test_write_that_failed_ends_the_writer(tmp_path):
    """An array with a gap is never published, even when the error is ignored."""
    writer = create(tmp_path / "x.zarr")
    array = writer.create_array("x", shape=(0, 4), dtype="i4")
    with pytest.raises(OSError, match="gone"):
        array.append(Failing())
    with pytest.raises(ValueError, match="an earlier write failed"):
        array.append(np.ones((1, 4), "i4"))
    with pytest.raises(ValueError, match="an earlier write failed"):
        writer.close()
    assert os.listdir(tmp_path) == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forked_child_does_not_write(tmp_path):
    """It gets an error instead of waiting for threads that it does not have."""
    with create(tmp_path / "x.zarr") as writer:
        array = writer.create_array("x", shape=(0,), dtype="i4")
        array.append([1])
        pid = os.fork()
        if pid == 0:
            try:
                array.append([2])
            except ValueError as error:
                writer.abort()
                os._exit(0 if "belongs to process" in str(error) else 2)
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
    assert read_array(tmp_path / "x.zarr/x").tolist() == [1]


def test_several_threads_append(tmp_path):
    """Each to an array of its own and all to a common one: no row is lost or torn."""
    with create(tmp_path / "x.zarr") as writer:
        grid = {"chunks": (7, 10), "shards": (21, 10)}
        common = writer.create_array("common", shape=(0, 10), dtype="i4", **grid)

        def work(number):
            own = writer.create_array(f"own{number}", shape=(0, 10), dtype="i4", **grid)
            for value in range(100):
                own.append(np.full((3, 10), value, "i4"))
                common.append(np.full((2, 10), number, "i4"))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    tree = read_tree(tmp_path / "x.zarr")
    for number in range(4):
        assert np.array_equal(tree[f"own{number}"][:, 9], np.repeat(np.arange(100), 3))
    rows = tree["common"]
    assert (rows == rows[:, :1]).all()
    assert np.bincount(rows[:, 0]).tolist() == [200] * 4


def sharded(**options):
    return lambda path: zarr.create_array(
        path, shape=(10, 7), dtype="i4", chunks=(2, 3), shards=(4, 6), **options
    )


def encoded(serializer, **options):
    return lambda path: zarr.create_array(
        path, shape=(10, 7), dtype="i4", chunks=(4, 6), serializer=serializer, **options
    )


SPELLINGS = {
    "sharded": sharded(fill_value=3),
    "index at the start": encoded(
        ShardingCodec(chunk_shape=(2, 3), index_location="start"), compressors=None
    ),
    "index without checksum": encoded(
        ShardingCodec(chunk_shape=(2, 3), index_codecs=[BytesCodec()]), compressors=None
    ),
    "big endian": encoded(BytesCodec(endian="big")),
    "gzip": encoded(BytesCodec(), compressors=[GzipCodec()]),
    "transposed": encoded(BytesCodec(), filters=[TransposeCodec(order=(1, 0))]),
    "transposed in shards": encoded(
        ShardingCodec(
            chunk_shape=(2, 3),
            codecs=[TransposeCodec(order=(1, 0)), BytesCodec(endian="big"), ZstdCodec()],
        ),
        compressors=None,
    ),
    "flat keys": lambda path: zarr.create_array(
        path, shape=(10, 7), dtype="i4", chunks=(4, 6),
        chunk_key_encoding={"name": "v2", "separator": "."},
    ),
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_arrays_of_other_writers_are_extended(tmp_path, spelling):
    """Whatever way the store keeps its chunks is kept; zarr-python reads old and new rows."""
    model = np.arange(70, dtype="i4").reshape(10, 7)
    other = SPELLINGS[spelling](tmp_path / "x.zarr")
    other[...] = model
    document = json.loads((tmp_path / "x.zarr/zarr.json").read_bytes())
    with open_writer(tmp_path / "x.zarr") as writer:
        array = writer[""]
        array.append(model[:9] * 10)
        array[3:5, 2:] = -1
    model = np.concatenate([model, model[:9] * 10])
    model[3:5, 2:] = -1
    assert same(zarr.open_array(tmp_path / "x.zarr", mode="r")[...], model)
    assert same(read_array(tmp_path / "x.zarr"), model)
    after = json.loads((tmp_path / "x.zarr/zarr.json").read_bytes())
    assert after == document | {"shape": [19, 7]}


def test_other_writers_extend_what_lazyarr_wrote(tmp_path):
    """zarr-python and TensorStore replace rows in its stores, and lazyarr appends again."""
    model = np.arange(70, dtype="i4").reshape(10, 7)
    lazyarr.save(tmp_path / "x.zarr", model, chunks=(2, 7), shards=(4, 7))
    other = zarr.open_array(tmp_path / "x.zarr", mode="r+")
    other.append(model[:3])
    spec = {"driver": "zarr3", "kvstore": f"file://{tmp_path}/x.zarr/"}
    tensorstore.open(spec).result()[5:7].write(model[:2]).result()
    with open_writer(tmp_path / "x.zarr") as writer:
        writer[""].append(model[8:])
    expected = np.concatenate([model, model[:3], model[8:]])
    expected[5:7] = model[:2]
    assert same(read_array(tmp_path / "x.zarr"), expected)


def test_consolidated_metadata_follows(tmp_path):
    """After appending and adding, every copy is that of the store, in nested groups too."""
    root = tmp_path / "x.zarr"
    lazyarr.save(root, {"g/x": np.arange(6), "y": np.arange(3)}, consolidated=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no document specifies it
        zarr.consolidate_metadata(root, path="g")
    with open_writer(root) as writer:
        writer["g/x"].append([6, 7])
        writer.create_array("g/h/z", shape=(4,), dtype="i4")
    group = zarr.open_consolidated(root)
    assert {path: node.shape for path, node in group.members(None) if hasattr(node, "shape")} == {
        "g/x": (8,),
        "g/h/z": (4,),
        "y": (3,),
    }
    inner = zarr.open_group(root, path="g", mode="r", use_consolidated=True)
    assert inner["x"].shape == (8,)
    assert "h/z" in inner


def test_copies_are_taken_from_documents(tmp_path):
    """What another writer added without a copy is in the next ones."""
    root = tmp_path / "x.zarr"
    lazyarr.save(root, {"x": np.arange(6)}, consolidated=True)
    zarr.open_group(root, mode="r+", use_consolidated=False).create_array("z", shape=2, dtype="i4")
    with open_writer(root) as writer:
        writer["x"].append([6])
    assert sorted(zarr.open_consolidated(root)) == ["x", "z"]


@pytest.mark.parametrize(
    ("url", "consolidated", "expected"),
    [
        ("file", None, False),
        ("file", True, True),
        ("memory", None, True),
        ("memory", False, False),
    ],
)
def test_stores_that_are_not_local_are_consolidated(tmp_path, url, consolidated, expected):
    """Unless asked for otherwise: other writers of a local store would not keep copies true."""
    where = str(tmp_path / "x.zarr") if url == "file" else f"memory://{tmp_path.name}"
    lazyarr.save(where, {"x": np.arange(6)}, consolidated=consolidated)
    with create(f"{where}-2", consolidated=consolidated) as writer:
        writer.create_array("x", shape=(3,), dtype="i4")
    for store in (where, f"{where}-2"):
        metadata = zarr.open_group(store, mode="r").metadata
        assert (metadata.consolidated_metadata is not None) == expected


def test_rows_that_zarr_python_appends_are_seen(tmp_path):
    """By lazyarr, and by zarr-python, whose readers believe copies where there are some."""
    root = tmp_path / "x.zarr"
    lazyarr.save(root, {"x": np.arange(6)})
    group = zarr.open_group(root, mode="r+")
    group["x"].append(np.arange(6, 9))
    group.create_array("z", shape=2, dtype="i4")
    assert lazyarr.open(root)["x"].tolist() == list(range(9))
    assert zarr.open_group(root, mode="r")["x"].shape == (9,)
    assert sorted(lazyarr.open(root)) == ["x", "z"]


def test_store_without_consolidated_metadata_gets_none(tmp_path):
    """Its other writers would not keep them true."""
    root = zarr.open_group(tmp_path / "x.zarr", mode="w")
    root.create_array("x", shape=(2,), dtype="i4")
    document = (tmp_path / "x.zarr/zarr.json").read_bytes()
    with open_writer(tmp_path / "x.zarr") as writer:
        writer["x"].append([1, 2])
    assert (tmp_path / "x.zarr/zarr.json").read_bytes() == document
    assert zarr.open_group(tmp_path / "x.zarr", mode="r")["x"][...].tolist() == [0, 0, 1, 2]


def test_readers_see_new_rows_at_the_end_only(tmp_path):
    """While rows are appended the store keeps its length, and every old row."""
    model = np.arange(70, dtype="i4").reshape(10, 7)
    lazyarr.save(tmp_path / "x.zarr", model, chunks=(2, 7), shards=(4, 7))
    with open_writer(tmp_path / "x.zarr") as writer:
        for start in range(0, 10, 3):
            writer[""].append(model[start : start + 3])
            writer._session._putting.drain()
            assert same(read_array(tmp_path / "x.zarr"), model)
    assert same(read_array(tmp_path / "x.zarr"), np.concatenate([model, model]))


def test_failed_append_changes_nothing(tmp_path):
    """Old rows and old length stay; the next append goes on from there."""
    model = np.arange(70, dtype="i4").reshape(10, 7)
    lazyarr.save(tmp_path / "x.zarr", model, chunks=(2, 7), shards=(4, 7))

    def fail():
        with open_writer(tmp_path / "x.zarr") as writer:
            writer[""].append(-model)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert same(read_array(tmp_path / "x.zarr"), model)
    with open_writer(tmp_path / "x.zarr") as writer:
        writer[""].append(model[:1])
    assert same(read_array(tmp_path / "x.zarr"), np.concatenate([model, model[:1]]))


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
def test_attributes_that_json_does_not_have_survive_an_append(tmp_path):
    """Other writers put NaN there, and halves of characters; they stay, copies included."""
    root = zarr.open_group(tmp_path / "x.zarr", mode="w")
    root.create_array("x", data=np.arange(6, dtype="i4"), chunks=2)
    path = tmp_path / "x.zarr/x/zarr.json"
    members = json.loads(path.read_bytes())
    members["attributes"] = {"a": [float("nan"), float("-inf")], "b": "\ud800", "é": 1}
    path.write_text(json.dumps(members))
    zarr.consolidate_metadata(root.store)
    with open_writer(tmp_path / "x.zarr") as writer:
        writer["x"].append(np.arange(6, 9, dtype="i4"))
    array = lazyarr.open(tmp_path / "x.zarr", consolidated=True)["x"]
    assert array.tolist() == list(range(9))
    assert repr(array.attrs) == repr(members["attributes"])
    assert repr(json.loads(path.read_bytes())) == repr({**members, "shape": [9]})


@pytest.mark.parametrize("shape", [(1.5,), 2.0, (None, 5), "12", None], ids=str)
def test_lengths_are_whole_numbers(tmp_path, shape):
    """Nothing is rounded; NumPy's integers are taken as any others."""
    with lazyarr.create(tmp_path / "x.zarr") as writer:
        with pytest.raises(TypeError, match="give a whole number for each axis"):
            writer.create_array("x", shape=shape, dtype="u1")
        assert writer.create_array("y", shape=np.int64(3), dtype="u1").shape == (3,)
        assert writer.create_array("z", shape=np.array([3, 4]), dtype="u1").shape == (3, 4)


def test_chunks_that_become_fill_are_taken_away(tmp_path):
    """Replacing everything by the fill value leaves no object."""
    lazyarr.save(tmp_path / "x.zarr", np.ones((10, 7)), chunks=(2, 7), shards=(4, 7))
    with open_writer(tmp_path / "x.zarr") as writer:
        writer[""][...] = 0
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["zarr.json"]
    assert not read_array(tmp_path / "x.zarr").any()


def test_untouched_chunks_are_kept_byte_for_byte(tmp_path):
    """A damaged chunk elsewhere in the shard does not stop a write, nor is it made worse."""
    model = np.arange(80, dtype="i4").reshape(10, 8)
    lazyarr.save(tmp_path / "x.zarr", model, chunks=(2, 8), shards=(10, 8))
    path = tmp_path / "x.zarr/c/0/0"
    shard = bytearray(path.read_bytes())
    shard[20] ^= 1
    path.write_bytes(shard)
    with open_writer(tmp_path / "x.zarr") as writer:
        writer[""][4:6] = 0
    assert path.read_bytes()[:40] == shard[:40]
    with pytest.raises(ChunkError, match="chunk") as caught, open_writer(path.parents[2]) as writer:
        writer[""][1, 2] = 0
    assert caught.value.chunk == (0, 0)
    assert caught.value.key == "c/0/0"


def test_what_can_not_be_opened_says_why(tmp_path):
    """No store, no such array, a group, version 2, shards in shards, a damaged index."""
    with pytest.raises(NodeNotFoundError, match="there is no store"):
        open_writer(tmp_path / "none")
    zarr.create_array(tmp_path / "v2", shape=(3,), dtype="i4", zarr_format=2)
    with pytest.raises(FormatError, match="v2"):
        open_writer(tmp_path / "v2")
    lazyarr.save(tmp_path / "x.zarr", {"g/x": np.arange(8)}, chunks=2, shards=4)
    with open_writer(tmp_path / "x.zarr") as writer:
        for path in ("", "g", "y", "g/x/y"):
            with pytest.raises(NodeNotFoundError, match="no such array"):
                writer[path]
    nested = ShardingCodec(chunk_shape=(4,), codecs=[ShardingCodec(chunk_shape=(2,))])
    zarr.create_array(
        tmp_path / "nested", shape=(8,), dtype="i4", chunks=(8,), serializer=nested,
        compressors=None,
    )  # fmt: skip
    with (
        open_writer(tmp_path / "nested") as writer,
        pytest.raises(FormatError, match="hold shards"),
    ):
        writer[""]
    (tmp_path / "x.zarr/g/x/c/0").write_bytes(b"short")
    with pytest.raises(ChunkError, match="shard"), open_writer(tmp_path / "x.zarr") as writer:
        writer["g/x"][0] = 1


def test_appending_leaves_no_temporary_file(tmp_path):
    """In the store or beside it."""
    lazyarr.save(tmp_path / "x.zarr", np.arange(8), chunks=2, shards=4)
    with open_writer(tmp_path / "x.zarr") as writer:
        writer[""].append(range(7))
    names = sorted(p.name for p in tmp_path.rglob("*") if p.is_file())
    assert names == ["0", "1", "2", "3", "zarr.json"]
    assert partials(tmp_path) == []
