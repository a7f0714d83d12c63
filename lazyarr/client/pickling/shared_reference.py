"""Where a pickled array's pages are: which pager has them, and for which array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from lazyarr.client.array_ref import ArrayRef
from lazyarr.client.session import process
from lazyarr.client.session.region import Memory
from lazyarr.errors import FormatError, LazyarrError
from lazyarr.memory_kind import MemoryKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from lazyarr.client.session.region import Region
    from lazyarr.formats.base import ArrayDescription

__all__ = [
    "SharedReference",
    "OpeningArguments",
    "StoredRows",
    "attach",
    "reference_of",
    "require_same_rows",
    "stored_rows",
]

OpeningArguments: TypeAlias = (
    "tuple[str, Mapping[str, Any] | None, str, str, str | None, str, str | None]"
)
"""URL, storage options, path, mode, kind of memory, byte order and format: to open it anew."""


class SharedReference(NamedTuple):
    """What a process needs to have the same pages as the one that pickled an array.

    Attributes
    ----------
    pager : str
        What is needed to come to the pager.
    region : int
        What it calls the array's memory.
    store_url : str
        The store, without credentials.
    layout : str
        The array's layout, as the pager was told of it.
    metadata : ArrayDescription
        What the array said of itself when it was opened: its pages are of that time.
    """

    pager: str
    region: int
    store_url: str
    layout: str
    metadata: ArrayDescription

    @property
    def name(self) -> str:
        """What the pages are called on machines from which nobody can come to them; no secret."""
        return f"{self.pager.partition(':')[0]}:{self.region}"


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


def reference_of(region: Region, node: ArrayRef) -> SharedReference | None:
    """Return where an array's pages are; None when other processes cannot have them."""
    if not region.kind.is_shared or region.owner is not process.current_session():
        return None
    try:
        pager = region.owner.invite()
    except (LazyarrError, OSError):
        return None
    return SharedReference(
        pager,
        region.number,
        node.store_url,
        region.array["layout"],
        node.metadata,
    )


def attach(place: OpeningArguments, origin: SharedReference) -> tuple[ArrayRef, Memory] | None:
    """Return the array of an origin on the pages that it has there.

    None when this process cannot have them: the pager or the pages are gone, it is
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
            array = {"layout": origin.layout}
            kind = MemoryKind.TRACKED if node.mode == "r+" else MemoryKind.SHARED
            memory = session.attach(origin.region, node.geometry(), array, kind=kind)
    except LazyarrError:
        return None
    if memory is None:
        return None
    memory.region.node = memory.region.node or node
    return node, memory


def stored_rows(metadata: ArrayDescription) -> StoredRows:
    """Return what of an array decides which element lies where in its memory."""
    layout = metadata.layout()
    return StoredRows(layout.axes, layout.shape, metadata.dtype.to_numpy(), metadata.shape)


def require_same_rows(then: StoredRows, metadata: ArrayDescription, url: str) -> None:
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


def _known_node(memory: Memory | None, origin: SharedReference) -> ArrayRef | None:
    """Return the array that was opened here on some memory, if it is the same in all."""
    node = memory.region.node if memory is not None else None
    return node if node is not None and node.metadata == origin.metadata else None


def _node(place: OpeningArguments, origin: SharedReference) -> ArrayRef:
    url, storage_options, _, mode, memory, byteorder, file_format = place
    return ArrayRef(
        store_url=origin.store_url,
        url=url,
        storage_options=storage_options,
        metadata=origin.metadata,
        mode=mode,
        memory=memory,
        byteorder=byteorder,
        format=file_format,
    )
