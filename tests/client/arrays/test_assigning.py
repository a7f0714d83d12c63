"""Assignments and functions that change an array, against NumPy's, in memory that is written to.

Each is tried with room for the whole array, and with so little that it is done part by part.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lazyarr
from tests.stores import write_zarr

SHAPE = (40, 8, 256)
DATA = np.random.default_rng(5).integers(0, 1000, SHAPE).astype("<i4")
LIMITS = {"whole": "1 GiB", "parts": "512 KiB"}
MASK = DATA % 3 == 0
ROWS = np.array([3, 39, -1, 3, 17, 0, 22, 8])


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return write_zarr(tmp_path_factory.mktemp("assigning") / "x.zarr", DATA, chunks=(2, 8, 128))


@pytest.fixture(params=LIMITS)
def x(request, url):
    with lazyarr.configure(memory_limit=LIMITS[request.param]):
        yield lazyarr.open(url, "c")


def value_of(*shape: int) -> np.ndarray[Any, Any]:
    return np.arange(1, 1 + int(np.prod(shape))).reshape(shape)


KEYS = {
    "all": (..., 7),
    "scalar place": ((3, 4, 5), -9),
    "row": (5, value_of(8, 256)),
    "rows from the end": (np.s_[:3:-2], value_of(8, 256)),
    "columns": (np.s_[:, 2], value_of(40, 256)),
    "more axes than needed": (np.s_[:], value_of(1, 1, 40, 8, 256)),
    "broadcast": (np.s_[2:30], value_of(8, 1)),
    "a list": (np.s_[:, :, 3], [1, 2, 3, 4, 5, 6, 7, 8]),
    "another type": (np.s_[:], value_of(256) + 0.75),
    "new axis": (np.s_[None, :], 5),
    "rows by number": (ROWS, value_of(8, 8, 256)),
    "rows twice": (np.array([5, 5, 5, 30]), value_of(4, 1, 1)),
    "rows and a slice": ((ROWS, slice(2, 5)), value_of(8, 3, 256)),
    "rows and a place": ((ROWS, 3), value_of(8, 256)),
    "rows and places": ((ROWS, np.arange(8)), value_of(8, 256)),
    "a table of rows": (ROWS.reshape(2, 4), value_of(2, 4, 8, 256)),
    "rows by mask": (MASK[:, 0, 0], 3),
    "mask of two axes": (MASK[:, :, 0], value_of(int(MASK[:, :, 0].sum()), 1)),
    "mask": (MASK, -1),
    "mask and values": (MASK, value_of(int(MASK.sum()))),
    "columns by number": (np.s_[:, [1, 5, 1]], value_of(3, 256)),
    "slice and columns": (np.s_[4:33, :, [1, 250]], value_of(29, 8, 2)),
    "axes that move": (np.s_[:, [1, 2], :, None], 4),
    "apart": ((slice(None), [1, 2], slice(None)), value_of(40, 2, 256)),
    "far apart": (([0, 9], slice(None), [3, 4]), value_of(2, 8)),
    "nothing": ([], 3),
    "none of the rows": (np.zeros(40, bool), 3),
    "true": (True, 6),
}


@pytest.mark.parametrize("name", KEYS)
def test_assignments_are_those_of_numpy(x, name):
    """Every kind of index, with values of every kind."""
    key, value = KEYS[name]
    expected = DATA.copy()
    expected[key] = value
    x[key] = value
    np.testing.assert_array_equal(np.asarray(x), expected)


@pytest.mark.parametrize("name", ["all", "columns", "rows by number", "mask", "rows from the end"])
def test_assignments_to_views(x, name):
    """A transposed view, and one that is reversed."""
    key, value = KEYS[name]
    value = value if np.ndim(value) == 0 else 11
    for view in (lambda a: a[::-1, :, ::2], lambda a: a[2:39, 1:, ::-1]):
        expected = DATA.copy()
        fitting = np.asarray(view(expected)).shape
        if name == "mask":
            key = np.arange(np.prod(fitting)).reshape(fitting) % 5 == 0
        elif name == "rows by number":
            key = ROWS % 30
        view(expected)[key] = value
        x[...] = DATA
        view(x)[key] = value
        np.testing.assert_array_equal(np.asarray(x), expected)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (np.s_[:], np.ones(3)), (np.s_[2:4], np.ones((3, 8, 256))), (41, 1), ([40], 1),
        (np.s_[0, 0, 0, 0], 1), (np.ones(3, bool), 1), (ROWS, np.ones((3, 8, 256))),
        (MASK, np.ones(5)), (1.5, 1), ("field", 1), (np.s_[:, [1, 9]], 1), (MASK[:30], 1),
    ],
)  # fmt: skip
def test_what_numpy_refuses_is_refused(x, key, value):
    """With an error of the same class; and nothing is changed."""
    plain = DATA.copy()
    with pytest.raises(Exception) as theirs:  # noqa: PT011 - whatever NumPy raises
        plain[key] = value
    with pytest.raises(type(theirs.value)):
        x[key] = value
    np.testing.assert_array_equal(np.asarray(x), DATA)


OVERLAPS = [
    lambda a: a.__setitem__(np.s_[1:], a[:-1]),
    lambda a: a.__setitem__(np.s_[:-1], a[1:]),
    lambda a: a.__setitem__(..., a[::-1]),
    lambda a: a.__setitem__(ROWS, a[2:10]),
    lambda a: a.__setitem__(np.arange(40)[::-1], a),
    lambda a: a.__setitem__(MASK, a[MASK][::-1]),
    lambda a: np.copyto(a, a[::-1]),
    lambda a: np.copyto(a[3:], a[:-3]),
    lambda a: np.add(a[1:], 1, out=a[:-1]),
]


@pytest.mark.parametrize("change", OVERLAPS)
def test_what_is_read_and_written_at_once(x, change):
    """An array that is assigned to itself, shifted or reversed."""
    expected = DATA.copy()
    change(expected)
    change(x)
    np.testing.assert_array_equal(np.asarray(x), expected)


def add_in_place(a):
    a += 1
    return a


def add_to_slices(a):
    a[4:30] *= 2
    a[:, 3] -= a[:, 2]
    a[ROWS] += 1


CHANGES = {
    "in place": add_in_place,
    "slices in place": add_to_slices,
    "out": lambda a: np.multiply(a, a[5], out=a),
    "out of small ones": lambda a: np.add(np.arange(256), 3, out=a),
    "out of numbers": lambda a: np.add(2, 3, out=a[3:]),
    "out and where": lambda a: np.negative(a, out=a, where=MASK),
    "two outs": lambda a: np.divmod(a, 7, out=(a, np.empty(SHAPE, "i4"))),
    "out of a method": lambda a: a.clip(3, 500, out=a),
    "out of a sum": lambda a: a[3:].sum(axis=0, out=a[1]),
    "out of cumsum": lambda a: np.cumsum(a, axis=0, out=a),
    "out of take": lambda a: np.take(DATA, np.arange(40)[::-1], axis=0, out=a),
    "at": lambda a: np.add.at(a, ROWS, 5),
    "copyto": lambda a: np.copyto(a, np.arange(256)),
    "copyto where": lambda a: np.copyto(a, DATA[::-1], where=MASK),
    "copyto of a number": lambda a: np.copyto(a[:, 2:], 9.5, casting="unsafe"),
    "fill": lambda a: a.fill(3),
    "fill a view": lambda a: a[::2, 1].fill(3.7),
    "sort": lambda a: a.sort(),
    "sort another axis": lambda a: a.sort(axis=1),
    "sort all": lambda a: a.sort(axis=0, kind="stable"),
    "put": lambda a: a.put([3, -1, 70_000, 5, 3], [7, 8]),
    "put clipped": lambda a: a.put([99_999_999, -5], 3, mode="clip"),
    "put of numpy": lambda a: np.put(a, np.arange(0, a.size, 999), np.arange(5)),
    "place": lambda a: np.place(a, MASK, [4, 5, 6]),
    "putmask": lambda a: np.putmask(a, MASK, [4, 5, 6]),
    "put_along_axis": lambda a: np.put_along_axis(a, np.zeros((40, 1, 256), int), 7, axis=1),
    "fill_diagonal": lambda a: np.fill_diagonal(a[:8, :, :8], 5),
    "byteswap": lambda a: a.byteswap(inplace=True),
    "flat": lambda a: a.flat.__setitem__(slice(None, None, 3), 4),
    "real": lambda a: setattr(a, "real", 8),
}


@pytest.mark.parametrize("name", CHANGES)
def test_functions_that_change_arrays(x, name):
    """Operators, out=, and NumPy's methods and functions that write to their argument."""
    expected = DATA.copy()
    CHANGES[name](expected)
    CHANGES[name](x)
    np.testing.assert_array_equal(np.asarray(x), expected)


