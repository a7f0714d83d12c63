"""How an array lies in memory and where its bytes are."""

from __future__ import annotations

import math

from lazyarr.codecs.base import Buffer
from lazyarr.layout.pipeline import Pipeline
from lazyarr.layout.placement import ChunkAddress, Level, Placement, inner_nbytes
from lazyarr.layout.shard import ShardLevel
from lazyarr.values import Value

__all__ = ["Layout"]


class Layout(Value):
    """An array as its pager sees it: memory, chunks, objects.

    It goes to other processes as a document; see `lazyarr.layout.document`.

    Every shape and coordinate is in the order of memory, which is the order in
    which elements are stored, after all transpositions.

    Attributes
    ----------
    shape : tuple of int
        The array's shape in memory.
    axes : tuple of int
        Memory axis `k` is logical axis `axes[k]`.
    chunk_shape : tuple of int
        Shape of the smallest chunks.
    grid_shape : tuple of int
        How many smallest chunks there are along each axis; 0 along axes of no length.
    itemsize : int
        Size of an element in bytes.
    fill : bytes
        One element of the fill value.
    pipeline : Pipeline
        What the smallest chunks go through.
    placement : Placement
        Where they are stored.
    witnesses : tuple of str
        Keys, relative to `place`, of which the store has one as long as the array is in it: they
        are looked for before a chunk that is not there is taken for one that was never written.
    place : str or None
        The object or directory in the store to which the keys of `placement` are relative; None
        where it is the array's own path.  Arrays of one file lie in that file, whatever they are
        called in it.

    Examples
    --------
    >>> from lazyarr.formats.zarr import parse_node
    >>> array = parse_node(
    ...     b'{"zarr_format": 3, "node_type": "array", "shape": [10, 4], "data_type": "int16",'
    ...     b' "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [3, 4]}},'
    ...     b' "chunk_key_encoding": {"name": "default"}, "fill_value": 0,'
    ...     b' "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}]}',
    ...     path="x",
    ... )
    >>> layout = array.layout()
    >>> layout.grid_shape, layout.locate((2, 0))
    ((4, 1), ChunkAddress(key='c/2/0', entries=(), start=0, stop=None))
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    grid_shape: tuple[int, ...]
    itemsize: int
    fill: bytes
    pipeline: Pipeline
    placement: Placement
    witnesses: tuple[str, ...]
    place: str | None = None

    @property
    def levels(self) -> tuple[ShardLevel, ...]:
        """The levels of shards, outermost first; empty without shards."""
        return self.placement.levels

    @property
    def places(self) -> tuple[Level, ...]:
        """For each level of shards, which entry belongs to which chunk."""
        return self.placement.places

    @property
    def chunks_per_object(self) -> tuple[int, ...]:
        """How many smallest chunks an object holds along each axis."""
        return self.placement.chunks_per_object

    @property
    def chunk_nbytes(self) -> int:
        """Size in memory of a smallest chunk, padding at the edges included, in bytes."""
        return self.pipeline.chunk_nbytes

    @property
    def nbytes(self) -> int:
        """Size of the array in memory, in bytes."""
        return math.prod(self.shape) * self.itemsize

    @property
    def fill_is_zero(self) -> bool:
        """Whether the fill value is all zero bits; -0.0 is not."""
        return self.fill.count(0) == len(self.fill)

    def locate(self, chunk: tuple[int, ...]) -> ChunkAddress | None:
        """Return where a smallest chunk is stored; None where it is known not to be.

        Parameters
        ----------
        chunk : tuple of int
            Its place in the grid of smallest chunks, along the axes of memory.

        Raises
        ------
        IndexError
            There is no such chunk.
        """
        if len(chunk) != len(self.grid_shape):
            raise IndexError(f"chunk {chunk} of a grid of shape {self.grid_shape}")
        for c, n in zip(chunk, self.grid_shape, strict=True):
            if not 0 <= c < n:
                raise IndexError(f"chunk {chunk} of a grid of shape {self.grid_shape}")
        return self.placement.locate(chunk)

    def unpadded_nbytes(self, chunk: tuple[int, ...]) -> int | None:
        """Return the bytes of a chunk that is stored without padding; None where it has padding.

        Padding is what a chunk at the edge of the array has beyond the array.
        """
        if self.placement.is_padded:
            return None
        return inner_nbytes(chunk, self.chunk_shape, self.shape, self.itemsize)

    def decode(self, data: Buffer, out: memoryview) -> None:
        """Decode a smallest chunk straight into memory; see `Pipeline.decode`."""
        self.pipeline.decode(data, out)

    def decode_chunk(self, chunk: tuple[int, ...], data: Buffer, out: memoryview) -> None:
        """Decode as `decode` does, by those codecs alone that the chunk went through.

        Of a chunk without padding, the beginning of `out` alone.
        """
        left_out = self.placement.left_out(chunk)
        pipeline = self.pipeline.without(left_out) if left_out else self.pipeline
        nbytes = self.unpadded_nbytes(chunk)
        if nbytes is None or nbytes == self.chunk_nbytes:
            pipeline.decode(data, out)
        else:
            pipeline._replace(chunk_nbytes=nbytes).decode(data, out[:nbytes])

    def encode(self, data: Buffer) -> bytes:
        """Return a smallest chunk as it is stored; see `Pipeline.encode`."""
        return self.pipeline.encode(data)
