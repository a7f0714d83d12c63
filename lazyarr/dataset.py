"""Opening stores: groups as mappings, arrays as arrays, with nothing read but metadata."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lazyarr import settings
from lazyarr.client import process
from lazyarr.client.hierarchy import Hierarchy, join_path
from lazyarr.errors import FormatError
from lazyarr.format import ArrayMetadata, GroupMetadata
from lazyarr.store import RetryingStore, RetryPolicy, open_store

if TYPE_CHECKING:
    from lazyarr.client.lazyarray import LazyArray

__all__ = ["Dataset", "open", "open_reference_array"]

_MODES = ("r", "c", "r+")
_MEMORY_KINDS = (None, "shared", "private")


@dataclass(frozen=True, slots=True)
class _Opening:
    """How a store was opened: what its arrays and its groups have in common."""

    url: str
    storage_options: Mapping[str, Any] | None
    mode: str
    memory: str | None
    hierarchy: Hierarchy


class Dataset(Mapping[str, Any]):
    """A group of a store: its arrays and groups by name.

    Made by `lazyarr.open`.  ``ds["a/b"]`` reaches below; an array is the same object
    each time, so that what it has read stays.  Safe to use from several threads.

    Examples
    --------
    >>> import lazyarr, numpy, tempfile
    >>> directory = tempfile.TemporaryDirectory()
    >>> lazyarr.save(f"{directory.name}/d.zarr", {"x": numpy.zeros(3), "g/y": numpy.ones(2)})
    >>> with lazyarr.open(f"{directory.name}/d.zarr") as ds:
    ...     sorted(ds), ds["g/y"].sum()
    (['g', 'x'], np.float64(2.0))
    """

    def __init__(self, opening: _Opening, metadata: GroupMetadata) -> None:
        self._opening = opening
        self._metadata = metadata
        self._lock = threading.RLock()
        self._opened: dict[str, LazyArray | Dataset] = {}
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Dataset {self.path or '/'} of {self.url}>"

    @property
    def attrs(self) -> dict[str, Any]:
        """The group's attributes; a copy."""
        return dict(self._metadata.attributes)

    @property
    def url(self) -> str:
        """The store, without credentials."""
        return self._opening.hierarchy.store.url

    @property
    def path(self) -> str:
        """The group's place in the store; "" for the root."""
        return self._metadata.path

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays below, as they lie in memory once they are read."""
        return sum(array.nbytes for _, array in self._walk() if isinstance(array, ArrayMetadata))

    @property
    def info(self) -> str:
        """What the group is, as text."""
        from lazyarr.client.describe import describe_group

        return describe_group(self.url, self._metadata, list(self._walk()))

    def tree(self) -> str:
        """Return what lies below, as text: a line for each node."""
        from lazyarr.client.describe import describe_tree

        return describe_tree(self.path, list(self._walk()))

    def _repr_html_(self) -> str:
        from lazyarr.client.describe import tree_html

        return tree_html(repr(self), self.path, list(self._walk()))

    def _walk(self) -> Iterator[tuple[str, ArrayMetadata | GroupMetadata | FormatError]]:
        """Give path and metadata of every node below, parents first."""
        waiting = [join_path(self.path, name) for name in reversed(tuple(self))]
        while waiting:
            path = waiting.pop()
            try:
                node = self._opening.hierarchy.node(path)
            except FormatError as error:
                yield path, error
                continue
            yield path, node
            if isinstance(node, GroupMetadata):
                names = self._opening.hierarchy.children(path)
                waiting.extend(join_path(path, name) for name in reversed(names))

    def __getitem__(self, name: str) -> LazyArray | Dataset:
        """Return an array or a group, by its path below this group.

        Raises
        ------
        NodeNotFoundError
            When there is none; also a `KeyError`.
        FormatError
            When lazyarr can not map it.
        """
        path = join_path(self.path, name)
        with self._lock:
            if self._is_closed:
                raise ValueError(f"{self!r} is closed; open it again")
            if path not in self._opened:
                self._opened[path] = _open_node(self._opening, path)
            return self._opened[path]

    def __iter__(self) -> Iterator[str]:
        """Give the names of the arrays and groups directly below."""
        return iter(self._opening.hierarchy.children(self.path))

    def __len__(self) -> int:
        """How many arrays and groups there are directly below."""
        return len(self._opening.hierarchy.children(self.path))

    def close(self) -> None:
        """Let go; arrays that are still referenced stay valid."""
        with self._lock:
            self._is_closed = True
            self._opened.clear()

    def __enter__(self) -> Dataset:
        """Return the dataset itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def open(  # noqa: A001 - numpy, zarr and h5py users look for this name
    url: str | os.PathLike[str],
    mode: str = "r",
    *,
    path: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    consolidated: bool | None = None,
    memory: str | None = None,
) -> Dataset | LazyArray:
    """Open a Zarr store; nothing is read but metadata.

    Parameters
    ----------
    url : str or os.PathLike
        A path, or any URL that fsspec takes, also chained ones.
    mode : {"r", "c"}
        ``"r"``: read only, pages shared with forked children.  ``"c"``: copy-on-write,
        what is written stays in this process.
    path : str, optional
        The node to open; the root by default.
    storage_options : mapping, optional
        What fsspec needs for this URL: credentials, endpoints.
    consolidated : bool, optional
        True demands consolidated metadata, False ignores it, None takes it where it is.
    memory : {"shared", "private"}, optional
        Whether pages are shared with other processes and can be evicted; by default
        shared in mode ``"r"``.

    Returns
    -------
    Dataset or LazyArray
        What the node is: a group or an array.

    Raises
    ------
    NodeNotFoundError
        When there is no such node.
    StoreError
        When the store can not be reached.
    FormatError
        When the metadata is not what Zarr allows, or not what lazyarr can map.
    KernelUnsupportedError
        When this kernel or user can not use userfaultfd.

    Examples
    --------
    >>> import lazyarr, numpy, tempfile
    >>> directory = tempfile.TemporaryDirectory()
    >>> lazyarr.save(f"{directory.name}/x.zarr", numpy.arange(6.0))
    >>> lazyarr.open(f"{directory.name}/x.zarr")[2:4].tolist()
    [2.0, 3.0]
    """
    _check_mode(mode, memory)
    # First of all: the pager starts up while this process reads and imports.
    process.begin()
    store = open_store(url, storage_options, timeout_seconds=settings.current().timeout)
    policy = RetryPolicy(
        timeout_seconds=settings.current().timeout, retries=settings.current().retries
    )
    hierarchy = Hierarchy(RetryingStore(store, policy), use_consolidated=consolidated)
    options = None if storage_options is None else dict(storage_options)
    opening = _Opening(_absolute(url), options, mode, memory, hierarchy)
    return _open_node(opening, join_path(path or ""))


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


def _open_node(opening: _Opening, path: str) -> LazyArray | Dataset:
    metadata = opening.hierarchy.node(path)
    if isinstance(metadata, GroupMetadata):
        return Dataset(opening, metadata)
    from lazyarr.client.lazyarray import make_array
    from lazyarr.client.node import ArrayNode

    node = ArrayNode(
        store=opening.hierarchy.store,
        url=opening.url,
        storage_options=opening.storage_options,
        metadata=metadata,
        mode=opening.mode,
        memory=opening.memory,
    )
    return make_array(node)


def open_reference_array(
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
    found = open(url, mode, path=path, storage_options=storage_options, memory=memory)
    if isinstance(found, Dataset):
        raise FormatError(f"expected an array at {path!r} of {url}, found a group", path=path)
    return found
