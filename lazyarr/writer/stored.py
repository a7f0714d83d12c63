"""What the store already has of an array, for objects that are changed in part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy

from lazyarr.codecs import DamagedChunkError
from lazyarr.committing.objects import StoredObject
from lazyarr.errors import ChunkError
from lazyarr.writer.boxes import Box, box_shape, meet, slices_in

if TYPE_CHECKING:
    from lazyarr.codecs import Buffer
    from lazyarr.committing.coder import ChunkCoder
    from lazyarr.layout import ShardLevel
    from lazyarr.writer.grid import Piece
    from lazyarr.writer.place import Place

__all__ = ["StoredArray"]


class StoredArray:
    """Reads objects of one array, and decodes their chunks.

    Parameters
    ----------
    path : str
        The array.
    place : Place
        Where its objects are.
    coder : ChunkCoder
        What its chunks go through.
    level : ShardLevel or None
        How chunks are found in objects; None where objects are chunks.
    """

    def __init__(
        self, path: str, place: Place, *, coder: ChunkCoder, level: ShardLevel | None
    ) -> None:
        self._path = path
        self._place = place
        self._coder = coder
        self._level = level

    def read(self, key: str) -> StoredObject | None:
        """Return an object; None when it does not exist.

        Raises
        ------
        ChunkError
            Its index is damaged.
        """
        data = self._place.read(key)
        try:
            return None if data is None else StoredObject(data, self._level)
        except DamagedChunkError as error:
            raise self._damaged(key, (), error) from error

    def decode(
        self, key: str, piece: Piece, chunk: Buffer | None, *, valid: Box
    ) -> numpy.ndarray[Any, Any]:
        """Return a chunk, decoded and writable, with the fill value outside of a box.

        Parameters
        ----------
        key : str
            The chunk's object, for messages.
        piece : Piece
            Which chunk.
        chunk : bytes-like or None
            As it is stored; None for nothing but the fill value.
        valid : Box
            The elements of the array that were ever given a value.

        Raises
        ------
        ChunkError
            The chunk is damaged.
        """
        inside = meet(piece.cell, valid)
        if chunk is None or 0 in box_shape(inside):
            return self._coder.decode(None)
        try:
            elements = self._coder.decode(chunk)
        except DamagedChunkError as error:
            raise self._damaged(key, piece.chunk, error) from error
        if inside == piece.cell:
            return elements
        return self._coder.clear_outside(elements, slices_in(inside, piece.cell))

    def _damaged(self, key: str, chunk: tuple[int, ...], error: DamagedChunkError) -> ChunkError:
        what = f"chunk {chunk}" if chunk else "shard"
        return ChunkError(
            f"{what} of {self._path!r} in {self._place.url}: {error.reason} in {key}; "
            "run 'lazyarr verify' to list every damaged chunk",
            url=self._place.url,
            array=self._path,
            chunk=chunk,
            key=key,
            byte_range=None,
            reason=error.reason,
        )
