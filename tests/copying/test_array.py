"""What a CopyArray does as a LazyArray does not: copies, limits, writes, errors."""

from __future__ import annotations

import gc
import os
import pickle
import tempfile
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import lazyarr
from lazyarr import CopyArray, LazyArray
from tests.stores import images, write_zarr

DATA = images()


@pytest.fixture(autouse=True)
def copying():
    """Open arrays with the engine that copies."""
    with lazyarr.configure(engine="copy"):
        yield


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return write_zarr(tmp_path_factory.mktemp("copying") / "x.zarr", DATA, chunks=(4, 32, 128))


@pytest.fixture
def x(url):
    return lazyarr.open(url)


@pytest.fixture
def mine(url):
    return lazyarr.open(url, mode="c")


def test_asarray_is_a_copy_that_says_so(x, mine):
    """It is read-only, so that nobody writes to it in vain; a copy that is asked for is not."""
    for array in (x, mine):
        raw = np.asarray(array)
        assert not raw.flags.writeable
        assert np.array(array).flags.writeable
        assert np.asarray(array, "f4").dtype == "f4"
        with pytest.raises(ValueError, match="lazyarr doctor"):
            np.array(array, copy=False)


def test_a_slice_of_a_huge_array_reads_its_own_units(tmp_path):
    """However many views there are in between, and whatever they would hold."""
    array = zarr.create_array(
        str(tmp_path / "x.zarr"), shape=(1 << 20, 1 << 20), dtype="u1", chunks=(1, 1 << 20),
        shards=(256, 1 << 20), fill_value=0,
    )  # fmt: skip
    array[500, 7:9] = 3
    x = lazyarr.open(tmp_path / "x.zarr")
    assert x[10 : 1 << 19][::-7].T[:, ::2][7:9].shape == (2, 37449)
    assert x.residency().resident_units == 0
    assert x[400:][100].sum() == 6
    assert x.T[8, 500] == 3
    assert x.reshape(-1)[500 * (1 << 20) + 7 :][:3].tolist() == [3, 3, 0]
    assert x.residency().resident_units == 1
    assert str(x).splitlines()[0] == "[[0 0 0 ... 0 0 0]"
    assert x.residency().resident_units == 7


def test_every_way_to_change_mode_r_is_refused(x):
    """Nothing is changed in a copy in vain."""
    ways = [
        lambda: x.__setitem__(0, 1), lambda: x.fill(1), lambda: x.sort(), lambda: x.put([0], 1),
        lambda: np.copyto(x, 0), lambda: np.put(x, [0], 1), lambda: np.place(x, DATA > 0, 1),
        lambda: np.putmask(x, DATA > 0, 1), lambda: np.fill_diagonal(x[0], 1),
        lambda: np.add.at(x, 0, 1), lambda: np.add(x, 1, out=x), lambda: np.sum(x, 0, None, x[0]),
        lambda: np.cumsum(x[0], 0, out=x[1]), lambda: x[0].__setitem__(0, 1),
        lambda: x.partition(3),
        lambda: x[5:9].__iadd__(1), lambda: x[..., 3].__setitem__(0, 1),
        lambda: DATA.sum(axis=0, out=x[0:32, :, 0]),
    ]  # fmt: skip
    for way in ways:
        with pytest.raises((ValueError, TypeError), match=r"read-only|must be an array"):
            way()
    np.testing.assert_array_equal(x[...], DATA)


