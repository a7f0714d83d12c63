"""The nodes that a URL means: those of a store, or those of a file."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from lazyarr import settings
from lazyarr.client.session import finalizers
from lazyarr.errors import FormatError, NodeNotFoundError
from lazyarr.formats.registry import find_file_format
from lazyarr.opening.hierarchy import Hierarchy
from lazyarr.store import RetryingStore, RetryPolicy, open_store
from lazyarr.store.urls import in_archive, local_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazyarr.formats.base import FileFormat, Node

__all__ = ["FileNodes", "FilePlace", "Nodes", "find_file", "open_nodes"]


def open_nodes(
    url: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None = None,
    *,
    use_consolidated: bool | None = None,
    compares: bool = True,
) -> Nodes:
    """Return the nodes that a URL means; nothing is read yet.

    `use_consolidated` and `compares` are as of `Hierarchy`.
    """
    current = settings.current()
    file = find_file(url)
    where = (in_archive(url) or url) if file is None else file.parent
    store = open_store(where, storage_options, timeout_seconds=current.timeout)
    policy = RetryPolicy(timeout_seconds=current.timeout, retries=current.retries)
    retrying = RetryingStore(store, policy)
    if file is not None:
        return FileNodes(retrying, file)
    return Hierarchy(retrying, use_consolidated=use_consolidated, compares=compares)


class FilePlace(NamedTuple):
    """Where a file is.

    Attributes
    ----------
    parent : str
        The URL of the directory, or of what the file's store has in its place.
    name : str
        The file's key there.
    format : FileFormat
        What reads it.
    """

    parent: str
    name: str
    format: FileFormat


def find_file(url: str | os.PathLike[str]) -> FilePlace | None:
    """Return where a file of a known format is; None where the URL means a directory store.

    Examples
    --------
    >>> find_file("s3://bucket/a/x.npy")[:2], find_file("s3://bucket/a/x.zarr")
    (('s3://bucket/a', 'x.npy'), None)
    """
    path = local_path(url)
    text = os.fsdecode(url) if path is None else path
    name = text.rpartition("/")[2]
    found = find_file_format(name)
    if found is None or not name:
        return None
    if path is not None:
        # A directory is a store, whatever it is called.
        place = os.path.abspath(path)
        is_store = os.path.isdir(place)
        return None if is_store else FilePlace(os.path.dirname(place), name, found)
    parent = text[: -len(name)]
    if not parent.endswith("://"):
        parent = parent.rstrip("/")
    if parent.rpartition("::")[2].startswith(("http://", "https://")):
        from urllib.parse import unquote

        name = unquote(name)  # keys are not quoted
    return FilePlace(parent, name, found)


class FileNodes:
    """The nodes of one file; the root has the file's name too.

    It is used as a `Hierarchy`.

    Parameters
    ----------
    store : RetryingStore
        The store that has the file.
    place : FilePlace
        Where it is.
    """

    use_consolidated = None

    def __init__(self, store: RetryingStore, place: FilePlace) -> None:
        self.store = store
        self._place = place
        self._known: Mapping[str, Node | FormatError] | None = None
        # Whoever holds an array does not hold this: the pager has a store of its own.
        weakref.finalize(self, finalizers.defer, store.close, is_end=True).atexit = False
        finalizers.expect()

    def __repr__(self) -> str:
        return f"<FileNodes of {self._place.name!r} in {self.store.url}>"

    def node(self, path: str) -> Node:
        """Return what the file says of an array or a group in it.

        Raises
        ------
        NodeNotFoundError
            When there is no such file, or nothing at this path in it.
        FormatError
            When it is not what its format allows, or not what lazyarr can map.
        StoreError
            When the store cannot be reached.
        """
        url, name = self.store.url, self._place.name
        nodes = self._nodes()
        found = nodes.get("" if path == name else path)
        if found is None:
            names = ", ".join(sorted({*nodes} - {""}))
            has = f"it has {names}" if names else "it is one array; open it without a path"
            message = f"there is no array or group {path!r} in {url}/{name}: {has}"
            raise NodeNotFoundError(message, url=url, path=path)
        if isinstance(found, FormatError):
            # The same each time: without this it would gather the traceback of every raise.
            raise found.with_traceback(None)
        return found

    def _nodes(self) -> Mapping[str, Node | FormatError]:
        if self._known is None:
            self._known = self._place.format.describe(self.store, self._place.name)
        if self._known is None:
            url, name = self.store.url, self._place.name
            message = f"cannot open {url}/{name}: there is no such file; check the path"
            raise NodeNotFoundError(message, url=url, path=name)
        return self._known

    def children(self, path: str) -> tuple[str, ...]:
        """Return the names of the nodes directly below a group, in order."""
        start = f"{path}/" if path else ""
        below = {name[len(start) :] for name in self._nodes() if name.startswith(start)}
        return tuple(sorted({name.partition("/")[0] for name in below} - {""}))

    def exists(self, path: str) -> bool:
        """Return whether there is a node, also one that cannot be mapped."""
        try:
            self.node(path)
        except NodeNotFoundError:
            return False
        except FormatError:
            pass
        return True


Nodes: TypeAlias = Hierarchy | FileNodes
"""What has the nodes that a URL means."""
