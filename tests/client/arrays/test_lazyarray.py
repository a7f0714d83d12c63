"""What users do with a LazyArray."""

from __future__ import annotations

import copy
import io
import pickle
import sys
import threading
import warnings

import numpy as np
import pytest

import lazyarr
from lazyarr import CopyArray, LazyArray
from tests.engines import ARRAYS, memory_only
from tests.process.running import wait_until
from tests.stores import images, write_zarr

DATA = images()

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return write_zarr(tmp_path_factory.mktemp("client") / "x.zarr", DATA, chunks=(4, 32, 128))


@pytest.fixture
def x(url, engine):
    # A test that has just ended may have left its array alive, whose pages this one shares.
    x = lazyarr.open(url)
    x.evict()
    return x


def is_plain(value):
    return type(value) is np.ndarray


def is_lazy(value):
    return isinstance(value, LazyArray | CopyArray)


def test_opening_reads_nothing(x, engine):
    """A new array is of the engine's class and the right shape, with no unit in memory."""
    assert type(x) is ARRAYS[engine]
    assert isinstance(x, np.ndarray) == (engine == "userfaultfd")
    assert (x.ndim, x.size, x.nbytes, x.itemsize, len(x)) == (3, DATA.size, DATA.nbytes, 2, 64)
    assert (x.shape, x.dtype) == ((64, 32, 128), DATA.dtype)
    assert (x.chunks, x.shards) == ((4, 32, 128), None)
    assert (x.nchunks, x.fill_value, x.path, x.dimension_names) == (16, 0, "", None)
    assert x.residency().resident_units == 0


@pytest.mark.parametrize(
    "key",
    [
        np.s_[3:9], np.s_[::2], np.s_[:, 5], np.s_[..., ::-1], np.s_[::-3, 1:2], np.s_[None, 2:],
        np.s_[5:5], np.s_[:, :, 7], np.s_[...],
    ],
)  # fmt: skip
def test_slices_are_free(x, key, engine):
    """A slice is lazy, with the right elements, and loads nothing by itself."""
    view = x[key]
    assert type(view) is ARRAYS[engine]
    assert x.residency().resident_units == 0
    np.testing.assert_array_equal(np.asarray(view), DATA[key])


@pytest.mark.parametrize(
    "key",
    [
        0, -1,
        np.int64(17), (5, 3), (5, 3, 7), (-1, slice(2, 4)), [1, 60, 33], np.array([[2], [9]]),
        DATA[:, 0, 0] > 30000, (slice(None), [3, 4]), ([1, 2], [3, 4]), (0, ..., 5), [],
        DATA > 60000, True, (slice(2, 9), 3, [1, 2]), np.array(7), (None, 3),
    ],
)  # fmt: skip
def test_picks_are_plain(x, key):
    """Picking elements gives what NumPy gives, as plain arrays and scalars."""
    picked, expected = x[key], DATA[key]
    np.testing.assert_array_equal(picked, expected)
    assert not is_lazy(picked) or key == (None, 3)
    assert np.shape(picked) == np.shape(expected)


def test_masks_of_views_without_rows(x):
    """Pick nothing, as NumPy's do, of whatever shape the mask is."""
    for view, plain in ((x[:0], DATA[:0]), (x[:, :0], DATA[:, :0])):
        for n_axes in (1, 2, 3):
            mask = np.ones(plain.shape[:n_axes], bool)
            np.testing.assert_array_equal(view[mask], plain[mask])


@pytest.mark.parametrize("key", [64, -65, (0, 32), [64], (0, 0, 0, 0), "field", 1.5])
def test_wrong_indexes_raise_what_numpy_raises(x, key):
    """An index that NumPy refuses is refused with NumPy's error."""
    with pytest.raises(IndexError) as ours:
        x[key]
    with pytest.raises(IndexError) as theirs:
        DATA[key]
    assert str(ours.value) == str(theirs.value)


