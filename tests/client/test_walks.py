"""In which order functions go through an array, and when memory comes back: pure arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from lazyarr.client import walks

SHAPE = (32, 64, 512)
X = np.broadcast_to(np.uint16(0), SHAPE)


@pytest.mark.parametrize(
    ("walk", "room_nbytes", "expected"),
    [
        (None, 0, False),
        ("kernel", 0, False),
        (-1, 0, False),
        (2, 0, False),
        (1, 64 << 10, False),  # each line along it lies within 64 KiB
        (1, 60 << 10, True),
        (0, 1 << 20, True),
        (0, 2 << 20, False),
        (-3, 1 << 20, True),
        ("F", 1 << 20, True),
        (7, 0, False),  # NumPy refuses it
    ],
)
def test_array_in_the_order_of_the_memory(walk, room_nbytes, expected):
    """It comes back only where lines go across more than there is room for."""
    strides = (1 << 16, 1 << 10, 2)
    assert walks.comes_back(SHAPE, strides, walk, room_nbytes) is expected


def test_views_of_all_kinds():
    """What counts is where the elements lie, not how many there are."""
    x = np.zeros(SHAPE, np.uint16)

    def comes_back(view, walk=-1):
        return walks.comes_back(view.shape, view.strides, walk, 1 << 20)

    assert comes_back(x.T)
    assert comes_back(x.T, 0)  # not as it lies: the frames before the rows
    assert not comes_back(x.T, "F")
    assert comes_back(x.T, "kernel")
    assert comes_back(x[:, :, :1], 0)
    assert not comes_back(x[:8, :, :1], 0)
    assert not comes_back(x[::-1, ::-1, ::-1])
    assert comes_back(np.rot90(x))
    assert not comes_back(np.broadcast_to(x, (3, *SHAPE)))
    assert not comes_back(x[0, 0, 0])
    assert not comes_back(x[:0], 0)


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "expected"),
    [
        ("sum", (0,), {}, None),
        ("argmax", (), {}, -1),
        ("argmax", (1,), {}, 1),
        ("argmin", (), {"axis": 0}, 0),
        ("argsort", (), {}, -1),
        ("argpartition", (3, 1), {}, 1),
        ("argpartition", (3,), {}, -1),
        ("cumsum", (np.int64(0),), {}, 0),
        ("copy", (), {}, -1),
        ("copy", ("K",), {}, None),
        ("flatten", ("F",), {}, "F"),
        ("tobytes", (), {"order": "F"}, "F"),
        ("tolist", (), {}, -1),
        ("tofile", ("x",), {}, "kernel"),
        ("sort", (), {}, None),  # in place, and never of a copy
    ],
)
def test_methods(name, args, kwargs, expected):
    """By the arguments of `numpy.ndarray`'s methods, named or not."""
    assert walks.of_method(name, args, kwargs) == expected


@pytest.mark.parametrize(
    ("func", "args", "kwargs", "expected"),
    [
        (np.sum, (X, 0), {}, None),
        (np.median, (X,), {"axis": 0}, -1),  # sorts a copy in the order of the memory
        (np.argmax, (X, 0), {}, 0),
        (np.argmax, (X,), {}, -1),
        (np.unique, (X,), {"axis": 1}, 1),
        (np.unique, (X,), {}, -1),
        (np.apply_along_axis, (sum, 0, X), {}, 0),
        (np.fft.fft, (X,), {}, -1),
        (np.fft.fft, (X, None, 0), {}, 0),
        (np.fft.fft2, (X,), {}, -1),
        (np.lexsort, ((X, X),), {"axis": 0}, 0),
        (np.argmax, (X,), {"nonsense": 0}, -1),
        (np.save, ("x.npy", X), {}, "kernel"),
    ],
)
def test_functions(func, args, kwargs, expected):
    """By the arguments of NumPy's functions, wherever they stand."""
    assert walks.of_function(func, args, kwargs) == expected


@pytest.mark.parametrize(
    ("ufunc", "method", "args", "kwargs", "expected"),
    [
        (np.add, "__call__", (X, 1), {}, None),
        (np.add, "reduce", (X,), {"axis": 0}, None),
        (np.matmul, "__call__", (X, X), {}, -1),
        (np.maximum, "accumulate", (X,), {}, 0),
        (np.maximum, "accumulate", (X, 1), {}, 1),
        (np.add, "reduceat", (X, [0, 2]), {"axis": 2}, 2),
        (np.add, "reduceat", (X, [0, 2], 1), {}, 1),
    ],
)
def test_universal_functions(ufunc, method, args, kwargs, expected):
    """By their method: calls and reductions go by the memory."""
    assert walks.of_ufunc(ufunc, method, args, kwargs) == expected
