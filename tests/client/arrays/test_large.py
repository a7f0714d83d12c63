"""Operations on arrays that are too large for one request: what NumPy gives, part by part."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import lazyarr
from lazyarr import CopyArray, LazyArray
from tests.client.operations import EVERYWHERE, INDEXES, METHODS_ELSEWHERE, differs
from tests.engines import memory_only
from tests.stores import images, write_zarr

pytestmark = pytest.mark.usefixtures("engine")

SHAPE = (32, 8, 256)
CHUNKS = {"rows": (4, 8, 256), "tiles": (8, 4, 64), "uneven": (5, 8, 256)}


def numbers(dtype):
    """Return numbers of which, in floating point, one is NaN."""
    data = images(SHAPE)
    if np.dtype(dtype).kind == "f":
        data = data / 32768 - 0.9
        data[20, 3, 7] = np.nan
    return data.astype(dtype)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Give a function that returns data and the URL of a store with it, by dtype and chunks."""
    made = {}

    def store(dtype, chunks):
        if (dtype, chunks) not in made:
            data = numbers(dtype)
            path = tmp_path_factory.mktemp("large") / "x.zarr"
            made[dtype, chunks] = data, write_zarr(path, data, chunks=CHUNKS[chunks])
        return made[dtype, chunks]

    return store


def outcome(function, array):
    """Return what a function gives or raises, without NumPy's warnings."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return function(array)
        except (TypeError, ValueError) as error:
            return type(error).__name__


@pytest.mark.parametrize(
    ("dtype", "chunks"),
    [
        ("u2", "tiles"),
        ("i1", "rows"),
        ("f4", "uneven"),
        ("f2", "rows"),
        ("c8", "tiles"),
        ("?", "rows"),
    ],
)
def test_operations_give_what_numpy_gives(stored, dtype, chunks):
    """Every one of them, on an array four times as large as the memory limit."""
    data, url = stored(dtype, chunks)
    wrong = {}
    with lazyarr.configure(memory_limit=data.nbytes // 4):
        x = lazyarr.open(url)
        operations = {**EVERYWHERE, **INDEXES, "trace": lambda a: a.trace()}
        for name, function in operations.items():
            ours, theirs = outcome(function, x), outcome(function, data)
            difference = differs(ours, theirs)
            if difference or isinstance(ours, LazyArray | CopyArray):
                wrong[name] = difference or "lazy"
    assert not wrong


def test_every_method_is_among_the_operations():
    """So that one which NumPy adds is not forgotten."""
    names = {name for name in dir(np.ndarray) if callable(getattr(np.ndarray, name))}
    methods = {name for name in names if not name.startswith("_")} - METHODS_ELSEWHERE.keys()
    assert {name for name in methods if not any(f".{name}(" in e for e in EVERYWHERE)} == set()


@pytest.mark.parametrize("value", [5, -3.5, 2**17, [9, 800, 800, -1], [[1.5], [30000]]])
def test_few_elements_are_read_where_few_are_needed(tmp_path, value):
    """To find a place in an array in order, to print it, to take an element."""
    data = np.sort(numbers("u2"), axis=None)
    url = write_zarr(tmp_path / "x.zarr", data, chunks=(1 << 11,))
    with lazyarr.configure(memory_limit=data.nbytes // 4):
        x = lazyarr.open(url)
        before = lazyarr.stats()["units_loaded"]
        for side in ("left", "right"):
            ours, theirs = x.searchsorted(value, side), data.searchsorted(value, side)
            assert not differs(ours, theirs)
            assert not differs(np.searchsorted(x, value, side), theirs)
        assert x.item(7) == data.item(7)
        if isinstance(x, LazyArray):
            assert str(x) == np.array2string(x) == str(data)
        assert lazyarr.stats()["units_loaded"] - before < 200


def test_sorting_puts_nan_last(tmp_path):
    """So places are found as in NumPy where there are some."""
    data = np.sort(np.append(numbers("f4").ravel()[:-9], [np.nan] * 9))
    url = write_zarr(tmp_path / "x.zarr", data, chunks=(1 << 12,))
    with lazyarr.configure(memory_limit=data.nbytes // 4):
        x = lazyarr.open(url)
        for side in ("left", "right"):
            wanted = [np.nan, 3, -99]
            assert not differs(x.searchsorted(wanted, side), data.searchsorted(wanted, side))


@memory_only
def test_what_was_written_is_seen(stored):
    """Operations in mode "c" compute on the memory as it is, also where it was written to."""
    data, url = stored("u2", "rows")
    with lazyarr.configure(memory_limit=data.nbytes // 4):
        x, expected = lazyarr.open(url, "c"), data.copy()
        for array in (x, expected):
            array[3:25:7] = 7
            array += 1
            array[:, 2] *= 3
            array[1:] += array[:-1]  # NumPy reads all before it writes
            np.copyto(array[5:9], 4)
            array[20].sort()
            np.multiply(array, 2, out=array)
            array[[15, 28]] = 9
            array[array > 60000] = 1
        for name, function in {**EVERYWHERE, **INDEXES}.items():
            assert not differs(outcome(function, x), outcome(function, expected)), name


@memory_only
def test_views_with_the_memory_in_another_order(stored):
    """Turned, reversed, with gaps, broadcast."""
    data, url = stored("u2", "rows")
    views = [
        lambda a: a.T, lambda a: a[::-1, ::2, ::-3], lambda a: np.moveaxis(a, 0, 1),
        lambda a: a[:, 3], lambda a: a.reshape(-1),
        lambda a: np.broadcast_to(a[:, None], (32, 3, 8, 256)),
        lambda a: a.view("u1"), lambda a: np.rot90(a, axes=(0, 2)),
    ]  # fmt: skip
    operations = [
        lambda a: a.sum(), lambda a: a.max(axis=0), lambda a: a.argmax(),
        lambda a: a.argmin(axis=-1),
        lambda a: a + 1, lambda a: a.copy(), lambda a: a.cumsum(axis=0), lambda a: a.tobytes(),
        lambda a: a.nonzero()[0], lambda a: a[a > 9],
        lambda a: a[[1, 2]], lambda a: a.mean(axis=-1),
        lambda a: a.T @ np.ones(len(a)), lambda a: a.tolist(),
    ]  # fmt: skip
    with lazyarr.configure(memory_limit=data.nbytes // 8):
        x = lazyarr.open(url)
        for number, view in enumerate(views):
            for place, operation in enumerate(operations):
                ours, theirs = operation(view(x)), operation(view(data))
                assert not differs(ours, theirs), (number, place)
