"""The nodes of a store: where their metadata is, and what lies below them."""

from __future__ import annotations

import weakref
from collections import deque
from typing import TYPE_CHECKING

from lazyarr.client.session import finalizers
from lazyarr.client.warning import warn_user
from lazyarr.errors import FormatError, NodeNotFoundError, StoreError, StoreWarning
from lazyarr.formats.paths import join_path
from lazyarr.formats.zarr import ArrayMetadata, GroupMetadata, Node
from lazyarr.formats.zarr.nodes import NODE_DOCUMENTS
from lazyarr.kernel import arrive
from lazyarr.opening.documents import Documents, without_copies
from lazyarr.store.base import METADATA_NAMES, NoObjectError, list_directories

if TYPE_CHECKING:
    from lazyarr.opening.consolidated_copies import Copies
    from lazyarr.store import RetryingStore

__all__ = ["Hierarchy"]

_MAX_LISTINGS = 1000
"""Directories that are looked into for nodes below something that has no document."""


class Hierarchy:
    """The nodes of one store, read when they are asked for.

    A group may have no document of its own: what has nodes below it is one.

    Parameters
    ----------
    store : RetryingStore
        Where the nodes are.
    use_consolidated : bool or None
        Whether to take the nodes from consolidated metadata: True demands it, False
        ignores it, None takes it where it is.
    compares : bool
        Whether consolidated metadata of a local store is compared with what nodes say of
        themselves, which counts, and a difference is a `StoreWarning`.
    """

    def __init__(
        self,
        store: RetryingStore,
        *,
        use_consolidated: bool | None = None,
        compares: bool = True,
    ) -> None:
        self.store = store
        self.use_consolidated = use_consolidated
        self._documents = Documents(store, consolidated=use_consolidated is not False)
        self._known: dict[str, Node | FormatError] = {}
        self._complete: set[str] = set()
        self._has_consolidated = False
        self._compares = compares
        self._copies: Copies | None = None
        # Whoever holds a node's array does not hold this: the pager has a store of its own.
        weakref.finalize(self, finalizers.defer, store.close, is_end=True).atexit = False
        finalizers.expect()

    def __repr__(self) -> str:
        return f"<Hierarchy: {len(self._known)} nodes of {self.store.url} read>"

    def node(self, path: str) -> Node:
        """Return what a node says of itself.

        Raises
        ------
        NodeNotFoundError
            When there is none.
        FormatError
            When it is not what Zarr allows, or not what lazyarr can map.
        StoreError
            When the store cannot be reached.
        """
        if self._copies is not None:
            self._copies.compare([path])
        found = self._known.get(path)
        if found is None:
            self._remember(path, self._read(path))
            found = self._known[path]
        if isinstance(found, FormatError):
            # The same each time: without this it would gather the traceback of every raise.
            raise found.with_traceback(None)
        return found

    def children(self, path: str) -> tuple[str, ...]:
        """Return the names of the nodes directly below a group, in order."""
        if not self._is_complete(path):
            return self._list(path)
        names = self._known_below(path)
        if self._copies is None:
            return names
        there = self._list(path)
        self._copies.tell([join_path(path, name) for name in sorted({*names} ^ {*there})])
        return there

    def exists(self, path: str) -> bool:
        """Return whether there is a node, also one that cannot be mapped."""
        try:
            self.node(path)
        except NodeNotFoundError:
            return False
        except FormatError as error:
            self._known[path] = error
        return True

    def _is_complete(self, path: str) -> bool:
        """Return whether all nodes below a group are known from consolidated metadata."""
        roots = self._complete
        return any(path == root or path.startswith(f"{root}/") or not root for root in roots)

    def _known_below(self, path: str) -> tuple[str, ...]:
        start = f"{path}/" if path else ""
        below = {name[len(start) :].split("/")[0] for name in self._known if name.startswith(start)}
        return tuple(sorted(below - {""}))

    def _list(self, path: str) -> tuple[str, ...]:
        arrive()
        names = list_directories(self.store, path)
        nodes = (name for name in names if name not in METADATA_NAMES)
        return tuple(name for name in nodes if self.exists(join_path(path, name)))

    def _remember(self, path: str, node: Node) -> None:
        self._known[path] = node
        # An empty one says nothing: zarr-python puts it into every group.
        if isinstance(node, GroupMetadata) and node.consolidated:
            for name, child in node.consolidated.items():
                self._known.setdefault(join_path(path, name), child)
            self._complete.add(path)
            self._compare(node)

    def _compare(self, group: GroupMetadata) -> None:
        local = self.store.local if self._compares else None
        if local is not None:
            # Imported here: most local stores have no copies.
            from lazyarr.opening.consolidated_copies import Copies

            self._copies = self._copies or Copies(self.store, local, self._known)
            self._copies.add(group)

    def _read(self, path: str) -> Node:
        try:
            node = self._documents.read(path)
        except NodeNotFoundError:
            if path and self._has_nodes_below(path):
                return GroupMetadata(path, self._zarr_format_above(path), {})
            raise
        if self._copies is not None and self._is_complete(path):
            self._copies.tell([path])  # there is no copy of it
        if isinstance(node, ArrayMetadata):
            return node
        if node.consolidated is None and self.use_consolidated and not self._has_consolidated:
            raise FormatError(
                f"there is no consolidated metadata in group {path or '/'!r} of {self.store.url}; "
                "open it with consolidated=None",
                path=path,
            )
        self._has_consolidated |= node.consolidated is not None
        return without_copies(node) if self.use_consolidated is False else node

    def _has_nodes_below(self, path: str) -> bool:
        if self._known_below(path):
            return True
        try:
            return self._find_below(path)
        except StoreError as error:
            if error.transient:
                raise
            return False  # servers list nothing where nothing is, or nothing at all

    def _find_below(self, path: str) -> bool:
        waiting = deque([path])
        for _ in range(_MAX_LISTINGS):
            if not waiting:
                return False
            parent = waiting.popleft()
            try:
                names = self.store.list_names(parent)
                inside = list_directories(self.store, parent)
            except NoObjectError:
                continue  # a link to nothing
            if parent != path and any(name in names for name in NODE_DOCUMENTS):
                return True
            waiting.extend(join_path(parent, n) for n in inside if n not in METADATA_NAMES)
        warn_user(
            f"{path!r} in {self.store.url} has no document, and none was found in the "
            f"{_MAX_LISTINGS} directories below it that were looked into: it is taken for no "
            "group; open what lies below by its path",
            StoreWarning,
        )
        return False

    def _zarr_format_above(self, path: str) -> int:
        while path:
            path = path.rpartition("/")[0]
            node = self._known.get(path)
            if isinstance(node, ArrayMetadata | GroupMetadata):
                return node.zarr_format
        return 3
