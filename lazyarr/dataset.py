"""Opening stores: groups as mappings, arrays as arrays, with nothing read but metadata."""

from __future__ import annotations

import os
import threading
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from typing import TYPE_CHECKING, Any

from lazyarr.errors import FormatError, NodeNotFoundError
from lazyarr.parts import needing

if TYPE_CHECKING:
    import xarray

    from lazyarr.client.arrays.lazyarray import LazyArray
    from lazyarr.formats.base import GroupDescription
    from lazyarr.opening.open_array import Opening
    from lazyarr.opening.survey import Found

__all__ = ["Dataset", "open"]


class Dataset(Mapping[str, Any]):
    """A group of a store: its arrays and groups by name.

    Made by `lazyarr.open`.  ``ds["a/b"]`` reaches below; an array is the same object
    each time, so that what it has read stays.  Where lazyarr cannot map one, ``ds[name]``
    raises, while ``values()`` and ``items()`` give something in its place that raises when it
    is used.  Safe to use from several threads.  It pickles as a reference: unpickling
    opens the group again, and shares the pages where that is possible.

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

    def __init__(self, opening: Opening, metadata: GroupDescription) -> None:
        self._opening = opening
        self._metadata = metadata
        self._lock = threading.RLock()
        self._opened: dict[str, LazyArray | Dataset] = {}
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Dataset {self.path or '/'} of {self.url}>"

    @property
    def attrs(self) -> dict[str, Any]:
        """The group's attributes, which cannot be changed here."""
        from lazyarr.client.arrays.frozen_attributes import freeze

        return freeze(self._metadata.attributes, f"group {self.path or '/'!r} of {self.url}")

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
        from lazyarr.formats.base import ArrayDescription

        return sum(array.nbytes for _, array in self._walk() if isinstance(array, ArrayDescription))

    @property
    def info(self) -> str:
        """What the group is, as text."""
        from lazyarr.client.arrays.describe import describe_group

        return describe_group(self.url, self._metadata, list(self._walk()))

    def tree(self) -> str:
        """Return what lies below, as text: a line for each node."""
        from lazyarr.client.arrays.describe import describe_tree

        return describe_tree(self.path, list(self._walk()))

    def _repr_html_(self) -> str:
        from lazyarr.client.arrays.describe import tree_html

        return tree_html(repr(self), self.path, list(self._walk()))

    def _walk(self) -> Iterator[Found]:
        """Give path and metadata of every node below, parents first."""
        from lazyarr.opening.survey import walk

        return walk(self._opening.hierarchy, self.path)

    def __getitem__(self, name: str) -> LazyArray | Dataset:
        """Return an array or a group, by its path below this group.

        Raises
        ------
        NodeNotFoundError
            When there is none; also a `KeyError`.
        FormatError
            When lazyarr cannot map it.
        TypeError
            When the name is no str.
        """
        from lazyarr.formats.paths import join_path

        path = join_path(self.path, name)
        with self._lock:
            if self._is_closed:
                raise ValueError(f"{self!r} is closed; open it again")
            if path not in self._opened:
                self._opened[path] = _open_node(self._opening, path)
            return self._opened[path]

    def get(self, name: str, default: Any = None) -> Any:
        """Return an array or a group as ``ds[name]`` does, `default` when there is none."""
        # Not by way of the error, for which names are listed.
        return self[name] if name in self else default  # noqa: SIM401 - that is this method

    def values(self) -> ValuesView[Any]:
        """Return the arrays and groups directly below.

        What cannot be mapped has its place too, and raises `FormatError` when it is used.
        """
        return _Values(self)

    def items(self) -> ItemsView[str, Any]:
        """Return the arrays and groups directly below with their names, as `values` does."""
        return _Items(self)

    def _value(self, name: str) -> Any:
        try:
            return self[name]
        except FormatError as error:
            from lazyarr.client.pickling.unreachable import Unreachable

            return Unreachable(error)

    def __contains__(self, name: object) -> bool:
        """Return whether there is an array or group of this name, without opening it."""
        from lazyarr.formats.paths import join_path

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

    def to_xarray(self, *, decode_cf: bool = True, **options: Any) -> xarray.Dataset:
        """Return this group's arrays as an `xarray.Dataset`; only coordinates are read.

        Parameters
        ----------
        decode_cf : bool
            Whether xarray decodes values by the CF conventions, when they are read:
            ``scale_factor``, ``add_offset``, ``_FillValue``, units of time.
        **options
            What else `xarray.open_dataset` takes, as ``chunks={}`` for blocks of dask's and
            ``drop_variables``.

        Notes
        -----
        Names of axes are ``dimension_names``, in Zarr v2 those of xarray's convention.  Where the
        store has none, an array ``x`` has ``x_dim_0``, and so on.

        Examples
        --------
        >>> import lazyarr, numpy, tempfile
        >>> directory = tempfile.TemporaryDirectory()
        >>> names = {"t": ["time"], "time": ["time"]}
        >>> arrays = {"t": numpy.arange(3.0), "time": numpy.array([10, 20, 30])}
        >>> lazyarr.save(f"{directory.name}/d.zarr", arrays, dimension_names=names)
        >>> ds = lazyarr.open(f"{directory.name}/d.zarr").to_xarray()
        >>> float(ds["t"].sel(time=20))
        1.0
        >>> directory.cleanup()
        """
        with needing("xarray"):
            from lazyarr.integrations.xarray import open_group

        opening = self._opening
        return open_group(
            self, opening.url, opening.storage_options, decode_cf=decode_cf, **options
        )

    def to_dask(self, chunks: Any = None) -> dict[str, Any]:
        """Return the arrays as arrays of dask's, by name; those of groups below as further dicts.

        As `LazyArray.to_dask` for each of them.  Nothing is read.  What cannot be mapped has its
        place too, as in `values`.
        """
        with needing("dask"):
            from lazyarr.integrations.dask import from_group

            return from_group(self, chunks)

    def decoded(self) -> xarray.Dataset:
        """Return this group as an `xarray.Dataset` whose values are what they stand for.

        Stored elements are scaled, shifted, masked and turned into times when they are read, as
        their attributes say.  The same as ``to_xarray()``.
        """
        return self.to_xarray()

    def close(self) -> None:
        """Let go; arrays that are still referenced stay valid."""
        with self._lock:
            self._is_closed = True
            self._opened.clear()

    def __reduce__(self) -> Any:
        """Pickle as a reference: which group of which store, and whose pages its arrays have.

        In mode ``"c"`` what was written to its arrays goes with it; see `LazyArray`.
        """
        from lazyarr.client.pickling.references import REFERENCE_VERSION
        from lazyarr.opening.open_array import invite_to_pager

        opening = self._opening
        keywords = {
            "path": self.path,
            "storage_options": opening.storage_options,
            "consolidated": opening.hierarchy.use_consolidated,
            "memory": opening.memory,
            "byteorder": opening.byteorder,
        }
        pager, changes = invite_to_pager(opening), self._changes()
        return _reopen, (REFERENCE_VERSION, pager, opening.url, opening.mode, keywords, changes)

    def _changes(self) -> dict[str, Any]:
        """Return what was written in mode "c" to what was opened here, by name below."""
        with self._lock:
            opened = dict(self._opened)
        start = len(self.path) + 1 if self.path else 0
        found = ((path[start:], node._changes()) for path, node in opened.items())  # noqa: SLF001
        written = {name: changes for name, changes in found if changes}
        if written:
            from lazyarr.client.pickling.changes import check_size, nbytes_of

            check_size(nbytes_of(written), f"group {self.path or '/'!r}")
        return written

    def _write_changes(self, changes: Mapping[str, Any]) -> None:
        """Have what is below hold what was written to it in another process."""
        for name, written in changes.items():
            self[name]._write_changes(written)  # noqa: SLF001

    def __enter__(self) -> Dataset:
        """Return the dataset itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


class _Values(ValuesView[Any]):
    """The arrays and groups of a dataset, all of them, though one cannot be mapped."""

    _mapping: Dataset

    def __iter__(self) -> Iterator[Any]:
        return map(self._mapping._value, self._mapping)  # noqa: SLF001 - a part of the class

    def __contains__(self, value: object) -> bool:
        # By identity: to compare arrays would read them.
        return any(each is value for each in self)


class _Items(ItemsView[str, Any]):
    """The same with their names."""

    _mapping: Dataset

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return ((name, self._mapping._value(name)) for name in self._mapping)  # noqa: SLF001

    def __contains__(self, item: object) -> bool:
        if not (isinstance(item, tuple) and len(item) == 2):
            return False
        return any(name == item[0] and value is item[1] for name, value in self)


def open(  # noqa: A001 - numpy, zarr and h5py users look for this name
    url: str | os.PathLike[str],
    mode: str = "r",
    *,
    path: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    consolidated: bool | None = None,
    memory: str | None = None,
    byteorder: str = "native",
) -> Dataset | LazyArray:
    """Open a Zarr store, or a file of arrays; nothing is read but metadata.

    Parameters
    ----------
    url : str or os.PathLike
        A path, or any URL that fsspec takes, also chained ones.  One that ends with ``.npy``,
        ``.npz``, ``.safetensors``, ``.h5``, ``.hdf5``, ``.he5``, ``.nc`` or ``.nc4``, and is no
        directory, means a file of that format (for those of HDF5 and NetCDF 4 h5py must be
        installed); one that ends with ``.zip``, the Zarr store in that archive.
    mode : {"r", "c"}
        ``"r"``: read only, pages shared with forked children.  ``"c"``: copy-on-write,
        what is written stays in this process.
    path : str, optional
        The node to open; the root by default.
    storage_options : mapping, optional
        What fsspec needs for this URL: credentials, endpoints.  ``"denied_is_missing": True``
        is for servers that refuse what does not exist (see ``docs/stores.md``).
    consolidated : bool, optional
        True demands consolidated metadata, False ignores it, None takes it where it is.
    memory : {"shared", "private"}, optional
        Whether pages are shared with other processes and can be evicted; by default
        shared in mode ``"r"``.  Means nothing to arrays that copy.
    byteorder : {"native", "stored"}
        In which order of bytes elements lie in memory: the machine's, whatever the store has,
        or the store's.

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
        When the store cannot be reached.
    FormatError
        When the metadata is not what its format allows, or not what lazyarr can map.
    KernelUnsupportedError
        When this kernel or user cannot use userfaultfd, and the engine is set to that.

    Examples
    --------
    >>> import lazyarr, numpy, tempfile
    >>> directory = tempfile.TemporaryDirectory()
    >>> lazyarr.save(f"{directory.name}/x.zarr", numpy.arange(6.0))
    >>> lazyarr.open(f"{directory.name}/x.zarr")[2:4].tolist()
    [2.0, 3.0]
    >>> directory.cleanup()
    """
    from lazyarr.opening.engines import begin_engine

    # First of all: the pager starts up while this process imports and reads.
    if mode in ("r", "c"):
        begin_engine()
    from lazyarr.formats.paths import join_path
    from lazyarr.opening.open_array import begin_opening

    opening = begin_opening(
        url,
        mode,
        storage_options=storage_options,
        use_consolidated=consolidated,
        memory=memory,
        byteorder=byteorder,
    )
    return _open_node(opening, join_path(path or ""))


def _reopen(version: object, *reference: Any) -> Any:
    """Return a group that was pickled, opened anew; see `reopen_view`."""
    try:
        from lazyarr.client.pickling.references import require_version

        require_version(version)
        return _reopen_group(*reference)
    except Exception as error:  # noqa: BLE001 - what a missing driver raises, too
        from lazyarr.client.pickling.unreachable import raise_later

        return raise_later(error)


def _reopen_group(
    pager: str | None,
    url: str,
    mode: str,
    keywords: Mapping[str, Any],
    changes: Mapping[str, Any],
) -> Dataset:
    from lazyarr.opening.open_array import come_to_pager

    come_to_pager(pager)
    found = open(url, mode, **keywords)
    if not isinstance(found, Dataset):
        path = keywords["path"]
        raise FormatError(
            f"expected a group at {path!r} of {url}, found an array; open it and pickle it again",
            path=path,
        )
    found._write_changes(changes)  # noqa: SLF001
    return found


def _open_node(opening: Opening, path: str) -> LazyArray | Dataset:
    from lazyarr.formats.base import GroupDescription
    from lazyarr.opening.open_array import open_array

    try:
        metadata = opening.hierarchy.node(path)
    except NodeNotFoundError as error:
        from lazyarr.opening.suggesting import with_names

        raise with_names(error, opening.hierarchy) from None
    if isinstance(metadata, GroupDescription):
        return Dataset(opening, metadata)
    return open_array(opening, metadata)
