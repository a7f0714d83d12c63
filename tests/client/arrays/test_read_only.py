"""Every way to change an array that cannot be changed says what to do, and reads nothing."""

from __future__ import annotations

import numpy as np
import pytest

import lazyarr

pytestmark = pytest.mark.usefixtures("engine")

ONES = np.ones((4, 4))


def _add_in_place(x):
    x += 1


def _multiply_rows(x):
    x[1:] *= 2


def _set_real(x):
    x.real = 3


def _set_imag(x):
    x.imag = 3


CHANGES = {
    "x[i] = v": lambda x: x.__setitem__(0, 1),
    "x += 1": _add_in_place,
    "x[1:] *= 2": _multiply_rows,
    "out=": lambda x: np.add(x, 1, out=x),
    "out= of several": lambda x: np.modf(ONES, out=(np.empty((4, 4)), x)),
    "out= of a method": lambda x: x.clip(0, 1, out=x),
    "out= of a function": lambda x: np.cumsum(ONES, 1, out=x),
    "out= of take": lambda x: x.take([0, 1, 2, 3], 0, out=x),
    "ufunc.at": lambda x: np.add.at(x, [0], 1),
    "fill": lambda x: x.fill(1),
    "sort": lambda x: x.sort(),
    "put": lambda x: x.put([0], 1),
    "partition": lambda x: x.partition(1),
    "byteswap": lambda x: x.byteswap(True),
    "numpy.put": lambda x: np.put(x, [0], 1),
    "numpy.copyto": lambda x: np.copyto(x, 1),
    "numpy.fill_diagonal": lambda x: np.fill_diagonal(x, 1),
    "real": _set_real,
}
OF_COMPLEX = {"real": _set_real, "imag": _set_imag}


@pytest.fixture
def ds(tmp_path):
    path = str(tmp_path / "s.zarr")
    values = np.arange(16.0).reshape(4, 4)
    lazyarr.save(path, {"x": values, "z": values * (1 + 1j)})
    return lambda mode: lazyarr.open(path, mode)


@pytest.mark.parametrize("how", CHANGES)
def test_in_mode_r(ds, how):
    x = ds("r")["x"]
    with pytest.raises(ValueError, match=r"is read-only: .*mode='c'.*mode='r\+'"):
        CHANGES[how](x)
    assert x.residency().resident_units == 0 or how == "out= of take"


@pytest.mark.parametrize("how", CHANGES)
def test_of_an_array_that_another_has_taken_the_place_of(ds, how):
    x = ds("r+")["x"]
    x.append(ONES)
    with pytest.raises(ValueError, match="is read-only: the stored array was appended to"):
        CHANGES[how](x)


@pytest.mark.parametrize("how", OF_COMPLEX)
def test_parts_of_complex_numbers(ds, how):
    with pytest.raises(ValueError, match=r"is read-only: .*mode='r\+'"):
        OF_COMPLEX[how](ds("r")["z"])
    with ds("r+") as writable:
        z = writable["z"]
        expected = np.array(z)
        OF_COMPLEX[how](z)
        OF_COMPLEX[how](expected)
    np.testing.assert_array_equal(ds("r")["z"][...], expected)


@pytest.mark.parametrize("how", CHANGES)
def test_in_other_modes_it_is_numpys(ds, how):
    expected = np.arange(16.0).reshape(4, 4)
    CHANGES[how](expected)
    for mode in ("c", "r+"):
        x = ds(mode)["x"]
        CHANGES[how](x)
        np.testing.assert_array_equal(np.array(x), expected)
