"""What samplers and data sets know of arrays: how many samples they have, and in which chunks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lazyarr.sampling.order import Blocks

__all__ = ["Samples", "arrays_of", "n_samples_of", "samples_of"]

_BLOCK_NBYTES = 1 << 20


class Samples(NamedTuple):
    """The samples of some arrays.

    Attributes
    ----------
    arrays : tuple
        The arrays; a sample is one element of the leading axis of each.
    largest : array
        That one of them which has the most bytes.
    blocks : Blocks
        The samples by the chunks of the largest array.
    nbytes : int
        Size of a sample in memory, in bytes.
    """

    arrays: tuple[Any, ...]
    largest: Any
    blocks: Blocks
    nbytes: int


def arrays_of(arrays: Any) -> dict[Any, Any]:
    """Return arrays by name, or by place in a tuple; one array alone has the name None.

    Raises
    ------
    TypeError
        When there is something among them that is no array, or none at all.
    """
    if isinstance(arrays, Mapping):
        # A group of a data set has no samples.
        found = {name: item for name, item in arrays.items() if not isinstance(item, Mapping)}
    elif isinstance(arrays, tuple):
        found = dict(enumerate(arrays))
    else:
        found = {None: arrays}
    for name, item in found.items():
        shape = getattr(item, "shape", None)
        if not isinstance(shape, Sequence) or not shape:
            what = "it" if name is None else f"{name!r}"
            raise TypeError(
                f"cannot take samples from {type(item).__name__} {item!r:.80}: {what} is no array "
                "with a leading axis; give an array, a tuple of arrays, a mapping or a Dataset"
            )
    if not found:
        raise TypeError("cannot take samples: there is no array; give at least one")
    return found


def n_samples_of(arrays: Mapping[Any, Any]) -> int:
    """Return how many samples there are, which must be the same for all arrays.

    Raises
    ------
    ValueError
        When it is not.
    """
    lengths = {name: int(array.shape[0]) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        named = ", ".join(f"{name}: {n}" for name, n in lengths.items())
        raise ValueError(
            f"cannot take samples: the leading axes have different lengths ({named}); choose "
            "arrays that have one element for each sample, as in {'x': ds['x'], 'y': ds['y']}"
        )
    return next(iter(lengths.values()))


def samples_of(arrays: Any) -> Samples:
    """Return what a sampler needs to know of arrays.  Nothing is read.

    Raises
    ------
    TypeError, ValueError
        As `arrays_of` and `n_samples_of`.
    """
    named = arrays_of(arrays)
    n_samples = n_samples_of(named)
    sizes = {name: _row_nbytes(array) for name, array in named.items()}
    largest = named[max(sizes, key=lambda name: sizes[name])]
    n_rows, n_first = _rows_of(largest, max(sizes.values()))
    blocks = Blocks(n_samples, n_rows, n_first)
    return Samples(tuple(named.values()), largest, blocks, sum(sizes.values()))


def _row_nbytes(array: Any) -> int:
    itemsize = int(getattr(getattr(array, "dtype", None), "itemsize", 1))
    return max(1, math.prod(map(int, array.shape[1:])) * itemsize)


def _rows_of(array: Any, row_nbytes: int) -> tuple[int, int]:
    """Return how many rows a chunk has, and how many the first chunk has in this view."""
    chunks = getattr(array, "chunks", None)
    if not isinstance(chunks, tuple) or not chunks or not isinstance(chunks[0], int):
        # An array that is not stored in chunks, or does not say so: pages and files are read
        # best in runs of about this size.
        n_rows = max(1, _BLOCK_NBYTES // row_nbytes)
        return n_rows, n_rows
    n_rows, first = max(1, chunks[0]), 0
    start, strides = getattr(array, "_start", None), getattr(array, "strides", None)
    # Of a slice, as of the part of an array that is kept for validation, the first chunk may be
    # cut.
    if start is not None and strides and strides[0] > 0 and strides[0] == max(strides):
        first = start() // strides[0] % n_rows
    return n_rows, n_rows - first
