"""Opening stores: groups as mappings, arrays as arrays, with nothing read but metadata."""

from __future__ import annotations

import os
import threading
from collections.abc import ItemsView, Iterator, Mapping, Sequence, ValuesView
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from lazyarr.errors import FormatError, LazyarrError, NodeNotFoundError, StoreWarning
from lazyarr.parts import needing

if TYPE_CHECKING:
    import icechunk
    import xarray

    from lazyarr.client.arrays.lazyarray import LazyArray
    from lazyarr.flush_report import FlushReport
    from lazyarr.formats.base import GroupDescription
    from lazyarr.opening.open_array import Opening
    from lazyarr.opening.survey import Found
    from lazyarr.opening.writing import Writing

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
        self._own_lock = threading.RLock()
        self._opened: dict[str, LazyArray | Dataset] = {}
        self._is_closed = False
        if opening.writing is not None:
            opening.writing.claimed.holders.add(self)

    @property
    def _lock(self) -> threading.RLock:
        """The lock on what was opened."""
        # Whoever edits the store has its lock, and has all datasets let go of arrays.  With two
        # locks, somebody who opens an array meanwhile would take them in the other order.
        writing = self._opening.writing
        return self._own_lock if writing is None else writing.claimed.lock

    def __repr__(self) -> str:
        from lazyarr.client.arrays.describe import describe_node

        said = describe_node(self.path, self._now())
        how = f"mode {self._opening.mode!r}{', closed' if self._is_closed else ''}"
        return f"<Dataset {self.path or '/'} of {self.url}, {how}{f': {said}' if said else ''}>"

    def _now(self) -> GroupDescription:
        """Return what the group says of itself, which changes in mode "r+"."""
        from lazyarr.formats.base import GroupDescription

        if self._opening.writing is not None:
            with suppress(LazyarrError):
                found = self._opening.hierarchy.node(self.path)
                if isinstance(found, GroupDescription):
                    return found
        return self._metadata

    @property
    def attrs(self) -> dict[str, Any]:
        """The group's attributes.

        In mode ``"r+"`` a dict to be changed at any depth: what is changed is stored by the next
        `flush`, by `close`, and at the end.  In other modes they cannot be changed.
        """
        from lazyarr.client.arrays.frozen_attributes import freeze

        if self._opening.writing is not None:
            return self._opening.writing.attributes(self.path)
        closed = ", which is closed" if self._opening.mode == "r+" else ""
        where = f"group {self.path or '/'!r} of {self.url}{closed}"
        return freeze(self._metadata.attributes, where)

    @attrs.setter
    def attrs(self, attributes: Mapping[str, Any]) -> None:
        if self._opening.writing is None:
            self.attrs.update(attributes)  # raises what there is to say
        else:
            self._opening.writing.attributes(self.path).replace(attributes)

    @property
    def url(self) -> str:
        """The store, or the file of other formats, without credentials."""
        return self._opening.hierarchy.url

    @property
    def path(self) -> str:
        """The group's place in the store or the file; "" for the root."""
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

        return describe_group(self.url, self._now(), list(self._walk()))

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
            self._require_open()
            if path not in self._opened:
                self._opened[path] = _open_node(self._opening, path)
            return self._opened[path]

    def __setitem__(self, name: str, values: Any) -> None:
        """Add an array of some values, as ``create_array(name, values=values)``.

        Raises
        ------
        FileExistsError
            There is a node of this name.  Elements of an array are assigned to as
            ``ds[name][...] = values``.
        """
        from lazyarr.formats.paths import join_path

        # What `ds[name] += 1` ends with: it has been written to already.
        if isinstance(name, str) and self._opened.get(join_path(self.path, name)) is values:
            return
        self.create_array(name, values=values)

    def __delitem__(self, name: str) -> None:
        """Take an array or a group out of the store, with all that is in it.

        Raises
        ------
        NodeNotFoundError
            There is none.
        ValueError
            An array of it is referenced in this process; or the mode is not ``"r+"``.
        StoreError
            The store cannot be changed.
        """
        writing = self._require_writing(f"delete {name!r}")
        writing.claimed.delete(self._full_path(writing, name))

    def create_array(
        self,
        name: str,
        *,
        shape: int | Sequence[int] | None = None,
        dtype: Any = None,
        values: Any = None,
        chunks: Any = "auto",
        shards: Any = "auto",
        compressor: Any = "zstd",
        level: int | None = None,
        fill_value: Any = 0,
        attributes: Mapping[str, Any] | None = None,
        dimension_names: Sequence[str | None] | None = None,
    ) -> LazyArray:
        """Add an array to the store, in mode ``"r+"``, and return it to be written to.

        Parameters
        ----------
        name : str
            Its place below this group, such as ``"train/images"``; the groups above are made
            when they are missing.
        shape : int or sequence of int, optional
            Its lengths; by default those of `values`.
        dtype : dtype-like, optional
            Its elements; by default those of `values`.
        values : array-like, optional
            Its elements, which may be larger than memory, as in `lazyarr.save`; by default nothing
            but the fill value.
        chunks, shards, compressor, level, fill_value, attributes, dimension_names
            As `Writer.create_array` takes them.

        Raises
        ------
        FileExistsError
            There is a node of this name.
        FormatError
            Something does not fit together, or not into Zarr.
        ValueError
            The name is not one that Zarr allows, or the mode is not ``"r+"``.
        StoreError
            The store cannot be changed.

        Examples
        --------
        >>> import lazyarr, numpy
        >>> lazyarr.save("memory://doc-add", {"x": numpy.arange(3)})
        >>> with lazyarr.configure(engine="copy"), lazyarr.open("memory://doc-add", "r+") as ds:
        ...     y = ds.create_array("g/y", values=[1.0, 2.0])
        ...     ds["g"].attrs["units"] = "m"
        >>> lazyarr.open("memory://doc-add")["g"].attrs
        {'units': 'm'}
        """
        writing = self._require_writing(f"create {name!r}")
        if values is not None:
            values = _as_array(values, dtype)
            shape = values.shape if shape is None else shape
            dtype = values.dtype if dtype is None else dtype
        if shape is None or dtype is None:
            raise TypeError(f"cannot create {name!r}: give shape and dtype, or values")
        wanted = {
            "shape": shape,
            "dtype": dtype,
            "values": values,
            "chunks": chunks,
            "shards": shards,
            "compressor": compressor,
            "level": level,
            "fill_value": fill_value,
            "attributes": attributes,
            "dimension_names": dimension_names,
        }
        writing.claimed.create_array(self._full_path(writing, name), wanted)
        return cast("LazyArray", self[name])

    def create_group(self, name: str, *, attributes: Mapping[str, Any] | None = None) -> Dataset:
        """Add a group to the store, in mode ``"r+"``, and return it.

        Raises
        ------
        FileExistsError
            There is a node of this name.
        FormatError
            The attributes do not fit into JSON.
        ValueError
            The name is not one that Zarr allows, or the mode is not ``"r+"``.
        StoreError
            The store cannot be changed.
        """
        writing = self._require_writing(f"create {name!r}")
        writing.claimed.create_group(self._full_path(writing, name), attributes)
        return cast("Dataset", self[name])

    def rename(self, old: str, new: str) -> None:
        """Have an array or a group of the store by another name, in mode ``"r+"``.

        Parameters
        ----------
        old, new : str
            Places below this group.  The groups above the new one are made when they are missing.

        Raises
        ------
        NodeNotFoundError
            There is none of the old name.
        FileExistsError
            There is one of the new name.
        ValueError
            An array of it is referenced in this process, the name is not one that Zarr allows, or
            the mode is not ``"r+"``.
        StoreError
            The store cannot be changed.

        Notes
        -----
        In a directory it is one step.  In an object store every object is copied, and the old ones
        are deleted when the new node is complete.
        """
        writing = self._require_writing(f"rename {old!r}")
        writing.claimed.rename(self._full_path(writing, old), self._full_path(writing, new))

    def _require_writing(self, what: str) -> Writing:
        """Return the right to write to the store; raise where there is none."""
        self._require_open()
        if self._opening.writing is None:
            raise ValueError(
                f"cannot {what} in {self.url}: it is open in mode {self._opening.mode!r}; open it "
                "with lazyarr.open(url, 'r+')"
            )
        return self._opening.writing

    def _require_open(self) -> None:
        if self._is_closed:
            raise ValueError(
                f"the dataset {self.path or '/'!r} of {self.url} is closed; open it again"
            )

    def _full_path(self, writing: Writing, name: str) -> str:
        from lazyarr.formats.paths import join_path

        path = join_path(name)
        if not path:
            raise ValueError(f"{name!r:.80} names no array or group below {self!r}; give a name")
        return writing.path(join_path(self.path, path))

    def _let_go(self, path: str) -> dict[str, Any]:
        """Keep what was opened at and below a place in the store no more; return it by name."""
        writing = self._opening.writing
        if writing is None:
            return {}
        with self._lock:
            start = f"{path}/"
            names = [n for n in self._opened if f"{writing.path(n)}/".startswith(start)]
            return {name: self._opened.pop(name) for name in names}

    def _keep(self, nodes: Mapping[str, Any]) -> None:
        """Keep what `_let_go` has returned."""
        with self._lock:
            self._opened.update(nodes)

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

    def _ipython_key_completions_(self) -> list[str]:
        """Return what may follow ``ds["`` in IPython."""
        return list(self)

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

    def replay(self, path: str | os.PathLike[str]) -> None:
        """Have chunks loaded before they are touched, in the order that `lazyarr.record` noted.

        Returns before they are loaded.  As much is loaded ahead as readahead would, and as there
        is room for: when somebody has come to a batch of chunks, the next one is asked for.
        Reading may leave the order, or go on elsewhere in it.  An order that nobody keeps to is
        forgotten.

        Parameters
        ----------
        path : str or os.PathLike
            The file that `lazyarr.record` has written.

        Raises
        ------
        FormatError
            When it is no such file, or damaged.
        ValueError
            When it has no array of this group, or an array has another shape or data type now.
        OSError
            When the file cannot be read.

        Warns
        -----
        StoreWarning
            When arrays of the trace are not there any more, or cannot be mapped.
        EngineWarning
            When arrays are copies here: nothing is loaded ahead then.

        Notes
        -----
        Arrays are known by their paths.  Where the trace has none of this store, and all that it
        has are of one other store, they are taken for the same: the store may have moved.  The
        store may have other chunks than it had.  The order is forgotten when it has been gone
        through, at the end of this process, and when the process that fills pages dies.  With
        ``lazyarr.configure(readahead=0)`` nothing is loaded ahead.
        """
        from lazyarr.client.trace_file import names_below, read_trace, schedule
        from lazyarr.client.warning import warn_user

        trace = read_trace(path)
        names = names_below(trace, self.url, self.path)
        arrays: dict[int, Any] = {}
        reasons: list[str] = []
        for number, name in names.items():
            try:
                array = self[name]
            except (NodeNotFoundError, FormatError) as error:
                reasons.append(str(error))
                continue
            trace.arrays[number].require_same(array, path)
            arrays[number] = array
        if not arrays:
            why = f": {reasons[0]}" if reasons else f": it has {trace.named()}"
            raise ValueError(f"the trace {os.fspath(path)} has no array of {self!r}{why}")
        if reasons:
            more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
            warn_user(f"arrays of the trace are left out: {reasons[0]}{more}", StoreWarning)
        schedule(trace, arrays)

    def _open_arrays(self) -> list[Any]:
        """Return the arrays at and below this group that are open, or what their values are in.

        In mode ``"r+"`` all of the process, for whoever opened them.  In other modes those that
        were opened here and in groups below.
        """
        if self._opening.writing is not None:
            return self._opening.writing.anchors(self.path)
        with self._lock:
            opened = list(self._opened.values())
        groups = [node for node in opened if isinstance(node, Dataset)]
        arrays = [node for node in opened if not isinstance(node, Dataset)]
        return arrays + [array for group in groups for array in group._open_arrays()]  # noqa: SLF001

    def flush(self, *, progress: bool = False) -> FlushReport:
        """Have what was written to arrays of this group be in the store, durably.

        Parameters
        ----------
        progress : bool
            Whether to show a progress bar on stderr.

        Returns
        -------
        FlushReport
            How much was written; nothing where nobody wrote.

        Raises
        ------
        StoreError
            When something could not be written.  It stays in memory, and the next flush tries
            again.
        ValueError
            In mode ``"c"``, in which changes stay in this process; or it is closed.
        """
        from lazyarr.client.arrays.attributes import NEVER_FLUSHED
        from lazyarr.client.session.failures import do_each
        from lazyarr.client.session.flushing import flush_arrays

        if self._opening.mode == "c":
            raise ValueError(NEVER_FLUSHED)
        if self._opening.mode == "r+":
            self._require_open()
        writing = self._opening.writing
        if writing is not None:
            from lazyarr.client.session import finalizers

            # What was written to arrays that nobody refers to any more is in the store then.
            finalizers.settle()
        report: FlushReport
        report, _ = do_each(
            lambda: flush_arrays(self._open_arrays(), progress=progress),
            lambda: None if writing is None else writing.flush_attributes(self.path),
        )
        return report

    def close(self) -> None:
        """Let go; arrays that are still referenced stay valid.

        In mode ``"r+"`` what was written is in the store then, durably.

        Raises
        ------
        StoreError
            When something could not be written.  The group stays open.
        """
        if self._opening.mode == "r+" and not self._is_closed:
            self.flush()
        with self._lock:
            self._metadata = self._now()
            self._is_closed = True
            self._opened.clear()
            writing = self._opening.writing
            if writing is None:
                return
            claimed = writing.claimed
            # Whoever else has it open, or an array of it, has a reference of its own.
            self._opening = self._opening._replace(writing=None)
            del writing
        from lazyarr.client.session import finalizers

        # Arrays that nobody refers to are let go of, so that what follows may claim the store.
        finalizers.settle()
        claimed.end_unless_used()

    def __reduce__(self) -> Any:
        """Pickle as a reference: which group of which store, and whose pages its arrays have.

        In mode ``"c"`` what was written to its arrays goes with it; see `LazyArray`.
        """
        from lazyarr.client.pickling.hashed import is_hashed

        if is_hashed():
            # Not by way of `items`: what cannot be mapped has no content to be told apart by.
            nodes = {name: (self[name].attrs, self[name]) for name in self}
            return Dataset, ("hashed", self.attrs, nodes)
        from lazyarr.client.pickling.references import REFERENCE_VERSION
        from lazyarr.opening.open_array import invite_to_pager

        opening = self._opening
        keywords = {
            "path": self.path,
            "storage_options": opening.storage_options,
            "consolidated": opening.hierarchy.use_consolidated,
            "memory": opening.memory,
            "byteorder": opening.byteorder,
            "format": opening.hierarchy.format,
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

    def __dask_tokenize__(self) -> Any:
        """Return what dask names this group by: the store as it is now, and the place in it."""
        from lazyarr.client.arrays.tokens import token_of_group

        opening = self._opening
        place = (self.url, opening.url, opening.storage_options)
        return token_of_group(place, (self.path, self._now()), self._walk(), self._changes)

    def __enter__(self) -> Dataset:
        """Return the dataset itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def _as_array(values: Any, dtype: Any) -> Any:
    """Return what has a shape and a data type, and is read later where it has them already."""
    if hasattr(values, "shape") and hasattr(values, "dtype"):
        return values
    import numpy

    return numpy.asarray(values, dtype)


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
    url: str | os.PathLike[str] | icechunk.Session | icechunk.IcechunkStore,
    mode: str = "r",
    *,
    path: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    consolidated: bool | None = None,
    memory: str | None = None,
    byteorder: str = "native",
    format: str | None = None,  # noqa: A002 - as polars, pandas and xarray users look for it
) -> Dataset | LazyArray:
    """Open a Zarr store, or a file of arrays; nothing is read but metadata.

    Parameters
    ----------
    url : str or os.PathLike
        A path, or any URL that fsspec takes, also chained ones.  One that ends with ``.npy``,
        ``.npz``, ``.safetensors``, ``.h5``, ``.hdf5``, ``.he5``, ``.nc``, ``.nc4``, ``.tif``,
        ``.tiff``, ``.btf`` or ``.lsm``, and is no directory, means a file of that format (for those
        of HDF5 and NetCDF 4 h5py must be installed, and tifffile for TIFF); one that ends with
        ``.zip``, the Zarr store in that archive; one that ends with ``.json`` or ``.parq``, or a
        directory of Parquet files, references of kerchunk's.  A file by another name is known by
        its first bytes.  A URL may go on in a store or in such a file, as ``x.h5/group/array``,
        and a path in an icechunk repository.
        Where there is no Zarr store there may be an icechunk repository (for those icechunk must be
        installed).  Or a read-only session of icechunk's, or its store.
    mode : {"r", "r+", "c"}
        ``"r"``: read only, pages shared with forked children.  ``"c"``: copy-on-write,
        what is written stays in this process.  ``"r+"``: a Zarr store to be changed, by one
        process at a time (see ``docs/writing.md``).
    path : str, optional
        The node to open; the root by default.
    storage_options : mapping, optional
        What fsspec needs for this URL: credentials, endpoints.  ``"denied_is_missing": True``
        is for servers that refuse what does not exist (see ``docs/stores.md``).  For references of
        kerchunk's: the words of fsspec's ReferenceFileSystem.  For icechunk repositories:
        ``"branch"``, ``"tag"`` or ``"snapshot"``, by default what the branch ``main`` has when it
        is opened (for both see ``docs/usage.md``).
    consolidated : bool, optional
        True demands consolidated metadata, False ignores it, None takes it where it is.
    memory : {"shared", "private"}, optional
        Whether pages are shared with other processes and can be evicted; by default
        shared in mode ``"r"``.  Means nothing to arrays that copy.
    byteorder : {"native", "stored"}
        In which order of bytes elements lie in memory: the machine's, whatever the store has,
        or the store's.
    format : {"zarr", "npy", "npz", "safetensors", "hdf5", "tiff", "kerchunk", "icechunk"}, optional
        What the URL means, whatever its name says.  By default its name tells; the first bytes do
        of a file by any other name.

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
        When the store cannot be reached, or somebody else has it open with mode ``"r+"``.
    FormatError
        When the metadata is not what its format allows, or not what lazyarr can map, or cannot be
        changed in mode ``"r+"``.
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
    if mode in ("r", "c", "r+"):
        begin_engine()
    from lazyarr.formats.paths import join_path
    from lazyarr.opening.open_array import begin_opening

    node = join_path(path or "")
    opening = begin_opening(
        url,
        mode,
        file_format=format,
        recognises=not node,
        storage_options=storage_options,
        use_consolidated=consolidated,
        memory=memory,
        byteorder=byteorder,
    )
    return _open_node(opening, join_path(opening.hierarchy.start, node))


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
