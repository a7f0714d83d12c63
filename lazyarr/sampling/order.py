"""The order of an epoch's samples, as a pure function of a few integers.

Chunks are permuted, and cut into windows.  The samples of a window are shuffled together.  So a
reader has one window of chunks in memory, and each chunk is loaded once an epoch.

Windows are given out in rounds, one to each *stream*, and the order takes one sample of each of
them in turn.  With as many readers as streams, of which each takes every n-th sample, each reader
has windows of its own.  With any other number of readers the order is the same, so an epoch that
one number of readers has begun can be ended by another.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from lazyarr.values import Value

__all__ = ["Blocks", "Order", "shuffled"]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15

Indices = np.ndarray[Any, np.dtype[np.int64]]


class Blocks(Value):
    """Samples that are loaded together: those of a chunk.

    Attributes
    ----------
    n_samples : int
        How many samples there are.
    n_rows : int
        How many of them a block has.
    n_first : int
        How many the first block has; of an array that begins within a chunk these are fewer.

    Examples
    --------
    >>> blocks = Blocks(n_samples=10, n_rows=4, n_first=3)
    >>> blocks.n_blocks, [blocks.bounds(k) for k in range(3)]
    (3, [(0, 3), (3, 7), (7, 10)])
    >>> blocks.samples(np.array([2, 0])).tolist()
    [7, 8, 9, 0, 1, 2]
    """

    n_samples: int
    n_rows: int
    n_first: int

    @property
    def n_blocks(self) -> int:
        """How many blocks there are."""
        # As if the first one had all of its samples.
        n_places = self.n_samples + self.n_rows - self.n_first
        return -(-n_places // self.n_rows) if self.n_samples else 0

    @property
    def partial(self) -> tuple[int, ...]:
        """Those blocks that have fewer samples than the others: the first, the last."""
        ends = sorted({0, self.n_blocks - 1}) if self.n_samples else []
        return tuple(k for k in ends if np.subtract(*self.bounds(k)) != -self.n_rows)

    def bounds(self, block: int) -> tuple[int, int]:
        """Return the half-open range of a block's samples."""
        start = block * self.n_rows - (self.n_rows - self.n_first)
        return max(0, start), min(start + self.n_rows, self.n_samples)

    def samples(self, blocks: Indices) -> Indices:
        """Return the samples of some blocks, block by block."""
        starts = blocks * self.n_rows - (self.n_rows - self.n_first)
        found = (starts[:, None] + np.arange(self.n_rows)).ravel()
        return found[(found >= 0) & (found < self.n_samples)]

    def needed(self, samples: Indices) -> list[int]:
        """Return the blocks of some samples, each once, in the order in which they are come to.

        Examples
        --------
        >>> Blocks(n_samples=10, n_rows=4, n_first=3).needed(np.array([8, 2, 9, 3, 0]))
        [2, 0, 1]
        """
        blocks = (samples + (self.n_rows - self.n_first)) // self.n_rows
        _, firsts = np.unique(blocks, return_index=True)
        found: list[int] = blocks[np.sort(firsts)].tolist()
        return found


