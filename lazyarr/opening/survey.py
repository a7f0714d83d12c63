"""Every node of a store by its metadata, for those who look and do not read."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from lazyarr.errors import FormatError, NodeNotFoundError
from lazyarr.formats.base import GroupDescription, Node
from lazyarr.formats.paths import join_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazyarr.opening.nodes import Nodes

__all__ = ["Found", "walk"]

Found: TypeAlias = tuple[str, Node | FormatError]
"""A node's path, and its metadata or why that cannot be used."""


def walk(nodes: Nodes, path: str = "") -> Iterator[Found]:
    """Yield path and metadata of every node below a group, parents first.

    A node that goes while others are looked at is left out.

    Raises
    ------
    StoreError
        When the store cannot be read or listed.
    """
    waiting = _children(nodes, path)
    while waiting:
        child = waiting.pop()
        try:
            node = nodes.node(child)
        except NodeNotFoundError:
            continue  # it was there when its group was listed
        except FormatError as error:
            yield child, error
            continue
        yield child, node
        if isinstance(node, GroupDescription):
            waiting.extend(_children(nodes, child))


def _children(nodes: Nodes, path: str) -> list[str]:
    """Return the paths directly below a group, the first one last."""
    return [join_path(path, name) for name in reversed(nodes.children(path))]
