"""Loading what a sampler will give out next, and letting go of what it has given out."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from lazyarr.client.arrays.indexing import absent_units, units_of_view
from lazyarr.client.arrays.prefetch import announce_units
from lazyarr.errors import LazyarrError
from lazyarr.plan.selection import merge_spans

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lazyarr.sampling.arrays import Samples
    from lazyarr.sampling.order import Indices

__all__ = ["Ahead"]

# A request for the next chunks costs as much as loading a small one, and names not too many.
_STEP_NBYTES = 4 << 20
_MAX_STEP_BLOCKS = 1024
_SPARE_PART = 8


class Ahead:
    """Has the chunks of the next window loaded, a few at a time, while one is given out.

    A chunk that was given out is of no use until the next epoch.  As many as there is room for
    stay until then.  Of the others each goes as soon as the next window has begun.  Without that
    the pager, which knows nothing of windows, would keep what is past and evict what is to come.

    Parameters
    ----------
    samples : Samples
        The arrays, and their chunks.
    room_nbytes : int
        How much of the memory limit there is for these arrays.
    """

    def __init__(self, samples: Samples, room_nbytes: int) -> None:
        self._blocks = samples.blocks
        # The limit holds for what is on its way, and for memory to decode in, as well.
        self._room_nbytes = room_nbytes - room_nbytes // _SPARE_PART
        self._block_nbytes = samples.nbytes * samples.blocks.n_rows
        self._step = min(_MAX_STEP_BLOCKS, max(1, _STEP_NBYTES // self._block_nbytes))
        # Not those of other libraries, and not a `CopyArray`: what this process loads of that is of
        # no use to the workers that read.
        self._arrays = [array for array in samples.arrays if _region_of(array) is not None]
        # Of an array with few bytes, a chunk has the samples of many blocks.
        self._largest = [array for array in self._arrays if array is samples.largest]
        self._kept: set[int] = set()
        self._past: list[int] = []
        self._here: list[int] = []

    def __repr__(self) -> str:
        return f"<Ahead: {len(self._arrays)} arrays, {len(self._kept)} chunks kept>"

    def begin(self, blocks: Sequence[int]) -> None:
        """Have the first window of an epoch loaded, and let go of the last ones before it."""
        self._leave([*self._past, *self._here], 3 * len(blocks))
        self._past, self._here = [], list(blocks)
        # Two chunks that are drawn one after the other are neighbours by chance.
        self._advise("random")
        for start in range(0, len(blocks), self._step):
            self._load(blocks[start : start + self._step])

    def along(self, samples: Indices, blocks: Sequence[int]) -> Iterator[int]:
        """Yield the samples of a window, and have the next one loaded in the same measure."""
        if not self._arrays or not blocks:
            yield from samples.tolist()
            return
        n_steps = -(-len(blocks) // self._step)
        n_samples = -(-len(samples) // n_steps)
        for nth in range(n_steps):
            self._load(blocks[nth * self._step : (nth + 1) * self._step])
            yield from samples[nth * n_samples : (nth + 1) * n_samples].tolist()

    def pass_on(self, blocks: Sequence[int], following: Sequence[int]) -> None:
        """Take down that a window was given out, and the following one is next."""
        # The window before it goes now, and not this one: there may be readers who have not come
        # to its last samples yet.
        self._leave(self._past, 3 * len(blocks))
        self._past, self._here = list(blocks), list(following)

    def end(self) -> None:
        """Take down that an epoch was given out."""
        self._advise("normal")

    def _advise(self, advice: str) -> None:
        for array in self._arrays:
            with suppress(LazyarrError):  # it is a hint
                array.advise(advice)

    def _load(self, blocks: Sequence[int]) -> None:
        """Have blocks loaded, in this order, without waiting for them."""
        for array in self._arrays:
            region, rows = _region_of(array), array._fast_rows()  # noqa: SLF001
            bounds = map(self._blocks.bounds, blocks)
            if rows is not None:  # a division for each block; a view takes ten times as long
                units = [rows.units(start, stop) for start, stop in bounds]
            else:
                plain = np.asarray(array)
                views = (plain[start:stop] for start, stop in bounds)
                units = [span for view in views for span in units_of_view(region, view)]
            absent = absent_units(region, dict.fromkeys(units))
            if absent:
                announce_units(region, absent)

    def _leave(self, blocks: Sequence[int], n_needed: int) -> None:
        """Let go of blocks, but for those for which there is room beside so many others.

        These are the window before, the one that is given out, and the one that is loaded.
        """
        n_room = self._room_nbytes // self._block_nbytes - n_needed
        past = [block for block in blocks if block not in self._kept]
        n_kept = max(0, n_room - len(self._kept))
        self._kept.update(past[:n_kept])
        for array in self._largest:
            region = _region_of(array)
            plain = np.asarray(array)
            bounds = [self._blocks.bounds(block) for block in past[n_kept:]]
            spans = merge_spans(
                span
                for start, stop in sorted(bounds)
                for span in units_of_view(region, plain[start:stop], to_load=False)
            )
            for span in spans:
                # It is a matter of room alone.
                with suppress(LazyarrError):
                    region.owner.evict(region, span)


def _region_of(array: Any) -> Any:
    """Return the memory of an array, which a forked child has its own of; None for other arrays."""
    return getattr(array, "_region", None)
