"""Taking away what a store holds beyond the end of an array."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lazyarr import settings
from lazyarr.units import Span
from lazyarr.writer.boxes import Box
from lazyarr.writer.pump import Pump
from lazyarr.writer.sink import ArraySink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazyarr.formats.zarr import ArrayMetadata
    from lazyarr.writer.place import Place

__all__ = ["blank_outside"]

_WINDOW_NBYTES = 64 << 20
_PUT_THREADS = 4


def blank_outside(place: Place, metadata: ArrayMetadata, extent: tuple[int, ...]) -> None:
    """Have all elements beyond an array's end be the fill value, if it grew to an extent.

    Objects that lie beyond are deleted.  Of those that the end cuts, only the ones that hold
    something else are put again.  Readers of the array do not notice.

    Parameters
    ----------
    place : Place
        The store.
    metadata : ArrayMetadata
        The array.
    extent : tuple of int
        Lengths that are as large as the array's or larger.
    """
    grown = [axis for axis, n in enumerate(metadata.shape) if extent[axis] > n]
    if not grown:
        return
    _delete_beyond(place, metadata, max(grown))
    if any(metadata.shape[axis] % metadata.chunk_shape[axis] for axis in grown):
        _blank_edges(place, metadata, extent)


def _blank_edges(place: Place, metadata: ArrayMetadata, extent: tuple[int, ...]) -> None:
    encoding = Pump(settings.current().threads, _WINDOW_NBYTES, "encode")
    putting = Pump(_PUT_THREADS, _WINDOW_NBYTES, "put")
    try:
        sink = ArraySink(metadata, place, encoding=encoding, putting=putting)
        sink.blank(tuple(_edges(metadata, extent)), _cut(metadata, extent))
        sink.flush()
    finally:
        encoding.close()
        putting.close()


def _cut(metadata: ArrayMetadata, extent: tuple[int, ...]) -> tuple[int, ...]:
    """Return an extent, but no more of it than objects that hold elements of the array have."""
    lengths = zip(metadata.shape, metadata.chunk_shape, extent, strict=True)
    return tuple(min(-(-n // step) * step, most) for n, step, most in lengths)


def _edges(metadata: ArrayMetadata, extent: tuple[int, ...]) -> Iterator[Box]:
    """Yield boxes of elements beyond the end, in objects that the end cuts, for each axis."""
    cut = _cut(metadata, extent)
    for axis, length in enumerate(metadata.shape):
        if cut[axis] > length:
            yield tuple(
                Span(length if other == axis else 0, most) for other, most in enumerate(cut)
            )


def _delete_beyond(place: Place, metadata: ArrayMetadata, last: int) -> None:
    """Delete the objects that have no element of the array, by their places up to an axis."""
    grid = [-(-n // step) for n, step in zip(metadata.shape, metadata.chunk_shape, strict=True)]
    encoding, path = metadata.key_encoding, metadata.path
    if encoding.separator == "/":
        prefix = f"{path}/c" if path else "c"
        _delete_below(place, prefix if encoding.name == "default" else path, grid, 0, last)
        return
    start = "c." if encoding.name == "default" else ""
    pattern = re.compile(re.escape(start) + r"\.".join(["(0|[1-9][0-9]*)"] * len(grid)))
    for name in place.list_names(path):
        found = pattern.fullmatch(name)
        if found and any(int(i) >= n for i, n in zip(found.groups(), grid, strict=True)):
            place.delete(f"{path}/{name}" if path else name)


def _delete_below(place: Place, prefix: str, grid: list[int], axis: int, last: int) -> None:
    for name in place.list_names(prefix):
        if not re.fullmatch("0|[1-9][0-9]*", name):
            continue
        below = f"{prefix}/{name}" if prefix else name
        if int(name) >= grid[axis]:
            place.delete_prefix(below)
        elif axis < last:
            _delete_below(place, below, grid, axis + 1, last)
