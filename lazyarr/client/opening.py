"""From a URL to a store's nodes, and from a node to an array."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lazyarr import settings
from lazyarr.client import process
from lazyarr.client.engines import begin_engine, find_making
from lazyarr.client.hierarchy import Hierarchy
from lazyarr.errors import FormatError, LazyarrError
from lazyarr.format import ArrayMetadata
from lazyarr.store import RetryingStore, RetryPolicy, open_store
from lazyarr.values import Value

if TYPE_CHECKING:
    import numpy as np

    from lazyarr.client.lazyarray import LazyArray
    from lazyarr.client.node import ArrayNode
    from lazyarr.client.origin import Origin, Place, StoredRows

__all__ = [
    "Opening",
    "begin_opening",
    "come_to_pager",
    "invite_to_pager",
    "open_array",
    "reduce_view",
    "reopen_view",
]

_MODES = ("r", "c", "r+")
_MEMORY_KINDS = (None, "shared", "private")


class Opening(Value):
    """How a store was opened: what its arrays and its groups have in common.

    Attributes
    ----------
    url : str
        What another process opens to reach the same store.
    storage_options : mapping or None
        As the user gave them.
    mode : str
        ``"r"`` or ``"c"``.
    memory : str or None
        The kind of memory that the user asked for.
    hierarchy : Hierarchy
        The nodes of the store.
    engine : str
        What fills its arrays: ``"userfaultfd"`` or ``"copy"``.
    """

    url: str
    storage_options: Mapping[str, Any] | None
    mode: str
    memory: str | None
    hierarchy: Hierarchy
    engine: str


def begin_opening(
    url: str | os.PathLike[str],
    mode: str,
    *,
    storage_options: Mapping[str, Any] | None,
    use_consolidated: bool | None,
    memory: str | None,
) -> Opening:
    """Return an opened store; see `lazyarr.open` for the parameters."""
    _check_mode(mode, memory)
    engine = begin_engine()
    current = settings.current()
    store = open_store(url, storage_options, timeout_seconds=current.timeout)
    policy = RetryPolicy(timeout_seconds=current.timeout, retries=current.retries)
    hierarchy = Hierarchy(RetryingStore(store, policy), use_consolidated=use_consolidated)
    options = None if storage_options is None else dict(storage_options)
    return Opening(_absolute(url), options, mode, memory, hierarchy, engine)


def open_array(opening: Opening, metadata: ArrayMetadata) -> LazyArray:
    """Return an array of an opened store, with nothing read."""
    from lazyarr.client.node import ArrayNode

    node = ArrayNode(
        store_url=opening.hierarchy.store.url,
        url=opening.url,
        storage_options=opening.storage_options,
        metadata=metadata,
        mode=opening.mode,
        memory=opening.memory,
    )
    return find_making(opening.engine).make_array(node, opening.hierarchy)


def invite_to_pager(opening: Opening) -> str | None:
    """Return the name of the pager whose pages other processes can have, if there is one."""
    if opening.engine == "copy" or opening.mode != "r":
        return None
    try:
        return process.session().invite()
    except (LazyarrError, OSError):
        return None


def come_to_pager(name: str | None) -> None:
    """Have arrays that are opened here share the pages of those of a pager, where that can be."""
    if name is not None and settings.current().engine != "copy":
        process.session_at(name)


def reopen_view(*reference: Any) -> Any:
    """Return a view that was pickled as a reference (see `reduce_view`).

    Raises
    ------
    LazyarrError
        When it can not be had; in a worker process when it is used (see `raise_later`).
    """
    try:
        return _reopen_view(*reference)
    except Exception as error:  # noqa: BLE001 - what a missing driver raises, too
        from lazyarr.client.unreachable import raise_later

        return raise_later(error)


def _reopen_view(
    place: Place,
    start: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    rows: StoredRows,
    origin: Origin | None = None,
) -> LazyArray:
    """Return a view on the same pages, or else opened anew.

    Parameters
    ----------
    place : tuple
        URL, storage options, path, mode and kind of memory.
    start : int
        Where the view begins in the memory of the array, in bytes.
    dtype, shape, strides
        Of the view.
    rows : StoredRows
        Of the whole array.
    origin : Origin, optional
        Where the pages are.

    Raises
    ------
    FormatError
        When there is a group in its place now, or an array of other rows.
    """
    from lazyarr.client.origin import require_same_rows

    if origin is not None and settings.current().engine != "copy":
        from lazyarr.client.making import attach_array, restride

        shared = attach_array(place, origin)
        if shared is not None:
            return restride(shared, start, dtype, shape, strides)
    url, storage_options, path, mode, memory = place
    opening = begin_opening(
        url, mode, storage_options=storage_options, use_consolidated=None, memory=memory
    )
    metadata = opening.hierarchy.node(path)
    if not isinstance(metadata, ArrayMetadata):
        raise FormatError(f"expected an array at {path!r} of {url}, found a group", path=path)
    require_same_rows(rows, metadata, opening.hierarchy.store.url)
    array = open_array(opening, metadata)
    return find_making(opening.engine).restride(array, start, dtype, shape, strides)


def reduce_view(
    node: ArrayNode,
    start: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    origin: Origin | None = None,
) -> tuple[Any, ...]:
    """Return how a view is pickled: of which stored array, and where in it; see `reopen_view`."""
    from lazyarr.client.origin import stored_rows

    place = (node.url, node.storage_options, node.metadata.path, node.mode, node.memory)
    rows = stored_rows(node.metadata)
    return reopen_view, (place, start, dtype, shape, strides, rows, origin)


def _check_mode(mode: str, memory: str | None) -> None:
    if mode not in _MODES:
        raise ValueError(f"mode is one of 'r' and 'c'; found {mode!r}")
    if mode == "r+":
        raise NotImplementedError(
            "mode 'r+' is not there yet; use mode 'c' to change values in memory, and "
            "lazyarr.save or lazyarr.create to write"
        )
    if memory not in _MEMORY_KINDS:
        raise ValueError(f"memory is one of 'shared', 'private' and None; found {memory!r}")
    if mode == "c" and memory == "shared":
        raise ValueError("memory='shared' does not go with mode 'c': what is written is private")


def _absolute(url: str | os.PathLike[str]) -> str:
    """Return a URL that means the same in a process with another working directory."""
    text = os.fsdecode(url)
    return text if "://" in text or "::" in text else os.path.abspath(text)
