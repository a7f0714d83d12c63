"""Programs of tests/process/test_walks.py."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np

import lazyarr


def opened(path, copy):
    """Return an array with room for half of it, and what is in it."""
    lazyarr.configure(memory_limit="1 MiB")
    return lazyarr.open(path), np.load(copy)


def chunks_are_loaded_a_few_times(path, copy, expression):
    x, data = opened(path, copy)

    function = eval(f"lambda a: {expression}")
    before = lazyarr.stats()["units_loaded"]
    found = function(x)
    n_loaded = lazyarr.stats()["units_loaded"] - before
    np.testing.assert_array_equal(found, function(data))
    assert n_loaded <= 3 * 32, n_loaded


def views_are_written_to_files_so_too(path, copy, to):
    x, data = opened(path, copy)

    before = lazyarr.stats()["units_loaded"]
    np.moveaxis(x, 0, 1).tofile(to)
    n_loaded = lazyarr.stats()["units_loaded"] - before
    assert n_loaded <= 3 * 32, n_loaded
    assert (np.fromfile(to, data.dtype) == np.moveaxis(data, 0, 1).ravel()).all()


def what_goes_in_order_copies_nothing(path, copy):
    x, data = opened(path, copy)

    def peak(function):
        tracemalloc.start()
        function()
        nbytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return nbytes

    for function in (x.max, x.T.max, lambda: x.sum(axis=1), lambda: x.T.mean(axis=(0, 1))):
        function()  # imports what it needs
        assert peak(function) < data.nbytes / 4, peak(function)
    assert peak(lambda: x.T.tobytes()) > data.nbytes


def what_changes_its_array_never_gets_a_copy(path, copy):
    x, _ = opened(path, copy)

    for change in (x.sort, lambda: np.put(x.T, [0], 7), lambda: np.copyto(x.T, 7)):
        try:
            change()
        except ValueError as error:
            assert "read-only" in str(error), error
        else:
            raise AssertionError("it was changed")
    y = lazyarr.open(path, "c")
    np.copyto(y.T[::-1], 7)
    assert (np.asarray(y) == 7).all()


def a_walk_across_chunks_of_plain_memory_is_warned_of(path, copy):
    x, data = opened(path, copy)

    for _ in range(40):
        x.argmax(axis=0), x.sum(), np.asarray(x)[:4].sum(), x[0]
    before = lazyarr.stats()["units_reloaded"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert (np.array(x[:, :2, :64], order="F") == data[:, :2, :64]).all()
        for _ in range(3):
            x.evict(), x[5]
    reloaded = lazyarr.stats()["units_reloaded"] - before
    (warning,) = caught
    assert warning.category is lazyarr.PerformanceWarning
    assert warning.filename == __file__, warning
    print(warning.message)
    (array,) = lazyarr.stats()["arrays"]
    assert array["loads_per_unit"] == round(array["units_loaded"] / array["units"], 3)
    assert array["units_reloaded"] >= reloaded > 1000, (array, reloaded)
