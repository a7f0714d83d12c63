"""The order of an epoch: every sample once, window by window, and the same for ever."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lazyarr.sampling.order import Blocks, Order, shuffled


@st.composite
def blocks(draw):
    """Samples in chunks, the first and the last of which may be shorter."""
    n_rows = draw(st.integers(1, 12))
    return Blocks(draw(st.integers(0, 150)), n_rows, draw(st.integers(1, n_rows)))


orders = st.builds(
    Order,
    blocks(),
    seed=st.integers(-(2**70), 2**70),
    epoch=st.integers(0, 5),
    window=st.integers(1, 9),
    streams=st.integers(1, 6),
)


@settings(max_examples=60)
@given(blocks())
def test_blocks_hold_every_sample_once(blocks):
    """In order; only the first and the last are short."""
    bounds = [blocks.bounds(k) for k in range(blocks.n_blocks)]
    assert [k for start, stop in bounds for k in range(start, stop)] == [*range(blocks.n_samples)]
    short = {k for k, (start, stop) in enumerate(bounds) if stop - start != blocks.n_rows}
    assert set(blocks.partial) == short <= {0, blocks.n_blocks - 1}
    assert blocks.samples(np.arange(blocks.n_blocks)).tolist() == [*range(blocks.n_samples)]


@settings(max_examples=60)
@given(orders)
def test_every_sample_once(order):
    """Whatever the windows and streams are."""
    assert sorted(order.samples().tolist()) == [*range(order.blocks.n_samples)]


@settings(max_examples=60)
@given(orders, st.integers(0, 160), st.integers(0, 160), st.integers(1, 9))
def test_a_part_is_that_part_of_the_whole(order, start, stop, step):
    """As of a slice."""
    assert order.samples(start, stop, step).tolist() == order.samples()[start:stop:step].tolist()


@settings(max_examples=60)
@given(orders)
def test_one_stream_goes_window_by_window(order):
    """So no more than a window of chunks is needed at once."""
    order = order._replace(streams=1)
    windows = [order.samples_of(k).tolist() for k in range(order.n_windows)]
    assert [sample for window in windows for sample in window] == order.samples().tolist()
    for k, window in enumerate(windows):
        assert sorted(window) == sorted(order.blocks.samples(order.blocks_of(k)).tolist())


@settings(max_examples=60)
@given(orders)
def test_each_of_as_many_readers_as_streams_has_windows_of_its_own(order):
    """But for the last round, whose windows may be of different lengths."""
    n_full = order.streams * order.window * order.blocks.n_rows
    n_rounds = max(0, order.n_rounds - 1 - len(order.blocks.partial))
    for reader in range(order.streams):
        found = order.samples(reader, n_rounds * n_full, order.streams).tolist()
        windows = range(reader, n_rounds * order.streams, order.streams)
        assert found == [k for window in windows for k in order.samples_of(window).tolist()]


@settings(max_examples=60)
@given(orders, st.integers(1, 3))
def test_blocks_are_needed_in_the_order_of_their_first_samples(order, step):
    """Each once, and none of which there is no sample."""
    for samples in order.shares(1, None, step):
        block_of = {
            sample: block
            for block in range(order.blocks.n_blocks)
            for sample in range(*order.blocks.bounds(block))
        }
        expected = dict.fromkeys(block_of[sample] for sample in samples.tolist())
        assert order.blocks.needed(samples) == [*expected]


def test_the_order_is_the_same_for_ever():
    """A state that was saved by one version is resumed by another; so these numbers stay."""
    order = Order(Blocks(20, 4, 3), seed=7, epoch=3, window=2, streams=2)
    saved = [9, 17, 14, 18, 10, 16, 13, 6, 11, 15, 7, 4, 12, 3, 8, 5, 19, 1, 2, 0]
    assert order.samples().tolist() == saved
    assert shuffled(5, 0).tolist() == [2, 0, 3, 1, 4]


@settings(max_examples=60)
@given(st.integers(0, 2**64), st.integers(2, 200))
def test_numbers_are_shuffled_evenly(key, n):
    """Each is there, and another key gives another order, but by chance of few."""
    assert sorted(shuffled(n, key).tolist()) == [*range(n)]
    assert n < 20 or shuffled(n, key).tolist() != shuffled(n, key + 1).tolist()


def test_every_place_is_as_likely_as_any_other():
    """The numbers of 20,000 shuffles of eight lie within five standard deviations."""
    places = np.array([shuffled(8, seed) for seed in range(20_000)])
    for place in places.T:
        counts = np.bincount(place, minlength=8)
        assert np.abs(counts - 2500).max() < 5 * np.sqrt(20_000 / 8 * 7 / 8)