def test_every_way_to_change_mode_c_is_seen(mine, url):
    """By all views of the array, and by nobody else."""
    expected = DATA.copy()
    view = mine[2:20]
    for array in (mine, expected):
        array[3] += 1
        array[5][2:4] = 9
        array[6, 7, 8] += 5
        array[10:20, 4] *= 2
        array[[30, 40, 30]] = 7
        array[50][array[50] > 1000] = 8
        np.add.at(array, (slice(None), 0, 0), 1)
        np.copyto(array[60], array[61])
        array[62].fill(4)
        array[1].sort()
        np.multiply(array[20:24], 3, out=array[24:28])
        np.put(array[28], [3, 4], [5, 6])
        np.cumsum(array[29], 0, out=array[31])
        array[33:37] = array[34:38]
    np.testing.assert_array_equal(np.asarray(mine), expected)
    np.testing.assert_array_equal(view[...], expected[2:20])
    mine.evict()
    np.testing.assert_array_equal(mine[[3, 30]], expected[[3, 30]])
    np.testing.assert_array_equal(lazyarr.open(url)[...], DATA)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(mine))[...], expected)


def test_what_is_written_survives_a_small_limit(mine):
    """Written units stay, however much is read besides."""
    mine[::9] = 1
    expected = DATA.copy()
    expected[::9] = 1
    with lazyarr.configure(memory_limit=3 * 32768):
        for start in range(0, 64, 4):
            np.testing.assert_array_equal(mine[start : start + 4], expected[start : start + 4])


def test_the_limit_holds_whatever_is_read(url):
    """By slices, picks and threads, of several arrays; and lowering it takes effect at once."""
    arrays = [lazyarr.open(url) for _ in range(3)]
    limit_nbytes = 5 * 32768
    with lazyarr.configure(memory_limit=limit_nbytes, threads=3):
        before = lazyarr.stats()["evictions"]

        def read(seed):
            rng = np.random.default_rng(seed)
            for _ in range(60):
                array, rows = arrays[rng.integers(3)], rng.integers(0, 64, 3)
                np.testing.assert_array_equal(array[rows], DATA[rows])
                np.testing.assert_array_equal(array[rows[0] :][:9], DATA[rows[0] :][:9])
                assert lazyarr.stats()["resident_bytes"] <= limit_nbytes

        run_threads(read, 4)
        assert lazyarr.stats()["evictions"] > before
        resident = sum(array.residency().resident_nbytes for array in arrays)
        assert 0 < resident == lazyarr.stats()["resident_bytes"]
    with lazyarr.configure(memory_limit=32768):
        assert lazyarr.stats()["resident_bytes"] <= 32768


def test_what_is_saved_is_no_copy(url, tmp_path):
    """`numpy.save` writes part by part, byte by byte what it writes of a plain array."""
    x, limit_nbytes = lazyarr.open(url), DATA.nbytes // 4
    names = np.dtype([(f"a{i}" * 60, "u2") for i in range(2)])
    views = [
        (x, DATA),
        (x[1:, ::2], DATA[1:, ::2]),
        (x.T, DATA.T),
        (x.view(">u2"), DATA.view(">u2")),
    ]
    lazyarr.save(tmp_path / "struct.zarr", DATA.view(names), chunks=(4, 32, 64))
    views.append((lazyarr.open(tmp_path / "struct.zarr"), DATA.view(names)))
    with lazyarr.configure(memory_limit=limit_nbytes):
        for view, plain in views:
            for save in (np.save, lambda path, array: np.save(Path(path), array)):
                save(f"{tmp_path}/ours", view)
                save(f"{tmp_path}/plain", plain)
                assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "plain.npy").read_bytes()
        tracemalloc.start()
        np.save(tmp_path / "x.npy", x)
        _, peak_nbytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak_nbytes < DATA.nbytes * 3 / 4


def test_a_scan_does_not_put_out_what_is_used(url):
    """Reading more than a quarter of the limit at once leaves what is kept where it is."""
    with lazyarr.configure(memory_limit=DATA.nbytes):
        hot, x = lazyarr.open(url), lazyarr.open(url)
        hot.prefetch(slice(0, 8))
        np.testing.assert_array_equal(np.asarray(x), DATA)
        assert x.residency().resident_units == 0
        assert hot.residency().map.tolist() == [True] * 2 + [False] * 14


