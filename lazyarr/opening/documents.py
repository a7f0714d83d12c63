"""Reading the metadata documents of nodes, of Zarr v3 and v2."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from lazyarr.client.warning import warn_user
from lazyarr.errors import FormatError, NodeNotFoundError, StoreWarning
from lazyarr.formats.paths import join_path
from lazyarr.formats.zarr import GroupMetadata, parse_node
from lazyarr.formats.zarr.nodes import NODE_DOCUMENTS
from lazyarr.kernel import arrive
from lazyarr.store import METADATA_LIMIT_NBYTES
from lazyarr.store.base import NoObjectError, RefusedError

if TYPE_CHECKING:
    from lazyarr.formats.base import Node as AnyNode
    from lazyarr.formats.zarr import Node
    from lazyarr.store import RetryingStore

__all__ = ["Documents", "without_copies"]

_Node = TypeVar("_Node", bound="AnyNode")


class Documents:
    """Reads the metadata documents of a store's nodes, in as few requests as possible.

    Parameters
    ----------
    store : RetryingStore
        The store.
    consolidated : bool
        Whether consolidated metadata of Zarr v2 groups is read too.
    """

    def __init__(self, store: RetryingStore, *, consolidated: bool) -> None:
        self._store = store
        self._consolidated = consolidated

    def __repr__(self) -> str:
        return f"<Documents of {self._store.url}>"

    def read(self, path: str) -> Node:
        """Return a node as its own document describes it.

        Raises
        ------
        NodeNotFoundError
            When there is no document at the path.
        FormatError
            When the document is not what Zarr allows, or the array is none that lazyarr can
            map, or there is a directory or a broken link in place of a document.
        StoreError
            When the store cannot be reached.
        """
        if any(not part.strip(".") or "\0" in part for part in path.split("/") if path):
            raise self.not_found(path)  # no name of a node (zarr-specs v3.1, "node names")
        refused: list[RefusedError] = []
        document = self._read(path, "zarr.json", refused)
        if document is not None:
            return parse_node(document, path=path)
        return self._read_v2(path, refused)

    def _read_v2(self, path: str, refused: list[RefusedError]) -> Node:
        # Imported here: most stores are of version 3.
        from lazyarr.formats.zarr import parse_v2_array, parse_v2_consolidated, parse_v2_group

        refuses_what_is_missing = bool(refused)
        zarray = self._read(path, ".zarray", refused)
        zgroup = None if zarray is not None else self._read(path, ".zgroup", refused)
        if zarray is None and zgroup is None:
            raise refused[0] if refused else self.not_found(path)
        # The store has a node of version 2 here, and has refused its zarr.json, which such a node
        # does not have.  So it refuses objects that do not exist (S3 without the right to list).
        more: list[RefusedError] | None = [] if refuses_what_is_missing else None
        zattrs = self._read(path, ".zattrs", more)
        if more:
            warn_user(
                f"the store has refused {join_path(path, '.zattrs')!r} in {self._store.url}, "
                "which is taken for missing: so it does with zarr.json; if there are "
                "attributes, check the rights",
                StoreWarning,
            )
        if zarray is not None:
            return parse_v2_array(zarray, zattrs, path=path)
        assert zgroup is not None
        zmetadata = self._read(path, ".zmetadata", more) if self._consolidated else None
        if zmetadata is not None:
            return parse_v2_consolidated(zmetadata, path=path)
        return parse_v2_group(zgroup, zattrs, path=path)

    def _read(self, path: str, name: str, refused: list[RefusedError] | None) -> bytes | None:
        """Return a document; None where there is none, or the store refused it.

        A refusal is added to `refused`, or raised where that is None.
        """
        arrive()
        try:
            return self._store.read(join_path(path, name), limit_nbytes=METADATA_LIMIT_NBYTES)
        except RefusedError as error:
            if refused is None:
                raise
            refused.append(error)
            return None
        except NoObjectError as error:
            found = f"cannot read the metadata of '/{path}': {error.message}"
            raise FormatError(found, path=path) from error

    def not_found(self, path: str) -> NodeNotFoundError:
        """Return the error for a node that has no document."""
        url = self._store.url
        local = self._store.local
        if local is not None and not os.path.lexists(local.path):
            message = f"cannot open {url}: there is no such directory; check the path"
            return NodeNotFoundError(message, url=url, path=path)
        there = f"no {', '.join(NODE_DOCUMENTS[:-1])} or {NODE_DOCUMENTS[-1]}"
        return NodeNotFoundError(
            f"there is no array or group {path or '/'!r} in {url}: {there} there; "
            "check the URL and the path",
            url=url,
            path=path,
        )


def without_copies(node: _Node) -> _Node:
    """Return a node without consolidated metadata."""
    if isinstance(node, GroupMetadata) and node.consolidated is not None:
        return node._replace(consolidated=None)
    return node
