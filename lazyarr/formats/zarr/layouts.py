"""From what a Zarr document says of an array to its layout: levels of shards are followed down."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from lazyarr.codecs.base import BytesCodec
from lazyarr.formats.zarr.codec_chain import CodecChain
from lazyarr.layout.grid import KeyEncoding
from lazyarr.layout.layout import Layout
from lazyarr.layout.pipeline import Pipeline
from lazyarr.layout.placement import KeyPerChunk, Level
from lazyarr.layout.shard import ShardLevel

if TYPE_CHECKING:
    from lazyarr.layout.swap import Swap

__all__ = ["build_layout"]


_WITNESSES = ("zarr.json", ".zarray")
"""The documents of arrays, of Zarr v3 and v2: an array has one of them as long as it is there."""


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
    swap: Swap | None = None,
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
    swap : Swap, optional
        What elements go through between memory and the codecs.
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
        pipeline=Pipeline(math.prod(memory) * len(fill), codecs, swap),
        placement=KeyPerChunk(
            chunks_per_object=tuple(chunk_shape[axis] // smallest[axis] for axis in axes),
            levels=tuple(step.level for step in steps),
            places=tuple(_place(step, axes, smallest) for step in steps),
            key_encoding=key_encoding,
            axes=axes,
        ),
        witnesses=_WITNESSES,
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
