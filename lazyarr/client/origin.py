"""Where a pickled array's pages are: which pager has them, and for which array."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from lazyarr.client import process
from lazyarr.client.node import ArrayNode
from lazyarr.client.region import Memory
from lazyarr.errors import FormatError, LazyarrError
from lazyarr.format import ArrayMetadata, parse_node, parse_v2_array

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from lazyarr.client.region import Region

__all__ = [
    "Origin",
    "Place",
    "StoredRows",
    "attach",
    "origin_of",
    "require_same_rows",
    "stored_rows",
]

Place: TypeAlias = "tuple[str, Mapping[str, Any] | None, str, str, str | None]"
"""URL, storage options, path, mode and kind of memory: what opens an array anew."""


class Origin(NamedTuple):
    """What a process needs to have the same pages as the one that pickled an array.

    Attributes
    ----------
    pager : str
        The pager's name.
    region : int
        What it calls the array's memory.
    store_url : str
        The store, without credentials.
    zarr_format : int
        Of the array's metadata.
    document : str
        The array's metadata when it was opened, as JSON without the attributes.
    attributes : dict
        The array's attributes.
    """

    pager: str
    region: int
    store_url: str
    zarr_format: int
    document: str
    attributes: dict[str, Any]


class StoredRows(NamedTuple):
    """Which element of an array lies where in its memory.

    Attributes
    ----------
    axes : tuple of int
        The array's axes in the order of memory.
    lengths : tuple of int
        Their lengths in that order.
    dtype : dtype
        Of the elements.
    shape : tuple of int
        The array's, for messages.
    """

    axes: tuple[int, ...]
    lengths: tuple[int, ...]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def origin_of(region: Region, node: ArrayNode) -> Origin | None:
    """Return where an array's pages are; None when other processes can not have them."""
    if not region.is_shared or region.owner is not process.current_session():
        return None
    try:
        pager = region.owner.invite()
    except (LazyarrError, OSError):
        return None
    return Origin(
        pager,
        region.number,
        node.store_url,
        node.metadata.zarr_format,
        region.array["document"],
        node.metadata.attributes,
    )


def attach(place: Place, origin: Origin) -> tuple[ArrayNode, Memory] | None:
    """Return the array of an origin on the pages that it has there.

    None when this process can not have them: the pager or the pages are gone, it is
    another user's, this process has a pager of its own.
    """
    session = process.session_at(origin.pager)
    if session is None:
        return None
    try:
        here = session.memory_of(origin.region)
        memory = here if isinstance(here, Memory) else None
        node = _known_node(memory, origin) or _node(place, origin)
        if memory is None:
            array = {"document": origin.document}
            memory = session.attach(origin.region, node.geometry(), array)
    except LazyarrError:
        return None
    if memory is None:
        return None
    memory.region.node = memory.region.node or node
    return node, memory


def stored_rows(metadata: ArrayMetadata) -> StoredRows:
    """Return what of an array decides which element lies where in its memory."""
    layout = metadata.layout()
    return StoredRows(layout.axes, layout.shape, metadata.dtype.to_numpy(), metadata.shape)


def require_same_rows(then: StoredRows, metadata: ArrayMetadata, url: str) -> None:
    """Raise unless a place in the memory of the array of then is the same place now.

    Rows may have been added.

    Raises
    ------
    FormatError
        When a view that was pickled would show other elements.
    """
    now = stored_rows(metadata)
    is_same = (then.axes, then.lengths[1:], then.dtype) == (now.axes, now.lengths[1:], now.dtype)
    if not is_same or then.lengths[:1] > now.lengths[:1]:
        raise FormatError(
            f"cannot open what was pickled of array {metadata.path!r} in {url}: it had shape "
            f"{then.shape} and dtype {then.dtype}, now {now.shape} and {now.dtype}; open it and "
            "pickle it again",
            path=metadata.path,
        )


def _known_node(memory: Memory | None, origin: Origin) -> ArrayNode | None:
    """Return the array that was opened here on some memory, if it is the same in all."""
    node = memory.region.node if memory is not None else None
    return node if node is not None and node.metadata.attributes == origin.attributes else None


def _node(place: Place, origin: Origin) -> ArrayNode:
    url, storage_options, path, mode, memory = place
    return ArrayNode(
        store_url=origin.store_url,
        url=url,
        storage_options=storage_options,
        metadata=_metadata(path, origin),
        mode=mode,
        memory=memory,
    )


def _metadata(path: str, origin: Origin) -> ArrayMetadata:
    """Return the metadata as it was when the array was opened: its pages are of that time."""
    if origin.zarr_format == 2:
        attributes = json.dumps(origin.attributes).encode()
        return parse_v2_array(origin.document.encode(), attributes, path=path)
    document = {**json.loads(origin.document), "attributes": origin.attributes}
    node = parse_node(json.dumps(document).encode(), path=path)
    assert isinstance(node, ArrayMetadata)
    return node
