"""From what a client says of an array to a region that can be filled."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lazyarr.errors import PagerError
from lazyarr.format import GroupMetadata, parse_node
from lazyarr.kernel import PAGE_NBYTES
from lazyarr.loading.source import Source
from lazyarr.pager.checking import check_region
from lazyarr.pager.clients import Arena, Region
from lazyarr.pager.installer import Backing
from lazyarr.plan.geometry import Geometry
from lazyarr.store import RetryingStore, RetryPolicy, open_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lazyarr.format import ArrayMetadata
    from lazyarr.loading.rotation import Rotation
    from lazyarr.loading.source import Share
    from lazyarr.store import Store
    from lazyarr.store.cache import DiskCache, StoreCache
    from lazyarr.wire.messages import OpenRegion

__all__ = ["open_region", "parse_array"]


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
        What the client says.
    descriptors : sequence of int
        What came with it; the region owns them.
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
        Keeps what is fetched of remote stores.

    Raises
    ------
    FormatError, PagerError
        When the client says what it could not have opened itself.
    """
    try:
        metadata = parse_array(message.document.encode(), message.zarr_format, message.path)
        layout = metadata.layout()
        geometry = Geometry(layout.shape, layout.chunk_shape, layout.itemsize, PAGE_NBYTES)
        check_region(message, geometry, arena)
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise

    def open_store() -> Store:
        # Copies: it may fail and be tried again, or never happen.
        copies = [os.dup(descriptor) for descriptor in descriptors]
        store = open_reference(message.store, copies, timeout_seconds=timeout_seconds)
        policy = RetryPolicy(timeout_seconds=timeout_seconds, retries=retries)
        return RetryingStore(store, policy, on_retry=lambda *_: count("retries", 1))

    region = Region(
        message=message,
        source=Source(
            open_store,
            layout,
            geometry,
            url=message.url,
            path=message.path,
            count_fetched=lambda nbytes: count("bytes_fetched", nbytes),
            share=share,
            rotation=rotation,
            cache=_cache_of(message, cache) if cache is not None else None,
        ),
        backing=Backing(arena.memfd, message.offset) if message.offset >= 0 else None,
        residency=Backing(arena.map_memfd, message.map_offset),
        arena=arena.share(),
        descriptors=tuple(descriptors),
        is_remote=message.is_remote,
        label=f"{message.path!r} in {message.url}",
        memory_nbytes=geometry.n_pages * PAGE_NBYTES,
        unit_nbytes=max(geometry.unit_nbytes, layout.chunk_nbytes),
        n_units=geometry.n_units,
        limits=(timeout_seconds, retries, cache),
    )
    return region, geometry


def _cache_of(message: OpenRegion, disk: DiskCache) -> StoreCache | None:
    """Return what a cache holds of a region's store; None for stores that none is needed for."""
    if message.store.get("kind") != "fsspec":
        return None
    from lazyarr.store.cache import StoreCache, place_of

    return StoreCache(disk, place_of(message.store["url"], message.store["storage_options"]))


def parse_array(document: bytes, zarr_format: int, path: str) -> ArrayMetadata:
    """Return what an array's document says.

    Raises
    ------
    FormatError, PagerError
        When it is none that a client could have opened.
    """
    if zarr_format == 2:
        # Imported here: most stores are of version 3.
        from lazyarr.format import parse_v2_array

        return parse_v2_array(document, None, path=path)
    node = parse_node(document, path=path)
    if isinstance(node, GroupMetadata):
        raise PagerError(f"expected an array at {path!r}, found a group")
    return node
