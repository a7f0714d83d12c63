"""The sampler that users hold."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Mapping
from typing import Any

from lazyarr import settings
from lazyarr.client.warning import warn_user
from lazyarr.errors import PerformanceWarning
from lazyarr.sampling.ahead import Ahead
from lazyarr.sampling.arrays import samples_of
from lazyarr.sampling.order import Blocks, Order

__all__ = ["ChunkShuffle"]

_VERSION = 1
# The first batch waits for most chunks of the first window.
_AUTO_NBYTES = 64 << 20
# A window and the next one must fit into the memory limit, and what is on its way.
_WINDOWS_PER_LIMIT = 5
_GOOD_WINDOW = 10
_STATE = ("seed", "epoch", "position", "streams", "window", "shuffle")
_DATA = ("n_samples", "rows", "first_rows")


class ChunkShuffle:
    """The numbers of all samples of an epoch, shuffled so that each chunk is loaded once.

    Chunks are permuted, and cut into windows that fit into memory.  The samples of a window are
    shuffled together.  The order is a pure function of `seed`, `epoch`, `window` and `world_size`;
    it does not depend on the number of workers, on the machine, or on versions of NumPy.

    While a window is given out, the chunks of the next one are loaded.  Until an epoch has been
    given out the arrays are advised as ``"random"``, then as ``"normal"`` (`LazyArray.advise`).

    Parameters
    ----------
    arrays : array, tuple or mapping of arrays, or Dataset
        What the samples are taken from: a sample is one element of the leading axis.  Of several
        arrays, the chunks of that with the most bytes count.
    seed : int
        Another seed gives another order.
    epoch : int
        The epoch to begin with; see `set_epoch`.
    window : int or str
        How many chunks are shuffled together; as text, how many bytes, as in ``"1 GiB"``.
        ``"auto"``: 64 MiB, but ten chunks at least, or what fits five times into the part of the
        memory limit that a rank of this machine has.
    shuffle : bool
        Without, samples come in the order in which they are stored.
    rank, world_size : int
        Which of how many readers this one is.  Each has its share, and no two have a sample.
    drop_last : bool
        Whether up to ``world_size - 1`` samples are left out, so that all ranks have the same
        number.  Without, some ranks have one more than others.

    Attributes
    ----------
    seed, epoch, rank, world_size, shuffle, drop_last
        As given.
    window : int
        How many chunks are shuffled together.
    quality : float
        How near the order is to that of a full shuffle, from 0 to 1; see Notes.

    Raises
    ------
    TypeError, ValueError
        When `arrays` are none, have different lengths, or a parameter is out of range.

    Warns
    -----
    PerformanceWarning
        When a window has fewer than ten chunks: samples of a chunk come close to each other.

    Notes
    -----
    `quality` is the share of neighbours in the order that are of different chunks, relative to
    what it is after a full shuffle.  With windows of `w` chunks of `r` samples of `n` it is
    ``(1 - (r - 1) / (w * r - 1)) / (1 - (r - 1) / (n - 1))``: 0 for one chunk at a time, about
    0.9 for ten, 1 for all.

    Safe to use in one thread at a time.

    Examples
    --------
    >>> import numpy
    >>> order = ChunkShuffle(numpy.zeros((1000, 4)), seed=1)
    >>> sorted(order) == list(range(1000)), len(order)
    (True, 1000)
    """

    def __init__(
        self,
        arrays: Any,
        *,
        seed: int = 0,
        epoch: int = 0,
        window: int | str = "auto",
        shuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        self.seed = _whole("seed", seed, least=None)
        self.epoch = _whole("epoch", epoch)
        self.world_size = _whole("world_size", world_size, least=1)
        self.rank = _whole("rank", rank)
        if self.rank >= self.world_size:
            raise ValueError(f"rank={rank} is not below world_size={world_size}")
        self.shuffle = bool(shuffle)
        self.drop_last = bool(drop_last)
        self._samples = samples_of(arrays)
        self.window = self._window(window)
        self._streams = self.world_size
        # Where in the order the next iteration begins, where the latest one has begun, and how many
        # samples that has given out.
        self._begin = self._begun = self._n_given = 0
        self._ahead = Ahead(self._samples, self._room_nbytes())
        self._warn()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self._samples.blocks.n_samples} samples in "
            f"{self._samples.blocks.n_blocks} chunks, window={self.window}, seed={self.seed}, "
            f"epoch={self.epoch}, rank={self.rank}, world_size={self.world_size}, "
            f"quality={self.quality:.2f})"
        )

    def __len__(self) -> int:
        """Return how many samples of an epoch this rank has."""
        n_whole, n_more = divmod(self._n_samples, self.world_size)
        return n_whole + (self.rank < n_more)

    def __iter__(self) -> Iterator[int]:
        """Give the samples of the epoch; after `load_state_dict`, those that are left."""
        # Not when the first one is asked for: the next iterator begins at the beginning.
        begin, self._begin = self._begin, 0
        if begin == 0:
            self._streams = self.world_size
        self._begun, self._n_given = begin, 0
        return self._iterate(self._order(), begin)

    def _iterate(self, order: Order, begin: int) -> Iterator[int]:
        shares = order.shares(begin + self.rank, self._n_samples, self.world_size)
        share = next(shares, None)
        here = [] if share is None else order.blocks.needed(share)
        self._ahead.begin(here)
        while share is not None:
            following = next(shares, None)
            to_come = [] if following is None else order.blocks.needed(following)
            for sample in self._ahead.along(share, to_come):
                self._n_given += 1
                yield sample
            self._ahead.pass_on(here, to_come)
            share, here = following, to_come
        # Not where an iterator is given up: that may be while garbage is collected.
        self._ahead.end()

    @property
    def quality(self) -> float:
        """How near the order is to that of a full shuffle, from 0 to 1."""
        n, r = self._samples.blocks.n_samples, self._samples.blocks.n_rows
        if not self.shuffle:
            return 0.0
        if r == 1 or n <= r:
            return 1.0  # a chunk is a sample, or all are in one
        n_together = min(self.window * r, n)
        return (1 - (r - 1) / (n_together - 1)) / (1 - (r - 1) / (n - 1))

    def set_epoch(self, epoch: int) -> None:
        """Have the next iteration give the order of an epoch.

        A position that was loaded with `load_state_dict` stays, if it is one of this epoch.
        """
        epoch = _whole("epoch", epoch)
        if epoch != self.epoch:
            self.epoch, self._begin, self._begun, self._n_given = epoch, 0, 0, 0

    def state_dict(self, *, n_given: int | None = None) -> dict[str, int]:
        """Return where the iteration is, as a few integers.

        Parameters
        ----------
        n_given : int, optional
            How many samples of the latest iteration this rank has used.  By default as many as
            the sampler has given out.  A `torch.utils.data.DataLoader` with workers asks for
            samples ahead of time: give the batches that were trained on, times their size, or
            use torchdata's `StatefulDataLoader`, which keeps count.

        Notes
        -----
        All ranks have the same state when they have used the same number of samples.  It can be
        loaded by any rank of any number of ranks.
        """
        n_given = self._n_given if n_given is None else _whole("n_given", n_given)
        blocks = self._samples.blocks
        position = min(self._begun + n_given * self.world_size, blocks.n_samples)
        return {
            "version": _VERSION,
            "seed": self.seed,
            "epoch": self.epoch,
            "position": position,
            "streams": self._streams,
            "window": self.window,
            "shuffle": int(self.shuffle),
            "n_samples": blocks.n_samples,
            "rows": blocks.n_rows,
            "first_rows": blocks.n_first,
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Have the next iteration go on where another one was.

        Seed, epoch and window become those of the state: so no sample of the epoch is left out
        or given twice, whatever the number of ranks and workers is now.

        Raises
        ------
        ValueError
            When the state is of another version, or of other data.
        """
        blocks = self._samples.blocks
        found = {name: state.get(name) for name in ("version", *_STATE, *_DATA)}
        if found["version"] != _VERSION:
            raise ValueError(
                f"cannot resume: the state has version {found['version']!r:.80}, and this lazyarr "
                f"knows {_VERSION}"
            )
        here = {
            "n_samples": blocks.n_samples,
            "rows": blocks.n_rows,
            "first_rows": blocks.n_first,
        }
        for name, n in here.items():
            if found[name] != n:
                raise ValueError(
                    f"cannot resume: the state is of data with {name}={found[name]!r:.80}, and "
                    f"here it is {n}; open the arrays that it was made with"
                )
        least = {"position": 0, "streams": 1, "window": 1, "epoch": 0}
        whole = {name: _whole(name, found[name], least=least.get(name)) for name in _STATE}
        self.seed, self.epoch, self.window = whole["seed"], whole["epoch"], whole["window"]
        self.shuffle, self._streams = bool(whole["shuffle"]), whole["streams"]
        self._begin = self._begun = min(whole["position"], blocks.n_samples)
        self._n_given = 0

    @property
    def _n_samples(self) -> int:
        n_samples = self._samples.blocks.n_samples
        return n_samples - n_samples % self.world_size if self.drop_last else n_samples

    def _order(self) -> Order:
        blocks = self._samples.blocks
        if not self.shuffle:
            # One after the other, by rank in turn, as torch's DistributedSampler.
            whole = Blocks(blocks.n_samples, blocks.n_rows, blocks.n_rows)
            return Order(whole, 0, 0, self.window, 1, is_shuffled=False)
        return Order(blocks, self.seed, self.epoch, self.window, self._streams)

    def _window(self, window: int | str) -> int:
        blocks = self._samples.blocks
        block_nbytes = self._samples.nbytes * blocks.n_rows
        if window == "auto":
            room_nbytes = self._room_nbytes() // _WINDOWS_PER_LIMIT
            chosen = min(room_nbytes, max(_AUTO_NBYTES, _GOOD_WINDOW * block_nbytes))
            n_blocks = chosen // block_nbytes
        elif isinstance(window, str):
            try:
                n_blocks = settings.parse_nbytes(window) // block_nbytes
            except ValueError as error:
                raise ValueError(f"window is {error}") from None
        else:
            n_blocks = _whole("window", window, least=1)
        return max(1, min(n_blocks, blocks.n_blocks))

    def _room_nbytes(self) -> int:
        """Return how much of the memory limit this rank has, of those on this machine."""
        local = os.environ.get("LOCAL_WORLD_SIZE", "")  # of torchrun
        n_ranks = int(local) if local.isdecimal() else self.world_size
        return settings.current().memory_limit // max(1, min(n_ranks, self.world_size))

    def _warn(self) -> None:
        blocks = self._samples.blocks
        if self.shuffle and blocks.n_rows > 1 and self.window < min(_GOOD_WINDOW, blocks.n_blocks):
            nbytes = _GOOD_WINDOW * self._samples.nbytes * blocks.n_rows
            warn_user(
                f"only {self.window} chunks are shuffled together, of {blocks.n_rows} samples each "
                f"(quality {self.quality:.2f}): samples of one chunk come close to each other; "
                f"give window={_GOOD_WINDOW} or more, which takes {nbytes} bytes, raise the "
                "memory limit, or store smaller chunks",
                PerformanceWarning,
            )


def _whole(name: str, value: Any, *, least: int | None = 0) -> int:
    """Return a whole number that is not too small."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}={value!r:.80} is no whole number") from None
    if least is not None and number < least:
        raise ValueError(f"{name}={number} is below {least}")
    return number