def test_what_is_computed_on_more_than_the_limit_is_not_kept(x):
    """It is read part by part, or as a whole, and what is kept besides stays."""
    with lazyarr.configure(memory_limit=DATA.nbytes // 2):
        x.prefetch(slice(0, 8))
        for way in (lambda a: a + 1, lambda a: a.mean(axis=0), np.median, lambda a: a.astype("f8")):
            np.testing.assert_array_equal(way(x), way(DATA))
        assert x.residency().map.tolist() == [True] * 2 + [False] * 14


def test_an_array_that_is_dropped_gives_its_memory_back(url):
    """At once, without the cache being asked for anything."""
    for _ in range(10):
        gc.collect()
        before = lazyarr.stats()
        x = lazyarr.open(url)
        x.prefetch()
        during = lazyarr.stats()
        # Else what other tests in this process have left, as in threads of dask's, went meanwhile.
        if during["regions"] > before["regions"]:
            break
    assert during["regions"] == before["regions"] + 1
    assert during["resident_bytes"] == before["resident_bytes"] + DATA.nbytes
    del x
    gc.collect()
    after = lazyarr.stats()
    assert after["resident_bytes"] <= before["resident_bytes"]
    assert after["regions"] <= before["regions"]


def test_functions_take_it(x):
    """prefetch, residency and evict, of the array and of views; not of what was copied."""
    lazyarr.prefetch(x[4:8])
    assert lazyarr.residency(x[4:8]).resident_units == 1
    assert lazyarr.residency(x).resident_units == 1
    lazyarr.evict(x[:5])
    assert lazyarr.residency(x).resident_units == 0
    with pytest.raises(TypeError, match="memory that lazyarr fills"):
        lazyarr.prefetch(np.asarray(x))


@pytest.mark.parametrize("data", [np.arange(12.0).reshape(3, 4), np.arange(6) + 2j])
def test_parts_of_numbers_and_all_of_them_in_a_row(tmp_path, data):
    """Views, and copies that cannot be written to: nothing is written in vain."""
    lazyarr.save(tmp_path / "x.zarr", data)
    x = lazyarr.open(tmp_path / "x.zarr", mode="c")
    np.testing.assert_array_equal(x.real, data.real)
    np.testing.assert_array_equal(x.imag, data.imag)
    assert list(x.flat) == list(data.flat)
    with pytest.raises(ValueError, match="read-only"):
        x.flat[0] = 1
    x.real[1:] += 5
    data.real[1:] += 5
    np.testing.assert_array_equal(x, data)
    if data.dtype.kind == "c":
        x.imag[0] = data.imag[0] = 7
        np.testing.assert_array_equal(x, data)
    else:
        with pytest.raises(ValueError, match="read-only"):
            x.imag[...] = 1
        with pytest.raises(TypeError):
            x.imag = 1


def test_statistics_count(url):
    """Requests, units, bytes, and time by step, of this process."""
    before = lazyarr.stats()
    x = lazyarr.open(url)
    x[5], x[6], x[[5, 60]]
    after = lazyarr.stats()
    assert after["requests"] - before["requests"] == 3
    assert after["units_loaded"] - before["units_loaded"] == 2
    assert after["bytes_installed"] - before["bytes_installed"] == 2 * 32768
    assert after["bytes_fetched"] > before["bytes_fetched"]
    assert after["steps"]["load"]["count"] >= 2
    assert (after["faults"], after["pid"]) == (0, os.getpid())


def test_pickles_are_opened_by_the_engine_there_is(x):
    """A reference that one engine wrote, the other reads."""
    packed = pickle.dumps(x[10:40:3, ::-1, 5])
    with lazyarr.configure(engine="userfaultfd"):
        theirs = pickle.loads(packed)
        assert type(theirs) is LazyArray
        np.testing.assert_array_equal(np.asarray(theirs), DATA[10:40:3, ::-1, 5])
        packed = pickle.dumps(theirs)
    again = pickle.loads(packed)
    assert type(again) is CopyArray
    np.testing.assert_array_equal(again[...], DATA[10:40:3, ::-1, 5])


def run_threads(work, n_threads):
    """Run something with each number on a thread; raise what one of them raised."""
    errors = []

    def run(number):
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_sixteen_threads_decode_each_unit_once(url):
    """On the same array, by picks, slices, index arrays and prefetches, all at once."""
    x = lazyarr.open(url)
    before = lazyarr.stats()["units_loaded"]
    barrier = threading.Barrier(16)

    def read(seed):
        rng = np.random.default_rng(seed)
        barrier.wait()
        for i in rng.permutation(64):
            np.testing.assert_array_equal(x[i], DATA[i])
            np.testing.assert_array_equal(x[[i, -i]], DATA[[i, -i]])
            np.testing.assert_array_equal(x[i:][:5, seed], DATA[i:][:5, seed])

    run_threads(read, 16)
    assert lazyarr.stats()["units_loaded"] - before == 16


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_it_reads_right_on_any_number_of_threads(url, n_threads):
    """Of lazyarr's own."""
    with lazyarr.configure(threads=n_threads):
        x = lazyarr.open(url)
        np.testing.assert_array_equal(x[np.arange(63, -1, -1)], DATA[::-1])
        x.evict()
        np.testing.assert_array_equal(np.asarray(x[::2]), DATA[::2])


class Damaged:
    """A store of its own, with chunks that are not what they should be."""

    def __init__(self, path):
        self.url = write_zarr(path / "x.zarr", DATA, chunks=(4, 32, 128))
        self.files = [path / f"x.zarr/c/{chunk}/0/0" for chunk in range(16)]
        self.good = [file.read_bytes() for file in self.files]

    def damage(self, *chunks):
        for chunk in chunks:
            self.files[chunk].write_bytes(self.good[chunk][: len(self.good[chunk]) // 2])

    def heal(self):
        for file, data in zip(self.files, self.good, strict=True):
            file.write_bytes(data)


@pytest.fixture
def damaged(tmp_path):
    return Damaged(tmp_path)


def test_a_damaged_chunk_is_the_same_error(damaged):
    """With the fields and the message of the other engine; the rest can be read."""
    damaged.damage(3)
    found = {}
    for engine in ("copy", "userfaultfd"):
        with lazyarr.configure(engine=engine), pytest.raises(lazyarr.ChunkError) as caught:
            lazyarr.open(damaged.url)[13]
        found[engine] = {**vars(caught.value), "message": str(caught.value)}
    assert found["copy"] == found["userfaultfd"]
    assert (found["copy"]["chunk"], found["copy"]["key"]) == ((3, 0, 0), "c/3/0/0")
    x = lazyarr.open(damaged.url)
    np.testing.assert_array_equal(x[[11, 16]], DATA[[11, 16]])
    for way in (
        lambda: x + 1,
        lambda: np.asarray(x),
        lambda: x[...].sum(),
        lambda: x[10:17].copy(),
    ):
        with pytest.raises(lazyarr.ChunkError, match=r"c/3/0/0"):
            way()


def test_a_chunk_that_failed_is_tried_again(damaged):
    """As soon as it is what it should be."""
    damaged.damage(3)
    x = lazyarr.open(damaged.url)
    for _ in range(2):
        with pytest.raises(lazyarr.ChunkError):
            x[13]
    damaged.heal()
    np.testing.assert_array_equal(x[13], DATA[13])


def test_all_damaged_chunks_of_a_request_are_told(damaged):
    """The first one is raised, the others are its notes; what is intact was loaded."""
    damaged.damage(3, 7, 12)
    x = lazyarr.open(damaged.url)
    with pytest.raises(lazyarr.ChunkError) as caught:
        x.prefetch()
    assert caught.value.chunk == (3, 0, 0)
    assert ["c/7/" in note or "c/12/" in note for note in caught.value.__notes__] == [True, True]
    assert x.residency().resident_units == 13


def test_sixteen_threads_get_the_error(damaged):
    """All who wait for a damaged chunk get it, and nobody gets anything else."""
    damaged.damage(3)
    x = lazyarr.open(damaged.url)
    barrier = threading.Barrier(16)

    def read(_):
        barrier.wait()
        with pytest.raises(lazyarr.ChunkError):
            x[12:14].sum()
        np.testing.assert_array_equal(x[16], DATA[16])

    run_threads(read, 16)


def test_evicting_forgets_what_is_on_its_way(damaged):
    """What was read before an eviction is not found after it."""
    x = lazyarr.open(damaged.url)
    stop = threading.Event()

    def evict():
        while not stop.is_set():
            x.evict()

    evicting = threading.Thread(target=evict)
    evicting.start()
    try:
        run_threads(
            lambda seed: [np.testing.assert_array_equal(x[i], DATA[i]) for i in range(64)], 4
        )
    finally:
        stop.set()
        evicting.join()
    x.evict()
    damaged.damage(*range(16))
    with pytest.raises(lazyarr.ChunkError):
        x[0]


@given(
    shape=st.lists(st.integers(0, 9), max_size=3),
    threshold=st.integers(0, 60),
    edge=st.integers(1, 3),
    kind=st.sampled_from(["f4", "u1", "U3", "M8[s]", "c8"]),
)
@settings(max_examples=25)
def test_the_text_is_that_of_a_plain_array(shape, threshold, edge, kind):
    """Though only the corners are read."""
    data = images(tuple(shape), np.int64).astype(kind)
    with tempfile.TemporaryDirectory() as directory:
        np.save(Path(directory, "x.npy"), data)
        x = lazyarr.open(Path(directory, "x.npy"))
        with np.printoptions(threshold=threshold, edgeitems=edge):
            assert str(x) == f"{x}" == str(data)


def test_views_of_another_type(x):
    """Lazy where an element has as many bytes; a copy else."""
    for viewed in (x.view(), x.view("i2"), x.view(x.dtype.newbyteorder())):
        assert isinstance(viewed, lazyarr.CopyArray)
        np.testing.assert_array_equal(viewed, DATA.view(viewed.dtype))
    np.testing.assert_array_equal(x.view("u1"), DATA.view("u1"))
    assert type(x.view(np.ndarray)) is type(x.view("u1")) is np.ndarray
    assert type(x.view(type=np.ma.MaskedArray)) is np.ma.MaskedArray


def test_what_an_array_is_can_not_be_set(x):
    """As its shape: another type would be given to what is read by the old one."""
    for name in ("dtype", "shape"):
        with pytest.raises(AttributeError, match=f"{name!r} of 'CopyArray' object has no setter"):
            setattr(x, name, getattr(x, name))


def test_other_libraries_find_it_in_the_processors_memory(x, mine):
    """It is given to them as a copy of their own, by DLPack too."""
    assert x.device == "cpu"
    assert x.to_device("cpu") is x
    with pytest.raises(ValueError, match=r"[Dd]evice"):
        x.to_device("gpu")
    assert x.__dlpack_device__() == DATA.__dlpack_device__()
    given = np.from_dlpack(x)
    np.testing.assert_array_equal(given, DATA)
    np.testing.assert_array_equal(np.from_dlpack(mine[3:5], copy=True), DATA[3:5])
    with pytest.raises(BufferError, match="without a copy"):
        x.__dlpack__(copy=False)


def test_it_has_what_an_array_has_but_for_what_is_about_memory(x):
    """What is not there is an AttributeError, as of any object."""
    names = {name for name in dir(DATA) if name.startswith("__") or not name.startswith("_")}
    missing = {name for name in names if not hasattr(x, name)}
    assert missing == {
        "__array_finalize__", "__array_interface__", "__array_namespace__", "__array_priority__",
        "__array_struct__", "__array_wrap__", "__class_getitem__", "__delitem__", "__setstate__",
        "base", "ctypes", "data", "setfield", "setflags",
    } | ({"__buffer__"} & set(dir(DATA)))  # fmt: skip
    with pytest.raises(AttributeError, match="nothing"):
        x.nothing  # noqa: B018
