"""Names of existing nodes, for the error that an array or group does not exist."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from lazyarr.errors import FormatError, NodeNotFoundError, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazyarr.opening.nodes import Nodes

__all__ = ["with_names"]

_MAX_NAMES = 8


def with_names(error: NodeNotFoundError, hierarchy: Nodes) -> NodeNotFoundError:
    """Return an error that also names the nodes of the group in which the node was looked for.

    Returns `error` itself where the store has no such group, or does not list names.
    """
    group, _, name = error.path.rpartition("/")
    with suppress(StoreError, FormatError):
        while group and not hierarchy.exists(group):
            group, _, name = group.rpartition("/")
        if name and hierarchy.exists(group):
            found, n_more = _names(hierarchy, group, name)
            if found:
                more = f" and {n_more} more" if n_more else ""
                return NodeNotFoundError(
                    f"there is no array or group {error.path!r} in {error.url}: {group or '/'!r} "
                    f"has {', '.join(map(repr, found))}{more}; choose one of these",
                    url=error.url,
                    path=error.path,
                )
    return error


def _names(hierarchy: Nodes, group: str, name: str) -> tuple[Sequence[str], int]:
    """Return the names in a group that are most like `name`, and how many more there are."""
    # Imported here: only this error needs it, and the import takes longer than reading a row.
    from difflib import SequenceMatcher

    names = hierarchy.children(group)
    alike = sorted(names, key=lambda each: -SequenceMatcher(None, name, each).ratio())
    return alike[:_MAX_NAMES], len(alike[_MAX_NAMES:])
