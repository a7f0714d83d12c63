"""The sampler: shares of ranks, resuming, windows, loading ahead."""

from __future__ import annotations

import json
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lazyarr
from lazyarr.errors import PerformanceWarning
from lazyarr.sampling import ChunkShuffle
from tests.engines import memory_only
from tests.process.running import run_program
from tests.programs import sampling as programs
from tests.programs.support import settled
from tests.stores import images, write_zarr


class Stored:
    """An array of another library: it has a shape and chunks, and cannot be read here."""

    def __init__(self, shape, chunks, dtype="u1"):
        self.shape, self.chunks, self.dtype = shape, chunks, np.dtype(dtype)


def ranks(array, world_size, **options):
    """Return the samplers of all ranks."""
    return [
        ChunkShuffle(array, rank=rank, world_size=world_size, **options)
        for rank in range(world_size)
    ]


@settings(max_examples=60)
@given(
    st.integers(1, 200),
    st.integers(1, 9),
    st.integers(1, 6),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_every_sample_once_over_all_ranks(n, rows, world_size, shuffle, drop_last, data):
    """And of the same number by each, or one more; `drop_last` makes them all the same."""
    array = Stored((n, 3), (rows, 3))
    window = data.draw(st.integers(10, 12))
    samplers = ranks(array, world_size, window=window, shuffle=shuffle, drop_last=drop_last)
    given_out = [list(sampler) for sampler in samplers]
    assert [len(samples) for samples in given_out] == [len(sampler) for sampler in samplers]
    samples = [sample for samples in given_out for sample in samples]
    assert len(samples) == len(set(samples)) == n - (n % world_size if drop_last else 0)
    assert set(samples) <= set(range(n))
    if not shuffle:
        assert given_out == [[*range(r, len(samples), world_size)] for r in range(world_size)]


@settings(max_examples=60)
@given(
    st.integers(1, 200),
    st.integers(1, 9),
    st.lists(st.integers(1, 5), min_size=2, max_size=4),
    st.data(),
)
def test_an_epoch_is_ended_by_any_number_of_ranks(n, rows, world_sizes, data):
    """Every sample once, wherever it was interrupted, and by whichever rank the state was made."""
    array = Stored((n, 3), (rows, 3))
    seen, state = [], None
    for k, world_size in enumerate(world_sizes):
        samplers = ranks(array, world_size, seed=5 if state is None else k, window=10)
        if state is not None:
            for sampler in samplers:
                sampler.load_state_dict(json.loads(json.dumps(state)))
        is_last = k == len(world_sizes) - 1
        n_left = (n - len(seen)) // world_size
        n_each = n if is_last else data.draw(st.integers(0, n_left))
        for sampler in samplers:
            seen += [sample for sample, _ in zip(sampler, range(n_each), strict=False)]
        states = [sampler.state_dict(n_given=n_each) for sampler in samplers]
        assert all(other == states[0] for other in states)
        state = states[0]
    assert sorted(seen) == [*range(n)]


def test_what_is_left_is_what_would_have_come():
    """With the same number of ranks the order goes on as it was."""
    array = Stored((500, 3), (7, 3))
    whole = list(ChunkShuffle(array, seed=1, epoch=4, window=12))
    sampler = ChunkShuffle(array, seed=1, epoch=4, window=12)
    iterator = iter(sampler)
    assert [next(iterator) for _ in range(123)] == whole[:123]
    state = sampler.state_dict()
    # Another seed, another window: those of the state hold.
    other = ChunkShuffle(array, window=20)
    other.load_state_dict(state)
    other.set_epoch(4)  # as training loops do: it is that epoch already
    assert list(other) == whole[123:]
    assert list(other) == whole  # an iteration later it begins at the beginning
    assert other.window == 12
    other.load_state_dict(state)
    other.set_epoch(5)
    assert sorted(other) == [*range(500)]


def test_samples_that_were_taken_ahead_of_time_are_not_lost():
    """A loader with workers asks for more than it has given out."""
    array = Stored((100, 3), (5, 3))
    sampler = ChunkShuffle(array, window=10)
    taken = [sample for sample, _ in zip(sampler, range(60), strict=False)]
    other = ChunkShuffle(array, window=10)
    other.load_state_dict(sampler.state_dict(n_given=20))
    assert [*taken[:20], *other] == list(ChunkShuffle(array, window=10))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2, and this lazyarr knows 1"),
        ({"n_samples": 99}, "n_samples=99, and here it is 100; open the arrays"),
        ({"rows": 6}, "rows=6, and here it is 5"),
        ({"window": 0}, "window=0 is below 1"),
        ({"position": -1}, "position=-1 is below 0"),
    ],
)
def test_states_that_fit_nothing_are_refused(change, message):
    """And the sampler is as it was."""
    sampler = ChunkShuffle(Stored((100, 3), (5, 3)), window=10, seed=3)
    before = list(sampler)
    with pytest.raises(ValueError, match=message):
        sampler.load_state_dict({**sampler.state_dict(), **change})
    assert list(sampler) == before
    with pytest.raises(ValueError, match="version None"):
        sampler.load_state_dict({})


