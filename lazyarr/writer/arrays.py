"""Arrays as their users write them: `ArrayWriter`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy

from lazyarr.writer.boxes import box_shape
from lazyarr.writer.indexing import Selection, parse_index
from lazyarr.writer.source import Source, as_source

if TYPE_CHECKING:
    from lazyarr.writer.session import Session
    from lazyarr.writer.sink import ArraySink

__all__ = ["ArrayWriter"]

_COPIED_NBYTES = 32 * 2**20
"""Rows up to this size are copied, so that the caller may go on while they are compressed."""


class ArrayWriter:
    """An array that is being written; `Writer.create_array` and ``writer[name]`` give it.

    Attributes
    ----------
    path : str
        Its place in the store.

    Notes
    -----
    Safe from several threads.  What was given may be changed as soon as a call returns.
    Compressed elements wait until their shard is whole, for as long as all that
    wait stay below 128 MiB; a shard that is put before it is whole is read again for
    the rest of its elements.  So write in the order of rows where you can.

    Examples
    --------
    >>> import lazyarr, numpy
    >>> with lazyarr.create("memory://doc-rows") as writer:
    ...     images = writer.create_array("images", shape=(0, 8, 8), dtype="uint8")
    ...     for value in range(3):
    ...         images.append(numpy.full((10, 8, 8), value, "uint8"))
    ...     images[5] = 255
    ...     images
    <ArrayWriter 'images' (30, 8, 8) uint8>
    """

    def __init__(self, session: Session, sink: ArraySink) -> None:
        self._session = session
        self._sink = sink
        self.path = sink.metadata.path

    def __repr__(self) -> str:
        return f"<ArrayWriter {self.path!r} {self.shape} {self.dtype}>"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError(f"array {self._name} has no axes, so it has no length")
        return self.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its lengths now, in elements."""
        return self._sink.metadata.shape

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def dtype(self) -> numpy.dtype[Any]:
        """Its elements, as they are stored."""
        return self._sink.dtype

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of the smallest chunks, what is compressed at once."""
        return self._sink.metadata.chunks

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Shape of the shards; None where every chunk is an object of its own."""
        return self._sink.metadata.shards

    def append(self, rows: Any) -> None:
        """Add rows at the end of the leading axis.

        Parameters
        ----------
        rows : array-like
            With as many axes as the array, and the same lengths along all but the first.
            May be larger than memory, as in `save`.

        Raises
        ------
        ValueError
            The rows have another shape, or the writer is closed.
        TypeError
            Their elements do not fit the array's.
        """
        with self._session.lock:
            source = self.require_rows(rows)
            with self._session.writing():
                if source.shape[0]:
                    self._sink.append(_settled(source))
                self._settle(source)

    def require_rows(self, rows: Any) -> Source:
        """Return rows that can be appended; see `append` for what is raised."""
        source = self._source(rows)
        if not self.shape or len(source.shape) != self.ndim or source.shape[1:] != self.shape[1:]:
            raise ValueError(
                f"cannot append rows of shape {source.shape} to {self._name} of shape "
                f"{self.shape}; all lengths but the first must be the same"
            )
        self._require_dtype(source)
        return source

    def __setitem__(self, index: Any, rows: Any) -> None:
        """Give a contiguous range of elements new values.

        Parameters
        ----------
        index : int, slice, Ellipsis, or tuple of them
            Slices without a step.
        rows : array-like
            As many elements, or something that NumPy would broadcast.

        Raises
        ------
        IndexError
            The index is something else, or lies outside.
        ValueError
            The shapes do not fit, or the writer is closed.
        TypeError
            The elements do not fit the array's.

        Notes
        -----
        In a store that existed before, readers see the new values shard by shard, the last when
        the writer is closed.
        """
        source = self._source(rows)
        with self._session.lock:
            selection = parse_index(index, self.shape)
            self._require_dtype(source)
            if source.shape != box_shape(selection.box) or source.is_in_memory:
                source = self._broadcast(source, selection)
            with self._session.writing():
                self._sink.fill(selection.box, _settled(source))
                self._settle(source)

    @property
    def _name(self) -> str:
        return repr(self.path or "/")

    def _source(self, rows: Any) -> Source:
        if not hasattr(rows, "dtype"):
            found = numpy.asarray(rows)
            # Whole numbers of Python take the array's dtype; NumPy refuses what does not fit.
            is_whole = found.dtype.kind in "bi" and self.dtype.kind in "iu"
            rows = numpy.asarray(rows, self.dtype) if is_whole else found
        return as_source(rows, name=self.path)

    def _broadcast(self, source: Source, selection: Selection) -> Source:
        elements = numpy.asarray(source.data)
        # As NumPy does: axes of length 1 in front do not count.
        while elements.ndim > len(selection.shape) and elements.shape[0] == 1:
            elements = elements[0]
        try:
            elements = numpy.broadcast_to(elements, selection.shape)
        except ValueError:
            raise ValueError(
                f"cannot write elements of shape {source.shape} to {selection.shape} elements of "
                f"{self._name}; give as many, or what NumPy would broadcast"
            ) from None
        elements = numpy.expand_dims(elements, selection.dropped)
        return as_source(elements)

    def _require_dtype(self, source: Source) -> None:
        if not numpy.can_cast(source.dtype, self.dtype, "same_kind"):
            raise TypeError(
                f"cannot write elements of dtype {source.dtype} to {self._name} of dtype "
                f"{self.dtype}; convert them with astype"
            )

    def _settle(self, source: Source) -> None:
        if source.is_in_memory and source.nbytes > _COPIED_NBYTES:
            self._sink.settle()


def _settled(source: Source) -> Source:
    """Return a source that the caller cannot change, if copying it costs little."""
    if source.is_in_memory and source.nbytes <= _COPIED_NBYTES:
        return as_source(numpy.array(source.data))
    return source
