"""Opening stores: groups as mappings, arrays as arrays, with nothing read but metadata."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lazyarr.errors import FormatError

if TYPE_CHECKING:
    from lazyarr.client.lazyarray import LazyArray
    from lazyarr.client.opening import Opening
    from lazyarr.format import ArrayMetadata, GroupMetadata

__all__ = ["Dataset", "open"]


class Dataset(Mapping[str, Any]):
    """A group of a store: its arrays and groups by name.

    Made by `lazyarr.open`.  ``ds["a/b"]`` reaches below; an array is the same object
    each time, so that what it has read stays.  Safe to use from several threads.  It pickles
    as a reference: who unpickles it opens it, on the same pages where that can be.

    Examples
    --------
    >>> import lazyarr, numpy, tempfile
    >>> directory = tempfile.TemporaryDirectory()
    >>> lazyarr.save(f"{directory.name}/d.zarr", {"x": numpy.zeros(3), "g/y": numpy.ones(2)})
    >>> with lazyarr.open(f"{directory.name}/d.zarr") as ds:
    ...     sorted(ds), ds["g/y"].sum()
    (['g', 'x'], np.float64(2.0))
    >>> directory.cleanup()
    """

    def __init__(self, opening: Opening, metadata: GroupMetadata) -> None:
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
        from lazyarr.format import ArrayMetadata

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
        from lazyarr.client.hierarchy import join_path
        from lazyarr.format import GroupMetadata

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
        TypeError
            When the name is no str.
        """
        from lazyarr.client.hierarchy import join_path

        path = join_path(self.path, name)
        with self._lock:
            if self._is_closed:
                raise ValueError(f"{self!r} is closed; open it again")
            if path not in self._opened:
                self._opened[path] = _open_node(self._opening, path)
            return self._opened[path]

    def __contains__(self, name: object) -> bool:
        """Return whether there is an array or group of this name, without opening it."""
        from lazyarr.client.hierarchy import join_path

        return isinstance(name, str) and self._opening.hierarchy.exists(join_path(self.path, name))

    def __eq__(self, other: object) -> bool:
        """Return whether it is the same object: to compare what is stored would read all of it."""
        return self is other

    __hash__ = object.__hash__

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

    def __reduce__(self) -> Any:
        """Pickle as a reference: which group of which store, and whose pages its arrays have."""
        from lazyarr.client.opening import invite_to_pager

        opening = self._opening
        keywords = {
            "path": self.path,
            "storage_options": opening.storage_options,
            "consolidated": opening.hierarchy.use_consolidated,
            "memory": opening.memory,
        }
        return _reopen, (invite_to_pager(opening), opening.url, opening.mode, keywords)

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
        shared in mode ``"r"``.  Means nothing to arrays that copy.

    Returns
    -------
    Dataset or LazyArray
        What the node is: a group or an array.  Where the kernel does not let memory fill
        on touch, or ``lazyarr.configure(engine="copy")`` says so, arrays are of the class
        `CopyArray`, which is used in the same way.

    Warns
    -----
    EngineWarning
        Once per process, when arrays are `CopyArray` and nobody has asked for that.

    Raises
    ------
    NodeNotFoundError
        When there is no such node.
    StoreError
        When the store can not be reached.
    FormatError
        When the metadata is not what Zarr allows, or not what lazyarr can map.
    KernelUnsupportedError
        When this kernel or user can not use userfaultfd, and the engine is set to that.

    Examples
    --------
    >>> import lazyarr, numpy, tempfile
    >>> directory = tempfile.TemporaryDirectory()
    >>> lazyarr.save(f"{directory.name}/x.zarr", numpy.arange(6.0))
    >>> lazyarr.open(f"{directory.name}/x.zarr")[2:4].tolist()
    [2.0, 3.0]
    >>> directory.cleanup()
    """
    from lazyarr.client.engines import begin_engine

    # First of all: the pager starts up while this process imports and reads.
    if mode in ("r", "c"):
        begin_engine()
    from lazyarr.client.hierarchy import join_path
    from lazyarr.client.opening import begin_opening

    opening = begin_opening(
        url,
        mode,
        storage_options=storage_options,
        use_consolidated=consolidated,
        memory=memory,
    )
    return _open_node(opening, join_path(path or ""))


def _reopen(pager: str | None, url: str, mode: str, keywords: Mapping[str, Any]) -> Any:
    """Return a group that was pickled, opened anew; see `reopen_view`."""
    from lazyarr.client.opening import come_to_pager

    try:
        come_to_pager(pager)
        found = open(url, mode, **keywords)
        if not isinstance(found, Dataset):
            path = keywords["path"]
            raise FormatError(f"expected a group at {path!r} of {url}, found an array", path=path)
        return found
    except Exception as error:  # noqa: BLE001 - what a missing driver raises, too
        from lazyarr.client.unreachable import raise_later

        return raise_later(error)


def _open_node(opening: Opening, path: str) -> LazyArray | Dataset:
    from lazyarr.client.opening import open_array
    from lazyarr.format import GroupMetadata

    metadata = opening.hierarchy.node(path)
    if isinstance(metadata, GroupMetadata):
        return Dataset(opening, metadata)
    return open_array(opening, metadata)
