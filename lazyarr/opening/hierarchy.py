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
from lazyarr.store.base import METADATA_NAMES, NoObjectError, RefusedError, list_directories

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.opening.consolidated_copies import Copies
    from lazyarr.store import RetryingStore

__all__ = ["Hierarchy"]

_MAX_LISTINGS = 1000
"""Directories that are looked into for nodes below something that has no document."""


class _Seen:
    """What was read of a store since its documents were last known to change.

    Attributes
    ----------
    nodes : dict of str to (Node or FormatError)
        By path.
    complete : set of str
        Groups below which all nodes are known from consolidated metadata.
    has_consolidated : bool
        Whether a group had such metadata.
    copies : Copies or None
        What is in it and was not compared yet.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, Node | FormatError] = {}
        self.complete: set[str] = set()
        self.has_consolidated = False
        self.copies: Copies | None = None

    def __repr__(self) -> str:
        return f"<_Seen: {len(self.nodes)} nodes>"

    def is_complete(self, path: str) -> bool:
        """Return whether all nodes below a group are known from consolidated metadata."""
        roots = tuple(self.complete)  # in one step: other threads add to it
        return any(path == root or path.startswith(f"{root}/") or not root for root in roots)

    def names_below(self, path: str) -> tuple[str, ...]:
        """Return the names of the nodes that are known directly below a group, in order."""
        start = f"{path}/" if path else ""
        names = tuple(self.nodes)  # in one step, likewise
        below = {name[len(start) :].split("/")[0] for name in names if name.startswith(start)}
        return tuple(sorted(below - {""}))

    def zarr_format_above(self, path: str) -> int:
        """Return the version of the nearest node above that is known; 3 if there is none."""
        while path:
            path = path.rpartition("/")[0]
            node = self.nodes.get(path)
            if isinstance(node, ArrayMetadata | GroupMetadata):
                return node.zarr_format
        return 3


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
    file_format : str or None
        What the user has said that the URL means.
    instead : callable, optional
        Takes a store that has no node of Zarr's where one was looked for first, and returns the
        store that is in its place: what an icechunk repository has inside.
    start : str
        The node that the URL means; "" for the root, which it means in nearly all stores, since a
        path that goes on in a directory names another directory.
    address : str
        What opens the store again, where `start` is not the root.
    """

    def __init__(
        self,
        store: RetryingStore,
        *,
        use_consolidated: bool | None = None,
        compares: bool = True,
        file_format: str | None = None,
        instead: Callable[[RetryingStore], RetryingStore | None] | None = None,
        start: str = "",
        address: str = "",
    ) -> None:
        self.start = start
        self.address = address
        self.format = file_format
        self._instead = instead
        self.use_consolidated = use_consolidated
        self._take(store)
        self._seen = _Seen()
        self._compares = compares
        finalizers.expect()

    @property
    def url(self) -> str:
        """The store, without credentials."""
        return self.store.url

    def __repr__(self) -> str:
        return f"<Hierarchy: {len(self._seen.nodes)} nodes of {self.store.url} read>"

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
        return self._node(self._seen, path)

    def _node(self, seen: _Seen, path: str) -> Node:
        if seen.copies is not None:
            seen.copies.compare([path])
        found = seen.nodes.get(path)
        if found is None:
            self._remember(seen, path, self._read_or_replace(seen, path))
            found = seen.nodes[path]
        if isinstance(found, FormatError):
            # The same each time: without this it would gather the traceback of every raise.
            raise found.with_traceback(None)
        return found

    def children(self, path: str) -> tuple[str, ...]:
        """Return the names of the nodes directly below a group, in order."""
        seen = self._seen
        if not seen.is_complete(path):
            return self._list(seen, path)
        names = seen.names_below(path)
        if seen.copies is None:
            return names
        there = self._list(seen, path)
        seen.copies.tell([join_path(path, name) for name in sorted({*names} ^ {*there})])
        return there

    def forget(self) -> None:
        """Read documents anew from now on: they have been changed."""
        # Others may be reading: what they began with stays whole, and what they have read of the
        # store as it was does not come to what is read from now on.
        self._seen = _Seen()

    def exists(self, path: str) -> bool:
        """Return whether there is a node, also one that cannot be mapped."""
        return self._exists(self._seen, path)

    def _exists(self, seen: _Seen, path: str) -> bool:
        try:
            self._node(seen, path)
        except NodeNotFoundError:
            return False
        except FormatError as error:
            seen.nodes[path] = error
        return True

    def _list(self, seen: _Seen, path: str) -> tuple[str, ...]:
        arrive()
        names = list_directories(self.store, path)
        nodes = (name for name in names if name not in METADATA_NAMES)
        return tuple(name for name in nodes if self._exists(seen, join_path(path, name)))

    def _remember(self, seen: _Seen, path: str, node: Node) -> None:
        seen.nodes[path] = node
        # An empty one says nothing: zarr-python puts it into every group.
        if isinstance(node, GroupMetadata) and node.consolidated:
            for name, child in node.consolidated.items():
                seen.nodes.setdefault(join_path(path, name), child)
            seen.complete.add(path)
            self._compare(seen, node)

    def _compare(self, seen: _Seen, group: GroupMetadata) -> None:
        local = self.store.local if self._compares else None
        if local is not None:
            # Imported here: most local stores have no copies.
            from lazyarr.opening.consolidated_copies import Copies

            seen.copies = seen.copies or Copies(self.store, local, seen.nodes)
            seen.copies.add(group)

    def _read_or_replace(self, seen: _Seen, path: str) -> Node:
        """Read a node; if there is none, look once whether the store is something else."""
        try:
            return self._read(seen, path)
        except (NodeNotFoundError, RefusedError):
            instead, self._instead = self._instead, None
            found = None if instead is None or seen.nodes else instead(self.store)
            if found is None:
                raise
        self._take(found)
        return self._read(seen, path)

    def _take(self, store: RetryingStore) -> None:
        self.store = store
        self._documents = Documents(store, consolidated=self.use_consolidated is not False)
        # Whoever holds a node's array does not hold this: the pager has a store of its own.
        weakref.finalize(self, finalizers.defer, store.close, is_end=True).atexit = False

    def _read(self, seen: _Seen, path: str) -> Node:
        try:
            node = self._documents.read(path)
        except NodeNotFoundError:
            if path and self._has_nodes_below(seen, path):
                return GroupMetadata(path, seen.zarr_format_above(path), {})
            raise
        if seen.copies is not None and seen.is_complete(path):
            seen.copies.tell([path])  # there is no copy of it
        if isinstance(node, ArrayMetadata):
            return node
        if node.consolidated is None and self.use_consolidated and not seen.has_consolidated:
            raise FormatError(
                f"there is no consolidated metadata in group {path or '/'!r} of {self.store.url}; "
                "open it with consolidated=None",
                path=path,
            )
        seen.has_consolidated |= node.consolidated is not None
        return without_copies(node) if self.use_consolidated is False else node

    def _has_nodes_below(self, seen: _Seen, path: str) -> bool:
        if seen.names_below(path):
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
