"""The nodes that a URL means: those of a store, or those of a file."""

from __future__ import annotations

import os
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from lazyarr import settings
from lazyarr.client.session import finalizers
from lazyarr.collecting import without_collection
from lazyarr.errors import FormatError, NodeNotFoundError, StoreError
from lazyarr.formats.registry import (
    FIRST_NBYTES,
    FORMAT_NAMES,
    STORE_NAMES,
    find_file_format,
    load_format,
    recognise,
)
from lazyarr.opening.hierarchy import Hierarchy
from lazyarr.store import (
    METADATA_LIMIT_NBYTES,
    RetryingStore,
    RetryPolicy,
    open_repository,
    open_store,
)
from lazyarr.store.repositories import is_repository
from lazyarr.store.urls import (
    has_record_size,
    in_archive,
    local_path,
    means_references,
    split_at_file,
    split_references,
    without_credentials,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazyarr.formats.base import FileFormat, Node

__all__ = ["FileNodes", "FilePlace", "Nodes", "address", "find_file", "open_nodes"]


def open_nodes(
    url: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None = None,
    *,
    file_format: str | None = None,
    use_consolidated: bool | None = None,
    compares: bool = True,
    recognises: bool = True,
) -> Nodes:
    """Return the nodes that a URL means.

    Nothing is read yet, but references, and a file whose name does not tell what it is: its first
    bytes do.
    Where the URL is not local, they are read only after no store was found there.

    Parameters
    ----------
    url, storage_options
        As `lazyarr.open` takes them.
    file_format : str or None
        What the URL means, whatever its name says.
    use_consolidated, compares
        As of `Hierarchy`.
    recognises : bool
        Whether the root is asked for and a URL that is not local may mean a file of any name.
    """
    file = find_file(url, file_format)
    if file is not None:
        return FileNodes(_open_retrying(file.parent, storage_options), file)
    is_references = means_references(url) or split_references(url) is not None
    if file_format == "kerchunk" or (file_format is None and is_references):
        return _open_references(url, storage_options, use_consolidated=use_consolidated)
    if file_format is None:
        # Before a store is looked for: some servers refuse what does not exist.
        inside = _split_remote(url)
        nodes = None if inside is None else _recognise_remote(*inside, storage_options)
        if nodes is not None:
            return nodes
    in_repository = _split_repository(url) if file_format in (None, "icechunk") else None
    if in_repository is not None:
        place, start = in_repository
        return Hierarchy(
            _open_retrying(place, storage_options, is_icechunk=True),
            use_consolidated=use_consolidated,
            file_format=file_format,
            start=start,
            address=place,
        )
    where = in_archive(url, by_name=file_format != "zarr") or url
    hierarchy = Hierarchy(
        _open_retrying(where, storage_options, is_icechunk=file_format == "icechunk"),
        use_consolidated=use_consolidated,
        compares=compares,
        file_format=file_format,
        instead=partial(_find_repository, where, storage_options) if file_format is None else None,
    )
    is_certain = file_format is not None or where is not url or local_path(url) is not None
    if is_certain or not recognises:
        return hierarchy
    try:
        hierarchy.node("")
    except NodeNotFoundError:
        found: Nodes | None
        if _has_parquet_references(hierarchy.store):
            found = _open_references(url, storage_options, use_consolidated=use_consolidated)
        else:
            found = _recognise_remote(os.fsdecode(url), "", storage_options)
        if found is not None:
            hierarchy.store.close()
            return found
    except FormatError:
        pass  # it is a store; whoever asks for the node is told
    return hierarchy


def _find_repository(
    url: str | os.PathLike[str], options: Mapping[str, Any] | None, store: RetryingStore
) -> RetryingStore | None:
    """Return what an icechunk repository has inside, if the store at this URL is one."""
    return _open_retrying(url, options, is_icechunk=True) if is_repository(store) else None


def _open_retrying(
    url: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None,
    *,
    is_icechunk: bool = False,
) -> RetryingStore:
    current = settings.current()
    open_it = open_repository if is_icechunk else open_store
    store = open_it(url, storage_options, timeout_seconds=current.timeout)
    return RetryingStore(store, _policy())


def _policy() -> RetryPolicy:
    current = settings.current()
    return RetryPolicy(timeout_seconds=current.timeout, retries=current.retries)


def _open_references(
    url: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None,
    *,
    use_consolidated: bool | None,
) -> Hierarchy:
    """Return the nodes of references, which are read now."""
    # Imported here: most stores are none.
    from lazyarr.opening.references import open_reference_store

    policy = _policy()
    store = open_reference_store(
        url, storage_options, policy, timeout_seconds=policy.timeout_seconds
    )
    return Hierarchy(
        RetryingStore(store, policy), use_consolidated=use_consolidated, file_format="kerchunk"
    )


def _has_parquet_references(store: RetryingStore) -> bool:
    try:
        zmetadata = store.read(".zmetadata", limit_nbytes=METADATA_LIMIT_NBYTES)
    except StoreError:
        return False  # that there is no store is what was found
    return has_record_size(zmetadata)


def _recognise_remote(
    url: str, inside: str, storage_options: Mapping[str, Any] | None
) -> FileNodes | None:
    """Return the nodes of a file that is no local one, by its first bytes; None if it is none."""
    parent, name = _split(url)
    if not name:
        return None
    store = _open_retrying(parent, storage_options)
    try:
        nbytes = store.size(name)
        first = store.read_range(name, 0, min(nbytes, FIRST_NBYTES)) if nbytes else None
        word = None if first is None else recognise(bytes(first))
    except StoreError:
        word = None  # that there is no store is what was found
    if word is None:
        store.close()
        return None
    said = None if find_file_format(name) is not None else word
    return FileNodes(store, FilePlace(parent, name, load_format(word), said, inside))


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
    word : str or None
        What the format is called where the file's name does not tell.
    inside : str
        The node in the file that the URL means; "" for all of it.
    """

    parent: str
    name: str
    format: FileFormat
    word: str | None = None
    inside: str = ""


def find_file(url: str | os.PathLike[str], file_format: str | None = None) -> FilePlace | None:
    """Return where a file of a known format is; None where the URL means a store.

    Parameters
    ----------
    url : str or os.PathLike
        What the user has given.
    file_format : str or None
        What it means; None where its name tells, or, of a local file, its first bytes.

    Examples
    --------
    >>> find_file("s3://bucket/a/x.npy")[:2], find_file("s3://bucket/a/x.zarr")
    (('s3://bucket/a', 'x.npy'), None)
    """
    if file_format is not None and file_format not in FORMAT_NAMES:
        raise ValueError(f"format={file_format!r:.80} is not one of {', '.join(FORMAT_NAMES)}")
    path = local_path(url)
    text, inside = os.fsdecode(url) if path is None else path, ""
    word = file_format
    if path is not None:
        if os.path.isdir(path):
            return None  # a directory is a store, whatever it is called
        text, inside = split_at_file(path)
        if word is None and find_file_format(text) is None:
            word = _recognise_local(text)
    elif word is not None:
        text, inside = _split_remote(text) or (text, "")
    name = text.rpartition("/")[2]
    found = find_file_format(name) if word is None else _format_of(word)
    if found is None or not name:
        return None
    parent, name = _split(text) if path is None else os.path.split(text)
    return FilePlace(parent, name, found, word, inside)


def _format_of(word: str) -> FileFormat | None:
    return None if word in STORE_NAMES else load_format(word)


def _recognise_local(path: str) -> str | None:
    """Return the format of a local file by its first bytes; None where it is none, or a store."""
    if in_archive(path) is not None or not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as file:
            return recognise(file.read(FIRST_NBYTES))
    except OSError:
        return None  # the store says what is wrong


def _split_repository(url: str | os.PathLike[str]) -> tuple[str, str] | None:
    """Return the local icechunk repository in which a path goes on, and the rest of the path."""
    path = local_path(url)
    if path is None or os.path.exists(path):
        return None
    place = os.path.abspath(path)
    while not os.path.exists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        return None
    store = _open_retrying(place, None)
    try:
        is_found = is_repository(store)
    except StoreError:
        is_found = False  # whoever opens the path is told
    finally:
        store.close()
    return (place, os.path.relpath(path, place)) if is_found else None


def _split_remote(url: str | os.PathLike[str]) -> tuple[str, str] | None:
    """Return the file in which a URL that is no local path may go on, and the rest of the URL.

    By names alone: None where no part before the last one is called as files are.
    """
    if local_path(url) is not None:
        return None
    head, _, rest = os.fsdecode(url).rpartition("://")
    names = rest.split("/")
    # What comes first is a server or a bucket, but for memory.
    for k in range(len(names) - 1, not head.endswith("memory"), -1):
        if names[k - 1] and find_file_format(names[k - 1]) is not None:
            return f"{head}://{'/'.join(names[:k])}", "/".join(names[k:]).strip("/")
    return None


def _join(parent: str, name: str) -> str:
    """Return the URL of a file, as `_split` takes it apart."""
    if parent.rpartition("::")[2].startswith(("http://", "https://")):
        from urllib.parse import quote

        name = quote(name)
    return f"{parent}{name}" if parent.endswith("/") else f"{parent}/{name}"


def _split(url: str) -> tuple[str, str]:
    """Return the URL of what a file is in, and the file's key there."""
    name = url.rpartition("/")[2]
    parent = url[: len(url) - len(name)]
    if not parent.endswith("://"):
        parent = parent.rstrip("/")
    if parent.rpartition("::")[2].startswith(("http://", "https://")):
        from urllib.parse import unquote

        name = unquote(name)  # keys are not quoted
    return parent, name


class FileNodes:
    """The nodes of one file.

    It is used as a `Hierarchy`.

    Parameters
    ----------
    store : RetryingStore
        The store that has the file.
    place : FilePlace
        Where it is.

    Attributes
    ----------
    url : str
        The file, without credentials.
    address : str
        What opens the file again.
    start : str
        The node that was asked for, by the path in the file; "" for all of it.
    format : str or None
        What has to be said of the URL so that it means this file again; None where its name does.
    """

    use_consolidated = None

    def __init__(self, store: RetryingStore, place: FilePlace) -> None:
        self.store = store
        self.url = without_credentials(_join(store.url, place.name))
        self.address = _join(place.parent, place.name)
        self.start = place.inside
        self.format = place.word
        self._place = place
        self._known: Mapping[str, Node | FormatError] | None = None
        # Whoever holds an array does not hold this: the pager has a store of its own.
        weakref.finalize(self, finalizers.defer, store.close, is_end=True).atexit = False
        finalizers.expect()

    def __repr__(self) -> str:
        return f"<FileNodes of {self.url}>"

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
        nodes = self._nodes()
        found = nodes.get(path)
        if found is None:
            names = ", ".join(sorted({*nodes} - {""}))
            has = f"it has {names}" if names else "it is one array; open it without a path"
            message = f"there is no array or group {path!r} in {self.url}: {has}"
            raise NodeNotFoundError(message, url=self.url, path=path)
        if isinstance(found, FormatError):
            # The same each time: without this it would gather the traceback of every raise.
            raise found.with_traceback(None)
        return found

    def _nodes(self) -> Mapping[str, Node | FormatError]:
        if self._known is None:
            # h5py holds its lock while it reads through the store, and waits for it wherever one of
            # its objects is freed: also in the thread that is to bring what is read.
            with without_collection():
                self._known = self._place.format.describe(self.store, self._place.name)
        if self._known is None:
            message = f"cannot open {self.url}: there is no such file; check the path"
            raise NodeNotFoundError(message, url=self.url, path="")
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


def address(url: str | os.PathLike[str], nodes: Nodes) -> str:
    """Return what opens the store or the file of a URL again, in any process.

    It means the same in a process with another working directory, and the paths of nodes begin
    there: it is the file, or the repository, where the URL goes on in one.
    """
    if nodes.start:
        return nodes.address
    text = os.fsdecode(url)
    path = None if "://" in text else local_path(url)
    return text if path is None else os.path.abspath(path)
