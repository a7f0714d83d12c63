"""What an array says of the one that is stored, whatever fills it."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

from lazyarr.parts import needing

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    import xarray

    from lazyarr.client.array_ref import ArrayRef
    from lazyarr.client.pickling.changes import Changes
    from lazyarr.flush_report import FlushReport

__all__ = ["NEVER_FLUSHED", "READ_ONLY", "RETIRED", "StoredAttributes"]

# Libraries that take an array with `chunks` for one of dask's, whose `chunks` are the
# lengths of all blocks, and which has to be computed by dask.
_EXPECTING_BLOCKS = ("xarray",)

READ_ONLY = (
    "assignment destination is read-only: the array is what the store holds; assign to a copy "
    "(x[rows] with a list of rows, or x.copy()), or open with mode='c', which keeps changes in "
    "this process, or mode='r+', which writes them to the store"
)
"""What is said of assignments to arrays that cannot be written to; NumPy's words come first."""

NEVER_FLUSHED = (
    "cannot flush: in mode 'c' changes stay in this process; open with mode='r+' to have them "
    "written to the store"
)
"""What is said of a flush of arrays whose changes are private."""

RETIRED = (
    "assignment destination is read-only: the stored array was appended to or resized since; "
    "assign to the array that append or resize has returned, or to ds[name]"
)
"""What is said of assignments to arrays that another has taken the place of."""

# Attributes of the CF conventions by which elements are turned into values; `_FillValue` besides.
_DECODED_BY = ("scale_factor", "add_offset")