def test_seeds_and_epochs_give_different_orders():
    """And the same ones the same."""
    array = Stored((300, 3), (5, 3))
    orders = {(s, e): tuple(ChunkShuffle(array, seed=s, epoch=e)) for s in (0, 1) for e in (0, 1)}
    assert len(set(orders.values())) == 4
    sampler = ChunkShuffle(array, seed=1)
    sampler.set_epoch(1)
    assert tuple(sampler) == orders[1, 1]
    assert tuple(pickle.loads(pickle.dumps(sampler))) == orders[1, 1]


def test_quality_is_what_its_definition_says():
    """Of neighbours from different chunks, measured over many epochs."""
    array = Stored((2000, 3), (10, 3))
    for window in (10, 20, 200):
        sampler = ChunkShuffle(array, window=window)
        n_different = 0
        for epoch in range(40):
            sampler.set_epoch(epoch)
            chunks = np.array(list(sampler)) // 10
            n_different += np.count_nonzero(chunks[1:] != chunks[:-1])
        share = n_different / 40 / 1999 / (1 - 9 / 1999)
        assert sampler.quality == pytest.approx(share, abs=0.01)
    assert ChunkShuffle(array, window=200).quality == 1
    assert ChunkShuffle(array, shuffle=False).quality == 0
    assert ChunkShuffle(Stored((5, 3), (1, 3))).quality == 1


def test_narrow_windows_are_told_of():
    """With what to do, unless chunks are as few, or of one sample each."""
    array = Stored((1000, 1024), (50, 1024))
    with pytest.warns(PerformanceWarning, match="only 9 chunks .* of 50 samples .*window=10"):
        sampler = ChunkShuffle(array, window=9)
    assert 0.93 < sampler.quality < 0.94
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ChunkShuffle(array, window=10)
        ChunkShuffle(array, window=3, shuffle=False)
        ChunkShuffle(Stored((100, 3), (50, 3)), window=2)
        ChunkShuffle(Stored((100, 3), (1, 3)), window=2)


def test_windows_by_bytes_and_by_the_memory_limit():
    """A window never has more chunks than there are."""
    array = Stored((1 << 20, 1024), (1024, 1024))  # a mebibyte for each chunk
    assert ChunkShuffle(array, window="32 MiB").window == 32
    assert ChunkShuffle(array, window="10 TiB").window == 1024
    with lazyarr.configure(memory_limit="100 GiB"):
        assert ChunkShuffle(array).window == 64
        large = Stored((1 << 20, 1 << 14), (1024, 1 << 14))  # 16 MiB for each chunk
        assert ChunkShuffle(large).window == 10
    with lazyarr.configure(memory_limit="250 MiB"):
        assert ChunkShuffle(array).window == 50
    with lazyarr.configure(memory_limit="500 MiB"):
        assert ChunkShuffle(array, world_size=5).window == 20
    with pytest.raises(ValueError, match="window is "):
        ChunkShuffle(array, window="a lot")


