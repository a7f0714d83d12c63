"""A worker process that cannot open an array says so to whoever waits for its result."""

from __future__ import annotations

import math
import operator
import os
import pickle
import socket

import numpy as np
import pytest

import lazyarr
from lazyarr.client.pickling.unreachable import Unreachable
from tests.process.running import run_program
from tests.programs import unreachable as programs


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_nobody_waits_for_ever_for_what_a_worker_can_not_open(tmp_path, method):
    """The error is that of the task, and the pool goes on."""
    lazyarr.save(tmp_path / "x.zarr", {"a": np.arange(40.0)})
    ended = run_program(
        programs.nobody_waits_for_ever_for_what_a_worker_can_not_open, tmp_path / "x.zarr", method
    )
    assert (ended.returncode, ended.stdout) == (0, "True\n" * 5), ended.stderr


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_begins_with_what_it_can_not_open(tmp_path, method):
    """A worker that died of it would be replaced by the next one, for ever."""
    lazyarr.save(tmp_path / "x.zarr", {"a": np.arange(40.0)})
    ended = run_program(
        programs.a_pool_begins_with_what_it_can_not_open, tmp_path / "x.zarr", method
    )
    assert (ended.returncode, ended.stdout) == (0, "3\n"), ended.stderr


@pytest.mark.parametrize("options", [{"mode": "c"}, {"memory": "private"}])
@pytest.mark.parametrize("what", ["shape", "dtype", "order", "group"])
def test_an_array_of_other_rows_is_not_taken_for_the_one_that_was_pickled(tmp_path, options, what):
    """Where it is as large its elements would be other ones."""
    data = np.arange(40.0).reshape(10, 4)
    lazyarr.save(tmp_path / "x.zarr", data)
    pickled = pickle.dumps(lazyarr.open(tmp_path / "x.zarr", **options)[2:])
    again = {
        "shape": data.reshape(4, 10),
        "dtype": data.view("i8"),
        "order": np.asfortranarray(data.T),
        "group": {"a": data},
    }[what]
    lazyarr.save(tmp_path / "x.zarr", again, overwrite=True)
    with pytest.raises(lazyarr.FormatError):
        pickle.loads(pickled)
    lazyarr.save(tmp_path / "x.zarr", np.concatenate([data, data]), overwrite=True)
    np.testing.assert_array_equal(pickle.loads(pickled), data[2:])


def test_a_group_that_is_an_array_now_is_no_group(tmp_path):
    """Who unpickles it expects names in it."""
    lazyarr.save(tmp_path / "x.zarr", {"a": np.arange(4)})
    pickled = pickle.dumps(lazyarr.open(tmp_path / "x.zarr"))
    lazyarr.save(tmp_path / "x.zarr", np.arange(4), overwrite=True)
    with pytest.raises(lazyarr.FormatError, match="expected a group"):
        pickle.loads(pickled)


def test_elsewhere_it_is_an_error_at_once(tmp_path):
    """Who unpickles it himself gets it there."""
    lazyarr.save(tmp_path / "x.zarr", {"a": np.arange(40.0)})
    group = lazyarr.open(tmp_path / "x.zarr", mode="c")
    pickled = [pickle.dumps(each) for each in (group, group["a"])]
    (tmp_path / "x.zarr").rename(tmp_path / "y.zarr")
    here = f"in process {os.getpid()} on host {socket.gethostname()}"
    for each in pickled:
        with pytest.raises(lazyarr.NodeNotFoundError, match=here):
            pickle.loads(each)


@pytest.mark.parametrize(
    "use",
    [
        len, iter, list, bool, float, int, complex, math.floor, pickle.dumps, np.asarray, np.sum,
        np.sin, np.concatenate, operator.neg, operator.index,
        lambda x: x.shape, lambda x: x[0], lambda x: x + 1, lambda x: 1 + x, lambda x: x == 1,
        lambda x: 3 in x, lambda x: operator.setitem(x, 0, 1), lambda x: x.__enter__(),
        lambda x: np.arange(3) @ x, lambda x: f"{x:.2f}",
        lambda x: np.ones(3).__iadd__(x),
    ],
)  # fmt: skip
def test_any_use_raises_why(use):
    """Not something about the stand-in."""
    error = lazyarr.StoreError("gone", url="u", key=None, transient=False)
    with pytest.raises(lazyarr.StoreError) as caught:
        use(Unreachable(error))
    assert caught.value is error
    assert "StoreError: gone" in repr(Unreachable(error))
