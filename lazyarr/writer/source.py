"""What is to be written, read a box at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy

from lazyarr.units import Span
from lazyarr.writer.boxes import Box, box_shape

__all__ = ["Source", "as_source"]

_Array: TypeAlias = numpy.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """An array-like of which only a part is in memory at a time.

    Attributes
    ----------
    data : array-like
        A plain `numpy.ndarray`, memory-mapped ones too, or something that gives one
        when it is sliced.
    shape : tuple of int
        Its lengths, in elements.
    dtype : numpy.dtype
        Its elements.
    prefetch : callable or None
        For a lazy array: brings a part of it into memory, given slices.
    """

    data: Any
    shape: tuple[int, ...]
    dtype: numpy.dtype[Any]
    prefetch: Callable[[tuple[slice, ...]], None] | None = None

    @property
    def nbytes(self) -> int:
        """Size of all of it in memory, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_in_memory(self) -> bool:
        """Whether `read` gives views of memory that somebody else may change."""
        return isinstance(self.data, numpy.ndarray) and self.prefetch is None

    def read(self, box: Box) -> _Array:
        """Return the elements of a box, without a copy where they are in memory.

        Raises
        ------
        ValueError
            The array-like gave something of another shape.
        ChunkError
            A lazy array could not be read.
        """
        slices = tuple(slice(*span) for span in box)
        if self.prefetch is not None:
            block = numpy.empty(box_shape(box), self.dtype)
            self._copy_lazy(box, block)
            return block
        block = numpy.asarray(self.data[slices])
        if block.shape != box_shape(box):
            raise ValueError(
                f"cannot read {slices} of a {type(self.data).__name__} of shape {self.shape}: "
                f"it gave an array of shape {block.shape}; give a numpy.ndarray"
            )
        return block

    def _copy_lazy(self, box: Box, out: _Array) -> None:
        # Asked for, a chunk that cannot be had is an error; touched, it is a signal
        # that kills.  Copied at once, before it is evicted.
        assert self.prefetch is not None
        slices = tuple(slice(*span) for span in box)
        try:
            self.prefetch(slices)
        except ValueError:  # larger than the memory limit
            axis = next((i for i, length in enumerate(out.shape) if length > 1), None)
            if axis is None:
                raise
            start, stop = box[axis]
            middle = (start + stop) // 2
            for part in (Span(start, middle), Span(middle, stop)):
                place = (slice(None),) * axis + (slice(part.start - start, part.stop - start),)
                self._copy_lazy((*box[:axis], part, *box[axis + 1 :]), out[place])
        else:
            out[...] = self.data[slices]


def as_source(data: Any, *, name: str = "") -> Source:
    """Return an array-like as something to read boxes from.

    What has `shape`, `dtype` and slices, as the arrays of zarr, h5py, dask and
    TensorStore have, is left where it is.  Everything else goes through `numpy.asarray`.

    Parameters
    ----------
    data : array-like
        What is to be written.
    name : str
        The array's name, for messages.

    Raises
    ------
    TypeError
        Its elements have no fixed size, or some are masked.

    Examples
    --------
    >>> as_source([1.0, 2.0]).shape
    (2,)
    """
    if isinstance(data, numpy.ma.MaskedArray):
        raise TypeError(
            f"cannot store array {name or '/'!r}: it is masked, and Zarr has no masks; "
            "fill it, with data.filled(value)"
        )
    dtype = None if isinstance(data, numpy.ndarray) else _sliceable_dtype(data)
    if dtype is None:
        plain = numpy.asarray(data)
        source = Source(plain, plain.shape, plain.dtype, getattr(data, "prefetch", None))
    else:
        source = Source(data, tuple(int(length) for length in data.shape), dtype)
    _check_dtype(source.dtype, name)
    return source


def _sliceable_dtype(data: Any) -> numpy.dtype[Any] | None:
    # pandas takes slices for labels, and is in memory anyway.
    needed = ("shape", "dtype", "__getitem__")
    if hasattr(data, "iloc") or not all(hasattr(data, name) for name in needed):
        return None
    # TensorStore's types are no NumPy types, but know theirs.
    dtype = getattr(data.dtype, "numpy_dtype", data.dtype)
    try:
        found: numpy.dtype[Any] = numpy.dtype(dtype)
    except TypeError:  # a torch.Tensor, for one: in memory
        return None
    return found


def _check_dtype(dtype: numpy.dtype[Any], name: str) -> None:
    if dtype.hasobject or dtype.kind == "T":
        raise TypeError(
            f"cannot store array {name or '/'!r}: its elements are of dtype {dtype}, which has no "
            "fixed size; convert it, with data.astype('U20') for text or to a numeric type"
        )
