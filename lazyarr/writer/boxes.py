"""Boxes of elements, and how they meet the grids of chunks and of objects.  Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import TypeAlias

from lazyarr.formats.zarr import SHARD_NBYTES, default_shards
from lazyarr.units import Span

__all__ = ["Box", "box_shape", "cells", "count_cells", "meet", "plan_reads", "slices_in", "whole"]

Box: TypeAlias = tuple[Span, ...]
"""A half-open range of elements along every axis."""


def whole(shape: tuple[int, ...]) -> Box:
    """Return the box of all elements of an array."""
    return tuple(Span(0, length) for length in shape)


def box_shape(box: Box) -> tuple[int, ...]:
    """Return how many elements a box has along every axis."""
    return tuple(span.size for span in box)


def meet(first: Box, second: Box) -> Box:
    """Return what two boxes share."""
    return tuple(a & b for a, b in zip(first, second, strict=True))


def slices_in(box: Box, outer: Box) -> tuple[slice, ...]:
    """Return the slices that pick a box from an array that holds an outer box.

    Examples
    --------
    >>> slices_in((Span(12, 15),), (Span(10, 20),))
    (slice(2, 5, None),)
    """
    return tuple(
        slice(span.start - o.start, span.stop - o.start) for span, o in zip(box, outer, strict=True)
    )


def _places(box: Box, step: tuple[int, ...]) -> list[range]:
    if not all(span.size for span in box):
        return [range(0)]
    return [range(s.start // n, -(-s.stop // n)) for s, n in zip(box, step, strict=True)]


def cells(box: Box, step: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Box]]:
    """Yield place and extent of the grid's cells that meet a box, in C order.

    Parameters
    ----------
    box : Box
        Where to look; nothing is yielded when it is empty.
    step : tuple of int
        Shape of a cell.  The extents are not cut to the box.

    Examples
    --------
    >>> [place for place, _ in cells((Span(3, 9), Span(0, 2)), (4, 2))]
    [(0, 0), (1, 0), (2, 0)]
    """
    for place in itertools.product(*_places(box, step)):
        yield place, tuple(Span(c * n, c * n + n) for c, n in zip(place, step, strict=True))


def count_cells(box: Box, step: tuple[int, ...]) -> int:
    """Return how many cells of the grid meet a box."""
    return math.prod(len(places) for places in _places(box, step))


def plan_reads(
    box: Box, object_shape: tuple[int, ...], chunk_shape: tuple[int, ...], itemsize: int
) -> Iterator[Box]:
    """Yield boxes of at most about 64 MiB that cover a box, in the order to read them.

    Small objects are read many at a time, and large ones a part at a time; a part
    is made of whole chunks, except where the box itself cuts one.

    Parameters
    ----------
    box : Box
        What is to be read.
    object_shape, chunk_shape : tuple of int
        Shapes of objects and of the smallest chunks in them.
    itemsize : int
        Size of an element in bytes.
    """
    # The lengths that bound a read are at least 1: 0 would mean "any number".
    lengths = tuple(max(1, span.stop) for span in box)
    several = default_shards(lengths, object_shape, itemsize) or object_shape
    for _, cell in cells(box, several):
        part = meet(cell, box)
        if math.prod(object_shape) * itemsize <= SHARD_NBYTES:
            yield part
            continue
        piece = default_shards(lengths, chunk_shape, itemsize) or chunk_shape
        for _, inner in cells(part, piece):
            yield meet(inner, part)
