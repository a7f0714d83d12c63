"""From a URL to a store's nodes, and from a node to an array."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lazyarr import settings
from lazyarr.client import process
from lazyarr.client.hierarchy import Hierarchy
from lazyarr.errors import FormatError
from lazyarr.format import ArrayMetadata
from lazyarr.store import RetryingStore, RetryPolicy, open_store, store_reference

if TYPE_CHECKING:
    from lazyarr.client.lazyarray import LazyArray

__all__ = ["Opening", "begin_opening", "open_array", "reopen_array"]

_MODES = ("r", "c", "r+")
_MEMORY_KINDS = (None, "shared", "private")


@dataclass(frozen=True, slots=True)
class Opening:
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
    """

    url: str
    storage_options: Mapping[str, Any] | None
    mode: str
    memory: str | None
    hierarchy: Hierarchy


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
    # First of all: the pager starts up while this process reads and imports.
    process.begin()
    current = settings.current()
    store = open_store(url, storage_options, timeout_seconds=current.timeout)
    policy = RetryPolicy(timeout_seconds=current.timeout, retries=current.retries)
    hierarchy = Hierarchy(RetryingStore(store, policy), use_consolidated=use_consolidated)
    options = None if storage_options is None else dict(storage_options)
    return Opening(_absolute(url), options, mode, memory, hierarchy)


def open_array(opening: Opening, metadata: ArrayMetadata) -> LazyArray:
    """Return an array of an opened store, with nothing read."""
    from lazyarr.client.making import make_array
    from lazyarr.client.node import ArrayNode

    store = opening.hierarchy.store
    node = ArrayNode(
        reference=store_reference(store, prefix=metadata.path),
        store_url=store.url,
        url=opening.url,
        storage_options=opening.storage_options,
        metadata=metadata,
        mode=opening.mode,
        memory=opening.memory,
    )
    return make_array(node)


def reopen_array(
    url: str,
    storage_options: Mapping[str, Any] | None,
    path: str,
    mode: str,
    memory: str | None,
) -> LazyArray:
    """Return an array that was pickled as a reference, opened in this process.

    Raises
    ------
    FormatError
        When there is a group in its place now.
    """
    opening = begin_opening(
        url, mode, storage_options=storage_options, use_consolidated=None, memory=memory
    )
    metadata = opening.hierarchy.node(path)
    if not isinstance(metadata, ArrayMetadata):
        raise FormatError(f"expected an array at {path!r} of {url}, found a group", path=path)
    return open_array(opening, metadata)


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
    text = os.fspath(url)
    return text if "://" in text or "::" in text else os.path.abspath(text)
