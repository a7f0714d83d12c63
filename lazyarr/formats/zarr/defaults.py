"""Shapes of chunks and shards for those who do not want to choose."""

from __future__ import annotations

import math

__all__ = ["CHUNK_NBYTES", "SHARD_NBYTES", "default_chunks", "default_shards"]

CHUNK_NBYTES = 512 * 1024
"""What a chunk holds in memory: it takes about a millisecond to decompress."""

SHARD_NBYTES = 64 * 2**20
"""What a shard holds in memory: an object that remote stores take in one request."""


_MAX_SHARD_CHUNKS = 1 << 16


def default_chunks(
    shape: tuple[int, ...], itemsize: int, page_nbytes: int = 4096
) -> tuple[int, ...]:
    """Return the shape of chunks that are contiguous in memory, of about 512 KiB.

    Rows along the leading axis stay whole.  Where one row alone is larger, it
    is divided along the next axis, and so on: a chunk is a contiguous run of
    the array's bytes in any case, and a whole number of pages where the size
    of a row allows it.

    Parameters
    ----------
    shape : tuple of int
        The array's; a leading length of zero means that rows will be appended.
    itemsize : int
        Size of an element in bytes.
    page_nbytes : int
        Size of a page of memory.

    Examples
    --------
    >>> default_chunks((8192, 128, 128, 3), 1)
    (11, 128, 128, 3)
    >>> default_chunks((1000, 4096, 4096), 2)
    (1, 64, 4096)
    >>> default_chunks((10,), 8)
    (10,)
    """
    if not shape:
        return ()
    axis, row_nbytes = len(shape) - 1, itemsize
    while axis > 0 and row_nbytes * max(1, shape[axis]) <= CHUNK_NBYTES:
        row_nbytes *= max(1, shape[axis])
        axis -= 1
    inner = tuple(max(1, length) for length in shape[axis + 1 :])
    rows = _rows_per_chunk(row_nbytes, page_nbytes, n_rows=shape[axis] if axis else None)
    # An array that will grow has no length yet that could bound its chunks.
    length = shape[axis] if axis or shape[0] else rows
    return (1,) * axis + (max(1, min(rows, length)),) + inner


def _rows_per_chunk(row_nbytes: int, page_nbytes: int, *, n_rows: int | None) -> int:
    """Return how many rows make about a chunk, in whole pages if that is near.

    Parameters
    ----------
    row_nbytes, page_nbytes : int
        Size of a row, which is what lies behind the axis that is divided; and of a page.
    n_rows : int or None
        Length of that axis, which falls into pieces of about equal size: otherwise every row of
        the array could end with a chunk that is mostly padding.  None for the leading axis,
        which has one such end and may grow.
    """
    wanted = max(1, round(CHUNK_NBYTES / row_nbytes))
    step = page_nbytes // math.gcd(row_nbytes, page_nbytes)
    # Pieces of a row that is no whole number of pages lie anywhere in a page.
    if step > 2 * wanted or (n_rows or 0) % step:
        step = 1
    rows = max(step, round(wanted / step) * step)
    if not n_rows:
        return rows
    n_pieces = max(1, round(n_rows / rows))
    return -(-n_rows // (n_pieces * step)) * step


def default_shards(
    shape: tuple[int, ...], chunks: tuple[int, ...], itemsize: int
) -> tuple[int, ...] | None:
    """Return the shape of shards of about 64 MiB, or None where one chunk holds the array.

    A shard takes up chunks from the last axis forwards, so that it too is as
    contiguous as its size allows.

    Parameters
    ----------
    shape, chunks : tuple of int
        Of the array and of its chunks.
    itemsize : int
        Size of an element in bytes.

    Examples
    --------
    >>> default_shards((8192, 128, 128, 3), (8, 128, 128, 3), 1)
    (1360, 128, 128, 3)
    >>> default_shards((10,), (10,), 8) is None
    True
    """
    # How many times as many chunks the shard may still have.
    n_left = max(1, SHARD_NBYTES // max(1, math.prod(chunks) * itemsize))
    # The index is read whole: one of more entries would be larger than what it saves.
    n_left = min(n_left, _MAX_SHARD_CHUNKS)
    shards = list(chunks)
    for axis in reversed(range(len(shape))):
        # An array that will grow along its leading axis may need any number.
        n_along_axis = -(-shape[axis] // chunks[axis]) if axis or shape[0] else n_left
        n_taken = max(1, min(n_along_axis, n_left))
        shards[axis] = n_taken * chunks[axis]
        n_left //= n_taken
        if n_taken < n_along_axis:
            break
    return tuple(shards) if tuple(shards) != chunks else None