def test_partition(x):
    """Elements before a place are smaller, and none is lost."""
    x.partition(100, axis=2)
    found = np.asarray(x)
    assert (found[:, :, :100].max(axis=2) <= found[:, :, 100]).all()
    np.testing.assert_array_equal(np.sort(found, axis=2), np.sort(DATA, axis=2))


def test_structs(tmp_path):
    """Fields, rows as tuples, and rows of one array in another."""
    data = np.zeros(30_000, np.dtype([("a", "<i4"), ("b", "<f8")]))
    data["a"] = np.arange(30_000)
    url = write_zarr(tmp_path / "s.zarr", data, chunks=(1000,), zarr_format=2)
    for limit in LIMITS.values():
        with lazyarr.configure(memory_limit=limit):
            x, expected = lazyarr.open(url, "c"), data.copy()
            for array in (x, expected):
                array["b"] = 2.5
                array[5] = (7, 8)
                array[10:20_000] = (3, 4)
                array[20_000:] = [(1, 2)] * 10_000
                array[["a", "b"]][7] = (5, 6)
            np.testing.assert_array_equal(np.asarray(x), expected)


def test_read_only_arrays_say_how_to_write(url):
    """And raise what NumPy raises."""
    x = lazyarr.open(url)
    assert x.mode == "r"
    for change in (lambda: x.__setitem__(0, 1), lambda: x.fill(3), lambda: np.copyto(x, 1)):
        with pytest.raises(ValueError, match="read-only"):
            change()
    with pytest.raises(ValueError, match=r"mode='r\+'"):
        x[0] = 1
