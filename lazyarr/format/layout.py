"""How an array lies in memory and where its bytes are."""

from __future__ import annotations

import math
from typing import NamedTuple

from lazyarr.format.buffers import Buffer
from lazyarr.format.codec import BytesCodec
from lazyarr.format.codecs import CodecChain
from lazyarr.format.grid import KeyEncoding
from lazyarr.format.pipeline import Pipeline
from lazyarr.format.shard import ShardLevel
from lazyarr.values import Value

__all__ = ["ChunkAddress", "Layout", "Level", "build_layout"]


class ChunkAddress(NamedTuple):
    """Where a smallest chunk is stored.

    Attributes
    ----------
    key : str
        The object's key, relative to the array.
    entries : tuple of int
        Its place in the index of each level of shards, outermost first.
    """

    key: str
    entries: tuple[int, ...]


class Level(NamedTuple):
    """How the coordinates of a smallest chunk give its place in one shard index.

    Attributes
    ----------
    sizes : tuple of int
        Smallest chunks in the shard along each memory axis.
    steps : tuple of int
        Smallest chunks in one of its inner chunks along each memory axis.
    strides : tuple of int
        How much one inner chunk further along each memory axis adds to the place.
    """

    sizes: tuple[int, ...]
    steps: tuple[int, ...]
    strides: tuple[int, ...]

    def entry(self, chunk: tuple[int, ...]) -> int:
        """Return the place of a smallest chunk."""
        entry = 0
        for k, c in enumerate(chunk):
            entry += c % self.sizes[k] // self.steps[k] * self.strides[k]
        return entry


class Layout(Value):
    """An array as its pager sees it: memory, chunks, objects.

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
    levels : tuple of ShardLevel
        The levels of shards, outermost first; empty without shards.
    chunks_per_object : tuple of int
        How many smallest chunks an object holds along each axis.

    Examples
    --------
    >>> from lazyarr.format import parse_node
    >>> array = parse_node(
    ...     b'{"zarr_format": 3, "node_type": "array", "shape": [10, 4], "data_type": "int16",'
    ...     b' "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [3, 4]}},'
    ...     b' "chunk_key_encoding": {"name": "default"}, "fill_value": 0,'
    ...     b' "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}]}',
    ...     path="x",
    ... )
    >>> layout = array.layout()
    >>> layout.grid_shape, layout.locate((2, 0))
    ((4, 1), ChunkAddress(key='c/2/0', entries=()))
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    grid_shape: tuple[int, ...]
    itemsize: int
    fill: bytes
    levels: tuple[ShardLevel, ...]
    chunks_per_object: tuple[int, ...]
    key_encoding: KeyEncoding
    pipeline: Pipeline
    places: tuple[Level, ...]

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

    def locate(self, chunk: tuple[int, ...]) -> ChunkAddress:
        """Return where a smallest chunk is stored.

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
        coordinates = [0] * len(chunk)
        for k, c in enumerate(chunk):
            if not 0 <= c < self.grid_shape[k]:
                raise IndexError(f"chunk {chunk} of a grid of shape {self.grid_shape}")
            coordinates[self.axes[k]] = c // self.chunks_per_object[k]
        entries = tuple(place.entry(chunk) for place in self.places)
        return ChunkAddress(self.key_encoding.key(tuple(coordinates)), entries)

    def decode(self, data: Buffer, out: memoryview) -> None:
        """Decode a smallest chunk straight into memory; see `Pipeline.decode`."""
        self.pipeline.decode(data, out)

    def encode(self, data: Buffer) -> bytes:
        """Return a smallest chunk as it is stored; see `Pipeline.encode`."""
        return self.pipeline.encode(data)


class _Step(NamedTuple):
    """One level of shards, in logical axes."""

    order: tuple[int, ...]  # axis j of the level's own is logical axis order[j]
    shard_shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    level: ShardLevel


class _Unrolled(NamedTuple):
    """All levels of shards, and what is inside of the innermost."""

    steps: tuple[_Step, ...]
    axes: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    codecs: tuple[BytesCodec, ...]


def build_layout(
    *,
    shape: tuple[int, ...],
    chunk_shape: tuple[int, ...],
    chain: CodecChain,
    key_encoding: KeyEncoding,
    fill: bytes,
) -> Layout:
    """Return the layout of an array from what its metadata says.

    Parameters
    ----------
    shape, chunk_shape : tuple of int
        Of the array and of the outer grid, along the logical axes.
    chain : CodecChain
        The codecs, checked against `chunk_shape`.
    key_encoding : KeyEncoding
        How objects are named.
    fill : bytes
        One element of the fill value.
    """
    steps, axes, smallest, codecs = _unroll(chain, chunk_shape)
    memory = tuple(smallest[axis] for axis in axes)
    in_memory = tuple(shape[axis] for axis in axes)
    return Layout(
        shape=in_memory,
        axes=axes,
        chunk_shape=memory,
        grid_shape=tuple(-(-n // c) for n, c in zip(in_memory, memory, strict=True)),
        itemsize=len(fill),
        fill=fill,
        levels=tuple(step.level for step in steps),
        chunks_per_object=tuple(chunk_shape[axis] // smallest[axis] for axis in axes),
        key_encoding=key_encoding,
        pipeline=Pipeline(math.prod(memory) * len(fill), codecs),
        places=tuple(_place(step, axes, smallest) for step in steps),
    )


def _unroll(chain: CodecChain, chunk_shape: tuple[int, ...]) -> _Unrolled:
    """Follow the shards down to the smallest chunks, everything in logical axes.

    Each level transposes what the one around it has transposed already.
    """
    steps = []
    order = chain.order
    while chain.sharding is not None:
        inner = [0] * len(order)
        for axis, length in zip(order, chain.sharding.chunk_shape, strict=True):
            inner[axis] = length
        steps.append(_Step(order, chunk_shape, tuple(inner), chain.sharding.level))
        chunk_shape, chain = tuple(inner), chain.sharding.inner
        order = tuple(order[axis] for axis in chain.order)
    return _Unrolled(tuple(steps), order, chunk_shape, chain.codecs)


def _place(step: _Step, axes: tuple[int, ...], smallest: tuple[int, ...]) -> Level:
    strides = [0] * len(axes)
    stride = 1
    for axis in reversed(step.order):
        strides[axis] = stride
        stride *= step.shard_shape[axis] // step.chunk_shape[axis]
    return Level(
        sizes=tuple(step.shard_shape[axis] // smallest[axis] for axis in axes),
        steps=tuple(step.chunk_shape[axis] // smallest[axis] for axis in axes),
        strides=tuple(strides[axis] for axis in axes),
    )