@pytest.mark.parametrize(
    ("arrays", "options", "error", "message"),
    [
        ([1, 2], {}, TypeError, "no array with a leading axis"),
        ({}, {}, TypeError, "there is no array"),
        (np.array(3), {}, TypeError, "no array with a leading axis"),
        ((np.zeros(3), np.zeros(4)), {}, ValueError, r"different lengths \(0: 3, 1: 4\)"),
        (np.zeros(3), {"rank": 2, "world_size": 2}, ValueError, "rank=2 is not below world_size=2"),
        (np.zeros(3), {"world_size": 0}, ValueError, "world_size=0 is below 1"),
        (np.zeros(3), {"epoch": 1.5}, TypeError, "epoch=1.5 is no whole number"),
        (np.zeros(3), {"window": 0}, ValueError, "window=0 is below 1"),
    ],
)
def test_bad_arguments_say_what_is_wrong(arrays, options, error, message):
    """And what was found."""
    with pytest.raises(error, match=message):
        ChunkShuffle(arrays, **options)


def test_of_several_arrays_the_chunks_of_the_largest_count():
    """A group's groups have no samples, and are left out."""
    arrays = {"y": Stored((100,), (100,), "i8"), "x": Stored((100, 64), (5, 64)), "g": {}}
    assert ChunkShuffle(arrays).state_dict()["rows"] == 5


DATA = images((200, 4096), np.uint8)


@pytest.fixture
def url(tmp_path):
    """A store of fifty units that nobody has opened before."""
    write_zarr(tmp_path / "s.zarr", np.arange(200), name="y", chunks=(200,))
    return write_zarr(tmp_path / "s.zarr", DATA, name="x", chunks=(4, 4096))


def read_all(sampler, x, data, n=8):
    """Read what a sampler gives, in batches; return the samples."""
    samples = list(sampler)
    for start in range(0, len(samples), n):
        batch = samples[start : start + n]
        np.testing.assert_array_equal(x[batch], data[batch])
    return samples


@pytest.mark.usefixtures("engine")
def test_parts_of_an_array_have_its_chunks(url):
    """The first one of the part for validation may be cut."""
    x = lazyarr.open(url)["x"]
    assert ChunkShuffle(x).state_dict()["first_rows"] == 4
    part = ChunkShuffle(x[150:], window=10)
    state = part.state_dict()
    assert (state["n_samples"], state["rows"], state["first_rows"]) == (50, 4, 2)
    samples = read_all(part, x[150:], DATA[150:])
    chunks = [(sample + 150) // 4 for sample in samples]
    # Those of a window are read together.
    assert len(set(chunks[:40])) == 10


@memory_only
@pytest.mark.usefixtures("engine")
def test_each_chunk_is_loaded_once_an_epoch(url):
    """Where all have room they are loaded once for ever."""
    ds = lazyarr.open(url)
    sampler = ChunkShuffle(ds, window=10)
    before = lazyarr.stats()["units_loaded"]
    for epoch in range(3):
        sampler.set_epoch(epoch)
        read_all(sampler, ds["x"], DATA)
    assert lazyarr.stats()["units_loaded"] - before <= 51  # fifty, and that of `y`


@memory_only
@pytest.mark.usefixtures("engine")
def test_after_a_resume_only_what_is_left_of_a_window_is_loaded(url):
    """Not the chunks of samples that were given out before."""
    x = lazyarr.open(url)["x"]
    order = ChunkShuffle(x, window=50)
    order.load_state_dict(order.state_dict(n_given=196))
    before = settled()["units_loaded"]
    left = read_all(order, x, DATA)
    assert len(left) == 4
    assert settled()["units_loaded"] - before == len({sample // 4 for sample in left})


def test_no_chunk_is_loaded_twice_in_an_epoch_where_three_windows_have_room(tmp_path):
    """And as many as have room besides are not loaded again; readahead brings none by chance."""
    # With a pager of its own: in this one, memory to decode the large chunks of other tests in
    # counts towards the limit, and three windows may have no room.
    data = images((1600, 4096), np.uint8)
    np.save(tmp_path / "l.npy", data)
    url = write_zarr(tmp_path / "l.zarr", data, chunks=(4, 4096))
    ended = run_program(programs.epochs_under_a_limit, url, tmp_path / "l.npy")
    is_right, *loaded = ended.stdout.split()
    assert (ended.returncode, is_right, loaded[0]) == (0, "True", "400"), ended.stderr
    assert all(300 < int(n) < 400 for n in loaded[1:])
