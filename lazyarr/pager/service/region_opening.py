"""Makes a region that can be filled from a client's description of an array."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from lazyarr.layout.document import parse_layout, pipeline_text
from lazyarr.pager.checking import check_claim, check_region, kind_of
from lazyarr.pager.memory.clients import Arena, Region
from lazyarr.pager.memory.installer import Backing
from lazyarr.reading.unit_reader import UnitReader
from lazyarr.reading.units import geometry_of
from lazyarr.store import RetryingStore, RetryPolicy, open_reference, open_writable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lazyarr.layout.geometry import Geometry
    from lazyarr.pager.memory.committing import Committing
    from lazyarr.reading.rotation import Rotation
    from lazyarr.reading.workspace import Share
    from lazyarr.store import Store
    from lazyarr.store.cache import DiskCache, StoreCache
    from lazyarr.wire.messages import OpenRegion

__all__ = ["open_region"]


def open_region(
    message: OpenRegion,
    descriptors: Sequence[int],
    arena: Arena,
    *,
    timeout_seconds: float,
    retries: int,
    count: Callable[[str, int], None],
    share: Share,
    rotation: Rotation,
    cache: DiskCache | None = None,
) -> tuple[Region, Geometry]:
    """Return a region and the arithmetic of its array.

    The store itself is opened on the first load: importing what a remote one
    needs takes longer than a fault may wait for.

    Parameters
    ----------
    message : OpenRegion
        The client's description of the array and of its memory.
    descriptors : sequence of int
        The descriptors that came with the message; the region owns them.
    arena : Arena
        The client's memory objects.
    timeout_seconds : float
        How long one chunk may take to be read, retries included.
    retries : int
        How often a read that failed in transport is tried again.
    count : callable
        Adds to a counter of the statistics.
    share : callable
        Does the parts of a load by several threads.
    rotation : Rotation
        Says which sources may hold descriptors.
    cache : DiskCache, optional
        Keeps bytes that were fetched from remote stores.

    Raises
    ------
    FormatError, PagerError
        When the message describes an array or memory that no client can have.
    """
    try:
        # A layout is all that the pager knows of the array.  It parses no file format,
        # so a damaged document fails in the client, and not here.
        layout = parse_layout(message.layout)
        kind = kind_of(message)
        geometry = geometry_of(layout, kind.page_nbytes)
        check_region(message, geometry, kind, arena)
        check_claim(message, descriptors, kind)
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise

    # The claim is kept and not used: it holds as long as a descriptor of it is open.
    of_store = () if kind.writes_back else descriptors

    def open_committing() -> Committing:
        # Imported here: few arrays are written to.
        from lazyarr.pager.work.commit import Commit

        policy = RetryPolicy(timeout_seconds=timeout_seconds, retries=retries)
        # By the description alone, and nothing else says what there is to write to.
        store = open_writable(message.store, timeout_seconds=timeout_seconds, policy=policy)
        return Commit(store, message.path, layout, geometry, url=message.url)

    def open_store() -> Store:
        # Copies, for the store owns what it is given.  An opening may fail and be tried again,
        # or never be needed.
        copies = [os.dup(descriptor) for descriptor in of_store]
        store = open_reference(message.store, copies, timeout_seconds=timeout_seconds)
        policy = RetryPolicy(timeout_seconds=timeout_seconds, retries=retries)
        return RetryingStore(store, policy, on_retry=lambda *_: count("retries", 1))

    region = Region(
        message=message,
        source=UnitReader(
            open_store,
            layout,
            geometry,
            url=message.url,
            path=message.path,
            count_fetched=partial(count, "bytes_fetched"),
            share=share,
            rotation=rotation,
            # Where objects are replaced, a cache would have to forget them too.
            cache=None if kind.writes_back else _cache_of(message, cache),
            is_written=kind.writes_back,
        ),
        kind=kind,
        backing=Backing(arena.memfd, message.offset),
        residency=Backing(arena.map_memfd, message.map_offset),
        arena=arena.share(),
        descriptors=tuple(descriptors),
        is_remote=message.is_remote,
        label=f"{message.path!r} in {message.url}",
        memory_nbytes=geometry.n_pages * geometry.page_nbytes,
        # A chunk at the edge of the grid is stored whole, though the array has only a
        # part of it.
        unit_nbytes=max(geometry.unit_nbytes, layout.chunk_nbytes),
        n_units=geometry.n_units,
        # Made once: each job of a decoder carries it.
        pipeline=pipeline_text(layout.pipeline).encode(),
        limits=(timeout_seconds, retries, cache),
        chunks_per_object=layout.chunks_per_object if kind.writes_back and layout.levels else (),
        open_committing=open_committing if kind.writes_back else None,
    )
    return region, geometry


def _cache_of(message: OpenRegion, disk: DiskCache | None) -> StoreCache | None:
    """Return a cache's part for the store of a region; None for stores that are not remote."""
    # Local files are in the page cache anyway.
    if disk is None or message.store.get("kind") != "fsspec":
        return None
    from lazyarr.store.cache import StoreCache, place_of

    return StoreCache(disk, place_of(message.store["url"], message.store["storage_options"]))
