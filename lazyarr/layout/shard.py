"""Shards: objects that pack many chunks, with an index of where each lies.

The index holds one pair (offset, nbytes) of uint64 for each inner chunk, in C
order, often followed by a crc32c (zarr-specs v3 codecs, "sharding_indexed").
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from operator import add
from typing import Literal

from lazyarr.codecs.base import Buffer, as_view
from lazyarr.codecs.checksum import crc32c
from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.values import Value

__all__ = ["MAX_ENTRIES", "ShardIndex", "ShardLevel"]

MAX_ENTRIES = 2**24
"""Most chunks in a shard: an index of 256 MiB, far more than writers make."""

_EMPTY = 2**64 - 1  # in both places: there is no such chunk, its elements are the fill value
_ENTRY_NBYTES = 16
_CHECKSUM_NBYTES = 4
_MAX_STOP = 2**63 - 1  # file offsets are signed 64-bit numbers


class ShardIndex:
    """Where the chunks of one shard lie.

    Sixteen bytes an entry and no Python object for any, since one array may
    have millions.

    Parameters
    ----------
    pairs : array of uint64
        Offset and size of each chunk in turn, both in bytes and relative to
        the start of the shard.
    """

    __slots__ = ("_pairs",)

    def __init__(self, pairs: array[int]) -> None:
        self._pairs = pairs

    def __len__(self) -> int:
        """How many chunks the shard has room for."""
        return len(self._pairs) // 2

    def __repr__(self) -> str:
        return f"<ShardIndex of {len(self)} chunks, {self.n_stored} stored>"

    def entry(self, i: int) -> tuple[int, int] | None:
        """Return (offset, nbytes) of chunk `i`, or None where the shard does not hold it.

        The offset counts from the start of the shard.  None means that every
        element of the chunk is the fill value.
        """
        pairs = self._pairs
        if not 0 <= 2 * i < len(pairs):
            raise IndexError(f"chunk {i} of a shard of {len(self)}")
        offset, nbytes = pairs[2 * i], pairs[2 * i + 1]
        return None if offset == _EMPTY and nbytes == _EMPTY else (offset, nbytes)

    @property
    def pairs(self) -> memoryview:
        """Offset and size of each chunk in turn, as uint64; 2**64 - 1 for one not stored."""
        return memoryview(self._pairs)

    @property
    def n_stored(self) -> int:
        """How many chunks the shard holds."""
        return len(self) - self._pairs[1::2].count(_EMPTY)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the index takes."""
        return len(self._pairs) * self._pairs.itemsize


class ShardLevel(Value):
    """One level of sharding: how its index is laid out, read and written.

    Attributes
    ----------
    grid_shape : tuple of int
        How many inner chunks lie along each axis, in the order in which the
        index counts them (C order over these axes).
    index_location : {"start", "end"}
        Where in the shard the index is.
    little_endian : bool
        Byte order of the index.
    checksum : bool
        Whether a crc32c follows the entries.
    """

    grid_shape: tuple[int, ...]
    index_location: Literal["start", "end"] = "end"
    little_endian: bool = True
    checksum: bool = True

    @property
    def n_entries(self) -> int:
        """How many inner chunks the shard has room for."""
        product = 1
        for length in self.grid_shape:
            product *= length
        return product

    @property
    def index_nbytes(self) -> int:
        """Size of the index as it is stored, in bytes."""
        return _ENTRY_NBYTES * self.n_entries + _CHECKSUM_NBYTES * self.checksum

    def index_range(self, shard_nbytes: int) -> tuple[int, int]:
        """Return the half-open range of bytes, in a shard of this size, that holds the index.

        Raises
        ------
        DamagedChunkError
            The shard is too short for an index.

        Examples
        --------
        >>> ShardLevel(grid_shape=(4,)).index_range(1000)
        (932, 1000)
        """
        nbytes = self.index_nbytes
        if shard_nbytes < nbytes:
            raise DamagedChunkError(
                f"shard index has {nbytes} bytes, the shard that should hold it {shard_nbytes}"
            )
        if self.index_location == "start":
            return 0, nbytes
        return shard_nbytes - nbytes, shard_nbytes

    def parse_index(self, data: Buffer, *, object_nbytes: int | None) -> ShardIndex:
        """Return the index that some bytes hold, with every entry checked.

        Parameters
        ----------
        data : bytes-like
            Exactly the bytes of the index.
        object_nbytes : int or None
            Size of the shard, which every chunk must lie in; None when it is
            not known: then only what no file can have is refused.

        Raises
        ------
        DamagedChunkError
            Wrong length, wrong checksum, or a chunk outside of the shard.
        """
        view = as_view(data)
        if len(view) != self.index_nbytes:
            raise DamagedChunkError(
                f"shard index has {len(view)} bytes, expected {self.index_nbytes}"
            )
        entries = view[: _ENTRY_NBYTES * self.n_entries]
        if self.checksum:
            self._check(entries, view[len(entries) :])
        pairs = array("Q")
        pairs.frombytes(entries)
        if self._is_swapped:
            pairs.byteswap()
        _check_entries(pairs, _MAX_STOP if object_nbytes is None else object_nbytes)
        return ShardIndex(pairs)

    def build_index(self, entries: Sequence[tuple[int, int] | None]) -> bytes:
        """Return the bytes of an index.

        Parameters
        ----------
        entries : sequence of (offset, nbytes) or None
            One for each inner chunk, in C order; None for one that is not stored.

        Examples
        --------
        >>> level = ShardLevel(grid_shape=(2,))
        >>> stored = level.build_index([(0, 100), None])
        >>> level.parse_index(stored, object_nbytes=136).entry(0)
        (0, 100)
        """
        if len(entries) != self.n_entries:
            raise ValueError(f"{len(entries)} entries for a shard of {self.n_entries} chunks")
        pairs = array("Q")
        for entry in entries:
            pairs.extend((_EMPTY, _EMPTY) if entry is None else entry)
        if self._is_swapped:
            pairs.byteswap()
        stored = pairs.tobytes()
        if not self.checksum:
            return stored
        return stored + crc32c(stored).to_bytes(_CHECKSUM_NBYTES, "little")

    @property
    def _is_swapped(self) -> bool:
        return self.little_endian != (sys.byteorder == "little")

    @staticmethod
    def _check(entries: memoryview, checksum: memoryview) -> None:
        expected = int.from_bytes(checksum, "little")
        found = crc32c(entries)
        if found != expected:
            raise DamagedChunkError(
                f"crc32c of the shard index expected {expected:08x}, found {found:08x}"
            )


def _check_entries(pairs: array[int], shard_nbytes: int) -> None:
    # Python's integers do not overflow, so a sum beyond 2**64 is simply too
    # large; only the sum of two empty marks stands for "no chunk".
    stops = map(add, pairs[0::2], pairs[1::2])
    outside = [i for i, stop in enumerate(stops) if stop > shard_nbytes and stop != 2 * _EMPTY]
    if outside:
        i = outside[0]
        raise DamagedChunkError(
            f"shard index places inner chunk {i} at offset {pairs[2 * i]} with"
            f" {pairs[2 * i + 1]} bytes, the shard has {shard_nbytes}"
        )
