"""Functions that go through an array across its chunks, where it is larger than the limit."""

from __future__ import annotations

import numpy as np
import pytest

from tests.process.running import run_program
from tests.stores import images, write_zarr

DATA = images((32, 64, 512))  # 2 MiB; each chunk is one of 32 frames


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Return a store, and the same numbers in a file."""
    directory = tmp_path_factory.mktemp("walks")
    np.save(directory / "x.npy", DATA)
    return write_zarr(directory / "x.zarr", DATA, chunks=(1, 64, 512)), directory / "x.npy"


PROGRAM = """
    lazyarr.configure(memory_limit="1 MiB")
    x, data = lazyarr.open(sys.argv[1]), np.load(sys.argv[2])
"""


@pytest.mark.parametrize(
    "expression",
    [
        "a.argmax(axis=0)", "np.argmin(a, 0)", "a.argsort(axis=0)", "np.argpartition(a, 3, axis=0)",
        "a.view('i2').cumsum(0, dtype='i2')", "np.maximum.accumulate(a)", "a.T.copy()",
        "np.add.reduceat(a, [0, 9])", "a.ravel('F')", "a.flatten('F')", "np.fft.fft(a, axis=0)",
        "np.unique(a, axis=0)", "a.reshape(32, -1).T @ np.ones(32)", "np.rot90(a).copy()",
        "a.T.reshape(-1)", "np.nonzero(a.T)", "np.lexsort((a, a), axis=0)", "a.T.tolist()",
        "np.apply_along_axis(np.ptp, 0, a)", "np.median(a, axis=0)", "a.T.sum()", "a.max(axis=0)",
    ],
)  # fmt: skip
def test_chunks_are_loaded_a_few_times(stored, expression):
    """And not once for each element of a frame, for there is room for half of them."""
    program = f"""
    before = lazyarr.stats()["units_loaded"]
    found = (lambda a: {expression})(x)
    n_loaded = lazyarr.stats()["units_loaded"] - before
    np.testing.assert_array_equal(found, (lambda a: {expression})(data))
    assert n_loaded <= 3 * 32, n_loaded
    """
    ended = run_program(PROGRAM + program, *stored)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_views_are_written_to_files_so_too(stored, tmp_path):
    """They are written element by element."""
    program = """
    before = lazyarr.stats()["units_loaded"]
    np.moveaxis(x, 0, 1).tofile(sys.argv[3])
    n_loaded = lazyarr.stats()["units_loaded"] - before
    assert n_loaded <= 3 * 32, n_loaded
    assert (np.fromfile(sys.argv[3], data.dtype) == np.moveaxis(data, 0, 1).ravel()).all()
    """
    ended = run_program(PROGRAM + program, *stored, tmp_path / "x.bin")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_goes_in_order_copies_nothing(stored):
    """The array is gone through where it lies, at the cost of the limit alone."""
    program = """
    import tracemalloc
    def peak(function):
        tracemalloc.start()
        function()
        nbytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return nbytes
    for function in (x.max, x.T.max, lambda: x.sum(axis=1), lambda: x.T.mean(axis=(0, 1))):
        assert peak(function) < data.nbytes / 4, peak(function)
    assert peak(lambda: x.T.tobytes()) > data.nbytes
    """
    ended = run_program(PROGRAM + program, *stored)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_changes_its_array_never_gets_a_copy(stored):
    """Mode "r" is refused as ever; mode "c" takes the change."""
    program = """
    for change in (x.sort, lambda: np.put(x.T, [0], 7), lambda: np.copyto(x.T, 7)):
        try:
            change()
        except ValueError as error:
            assert "read-only" in str(error), error
        else:
            raise AssertionError("it was changed")
    y = lazyarr.open(sys.argv[1], "c")
    np.copyto(y.T[::-1], 7)
    assert (np.asarray(y) == 7).all()
    """
    ended = run_program(PROGRAM + program, *stored)
    assert (ended.returncode, ended.stderr) == (0, "")
