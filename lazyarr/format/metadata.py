"""What an array and a group say of themselves."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

from lazyarr.errors import FormatError
from lazyarr.format.codecs import CodecChain
from lazyarr.format.datatype import DataType
from lazyarr.format.grid import KeyEncoding
from lazyarr.format.layout import Layout, build_layout
from lazyarr.values import Value

if TYPE_CHECKING:
    import numpy

__all__ = ["ArrayMetadata", "GroupMetadata", "Node"]


class ArrayMetadata(Value):
    """An array, along its logical axes: those that its users see.

    Attributes
    ----------
    path : str
        Its place in the store.
    zarr_format : int
        2 or 3.
    shape : tuple of int
        Its lengths, in elements.
    dtype : DataType
        Its elements, in the byte order in which they are stored.
    chunk_shape : tuple of int
        What one object holds: shards where there are some, chunks otherwise.
    key_encoding : KeyEncoding
        How objects are named.
    codecs : CodecChain
        What chunks go through.
    fill_head : bytes
        One element that holds the fill value, without the zeros that it ends with: a
        short document may claim elements of any size.
    attributes : dict
        What users have put there.
    dimension_names : tuple of (str or None), or None
        Names of the axes.
    document : dict
        What all of this was read from, without the attributes and without what is
        not known: what another process reads it from.
    """

    path: str
    zarr_format: int
    shape: tuple[int, ...]
    dtype: DataType
    chunk_shape: tuple[int, ...]
    key_encoding: KeyEncoding
    codecs: CodecChain
    fill_head: bytes
    attributes: dict[str, Any]
    dimension_names: tuple[str | None, ...] | None
    document: dict[str, Any]

    def __eq__(self, other: object) -> bool:
        """Return whether both say the same, whichever way it is written."""
        if not isinstance(other, ArrayMetadata):
            return NotImplemented
        return self._asdict() | {"document": other.document} == other._asdict()

    def __hash__(self) -> int:
        return hash((self.path, self.shape, self.dtype, self.chunk_shape, self.codecs))

    @property
    def fill(self) -> bytes:
        """One element that holds the fill value."""
        return self.fill_head.ljust(self.dtype.itemsize, b"\0")

    @property
    def nbytes(self) -> int:
        """Size of the array in memory, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of the smallest chunks, what is compressed at once."""
        layout = self.layout()
        lengths = [0] * len(layout.axes)
        for axis, length in zip(layout.axes, layout.chunk_shape, strict=True):
            lengths[axis] = length
        return tuple(lengths)

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Shape of the shards; None where every chunk is an object of its own."""
        return None if self.codecs.sharding is None else self.chunk_shape

    @property
    def fill_value(self) -> numpy.generic:
        """What elements that were never written read as.  Imports NumPy."""
        import numpy

        value: numpy.generic = numpy.frombuffer(self.fill, dtype=self.dtype.to_numpy())[0]
        return value

    def layout(self) -> Layout:
        """Return how the array lies in memory and where its bytes are."""
        return build_layout(
            shape=self.shape,
            chunk_shape=self.chunk_shape,
            chain=self.codecs,
            key_encoding=self.key_encoding,
            fill=self.fill,
        )


class GroupMetadata(Value):
    """A group.

    Attributes
    ----------
    path : str
        Its place in the store.
    zarr_format : int
        2 or 3.
    attributes : dict
        What users have put there.
    consolidated : dict, or None
        All nodes below the group, by their path relative to it, where its
        document holds them.  One that lazyarr can not map is there as the
        `FormatError` that says why; the others can be opened all the same.
    """

    path: str
    zarr_format: int
    attributes: dict[str, Any]
    consolidated: dict[str, ArrayMetadata | GroupMetadata | FormatError] | None = None

    def __hash__(self) -> int:
        return hash((self.path, self.zarr_format))


Node: TypeAlias = ArrayMetadata | GroupMetadata
"""What a document describes."""
