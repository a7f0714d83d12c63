"""Which bytes of an array's memory a selection of its elements lies in."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from lazyarr.units import Span

__all__ = ["byte_runs", "merge_spans"]


def byte_runs(
    start: int,
    shape: Sequence[int],
    strides: Sequence[int],
    itemsize: int,
    *,
    gap_nbytes: int,
    max_runs: int = 4096,
) -> list[Span]:
    """Return spans that hold every byte of a strided view, in order, without overlap.

    A run is what lies together in memory.  The innermost axes make up one run as far as the gaps
    between their elements are small, and the axes around them repeat it.  Gaps within a run are in
    the spans too, so these may hold more bytes than the view has, but never fewer.

    Parameters
    ----------
    start : int
        Offset of the view's first element, in bytes.
    shape, strides : sequence of int
        Of the view; strides in bytes, also negative.
    itemsize : int
        Bytes of one element.
    gap_nbytes : int
        Runs that are no farther apart become one: what lies between them comes
        along anyway.
    max_runs : int
        Where there would be more, the spans hold more than the view does.

    Examples
    --------
    >>> byte_runs(0, (2, 4), (100, 1), 1, gap_nbytes=0)
    [Span(start=0, stop=4), Span(start=100, stop=104)]
    """
    if 0 in shape:
        return []
    axes = []
    for size, stride in zip(shape, strides, strict=True):
        if stride < 0:
            start += (size - 1) * stride
        if size > 1 and stride:
            axes.append((abs(stride), size))
    run_nbytes = itemsize
    outer: list[tuple[int, int]] = []
    # From the innermost axis on: where what it repeats lies close together, that is one run,
    # which the next axis repeats.
    for stride, size in sorted(axes):
        if not outer and stride - run_nbytes <= gap_nbytes:
            run_nbytes += (size - 1) * stride
        else:
            outer.append((stride, size))
    # A view may have millions of runs.  Coarser spans load more than is needed, up to
    # whole rows; to list all runs would take longer than that.
    while outer and math.prod(size for _, size in outer) > max_runs:
        stride, size = outer.pop(0)
        run_nbytes += (size - 1) * stride
    steps = [range(0, stride * size, stride) for stride, size in reversed(outer)]
    runs = (start + sum(step) for step in itertools.product(*steps))
    return merge_spans(Span(first, first + run_nbytes) for first in runs)


def merge_spans(spans: Iterable[Span]) -> list[Span]:
    """Return the union of spans, in order; neighbours become one.

    Examples
    --------
    >>> merge_spans([Span(4, 6), Span(0, 2), Span(1, 4)])
    [Span(start=0, stop=6)]
    """
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.start <= merged[-1].stop:
            merged[-1] = Span(merged[-1].start, max(merged[-1].stop, span.stop))
        elif span.size:
            merged.append(span)
    return merged
