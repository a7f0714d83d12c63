"""Reads the chunks of a selection one by one, where a neighbouring chunk cannot be had.

Memory fills page by page and unit by unit.  So one damaged chunk keeps undamaged ones out that
lie on the same page or in the same unit.  The engine that copies reads chunk by chunk.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from lazyarr.client.array_ref import reopening

if TYPE_CHECKING:
    import numpy as np

    from lazyarr.client.array_ref import CopyingView
    from lazyarr.client.session.region import Region

__all__ = ["copying_view", "read_own_chunks"]

_NOTE = (
    "it is loaded together with its neighbours, on the same page or in the same unit, which "
    "cannot be had in mode 'c' or 'r+' either; in mode 'r' picks and operations read the others "
    "alone"
)


def copying_view(region: Region, plain: np.ndarray[Any, Any]) -> CopyingView:
    """Return a view as an array that copies what it reads, while a failed request is handled.

    The exception is not given as an argument.  Its traceback refers to this frame, a frame refers
    to its arguments, and in such a circle the array would stay mapped until garbage is collected.

    Parameters
    ----------
    region : Region
        The memory in which the view lies.
    plain : ndarray
        The view, as a plain array.

    Raises
    ------
    ChunkError
        The error that is being handled.  Raised again where each chunk is loaded alone, or where
        the program may have written to the memory.
    """
    geometry, node = region.geometry, region.node
    if node is None or (geometry.unit_chunks == 1 and geometry.unit_pages):
        raise
    # Memory of modes "c" and "r+" may have been written to, so its bytes are not those of
    # the store.
    if node.mode != "r":
        _note_exception()
        raise
    if region.copying is None:
        region.copying = reopening().copying(node)
    start = plain.__array_interface__["data"][0] - region.address
    return region.copying(start, plain.dtype, plain.shape, plain.strides)


def _note_exception() -> None:
    """Say in the exception that is being handled why it is raised."""
    error = sys.exception()
    assert error is not None
    error.add_note(_NOTE)


def read_own_chunks(region: Region, plain: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a copy of a view, read chunk by chunk; see `copying_view`."""
    # Not writable: a write to a copy would be lost, where the caller has asked for a view.
    copy = copying_view(region, plain).read_once()
    copy.flags.writeable = False
    return copy