class Order(Value):
    """The order of all samples in one epoch.

    Attributes
    ----------
    blocks : Blocks
        What is loaded together.
    seed, epoch : int
        What the order depends on.
    window : int
        How many blocks are shuffled together.
    streams : int
        How many windows are read side by side.
    is_shuffled : bool
        Whether anything is; else all blocks but the last have the same length, there is one
        stream, and the order is that in which samples are stored.

    Examples
    --------
    >>> order = Order(Blocks(12, 2, 2), seed=0, epoch=0, window=2, streams=1)
    >>> samples = order.samples()
    >>> sorted(samples.tolist()) == list(range(12))
    True
    >>> sorted(samples[:4].tolist())  # of two chunks
    [0, 1, 2, 3]
    """

    blocks: Blocks
    seed: int
    epoch: int
    window: int
    streams: int
    is_shuffled: bool = True

    def __hash__(self) -> int:
        return hash((self.blocks.n_samples, self.seed, self.epoch, self.window, self.streams))

    @property
    def n_windows(self) -> int:
        """How many windows there are."""
        return -(-self.blocks.n_blocks // self.window)

    @property
    def n_rounds(self) -> int:
        """How many rounds of windows there are."""
        return -(-self.n_windows // self.streams)

    def blocks_of(self, window: int) -> Indices:
        """Return the blocks of a window, in the order in which they were drawn."""
        return _permuted(self)[window * self.window : (window + 1) * self.window]

    def samples_of(self, window: int) -> Indices:
        """Return the samples of a window, in order."""
        samples = self.blocks.samples(self.blocks_of(window))
        if not self.is_shuffled:
            return samples
        return samples[shuffled(len(samples), self.seed, self.epoch, 1 + window)]

    def samples(self, start: int = 0, stop: int | None = None, step: int = 1) -> Indices:
        """Return ``order[start:stop:step]``; `shares` gives it round by round."""
        return np.concatenate([np.zeros(0, np.int64), *self.shares(start, stop, step)])

    def shares(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[Indices]:
        """Yield the samples of ``order[start:stop:step]`` round by round.

        Parameters
        ----------
        start, stop, step : int
            As of a slice; none of them is negative.  `stop` is None for the end.
        """
        stop = self.blocks.n_samples if stop is None else min(stop, self.blocks.n_samples)
        nth, n_before = self._round_at(start)
        while start < stop and nth < self.n_rounds:
            windows = range(nth * self.streams, min((nth + 1) * self.streams, self.n_windows))
            n_samples = self._n_samples_before(nth + 1) - n_before
            places = np.arange(start - n_before, min(stop - n_before, n_samples), step)
            if places.size:
                yield self._share(windows, places)
                start += step * places.size
            n_before += n_samples
            nth += 1

    def _share(self, windows: range, places: Indices) -> Indices:
        """Return what lies at some places of a round of windows."""
        lengths = [self._n_samples_of(window) for window in windows]
        if min(lengths) == max(lengths):
            offsets, streams = np.divmod(places, len(lengths))
        else:
            # One sample of each window in turn, of those that have one left.
            all_streams = np.repeat(np.arange(len(lengths)), lengths)
            all_offsets = np.concatenate([np.arange(n) for n in lengths])
            turn = np.lexsort((all_streams, all_offsets))[places]
            streams, offsets = all_streams[turn], all_offsets[turn]
        samples = np.empty(len(places), np.int64)
        # Windows of which nothing is asked for are not worked out.
        for stream in np.unique(streams).tolist():
            here = streams == stream
            samples[here] = self.samples_of(windows[stream])[offsets[here]]
        return samples

    def _n_samples_of(self, window: int) -> int:
        if window < self.n_windows - 1 - len(self.blocks.partial):
            return self.window * self.blocks.n_rows
        return sum(-int(np.subtract(*self.blocks.bounds(int(k)))) for k in self.blocks_of(window))

    def _n_samples_before(self, nth: int) -> int:
        """Return how many samples lie in the rounds before one."""
        if nth >= self.n_rounds:
            return self.blocks.n_samples
        # Blocks with fewer samples are in the last windows; see `_permuted`.
        n_last = min(self.n_windows, 1 + len(self.blocks.partial))
        n_windows = nth * self.streams
        n_full = min(n_windows, self.n_windows - n_last)
        rest = sum(self._n_samples_of(window) for window in range(n_full, n_windows))
        return n_full * self.window * self.blocks.n_rows + rest

    def _round_at(self, place: int) -> tuple[int, int]:
        """Return the round in which a place of the order lies, and how many lie before it."""
        nth = min(place // max(1, self.streams * self.window * self.blocks.n_rows), self.n_rounds)
        # Rounds have no more than that.
        while nth < self.n_rounds and self._n_samples_before(nth + 1) <= place:
            nth += 1
        return nth, self._n_samples_before(nth)


@lru_cache(maxsize=2)
def _permuted(order: Order) -> Indices:
    """Return the blocks in the order in which windows take them."""
    n_blocks = order.blocks.n_blocks
    if not order.is_shuffled:
        return np.arange(n_blocks)
    # Those with fewer samples come last.  So all other windows are equally long, and where a
    # place of the order lies is a division.
    last = order.blocks.partial
    full = np.setdiff1d(np.arange(n_blocks), np.array(last, np.int64), assume_unique=True)
    drawn = full[shuffled(len(full), order.seed, order.epoch, 0)]
    return np.concatenate([drawn, np.array(last, np.int64)])


def shuffled(n: int, *key: int) -> Indices:
    """Return ``range(n)`` in an order that depends on nothing but some integers.

    NumPy's generators may give another order in another version (NEP 19), and an epoch is to be
    resumed by any version.  So each number gets a hash of 64 bits, and they are sorted by it.

    Examples
    --------
    >>> shuffled(8, 1, 2).tolist()
    [2, 7, 3, 1, 5, 6, 0, 4]
    """
    state = 0
    for word in key:
        state = _mix_int((state ^ (word & _MASK)) + _GOLDEN)
    # SplitMix64 (Steele, Lea, Flood 2014): a step by the golden ratio, then three mixing steps.
    hashes = (np.arange(1, n + 1, dtype=np.uint64) * np.uint64(_GOLDEN)) + np.uint64(state)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
    return np.argsort(hashes ^ (hashes >> np.uint64(31)), kind="stable")


def _mix_int(word: int) -> int:
    """Return the same mixture of one integer."""
    word &= _MASK
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & _MASK
    return word ^ (word >> 31)
