"""Functions that go through an array across its chunks, where it is larger than the limit."""

from __future__ import annotations

import numpy as np
import pytest

from tests.process.running import run_program
from tests.programs import walks as programs
from tests.stores import images, write_zarr

DATA = images((32, 64, 512))  # 2 MiB; each chunk is one of 32 frames


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Return a store, and the same numbers in a file."""
    directory = tmp_path_factory.mktemp("walks")
    np.save(directory / "x.npy", DATA)
    return write_zarr(directory / "x.zarr", DATA, chunks=(1, 64, 512)), directory / "x.npy"


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
    ended = run_program(programs.chunks_are_loaded_a_few_times, *stored, expression)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_views_are_written_to_files_so_too(stored, tmp_path):
    """They are written element by element."""
    ended = run_program(programs.views_are_written_to_files_so_too, *stored, tmp_path / "x.bin")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_goes_in_order_copies_nothing(stored):
    """The array is gone through where it lies, at the cost of the limit alone."""
    ended = run_program(programs.what_goes_in_order_copies_nothing, *stored)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_what_changes_its_array_never_gets_a_copy(stored):
    """Mode "r" is refused as ever; mode "c" takes the change."""
    ended = run_program(programs.what_changes_its_array_never_gets_a_copy, *stored)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_walk_across_chunks_of_plain_memory_is_warned_of(stored):
    """Once, naming the array and what to do; what goes in order, or in passes, is not."""
    ended = run_program(programs.a_walk_across_chunks_of_plain_memory_is_warned_of, *stored)
    assert (ended.returncode, ended.stderr) == (0, "")
    for words in (f"array '' of file://{stored[0]}", "32 units", "x.copy('F')", "memory_limit="):
        assert words in ended.stdout
