from __future__ import annotations

import h5py
import ml_dtypes
import numpy as np
import pytest
import tensorstore
import zarr

from lazyarr.units import Span
from lazyarr.writer.source import as_source

DATA = np.arange(60, dtype="i2").reshape(10, 6)
BOX = (Span(3, 7), Span(1, 4))


class Sliceable:
    """An array-like that remembers what was asked of it, and cannot be had whole."""

    def __init__(self, data):
        self._data = data
        self.shape, self.dtype = data.shape, data.dtype
        self.asked = []

    def __getitem__(self, index):
        self.asked.append(index)
        return self._data[index]

    def __array__(self, *_, **__):
        raise AssertionError("all of it was asked for")


def in_zarr(tmp_path):
    array = zarr.create_array(tmp_path / "x", shape=DATA.shape, dtype=DATA.dtype, chunks=(2, 6))
    array[...] = DATA
    return array


def in_h5py(tmp_path):
    file = h5py.File(tmp_path / "x.h5", "w")
    return file.create_dataset("x", data=DATA, chunks=(2, 6))


def in_tensorstore(tmp_path):
    in_zarr(tmp_path)
    spec = {"driver": "zarr3", "kvstore": f"file://{tmp_path}/x/"}
    return tensorstore.open(spec).result()


def in_memmap(tmp_path):
    DATA.tofile(tmp_path / "x")
    return np.memmap(tmp_path / "x", DATA.dtype, "r", shape=DATA.shape)


@pytest.mark.parametrize(
    "make",
    [
        *(in_zarr, in_h5py, in_tensorstore, in_memmap, lambda _: Sliceable(DATA)),
        *(lambda _: DATA, lambda _: DATA.tolist(), lambda _: DATA.astype(">i2")),
    ],
)
def test_boxes_are_read(tmp_path, make):
    """Every kind of array-like gives the elements of a box as a plain ndarray."""
    source = as_source(make(tmp_path))
    assert source.shape == DATA.shape
    block = source.read(BOX)
    assert type(block) is np.ndarray
    assert np.array_equal(block, DATA[3:7, 1:4])


def test_only_the_box_is_asked_for():
    """What gives slices is sliced, once for each read."""
    data = Sliceable(DATA)
    as_source(data).read(BOX)
    assert data.asked == [(slice(3, 7), slice(1, 4))]


def test_memory_is_not_copied():
    """An ndarray, memory-mapped ones too, is read as a view."""
    source = as_source(DATA)
    assert source.is_in_memory
    assert np.shares_memory(source.read(BOX), DATA)


def test_array_without_axes_is_read():
    """Also from array-likes."""
    assert as_source(3.5).read(()) == 3.5
    assert as_source(Sliceable(np.array(3))).read(()) == 3


@pytest.mark.parametrize(
    "data",
    [
        np.array(["a", None], object),
        ["a", None],
        np.array([(1, None)], [("a", "i4"), ("b", object)]),
        np.array(["a", "bc"], np.dtypes.StringDType()),
        Sliceable(np.array(["a", None], object)),
    ],
    ids=["array", "list", "structured", "strings", "array-like"],
)
def test_objects_are_refused(data):
    """Elements of no fixed size raise TypeError with the array's name and a remedy."""
    with pytest.raises(TypeError, match=r"array 'train/x'.*no fixed size; convert it"):
        as_source(data, name="train/x")


def test_masks_are_refused():
    """A masked array would lose its mask."""
    with pytest.raises(TypeError, match="masked"):
        as_source(np.ma.masked_equal([1, 2], 2))


def test_wrong_answer_is_an_error():
    """An array-like that takes slices otherwise does not corrupt what is stored."""
    data = Sliceable(DATA)
    data.shape = (20, 6)
    with pytest.raises(ValueError, match=r"give a numpy\.ndarray"):
        as_source(data).read((Span(5, 15), Span(0, 6)))


def test_types_of_ml_dtypes_stay():
    """bfloat16 is no object."""
    assert as_source(np.zeros(3, ml_dtypes.bfloat16)).dtype == ml_dtypes.bfloat16


class Lazy(np.ndarray):
    """A lazy array whose memory limit is a number of elements."""

    limit = 10**9
    asked: list

    def prefetch(self, index):
        part = np.asarray(self)[index]
        if part.size > self.limit:
            raise ValueError("larger than the limit")
        self.asked.append(part.size)


@pytest.mark.parametrize(("limit", "asked"), [(100, [12]), (7, [6, 6]), (1, [1] * 12)])
def test_lazy_array_is_asked_before_it_is_touched(limit, asked):
    """In as many parts as its memory limit needs; and copied, before it is evicted."""
    lazy = DATA.view(Lazy)
    lazy.limit, lazy.asked = limit, []
    source = as_source(lazy)
    block = source.read(BOX)
    assert np.array_equal(block, DATA[3:7, 1:4])
    assert lazy.asked == asked
    assert not np.shares_memory(block, DATA)
    assert not source.is_in_memory