def test_a_pick_loads_its_own_chunk_only(x):
    """One row brings one unit."""
    x[17]
    assert x.residency().map.tolist() == [unit == 4 for unit in range(16)]
    assert x[16:20].residency().resident_units == 1


@pytest.mark.parametrize(
    "function",
    [
        lambda a: a + 1, lambda a: a.sum(), lambda a: a.mean(axis=0), lambda a: a.max(axis=(1, 2)),
        lambda a: a.astype("f4"), lambda a: np.concatenate([a, a]), lambda a: np.stack([a[0]]),
        lambda a: a.copy(), lambda a: np.median(a), lambda a: a.argmax(), lambda a: a.std(),
        lambda a: a.reshape(-1)[5:9], lambda a: a.T[3], lambda a: a.flatten(), lambda a: a.tolist(),
        lambda a: a.take([1, 5], axis=0), lambda a: a.take([1, 5]), lambda a: np.sort(a, axis=0),
        lambda a: a == a, lambda a: np.add.reduce(a), lambda a: a.cumsum(), lambda a: a.tobytes(),
        lambda a: np.where(a > 9, a, 0), lambda a: a @ np.ones((128, 2)), lambda a: a.any(),
        lambda a: np.einsum("ijk->i", a), lambda a: a.item(0), lambda a: [r.sum() for r in a],
        lambda a: np.array(a), lambda a: copy.copy(a), lambda a: copy.deepcopy(a), lambda a: -a,
        lambda a: a.swapaxes(0, 1).ravel(), lambda a: np.linalg.norm(a[0]), lambda a: len(a),
        lambda a: np.array_equal(a, DATA), lambda a: a.clip(5, 9), lambda a: divmod(a, 7)[1],
        lambda a: np.percentile(a, 30), lambda a: np.save(io.BytesIO(), a), lambda a: 5 in a,
    ],
)  # fmt: skip
def test_operations_give_plain_results(x, function):
    """Whatever computes gives NumPy's result, and no LazyArray."""
    ours, expected = function(x), function(DATA)
    np.testing.assert_array_equal(ours, expected)
    assert type(ours) is type(expected) or (is_lazy(ours) and isinstance(ours.path, str))


@pytest.mark.parametrize(
    "function",
    [np.transpose, np.shape, lambda a: np.moveaxis(a, 0, -1), np.expand_dims, np.squeeze, np.flip],
)
def test_free_functions_load_nothing(x, function):
    """Functions that look at the shape or make a view read no element."""
    arguments = (0,) if function is np.expand_dims else ()
    function(x, *arguments)
    assert x.residency().resident_units == 0


@memory_only
def test_asarray_is_the_same_memory(x):
    """np.asarray gives a plain array over the same pages."""
    raw = np.asarray(x)
    assert is_plain(raw)
    assert np.shares_memory(raw, x)
    np.testing.assert_array_equal(raw, DATA)


