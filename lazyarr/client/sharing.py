"""Memory of arrays that is there already, here or in another process of the same pager."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from lazyarr.client.region import Region
from lazyarr.wire import messages as w

if TYPE_CHECKING:
    from lazyarr.client.region import Memory
    from lazyarr.client.session import Session
    from lazyarr.plan.geometry import Geometry

__all__ = ["attach", "find"]


def attach(
    session: Session, number: int, geometry: Geometry, array: dict[str, Any]
) -> Memory | threading.Event | None:
    """Return memory on a region that another process has; None when it is gone.

    While this process itself is about to unmap it, what to wait for before asking again.

    Parameters
    ----------
    session : Session
        This process's; nobody else may attach or open a region meanwhile.
    number : int
        What the pager calls the region.
    geometry : Geometry
        The array's arithmetic.
    array : dict
        The fields of `OpenRegion` that say which array it is, as far as they are known.
    """
    want = w.WantRegion(session.questions.new_ticket(), number, array["document"])
    return _take(session, want, geometry, array)


def find(
    session: Session, geometry: Geometry, array: dict[str, Any]
) -> Memory | threading.Event | None:
    """Return memory on a region of an array, if one is alive that is still true; else None.

    The pager is asked only if there can be one, for an array that is opened first should
    wait for nothing.  As `attach` otherwise.
    """
    if session.is_alone and not session.has_region_of(array):
        return None
    fields = {name: array[name] for name in ("url", "path", "document", "zarr_format", "store")}
    return _take(session, w.FindRegion(session.questions.new_ticket(), **fields), geometry, array)


def _passed() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def _take(
    session: Session,
    message: w.WantRegion | w.FindRegion,
    geometry: Geometry,
    array: dict[str, Any],
) -> Memory | threading.Event | None:
    """Ask for a region and map it, or find where it is mapped."""
    received = session.questions.exchange(message, w.Found)
    found, descriptors = received
    assert isinstance(found, w.Found)
    try:
        if found.region < 0:
            return None
        if not descriptors:
            # It has been unmapped since the pager looked: the pager knows by now.
            return session.memory_of(found.region) or _passed()
        region = Region(
            owner=session,
            number=found.region,
            geometry=geometry,
            memfd=descriptors[0],
            offset=found.offset,
            map_memfd=descriptors[1],
            map_offset=found.map_offset,
            array=array,
            descriptors=(),
        )
        memory = session.take_on(region)
        region.memfd = region.map_memfd = -1
        return memory
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
