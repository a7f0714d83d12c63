"""What was written in mode "c" goes with a pickle, whoever wrote it and wherever it is read."""

from __future__ import annotations

import copy
import ctypes
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import lazyarr
from lazyarr.client.pickling import changes
from tests.engines import ARRAYS, memory_only
from tests.process.running import run_program
from tests.programs import pickling_changes as programs
from tests.programs import scripts, workers
from tests.stores import images, write_zarr

DATA = images()


@pytest.fixture(scope="module")
def urls(tmp_path_factory):
    """Stores with units of whole pages, with units that share pages, with tiles, with no chunk."""
    directory = tmp_path_factory.mktemp("changes")
    small = DATA[:, :17, :31]
    return {
        "pages": (write_zarr(directory / "p.zarr", DATA, chunks=(4, 32, 128)), DATA),
        "edges": (write_zarr(directory / "e.zarr", small, chunks=(3, 17, 31)), small),
        "tiles": (write_zarr(directory / "t.zarr", small, chunks=(16, 5, 31)), small),
        "fill": (write_zarr(directory / "f.zarr", DATA * 0, chunks=(4, 32, 128)), DATA * 0),
    }


@pytest.fixture(params=["pages", "edges", "tiles", "fill"])
def stored(request, urls):
    return urls[request.param]


@pytest.fixture(params=ARRAYS)
def receiver(request):
    """Which engine opens the pickle."""
    return request.param


def received(value, receiver):
    pickled = pickle.dumps(value)
    with lazyarr.configure(engine=receiver):
        return pickle.loads(pickled)


SLICES = st.builds(
    slice,
    st.none() | st.integers(-64, 64),
    st.none() | st.integers(-64, 64),
    st.sampled_from((None, 1, 2, -1, 7)),
)
KEYS = st.tuples(st.integers(-64, 63) | SLICES, SLICES, SLICES)


@given(
    st.lists(st.tuples(KEYS, st.integers(0, 60000)), max_size=4), st.tuples(SLICES, SLICES, SLICES)
)
@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_view_arrives_as_it_was(stored, engine, receiver, writes, view):
    """Any writes, any view: the same elements, writable, and the sender's are not shared."""
    url, data = stored
    x, model = lazyarr.open(url, mode="c"), data.copy()
    for key, value in writes:
        x[key] = model[key] = value
    there = received(x[view], receiver)
    assert type(there) is ARRAYS[receiver]
    np.testing.assert_array_equal(np.asarray(there), model[view])
    if there.size:
        there[...] = 1
    np.testing.assert_array_equal(np.asarray(x), model)


def test_a_row_that_was_written_arrives(urls, engine, receiver):
    """Beside it the store's rows; copies of all kinds have it too."""
    x = lazyarr.open(urls["pages"][0], mode="c")
    x[3] = 7
    for there in (
        received(x, receiver),
        copy.copy(x),
        copy.deepcopy(x),
        received(x[2:5], receiver),
    ):
        rows = there if len(there) == 64 else {3: there[1], 2: there[0]}
        assert (np.asarray(rows[3]) == 7).all()
        assert (np.asarray(rows[2]) == DATA[2]).all()


def test_what_was_only_read_does_not_go_along(urls, engine):
    """A pickle of an array that was read, all of it, is as short as one of a new array."""
    x = lazyarr.open(urls["pages"][0], mode="c")
    new = len(pickle.dumps(x))
    assert int(x.sum()) == DATA.sum()
    assert len(pickle.dumps(x)) == new
    x[3, 0, 0] = 1
    assert len(pickle.dumps(x)) < new + 2 * 65536
    assert len(pickle.dumps(x[8:])) < new + 100


@memory_only
def test_what_is_received_loads_nothing(urls, engine):
    """Pages that were written are put in place without their chunk."""
    x = lazyarr.open(urls["pages"][0], mode="c")
    x[4:8] = 5
    there = received(x, engine)
    assert there.residency().resident_units == 0
    assert (np.asarray(there)[5] == 5).all()
    assert (np.asarray(there)[8] == DATA[8]).all()
    assert (there[6] == 5).all()


