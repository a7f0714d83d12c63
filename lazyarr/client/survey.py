"""Every node of a store by its metadata, for those who look and do not read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from lazyarr import settings
from lazyarr.client.hierarchy import Hierarchy, join_path
from lazyarr.errors import FormatError
from lazyarr.format import GroupMetadata, Node
from lazyarr.store import RetryingStore, RetryPolicy, open_store

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

__all__ = ["Found", "open_hierarchy", "walk"]

Found: TypeAlias = tuple[str, Node | FormatError]
"""A node's path, and its metadata or why that can not be used."""


def open_hierarchy(
    url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
) -> Hierarchy:
    """Return the nodes of a store; reads nothing yet, and starts no pager.

    Raises
    ------
    StoreError
        When there is no way to reach the store.
    """
    limits = settings.current()
    store = open_store(url, storage_options, timeout_seconds=limits.timeout)
    policy = RetryPolicy(timeout_seconds=limits.timeout, retries=limits.retries)
    return Hierarchy(RetryingStore(store, policy))


def walk(hierarchy: Hierarchy, path: str = "") -> Iterator[Found]:
    """Yield path and metadata of every node below a group, parents first.

    Raises
    ------
    StoreError
        When the store can not be read or listed.
    """
    waiting = _children(hierarchy, path)
    while waiting:
        child = waiting.pop()
        try:
            node = hierarchy.node(child)
        except FormatError as error:
            yield child, error
            continue
        yield child, node
        if isinstance(node, GroupMetadata):
            waiting.extend(_children(hierarchy, child))


def _children(hierarchy: Hierarchy, path: str) -> list[str]:
    """Return the paths directly below a group, the first one last."""
    return [join_path(path, name) for name in reversed(hierarchy.children(path))]
