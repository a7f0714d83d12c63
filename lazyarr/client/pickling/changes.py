"""The written bytes of arrays of mode "c": found when a view is pickled, put back afterwards."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any, TypeAlias

from lazyarr.kernel import PAGE_NBYTES, find_written, memory_view, read_memory
from lazyarr.plan.selection import byte_runs, merge_spans
from lazyarr.units import Span

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from lazyarr.client.session.region import Region

__all__ = [
    "MAX_CHANGES_NBYTES",
    "Changes",
    "check_size",
    "find_changes",
    "nbytes_of",
    "write_changes",
]

Changes: TypeAlias = "tuple[tuple[int, bytes], ...]"
"""Runs of bytes that may differ from the store, each with its offset in the array's memory."""

MAX_CHANGES_NBYTES = 256 << 20
"""How many written bytes a pickle may hold.  They are copied several times on their way."""


def check_size(nbytes: int, what: str) -> None:
    """Raise when more bytes were written than a pickle may hold.

    Parameters
    ----------
    nbytes : int
        How many bytes were written.
    what : str
        The array or group, for the message.

    Raises
    ------
    ValueError
        When `nbytes` is more than `MAX_CHANGES_NBYTES`.
    """
    if nbytes > MAX_CHANGES_NBYTES:
        raise ValueError(
            f"cannot pickle {what} as a reference: {nbytes} bytes of it may have been"
            f" written in this process, and up to {MAX_CHANGES_NBYTES} bytes go with one;"
            " pickle numpy.array(x), which has all elements"
        )


def nbytes_of(changes: Changes | Mapping[str, Any]) -> int:
    """Return the number of bytes in the changes of one array, or in a mapping of them by name."""
    if isinstance(changes, tuple):
        return sum(len(data) for _, data in changes)
    return sum(map(nbytes_of, changes.values()))


def find_changes(region: Region, view: np.ndarray[Any, Any]) -> Changes:
    """Return the written pages of private memory in which a view has elements.

    Code in C writes through pointers, without a call to lazyarr.  So the kernel is asked
    which pages were written (`find_written`).

    Raises
    ------
    ValueError
        When more bytes were written than a pickle may hold.
    KernelError
        When the kernel cannot tell which pages were written.
    """
    wanted = _pages_of_view(region, view)
    if region.kind.is_shared or not wanted:
        return ()
    first, last = wanted[0].start, wanted[-1].stop
    written = find_written(region.address + first, last - first)
    spans = _common(wanted, [Span(span.start + first, span.stop + first) for span in written])
    check_size(sum(span.size for span in spans), f"array {region.array['path']!r}")
    # The last page is longer than the rest of the array: the bytes behind it are cut off.
    return tuple(
        (span.start + place, data[: region.geometry.nbytes - span.start - place])
        for span in spans
        for place, data in read_memory(region.address + span.start, span.size)
    )


def _pages_of_view(region: Region, view: np.ndarray[Any, Any]) -> list[Span]:
    """Return the pages in which a view has elements, as spans of bytes of the array's memory."""
    start = view.__array_interface__["data"][0] - region.address
    runs = byte_runs(start, view.shape, view.strides, view.itemsize, gap_nbytes=PAGE_NBYTES)
    pages = map(region.geometry.pages_of_bytes, runs)
    return merge_spans(Span(p.start * PAGE_NBYTES, p.stop * PAGE_NBYTES) for p in pages)


def _common(wanted: list[Span], found: list[Span]) -> list[Span]:
    """Return the intersection of two lists of spans, each in order and without overlap."""
    stops = [span.stop for span in wanted]
    common = []
    for span in found:
        for other in wanted[bisect.bisect_right(stops, span.start) :]:
            if other.start >= span.stop:
                break
            common.append(span & other)
    return common


def write_changes(region: Region, changes: Changes) -> None:
    """Write the changes that a pickle brought into this process's memory of the same array.

    Whole pages are installed by this process, so that no chunk is loaded for them.  The pager
    keeps those pages when it installs the rest of their unit.  Until then the pager does not
    know of them, and they do not count against the memory limit.  Of a page that is changed
    in part, the unit is loaded first.

    Raises
    ------
    ChunkError
        When a chunk cannot be had that a partly changed page needs.
    """
    for start, data in changes:
        stop = start + len(data)
        body = Span(-(-start // PAGE_NBYTES) * PAGE_NBYTES, stop // PAGE_NBYTES * PAGE_NBYTES)
        if stop == region.geometry.nbytes:
            body = Span(body.start, -(-stop // PAGE_NBYTES) * PAGE_NBYTES)
        if body.size:
            padded = data[body.start - start :].ljust(body.size, b"\0")
            region.owner.install(region, body.start, padded[: body.size])
        edges = (Span(start, min(stop, body.start)), Span(max(start, body.stop), stop))
        for edge in edges if body.size else (Span(start, stop),):
            if edge.size:
                units = region.geometry.units_to_load(edge)
                region.owner.request(region, [units])
                memory = memory_view(region.address + edge.start, edge.size, writable=True)
                memory[:] = data[edge.start - start : edge.stop - start]
