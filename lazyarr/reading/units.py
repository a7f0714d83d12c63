"""Which chunks of an array make a unit: client and pager must compute the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazyarr.kernel import PAGE_NBYTES
from lazyarr.layout.geometry import Geometry

if TYPE_CHECKING:
    from lazyarr.layout import Layout

__all__ = ["geometry_of"]

# The pager's fixed cost for a unit is little compared with decoding so many bytes.
_GROUP_NBYTES = 64 << 10


def geometry_of(layout: Layout, page_nbytes: int = PAGE_NBYTES) -> Geometry:
    """Return where the units of an array lie, and which chunks they are made of.

    Parameters
    ----------
    layout : Layout
        The array's.
    page_nbytes : int
        Size in bytes of the pages of its memory (`MemoryKind.page_nbytes`).
    """
    return Geometry(
        layout.shape, layout.chunk_shape, layout.itemsize, page_nbytes, group_nbytes=_GROUP_NBYTES
    )
