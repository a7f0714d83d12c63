"""One smallest chunk between an array and its stored bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy

from lazyarr.codecs.checksum import Crc32c

if TYPE_CHECKING:
    from lazyarr.codecs import Buffer
    from lazyarr.layout import Layout

__all__ = ["ChunkCoder"]

_PAGE_NBYTES = 4096
"""The smallest page there is; larger ones are multiples."""

_PROBED_NBYTES = 4096
"""How much is compared before the whole chunk is: most chunks that begin with fill end without."""


class ChunkCoder:
    """Encodes and decodes the smallest chunks of one array.

    Parameters
    ----------
    layout : Layout
        The array; its shape does not matter.
    dtype : numpy.dtype
        Its elements in memory; any type of their size where they are only copied.

    Notes
    -----
    Safe from several threads at once: it has no state.
    """

    def __init__(self, layout: Layout, dtype: numpy.dtype[Any]) -> None:
        self._layout = layout
        self.dtype = dtype
        self._fill = numpy.frombuffer(self._layout.fill, dtype=self.dtype)[0:1].reshape(())
        # Axis k of the array is axis `_logical[k]` of a chunk in memory.
        self._logical = tuple(int(axis) for axis in numpy.argsort(self._layout.axes))

    @property
    def nbytes(self) -> int:
        """Size of a chunk in memory, in bytes."""
        return self._layout.chunk_nbytes

    @property
    def alignment_nbytes(self) -> int:
        """Where in a shard chunks should begin: at multiples of this.

        At pages where they are stored as they are in memory and have a page or more: then a
        page of the array is a page of the file.
        """
        is_plain = all(isinstance(codec, Crc32c) for codec in self._layout.pipeline.codecs)
        return _PAGE_NBYTES if is_plain and self.nbytes >= _PAGE_NBYTES else 1

    def encode(self, part: numpy.ndarray[Any, Any]) -> bytes | None:
        """Return a chunk as it is stored; None when it is all fill value.

        Parameters
        ----------
        part : numpy.ndarray
            The chunk, along the array's axes; one that lies across the array's end is
            shorter, and padded here.
        """
        elements = self._in_memory_order(part)
        # Types of ml_dtypes and dates refuse the buffer protocol; bytes do not.
        data = elements.reshape(-1).view(numpy.uint8)
        if self._is_fill(data):
            return None
        return self._layout.encode(data.data)

    def decode(self, stored: Buffer | None) -> numpy.ndarray[Any, Any]:
        """Return a whole chunk, writable, along the array's axes; the fill value for None.

        Raises
        ------
        DamagedChunkError
            The bytes are not what the codecs wrote.
        """
        if stored is None:
            elements = self._blank()
        else:
            elements = numpy.empty(self._layout.chunk_shape, self.dtype)
            self._layout.decode(stored, elements.reshape(-1).view(numpy.uint8).data)
        return elements.transpose(self._logical)

    def clear_outside(
        self, chunk: numpy.ndarray[Any, Any], inside: tuple[slice, ...]
    ) -> numpy.ndarray[Any, Any]:
        """Return a decoded chunk with the fill value everywhere outside of some slices."""
        cleared = self._blank().transpose(self._logical)
        cleared[inside] = chunk[inside]
        return cleared

    def _blank(self) -> numpy.ndarray[Any, Any]:
        blank = numpy.empty(self._layout.chunk_shape, self.dtype)
        blank[...] = self._fill
        return blank

    def _in_memory_order(self, part: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
        """Return a whole chunk, contiguous, in the stored type; `part` itself where it is one."""
        elements = part.transpose(self._layout.axes)
        if elements.shape == self._layout.chunk_shape:
            return numpy.ascontiguousarray(elements, dtype=self.dtype).reshape(elements.shape)
        padded = self._blank()
        padded[tuple(slice(length) for length in elements.shape)] = elements
        return padded

    def _is_fill(self, data: numpy.ndarray[Any, Any]) -> bool:
        """Return whether bytes repeat the fill value's: NaN equals itself, and 0.0 is not -0.0."""
        itemsize = self._layout.itemsize
        if data[:itemsize].tobytes() != self._layout.fill:
            return False
        # All elements are equal if each equals the one before it.
        start = data[: max(itemsize, _PROBED_NBYTES)]
        return bool(
            numpy.array_equal(start[itemsize:], start[:-itemsize])
            and numpy.array_equal(data[itemsize:], data[:-itemsize])
        )
