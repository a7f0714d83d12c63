"""Which chunk of which object takes which elements.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from lazyarr.units import Span
from lazyarr.writer.boxes import Box, cells, count_cells, meet, whole

if TYPE_CHECKING:
    from lazyarr.formats.zarr import ArrayMetadata
    from lazyarr.layout import ChunkAddress, Layout

__all__ = ["ArrayGrid", "Piece", "array_grid"]


class Piece(NamedTuple):
    """What a box of elements and one chunk share.

    Attributes
    ----------
    chunk : tuple of int
        The chunk's place in the grid of smallest chunks.
    entry : int
        Its place in the index of its object.
    cell : Box
        The elements that the chunk has room for.
    inside : Box
        Those of them that are in the array.
    box : Box
        Those of them that are in the box.
    """

    chunk: tuple[int, ...]
    entry: int
    cell: Box
    inside: Box
    box: Box

    @property
    def is_whole(self) -> bool:
        """Whether the box has all of the chunk's elements."""
        return self.box == self.inside

    @property
    def has_last_row(self) -> bool:
        """Whether the box has the chunk's last row; when they come in order, no more do."""
        return self.box[:1] == () or self.box[0].stop == self.inside[0].stop


@dataclass(frozen=True, slots=True)
class ArrayGrid:
    """Objects and chunks of an array, along its own axes.

    Attributes
    ----------
    path : str
        The array's place in the store.
    extent : Box
        Up to where elements are expected: the array, or more when it is growing.
    object_shape, chunk_shape : tuple of int
        Shapes of objects, and of the smallest chunks in them.
    layout : Layout
        Where chunks are stored.
    """

    path: str
    extent: Box
    object_shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    layout: Layout

    def key(self, place: tuple[int, ...]) -> str:
        """Return the key, in the store, of the object at a place in the grid of objects."""
        first = (
            c * length // n
            for c, length, n in zip(place, self.object_shape, self.chunk_shape, strict=True)
        )
        key = self._address(tuple(first)).key
        return f"{self.path}/{key}" if self.path else key

    def inside(self, place: tuple[int, ...]) -> Box:
        """Return the expected elements of an object."""
        cell = tuple(
            Span(c * length, (c + 1) * length)
            for c, length in zip(place, self.object_shape, strict=True)
        )
        return meet(cell, self.extent)

    def n_chunks(self, place: tuple[int, ...]) -> int:
        """Return how many chunks of an object have expected elements."""
        return count_cells(self.inside(place), self.chunk_shape)

    def pieces(self, box: Box) -> Iterator[Piece]:
        """Yield what each chunk gets of a box that lies in one object."""
        for chunk, cell in cells(box, self.chunk_shape):
            entries = self._address(chunk).entries
            entry = entries[0] if entries else 0
            yield Piece(chunk, entry, cell, meet(cell, self.extent), meet(cell, box))

    def _address(self, chunk: tuple[int, ...]) -> ChunkAddress:
        address = self.layout.locate(tuple(chunk[axis] for axis in self.layout.axes))
        assert address is not None  # what is written has a key for each chunk
        return address


def array_grid(metadata: ArrayMetadata, extent: tuple[int, ...]) -> ArrayGrid:
    """Return the grid of an array, up to an extent that it may not have yet.

    Examples
    --------
    >>> from lazyarr.formats.zarr import array_document, parse_data_type, parse_node
    >>> dtype = parse_data_type("uint8")
    >>> document = array_document(shape=(10,), dtype=dtype, chunks=(4,), shards=(8,))
    >>> grid = array_grid(parse_node(document, path="x"), (10,))
    >>> grid.key((1,)), grid.n_chunks((0,)), grid.n_chunks((1,))
    ('x/c/1', 2, 1)
    """
    return ArrayGrid(
        path=metadata.path,
        extent=whole(extent),
        object_shape=metadata.chunk_shape,
        chunk_shape=metadata.chunks,
        layout=metadata._replace(shape=extent).layout(),
    )
