"""The nodes of a store: where their metadata is, and what lies below them."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from lazyarr.client import janitor
from lazyarr.errors import FormatError, NodeNotFoundError
from lazyarr.format import ArrayMetadata, GroupMetadata, Node, parse_node
from lazyarr.store import METADATA_LIMIT_NBYTES

if TYPE_CHECKING:
    from lazyarr.store import RetryingStore

__all__ = ["Hierarchy", "join_path"]

_METADATA = ("zarr.json", ".zarray", ".zgroup")


def join_path(*parts: str) -> str:
    """Return one path from several, without empty parts.

    Raises
    ------
    TypeError
        When a part is no str.

    Examples
    --------
    >>> join_path("", "a/", "b")
    'a/b'
    """
    for part in parts:
        if not isinstance(part, str):
            raise TypeError(f"arrays and groups are named by str; found {part!r:.80}")
    return "/".join(name for part in parts for name in part.split("/") if name)


class Hierarchy:
    """The nodes of one store, read when they are asked for.

    Parameters
    ----------
    store : RetryingStore
        Where the nodes are.
    use_consolidated : bool or None
        Whether to take the nodes from consolidated metadata: True demands it, False
        ignores it, None takes it where it is.
    """

    def __init__(self, store: RetryingStore, *, use_consolidated: bool | None = None) -> None:
        self.store = store
        self.use_consolidated = use_consolidated
        self._known: dict[str, Node | FormatError] = {}
        self._complete: set[str] = set()
        # Whoever holds a node's array does not hold this: the pager has a store of its own.
        weakref.finalize(self, janitor.defer, store.close).atexit = False

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
            When the store can not be reached.
        """
        found = self._known.get(path)
        if found is None:
            found = self._read(path)
            self._remember(path, found)
        if isinstance(found, FormatError):
            raise found
        return found

    def children(self, path: str) -> tuple[str, ...]:
        """Return the names of the nodes directly below a group, in order."""
        start = f"{path}/" if path else ""
        if any(path == root or path.startswith(f"{root}/") or not root for root in self._complete):
            below = (name[len(start) :] for name in self._known if name.startswith(start))
            return tuple(sorted({name for name in below if name and "/" not in name}))
        names = self.store.list_names(path)
        return tuple(name for name in names if self.exists(join_path(path, name)))

    def exists(self, path: str) -> bool:
        """Return whether there is a node, also one that can not be mapped."""
        if path in self._known:
            return True
        try:
            self.node(path)
        except NodeNotFoundError:
            return False
        except FormatError as error:
            self._known[path] = error
        return True

    def _remember(self, path: str, node: Node) -> None:
        self._known[path] = node
        if isinstance(node, GroupMetadata) and node.consolidated is not None:
            for name, child in node.consolidated.items():
                self._known.setdefault(join_path(path, name), child)
            self._complete.add(path)

    def _read(self, path: str) -> Node:
        if any(not part.strip(".") or "\0" in part for part in path.split("/") if path):
            raise self._not_found(path)  # no name of a node (zarr-specs v3.1, "node names")
        document = self._document(join_path(path, "zarr.json"))
        if document is not None:
            return self._checked(parse_node(document, path=path), path)
        return self._read_v2(path)

    def _read_v2(self, path: str) -> Node:
        # Imported here: most stores are of version 3.
        from lazyarr.format import parse_v2_array, parse_v2_consolidated, parse_v2_group

        zarray = self._document(join_path(path, ".zarray"))
        zgroup = None if zarray is not None else self._document(join_path(path, ".zgroup"))
        if zarray is None and zgroup is None:
            raise self._not_found(path)
        zattrs = self._document(join_path(path, ".zattrs"))
        if zarray is not None:
            return parse_v2_array(zarray, zattrs, path=path)
        zmetadata = None
        if self.use_consolidated is not False:
            zmetadata = self._document(join_path(path, ".zmetadata"))
        if zmetadata is not None:
            return parse_v2_consolidated(zmetadata, path=path)
        assert zgroup is not None
        return self._checked(parse_v2_group(zgroup, zattrs, path=path), path)

    def _document(self, key: str) -> bytes | None:
        return self.store.read(key, limit_nbytes=METADATA_LIMIT_NBYTES)

    def _checked(self, node: Node, path: str) -> Node:
        """Return a node with consolidated metadata as it was asked for."""
        if isinstance(node, ArrayMetadata):
            return node
        if node.consolidated is not None and self.use_consolidated is False:
            return GroupMetadata(node.path, node.zarr_format, node.attributes)
        if node.consolidated is None and self.use_consolidated and not self._complete:
            raise FormatError(
                f"there is no consolidated metadata in group {path or '/'!r} of {self.store.url}; "
                "open it with consolidated=None",
                path=path,
            )
        return node

    def _not_found(self, path: str) -> NodeNotFoundError:
        there = f"no {', '.join(_METADATA[:-1])} or {_METADATA[-1]}"
        return NodeNotFoundError(
            f"there is no array or group {path or '/'!r} in {self.store.url}: {there} there; "
            "check the URL and the path",
            url=self.store.url,
            path=path,
        )