class StoredAttributes:
    """The attributes that the arrays of both engines take from the stored array.

    Attributes
    ----------
    chunks : tuple of int
        Shape of the stored array's smallest chunks.
    """

    if TYPE_CHECKING:
        chunks: tuple[int, ...]
    else:

        def __getattr__(self, name: str) -> Any:
            """Return `chunks`, or raise AttributeError, as for any name that does not exist.

            xarray takes an array for one of dask's if it has `chunks`, and looks with `hasattr`.
            So `chunks` does not exist for xarray, whose `load`, `to_netcdf`, `apply_ufunc` and
            others then take the array as it is.  `chunks` is no property: from Python 3.12 on
            `isinstance` with a protocol finds a property without a call to `__getattr__`.

            dask takes them for a hint, and needs one for each axis: of a view with more or fewer
            axes than the stored array they do not exist for dask either.
            """
            if name == "chunks":
                chunks, reader = self._source.metadata.chunks, _reader()
                fits = reader != "dask" or len(chunks) == self.ndim
                if fits and reader not in _EXPECTING_BLOCKS:
                    return chunks
            return object.__getattribute__(self, name)

    @property
    def _source(self) -> ArrayRef:
        raise NotImplementedError

    def _start(self) -> int:
        """Return where this view begins in the memory of the stored array, in bytes."""
        raise NotImplementedError

    def _changes(self) -> Changes:
        """Return what was written here and is not in the store."""
        raise NotImplementedError

    def __dask_tokenize__(self) -> Any:
        """Return what dask names this view by: the store as it is now, and the place in it."""
        from lazyarr.client.arrays.tokens import token_of

        array: Any = self
        view = (self._start(), array.shape, array.strides, array.dtype)
        return token_of(self._source, view, self._changes)

    def __dir__(self) -> list[str]:
        """Return the names of all attributes."""
        return sorted({*super().__dir__(), "chunks"})

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Shape of the stored array's shards; None when it has none."""
        return self._source.metadata.shards

    @property
    def nchunks(self) -> int:
        """How many chunks the stored array has."""
        return math.prod(self._source.metadata.layout().grid_shape)

    @property
    def fill_value(self) -> Any:
        """What elements are that were never written."""
        return self._source.metadata.fill_value

    @property
    def attrs(self) -> dict[str, Any]:
        """The stored array's attributes.

        In mode ``"r+"`` a dict to be changed at any depth: what is changed is stored by the next
        `flush`, and at the end.  In other modes they cannot be changed.
        """
        from lazyarr.client.arrays.frozen_attributes import freeze

        metadata, writing = self._source.metadata, self._source.writing
        if writing is not None:
            live: dict[str, Any] = writing.attributes(metadata.path)
            return live
        return freeze(metadata.attributes, f"array {metadata.path or '/'!r} of {self.url}")

    @attrs.setter
    def attrs(self, attributes: Mapping[str, Any]) -> None:
        metadata, writing = self._source.metadata, self._source.writing
        if writing is None:
            self.attrs.update(attributes)  # raises what there is to say
        else:
            writing.attributes(metadata.path).replace(attributes)

    def _flush_with_attributes(self, flush: Callable[[], FlushReport]) -> FlushReport:
        """Have what was written be in the store by a function, and attributes that were changed."""
        from lazyarr.client.session.failures import do_each

        source = self._source
        if source.mode == "c":
            raise ValueError(NEVER_FLUSHED)
        if source.writing is None:
            return flush()
        report: FlushReport
        report, _ = do_each(flush, lambda: source.writing.flush_attributes(source.metadata.path))
        return report

    def _forget_views(self) -> None:
        """Drop the views of its own memory that the array keeps; here for arrays that keep none."""

    def append(self, rows: Any) -> Any:
        """Add rows at the end of the leading axis, and return the array with them.

        In mode ``"r+"``.  They are in the store when this returns, and so is what was written
        before.  This array and its views stay as they were, and cannot be written to any more:
        go on with the one that is returned, which ``ds[name]`` is from now on.

        Parameters
        ----------
        rows : array-like
            With as many axes as the array, and the same lengths along all but the first.
            May be larger than memory, as in `lazyarr.save`.

        Raises
        ------
        ValueError
            The rows have another shape, this is a view or has been replaced, or the mode is
            another one.
        TypeError
            Their elements do not fit the array's.
        StoreError
            They cannot be written.

        Examples
        --------
        >>> import lazyarr, numpy
        >>> lazyarr.save("memory://doc-append", {"x": numpy.arange(3)})
        >>> with lazyarr.configure(engine="copy"), lazyarr.open("memory://doc-append", "r+") as ds:
        ...     x = ds["x"].append([3, 4])
        ...     x.tolist()
        [0, 1, 2, 3, 4]
        """
        writing = self._require_whole("append to")
        return writing.append(self._source.metadata.path, rows)

    def resize(self, new_shape: Any, *more: Any, refcheck: bool = True) -> Any:
        """Give the stored array other lengths, and return the array as it is then.

        In mode ``"r+"``.  New elements are the fill value.  What is beyond the new lengths is lost.
        It is done in the store when this returns.  This array cannot be written to any more: go on
        with the one that is returned.

        Parameters
        ----------
        new_shape : int or sequence of int
            All lengths; of a number alone, those of the other axes stay.  As with
            `numpy.ndarray.resize`, they may also be given one by one.
        refcheck : bool
            Whether to refuse to make it smaller while there are views of it in this process: they
            would lose what they have not read yet.

        Raises
        ------
        ValueError
            There are such views, the lengths are none, this is a view or has been replaced, or the
            mode is another one.
        StoreError
            It cannot be written.
        """
        writing = self._require_whole("resize")
        shape = (new_shape, *more) if more else new_shape
        return writing.resize(self._source.metadata.path, shape, refcheck=refcheck)

    def _require_whole(self, what: str) -> Any:
        """Return the right to write to the store; raise where this array cannot be edited."""
        source, array = self._source, self
        name = f"{what} array {source.metadata.path or '/'!r} of {self.url}"
        if source.writing is None:
            raise ValueError(
                f"cannot {name}: it is open in mode {source.mode!r}; open it with "
                "lazyarr.open(url, 'r+')"
            )
        now: Any = source.writing.find(source.metadata.path, source.byteorder)
        if now is None or now._source is not source:  # noqa: SLF001 - of the same classes
            raise ValueError(f"cannot {name}: another array has taken its place; take ds[name]")
        if array is not now and _place_of(array) != _place_of(now):
            raise ValueError(f"cannot {name}: this is a view of it; call it on ds[name]")
        return source.writing

    def replay(self, path: str | os.PathLike[str]) -> None:
        """Have chunks loaded before they are touched, in the order that `lazyarr.record` noted.

        As `Dataset.replay`, of this array alone.  Of a view, all of the stored array.

        Parameters
        ----------
        path : str or os.PathLike
            The file that `lazyarr.record` has written.

        Raises
        ------
        FormatError
            When it is no such file, or damaged.
        ValueError
            When it has nothing of this array, or the array has another shape or data type now.
        OSError
            When the file cannot be read.

        Warns
        -----
        EngineWarning
            When arrays are copies here: nothing is loaded ahead then.

        Examples
        --------
        >>> import lazyarr, numpy, tempfile
        >>> directory = tempfile.TemporaryDirectory()
        >>> url, trace = f"{directory.name}/x.zarr", f"{directory.name}/epoch.trace"
        >>> lazyarr.save(url, numpy.arange(9))
        >>> x = lazyarr.open(url)
        >>> if isinstance(x, lazyarr.LazyArray):
        ...     with lazyarr.record(trace):
        ...         total = x.sum()
        ...     lazyarr.open(url).replay(trace)  # in a later run
        >>> directory.cleanup()
        """
        from lazyarr.client.trace_file import replay

        replay(self, path)

    @property
    def encoding(self) -> dict[str, Any]:
        """How the array is stored, in the words of its format; cannot be changed here.

        ``format`` and ``version``, and what the format's document says, among it of codecs and
        of the fill value, which may not be given.
        """
        from lazyarr.client.arrays.frozen_attributes import freeze

        metadata = self._source.metadata
        name, version = metadata.format_name
        stored = {"format": name, "version": version, **metadata.document}
        return freeze(stored, f"array {metadata.path or '/'!r} of {self.url}")

    def to_xarray(self, *, decode_cf: bool = True, **options: Any) -> xarray.DataArray:
        """Return this array as an `xarray.DataArray`; nothing is read.

        Parameters
        ----------
        decode_cf : bool
            Whether xarray decodes values by the CF conventions, when they are read:
            ``scale_factor``, ``add_offset``, ``_FillValue``, units of time.
        **options
            What else `xarray.open_dataset` takes, as ``chunks={}`` for blocks of dask's.

        Notes
        -----
        It has no coordinates, which are arrays of their own: ``ds.to_xarray()["x"]`` has those of
        the group.  Names of axes are ``dimension_names``, of a view those of the axes that it has;
        a view whose axes are others, as after ``reshape``, has ``x_dim_0``, and so on.

        Examples
        --------
        >>> import lazyarr, numpy, tempfile
        >>> directory = tempfile.TemporaryDirectory()
        >>> names = {"t": ["time", "place"]}
        >>> arrays = {"t": numpy.arange(6.0).reshape(3, 2)}
        >>> lazyarr.save(f"{directory.name}/d.zarr", arrays, dimension_names=names)
        >>> t = lazyarr.open(f"{directory.name}/d.zarr")["t"].to_xarray()
        >>> t.dims, float(t.isel(place=1).mean())
        (('time', 'place'), 3.0)
        >>> directory.cleanup()
        """
        with needing("xarray"):
            from lazyarr.integrations.xarray import open_array

        return open_array(self, self._dimensions(), decode_cf=decode_cf, **options)

    def _dimensions(self) -> tuple[str | None, ...] | None:
        """Return the names of the axes of this view; None where they are not the stored array's."""
        array: Any = self
        metadata = self._source.metadata
        names, whole = metadata.dimension_names, metadata.layout()
        if names is None or len(names) != array.ndim:
            return None
        # The stored array's own strides.
        lengths = [whole.shape[place] for place in range(array.ndim)]
        steps = [metadata.dtype.itemsize * math.prod(lengths[i + 1 :]) for i in range(array.ndim)]
        by_axis = dict(zip(whole.axes, zip(lengths, steps, strict=True), strict=True))
        for axis, (length, stride) in enumerate(zip(array.shape, array.strides, strict=True)):
            whole_length, step = by_axis[axis]
            if (length - 1) * abs(stride) > (whole_length - 1) * step or stride % (step or 1):
                return None
        return names

    def _is_for_dask(self) -> bool:
        """Return whether a copy is asked for by `dask.array.from_array`, which needs none.

        It copies all arrays, for they could be changed while blocks are read.  This one cannot be
        changed, unless it is writable.  Called by `copy` alone.
        """
        caller = sys._getframe(2)  # noqa: SLF001 - of the code that calls `copy`
        is_dask = caller.f_globals.get("__name__") == "dask.array.core"
        array: Any = self
        return is_dask and caller.f_code.co_name == "from_array" and not array.flags.writeable

    def _described(self) -> str:
        """Return what the array is, how it was opened and how much of it is here, on one line."""
        array: Any = self
        here = array.residency()
        dirty = f", {here.dirty_units} not written back" if here.dirty_units else ""
        # Elements are not yet the values that they stand for.
        metadata = self._source.metadata
        encoded = [name for name in _DECODED_BY if name in metadata.attributes]
        encoded += ["_FillValue"] if metadata.missing_value is not None else []
        decoded = f", not decoded: {', '.join(encoded)} (see Dataset.decoded)" if encoded else ""
        return (
            f"<{type(self).__name__} {self.path or '/'} {array.shape} {array.dtype}, mode "
            f"{self.mode!r}, {here.resident_units} of {here.total_units} units resident{dirty}"
            f"{decoded}, {self.url}>"
        )

    @property
    def dimension_names(self) -> tuple[str | None, ...] | None:
        """Names of the stored array's axes; None when it has none."""
        return self._source.metadata.dimension_names

    @property
    def mode(self) -> str:
        """How the array was opened: ``"r"``, ``"c"`` or ``"r+"``."""
        return self._source.mode

    @property
    def url(self) -> str:
        """The store, or the file of other formats, without credentials."""
        return self._source.store_url

    @property
    def path(self) -> str:
        """The stored array's place in the store or the file; "" for the root."""
        return self._source.metadata.path

    @property
    def info(self) -> str:
        """What the stored array is, and how much of it is in memory, as text."""
        from lazyarr.client.arrays.describe import describe_array

        return describe_array(self)  # type: ignore[arg-type]  # both classes are what it takes


def _place_of(array: Any) -> tuple[Any, ...]:
    """Return where the elements of an array lie in the memory of the stored array."""
    start: int = array._start()  # noqa: SLF001 - of the same classes
    return start, array.shape, array.strides, array.dtype


def _reader() -> str:
    """Return the library whose code reads `chunks`."""
    frame = sys._getframe(2)  # noqa: SLF001 - of the code that reads it
    while frame.f_back is not None and frame.f_globals.get("__name__") == "typing":
        frame = frame.f_back  # the code that compares with a protocol (before Python 3.12)
    return str(frame.f_globals.get("__name__")).partition(".")[0]