def test_mode_r_is_read_only(x):
    """Nothing can be assigned in mode r."""
    with pytest.raises(ValueError, match="read-only"):
        x[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        x += 1
    with pytest.raises(ValueError, match=r"resize|own"):
        x.resize((5,))


def test_mode_c_keeps_writes_private(url):
    """What is written in mode c stays in this array; the store and other arrays keep theirs."""
    mine, other = lazyarr.open(url, mode="c"), lazyarr.open(url)
    expected = DATA.copy()
    mine[3], expected[3] = 7, 7
    mine[10:20, 4] += 1
    expected[10:20, 4] += 1
    np.testing.assert_array_equal(np.asarray(mine), expected)
    np.testing.assert_array_equal(np.asarray(other), DATA)
    mine.evict()
    np.testing.assert_array_equal(np.asarray(mine), expected)


def test_out_may_be_lazy_in_mode_c(url):
    """An operation can write its result into a copy-on-write array."""
    mine = lazyarr.open(url, mode="c")
    result = np.add(DATA, 1, out=mine)
    assert result is mine
    np.testing.assert_array_equal(np.asarray(mine), DATA + 1)


def test_evicted_units_come_again(x):
    """Evicting takes out what is resident, and the next touch reads it again."""
    raw = np.asarray(x)
    assert raw.sum(dtype=np.int64) == DATA.sum(dtype=np.int64)
    assert wait_until(lambda: x.residency().resident_nbytes == DATA.nbytes)
    x[8:16].evict()
    assert x.residency().resident_units == 14
    x.evict()
    assert x.residency().resident_units == 0
    np.testing.assert_array_equal(raw, DATA)


def test_printing_reads_what_is_shown(x):
    """As NumPy prints it, in an f-string too; of a large array the corners alone are loaded."""
    assert str(x) == f"{x}" == str(DATA)
    assert str(x.T[3:9]) == str(DATA.T[3:9])
    if isinstance(x, lazyarr.LazyArray):  # the other engine has no memory to look at
        assert 0 < x.residency().resident_units <= 4
    assert str(x[0, 1]) == str(DATA[0, 1])
    assert f"{x[2:3, 3:4, 4:5].reshape(()):6d}" == f"{DATA[2, 3, 4]:6d}"


def test_prefetch(x):
    """Prefetching brings what an index needs, waiting or not, with a bar or not."""
    x.prefetch(slice(0, 8))
    assert x.residency().resident_units == 2
    x.prefetch([63])
    assert x.residency().map[15]
    x.prefetch(progress=True)
    assert x.residency().resident_units == 16
    with lazyarr.configure(memory_limit=DATA.nbytes - 1), pytest.raises(ValueError, match="limit"):
        x.prefetch()


def test_prefetch_of_what_is_no_index_is_refused(x):
    """As NumPy refuses it; nothing is loaded."""
    for index in ("all", 10**6, 1.5):
        with pytest.raises(IndexError):
            x.prefetch(index)
    assert x.residency().resident_units == 0


def test_prefetch_without_waiting_serves_touches(x):
    """A touch during a prefetch in the background reads right."""
    x.prefetch(wait=False)
    np.testing.assert_array_equal(np.asarray(x), DATA)
    for thread in threading.enumerate():
        if thread.name == "lazyarr-prefetch":
            thread.join()


def test_advice_is_one_of_three_words(x):
    """Of the array and of views, also empty ones; it reads nothing, and changes no data."""
    for advice in ("sequential", "random", "normal"):
        x.advise(advice)
        x[8:2:-1, ::2].advise(advice)
        x[:0].advise(advice)
    assert x.residency().resident_units == 0
    with pytest.raises(ValueError, match=r"advice='backwards' is not one of normal, sequential"):
        x.advise("backwards")
    np.testing.assert_array_equal(x[5], DATA[5])


@memory_only
def test_functions_find_memory_by_address(x):
    """prefetch, residency and evict take any view of lazy memory, and nothing else."""
    raw = np.asarray(x)[4:8]
    lazyarr.prefetch(raw)
    assert lazyarr.residency(raw).resident_units == 1
    lazyarr.evict(raw)
    assert lazyarr.residency(raw).resident_units == 0
    for other in (np.zeros(3), [1, 2], None):
        with pytest.raises(TypeError, match="memory that lazyarr fills"):
            lazyarr.residency(other)


def test_pickles_as_a_reference(x):
    """A pickle holds no data, and gives the same selection back."""
    view = x[10:40:3, ::-1, 5]
    packed = pickle.dumps(view)
    assert len(packed) < 2000
    again = pickle.loads(packed)
    assert is_lazy(again)
    np.testing.assert_array_equal(np.asarray(again), DATA[10:40:3, ::-1, 5])


def test_stays_valid_after_everything_else_is_dropped(url):
    """A view keeps the memory, whatever became of the array it came from."""
    view = np.asarray(lazyarr.open(url))[20:]
    np.testing.assert_array_equal(view, DATA[20:])


def test_many_threads_read_right(x):
    """Threads on the same and on different pages all read the data."""
    raw, wrong = np.asarray(x), []

    def read(seed):
        for i in np.random.default_rng(seed).integers(0, 64, 50):
            picked = raw[i].copy() if seed % 2 else x[i]
            if not np.array_equal(picked, DATA[i]):
                wrong.append(i)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_repr_loads_nothing_and_says_what_it_is(x):
    """The repr names the array and its residency without reading it."""
    said = f"<{type(x).__name__} / (64, 32, 128) uint16, mode 'r', 0 of 16 units resident"
    assert repr(x).startswith(said)
    assert x.residency().resident_units == 0
    assert repr(x.copy()) == repr(DATA)


def test_a_lazy_array_is_not_made_by_hand(engine):
    """Calling the class is refused: such an array would never fill."""
    with pytest.raises(TypeError, match=r"lazyarr\.open"):
        ARRAYS[engine]((3,))


def test_attributes_are_gone_from_results(x):
    """A result has no store behind it, and says so by being a plain array."""
    assert not hasattr(x + 1, "chunks")


def test_memory_limit_holds_while_scanning(url):
    """A raw scan of more than the limit stays within it, and reads right."""
    limit_nbytes = DATA.nbytes // 4
    with lazyarr.configure(memory_limit=limit_nbytes):
        raw = np.asarray(lazyarr.open(url))
        for _ in range(3):
            assert raw.tobytes() == DATA.tobytes()
            assert lazyarr.stats()["resident_bytes"] <= limit_nbytes
    assert lazyarr.stats()["evictions"] > 0


def test_a_chunk_that_reaches_far_beyond_its_array_is_refused(tmp_path):
    """It would be decoded whole: what counts is its size, not the array's."""
    url = write_zarr(tmp_path / "x.zarr", np.arange(9, dtype="u1"), chunks=(9,))
    document = tmp_path / "x.zarr/zarr.json"
    document.write_text(document.read_text().replace("9", str(2**50)))
    document.write_text(document.read_text().replace(str(2**50), "9", 1))
    with pytest.raises(lazyarr.FormatError, match=f"takes {2**50} bytes, the memory limit is"):
        lazyarr.open(url)


@pytest.mark.parametrize("key", [1.5, np.nan, [1.0, 2.0], np.array([0.5])], ids=str)
def test_nothing_is_loaded_for_an_index_that_is_no_integer(x, key):
    """The error comes at once, and from prefetch too."""
    with pytest.raises(IndexError, match="integer"):
        x[key]
    with pytest.raises(IndexError, match="integer"):
        x.prefetch(key)
    assert x.residency().resident_units == 0


def test_a_unit_larger_than_the_limit_is_refused(url):
    """Opening says which limit and which size do not go together."""
    with (
        lazyarr.configure(memory_limit=1000),
        pytest.raises(lazyarr.FormatError, match="32768 bytes, the memory limit is 1000"),
    ):
        lazyarr.open(url)


@memory_only
@pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 688 is of Python 3.12")
def test_who_takes_the_buffer_gets_what_is_loaded(url):
    """A system call could not wait for it."""
    x = lazyarr.open(url)
    before = lazyarr.stats()["faults"]
    view = memoryview(x[5:9])
    assert view.nbytes == x[5:9].nbytes
    assert x.residency().resident_units == 2
    assert view.tobytes() == DATA[5:9].tobytes()
    assert lazyarr.stats()["faults"] == before


@memory_only
def test_rows_are_of_the_shape_and_type_that_were_set_last(url, engine):
    """Also where rows were picked before, by the shape and the type that the array had."""
    x, plain = lazyarr.open(url), DATA.copy()
    assert x[1].shape == (32, 128)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy wants such arrays made anew
        x.shape = plain.shape = (32, 64, 128)
        np.testing.assert_array_equal(x[31], plain[31], strict=True)
        x.dtype = plain.dtype = np.int8
        np.testing.assert_array_equal(x[17], plain[17], strict=True)
        np.testing.assert_array_equal(x[[3, -1]], plain[[3, -1]], strict=True)