@memory_only
def test_what_pointers_and_the_kernel_wrote_goes_along(urls, engine, tmp_path):
    """No call of lazyarr's sees such a write."""
    x = lazyarr.open(urls["pages"][0], mode="c")
    raw = np.asarray(x)
    ctypes.memset(raw[9].ctypes.data, 1, raw[9].nbytes)
    (tmp_path / "row").write_bytes(bytes([2]) * raw[20].nbytes)
    x.prefetch(np.s_[20:21])
    with open(tmp_path / "row", "rb") as file:
        assert file.readinto(memoryview(raw[20]).cast("B")) == raw[20].nbytes
    raw[40:42] += 1
    there = np.asarray(received(x, engine))
    assert (there[9] == 0x0101).all()
    assert (there[20] == 0x0202).all()
    np.testing.assert_array_equal(there[40:42], DATA[40:42] + 1)
    np.testing.assert_array_equal(there[10:20], DATA[10:20])


def test_a_group_takes_the_changes_of_its_arrays_along(tmp_path, engine, receiver):
    """Of those below too, each as it was reached."""
    for name in ("a", "g/b"):
        write_zarr(tmp_path / "d.zarr", DATA, name=name, chunks=(4, 32, 128))
    ds = lazyarr.open(tmp_path / "d.zarr", mode="c")
    ds["a"][1], ds["g"]["b"][2], ds["g/b"][3] = 11, 12, 13
    there = received(ds, receiver)
    assert (np.asarray(there["a"][1]) == 11).all()
    assert (np.asarray(there["g"]["b"][2]) == 12).all()
    assert (np.asarray(there["g"]["b"][3]) == DATA[3]).all()
    assert (np.asarray(there["g/b"][3]) == 13).all()


def test_more_than_goes_with_a_reference_is_refused(urls, engine, monkeypatch, tmp_path):
    """The error says what to pickle instead; a view with less of it goes."""
    monkeypatch.setattr(changes, "MAX_CHANGES_NBYTES", 100_000)
    x = lazyarr.open(urls["pages"][0], mode="c")
    x[:32] = 3
    with pytest.raises(ValueError, match=r"262144 bytes of it.*pickle numpy.array\(x\)"):
        pickle.dumps(x)
    assert (np.asarray(pickle.loads(pickle.dumps(x[:4]))) == 3).all()
    for name in "ab":
        write_zarr(tmp_path / "d.zarr", DATA, name=name, chunks=(4, 32, 128))
    ds = lazyarr.open(tmp_path / "d.zarr", mode="c")
    ds["a"][:8] = ds["b"][:8] = 3
    assert len(pickle.dumps(ds["a"])) < 100_000
    with pytest.raises(ValueError, match="cannot pickle group '/'"):
        pickle.dumps(ds)
    assert (pickle.loads(pickle.dumps(np.array(x)))[:32] == 3).all()


@memory_only
def test_private_memory_of_mode_r_is_read_only(urls, engine):
    """Of whatever kind the memory is: nothing could be written that goes along."""
    x = lazyarr.open(urls["pages"][0], memory="private")
    for each in (x, x[3], x[2:9], pickle.loads(pickle.dumps(x))):
        assert not each.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            each[...] = 1


def test_worker_processes_get_what_was_written(urls):
    """Forked, spawned, by a server, by loky; and a forked child pickles what it wrote itself."""
    ended = run_program(scripts.start, workers.__file__, urls["pages"][0])
    assert (ended.returncode, ended.stdout) == (0, "right\n"), ended.stderr


def test_decoders_and_new_workers_keep_track(urls):
    """What another process of the pager's installs, or the next worker, is not written."""
    ended = run_program(programs.decoders_and_new_workers_keep_track, urls["pages"][0])
    assert ended.returncode == 0, ended.stderr


def test_without_tracking_all_that_is_there_goes_along(urls):
    """A userfaultfd without asynchronous write-protection, as of kernels before Linux 6.7."""
    ended = run_program(programs.without_tracking_all_that_is_there_goes_along, urls["pages"][0])
    assert ended.returncode == 0, ended.stderr
