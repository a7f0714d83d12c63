"""The array that users hold."""

from __future__ import annotations

import enum
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from lazyarr.client.arrays import indexing
from lazyarr.client.arrays.attributes import READ_ONLY, RETIRED, StoredAttributes
from lazyarr.client.arrays.nested import replace_items
from lazyarr.client.arrays.numpy_names import (
    CHANGING_FUNCTIONS,
    CHANGING_METHODS,
    FREE_FUNCTIONS,
    IMITATING_FUNCTIONS,
    PRINTING_FUNCTIONS,
    READING_METHODS,
    SCALAR_METHODS,
)
from lazyarr.client.arrays.one_element import compare_with_none, place_of_item
from lazyarr.client.arrays.row_fast_path import Rows, maybe_rows
from lazyarr.client.session.process import current_session
from lazyarr.errors import ChunkError, NotStoredError
from lazyarr.flush_report import FlushReport
from lazyarr.kernel import HERE, arrive, buffer_address
from lazyarr.parts import needing
from lazyarr.units import DIRTY, RESIDENT, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import dask.array

    from lazyarr.client.array_ref import ArrayRef
    from lazyarr.client.arrays.passes import MappedOperand
    from lazyarr.client.arrays.residency import Residency
    from lazyarr.client.pickling.changes import Changes
    from lazyarr.client.session.region import Memory, Region

__all__ = ["LazyArray", "readable_by_calls"]


class _NotAsked(enum.Enum):
    """The value of an attribute that has not been looked for yet."""

    NOT_ASKED = "not asked"


_NOT_ASKED = _NotAsked.NOT_ASKED
_PYBUF_WRITABLE = 1  # inspect.BufferFlags, of Python 3.12
_PLAIN_VALUES = (int, float, complex, np.generic)
_SHAPING = frozenset({"shape", "dtype", "strides"})


def _array_wrap(
    _: np.ndarray[Any, Any],
    array: Any,
    context: Any = None,  # noqa: ARG001 - NumPy's signature
    return_scalar: bool = False,  # noqa: FBT001, FBT002 - NumPy's signature
) -> Any:
    """Return results as plain arrays and scalars."""
    plain = np.asarray(array)
    return plain[()] if return_scalar else plain


class OwnArray(np.ndarray[Any, Any]):
    """An array in memory of its own that NumPy's C code has made of a `LazyArray`.

    It is a plain array in all but its class.  It cannot become a `numpy.ndarray`: an object may
    only change to a class with the same layout.
    """

    _baseclass = np.ndarray  # of masked arrays that are made of it

    __array_wrap__ = _array_wrap

    def __repr__(self) -> str:
        return repr(self.view(np.ndarray))

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle as a plain array."""
        return self.view(np.ndarray).__reduce_ex__(protocol)


class LazyArray(StoredAttributes, np.ndarray[Any, Any]):  # type: ignore[misc]  # resize returns one
    """An array whose memory fills when it is touched.

    It is a real `numpy.ndarray`.  Slicing, transposing and reshaping are free and
    give another `LazyArray`.  Picking elements and computing read what they need, in
    one request and without the GIL, and give plain arrays and scalars.
    ``numpy.asarray(x)`` is the plain array over the same memory, for code that
    wants no Python in the way.

    Made by `lazyarr.open`, not by calling the class.

    Notes
    -----
    Safe to use from several threads.  In a forked child it stays valid and shares
    its pages with the parent.  It pickles as a reference to the stored array; in mode ``"c"``
    what was written to it goes along, whoever wrote it, up to 256 MiB.

    Examples
    --------
    >>> import lazyarr, numpy, tempfile
    >>> directory = tempfile.TemporaryDirectory()
    >>> lazyarr.save(f"{directory.name}/x.zarr", numpy.arange(12).reshape(4, 3))
    >>> x = lazyarr.open(f"{directory.name}/x.zarr")
    >>> x[1:3].sum(axis=1)
    array([12, 21])
    >>> directory.cleanup()
    """

    _node: ArrayRef | None
    _memory: Memory | None
    _rows: Rows | _NotAsked | None

    def __new__(cls, *_: Any, **__: Any) -> LazyArray:
        """Refuse: an array without a store behind it would never fill."""
        raise TypeError("LazyArray is made by lazyarr.open(...), not by calling it")

    def __array_finalize__(self, template: Any) -> None:
        """Keep the store of the array that this is a view of; a copy is no lazy array."""
        if self.base is None:
            # NumPy's C code gives copies and arrays like another one the class of that array,
            # without a call to lazyarr (`numpy.array(x, subok=True)`, `numpy.float32(x)`).
            self.__class__ = OwnArray  # type: ignore[assignment]
            return
        is_view = isinstance(template, LazyArray)
        attributes = self.__dict__  # for each view: not by way of __setattr__
        attributes["_node"] = template._node if is_view else None
        attributes["_memory"] = template._memory if is_view else None
        attributes["_rows"] = _NOT_ASKED

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute."""
        super().__setattr__(name, value)
        # With another shape or data type, rows lie elsewhere.
        if name in _SHAPING:
            self.__dict__["_rows"] = _NOT_ASKED

    def _forget_views(self) -> None:
        """Do without the views of its memory that this array keeps, until they are needed again."""
        self.__dict__["_rows"] = _NOT_ASKED

    # --- description ------------------------------------------------------------------

    @property
    def _source(self) -> ArrayRef:
        """The stored array; NotStoredError where there is none."""
        if self._node is None:
            raise NotStoredError(
                "this array has no store behind it: it is a copy; ask the array that was opened"
            )
        return self._node

    @property
    def _region(self) -> Region | None:
        """The memory of the stored array, as it is mapped in this process; None without memory."""
        # A child that C code has forked has called no hook.  It finds out here, and joins the
        # pager before it touches anything.
        if not HERE[0]:
            arrive()
        return None if self._memory is None else self._memory.region

    def __repr__(self) -> str:
        if self._node is None:
            return repr(np.asarray(self))
        return self._described()

    def __dir__(self) -> list[str]:
        """Return the names of all attributes but one for NumPy, which reads."""
        # Debuggers and `inspect.getmembers` get the value of each name.
        return [name for name in super().__dir__() if name != "_baseclass"]

    @property
    def data(self) -> memoryview:
        """The memory itself, of which nothing is requested; see `numpy.ndarray.data`.

        Without full rights a system call that is given it may fail (``docs/rights.md``).
        """
        # NumPy's own asks `__buffer__` from Python 3.12 on, which loads the array.
        return self.view(np.ndarray).data

    def __str__(self) -> str:
        """Return the elements as NumPy prints them; of a large array only the corners are read."""
        if self.size <= np.get_printoptions()["threshold"]:
            return str(self._loaded())
        return str(self._with_corners())

    def _with_corners(self) -> np.ndarray[Any, Any]:
        """Return the plain array after a request for the corners that NumPy prints."""
        plain, region = self.view(np.ndarray), self._region
        if region is not None:
            edge = np.get_printoptions()["edgeitems"]
            indexing.request_all(region, indexing.units_of_corners(region, plain, edge))
        return plain

    def __format__(self, spec: str) -> str:
        """Return `str` of the array, or its only element formatted."""
        return str(self) if self.ndim and not spec else format(self._loaded(), spec)

    # --- memory -----------------------------------------------------------------------

    def _units(self, *, to_load: bool = True) -> list[Span]:
        """Return the units of this view; see `indexing.units_of_view`."""
        region = self._region
        return [] if region is None else indexing.units_of_view(region, self, to_load=to_load)

    def prefetch(self, index: Any = ..., *, wait: bool = True, progress: bool = False) -> None:
        """Bring a part of the array into memory.

        Parameters
        ----------
        index : index, optional
            The part; all of the array by default.
        wait : bool
            Whether to wait until the part is in memory.  Without, a chunk that cannot be had is
            an error when it is touched.
        progress : bool
            Whether to show a progress bar on stderr.

        Raises
        ------
        ChunkError
            When a chunk cannot be had, and `wait` is true.
        ValueError
            When the part is larger than the memory limit.
        """
        from lazyarr.client.arrays.prefetch import prefetch_units

        if self._region is not None:
            units = indexing.units_of_index(self._region, np.asarray(self), index)
            prefetch_units(self._region, units, wait=wait, progress=progress)
            if wait:
                self._region.owner.map_here(self._region, units)

    def evict(self) -> None:
        """Take this array, or the chunks of this view, out of memory.

        They are read again on the next touch.  Memory of mode ``"c"`` stays, for it may have
        been written to.
        """
        region = self._region
        if region is not None:
            region.arriving = ()
            for span in self._units(to_load=False):
                region.owner.evict(region, span)

    def flush(self, *, progress: bool = False) -> FlushReport:
        """Have what was written to this array, or to the chunks of this view, be in the store.

        It is there durably when this returns.  What is not flushed is written back when there is
        no more room for it, when a dataset is closed, and at the end.

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
            In mode ``"c"``, in which changes stay in this process.
        """
        if self._node is None:
            return self._flush_elements(progress=progress)
        return self._flush_with_attributes(lambda: self._flush_elements(progress=progress))

    def _flush_elements(self, *, progress: bool) -> FlushReport:
        """Have what was written to the units of this view be in the store."""
        # Here, for few arrays are written to.
        from lazyarr.client.session.flushing import flush_regions

        region, units = self._region, self._units(to_load=False)
        if region is None or not units:
            return flush_regions([])
        # One range for a strided view: what lies between its units is written back too.
        return flush_regions([(region, Span(units[0].start, units[-1].stop))], progress=progress)

    def _retire(self) -> FlushReport:
        """Have what was written be in the store, and let nobody write to the array any more.

        For an array that another takes the place of, as after `append`.  It keeps its values.

        Raises
        ------
        StoreError
            When something could not be written.  The array is as it was then.
        """
        began_at, region = time.monotonic(), self._region
        counts = (0, 0) if region is None else region.owner.retire_region(region)
        self.flags.writeable = False
        return FlushReport(*counts, time.monotonic() - began_at)

    def advise(self, advice: str) -> None:
        """Say how this array, or this view, will be read.

        Parameters
        ----------
        advice : {"normal", "sequential", "random"}
            ``"normal"``: what is read in order, forwards, backwards or in strides, is read
            ahead as soon as that shows.  ``"sequential"``: from the first touch on, with a
            larger window.  ``"random"``: nothing is read ahead.

        Raises
        ------
        ValueError
            For any other word.

        Notes
        -----
        It is a hint, holds for all processes that share the memory, and is forgotten when
        the pager's worker dies.  How much is read ahead is set by
        ``lazyarr.configure(readahead=...)``.
        """
        indexing.check_advice(advice)
        region = self._region
        units = self._units(to_load=False)
        if region is not None and units:
            # One range for a strided view: the units between its own are read the same way.
            hull = Span(units[0].start, units[-1].stop)
            region.owner.advise(region, hull, advice)

    def residency(self) -> Residency:
        """Return how much of this array, or of this view, is in memory.

        Waits a moment for chunks of which a row was read while the rest was on its way.
        """
        # Here, for few programs ask for it, and each module takes some of the time of opening.
        from lazyarr.client.arrays import residency

        if self._region is not None and self._region.arriving:
            residency.await_arriving(self._region)
        return residency.residency_of(self._region, self._units(to_load=False))

    def _fast_rows(self) -> Rows | None:
        """Return the fast path to rows of this array; None where it has none."""
        # Found at the first index.  At each view it would slow slicing down, and many
        # views are never indexed.
        rows = self._rows
        if rows is _NOT_ASKED:
            rows = self._rows = maybe_rows(self._memory, self)
        return rows

    def _units_of_index(self, region: Region, key: Any) -> list[Span]:
        """Return the units that an advanced index needs."""
        rows, fast_rows = indexing.as_rows(key), self._fast_rows()
        if rows is not None and fast_rows is not None:
            return fast_rows.units_of(rows)
        return indexing.units_of_index(region, np.asarray(self), key)

    def _asked(self) -> np.ndarray[Any, Any] | MappedOperand:
        """Return the plain array after a request for all of it; an operand if it is too large."""
        region = self._region
        plain = self.view(np.ndarray)
        if region is None:
            return plain
        rows = self._fast_rows()
        units = self._units() if rows is None else [rows.units(0, rows.n_rows)]
        try:
            if indexing.request(region, units):
                return plain
        except ChunkError:
            return self._own_chunks()
        # Imported here: most arrays are small, or are read by rows.
        from lazyarr.client.arrays.passes import MappedOperand

        return MappedOperand(region, plain)

    def _own_chunks(self) -> np.ndarray[Any, Any]:
        """Return a copy, read chunk by chunk, after a request for the whole array has failed."""
        from lazyarr.client.arrays.own_chunks import read_own_chunks

        assert self._region is not None
        return read_own_chunks(self._region, self.view(np.ndarray))

    def _is_large(self) -> bool:
        """Return whether the array is too large for one request."""
        region = self._region
        return region is not None and indexing.is_too_much(region, self._units())

    def _loaded(self) -> np.ndarray[Any, Any]:
        """Return the whole array as a plain one, after a request for it; a copy if it is large."""
        asked = self._asked()
        return asked if isinstance(asked, np.ndarray) else asked.whole()

    def _to_write(self) -> np.ndarray[Any, Any]:
        """Return the plain array to be written to, loaded; raise what `_asked_to_write` does."""
        asked = self._asked_to_write()
        if isinstance(asked, np.ndarray):
            return asked
        asked.require()
        return asked.view

    def _asked_to_write(self) -> np.ndarray[Any, Any] | MappedOperand:
        """Return the plain array after a request to write to it; an operand if it is too large.

        Raises
        ------
        ChunkError
            When it cannot be had.
        ValueError
            When it is read-only.
        """
        self._require_writable()
        # Loaded first: C code that writes to a part of a page would fault on it, and a chunk that
        # cannot be had would be SIGBUS.
        plain, region = self.view(np.ndarray), self._region
        if region is None:
            return plain
        if indexing.ask_to_write(region, indexing.units_of_view(region, plain)):
            return plain
        from lazyarr.client.arrays.writing import WritableOperand

        return WritableOperand(region, plain)

    # --- picking ------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        """Return a lazy view for slices, plain elements for integers and index arrays."""
        # A resident row is two calls: this one, and NumPy's on the plain array.  So the tests for
        # it come first, in the order of their cost.
        if type(key) is slice:
            return super().__getitem__(key)
        place = key[0] if type(key) is tuple and key else key
        if type(place) is int or isinstance(place, np.integer):
            rows = self._rows
            if rows is _NOT_ASKED:
                rows = self._fast_rows()
            if rows is not None and -rows.n_rows <= place < rows.n_rows:
                row = int(place) if place >= 0 else int(place) + rows.n_rows
                unit = (rows.first + row) // rows.per_unit
                if not (HERE[0] and rows.region.residency[unit]):
                    try:
                        rows.load(unit, row)
                    except ChunkError:
                        return self._pick_own_chunks(key)
                return rows.plain[key]
        return self._get(key)

    def _get(self, key: Any) -> Any:
        """Return what an index selects, where it is neither a slice nor a row of the fast path."""
        region = self._region
        if region is None or (isinstance(key, str | list) and _is_fields(key)):
            return super().__getitem__(key)
        if not indexing.is_basic(key):
            return self._gather(region, _read(key))
        if not indexing.is_pick(key, self.ndim):
            return super().__getitem__(key)
        view = indexing.basic_view(np.asarray(self), key)
        try:
            if not indexing.request(region, indexing.units_of_view(region, view)):
                return super().__getitem__(key)
        except ChunkError:
            return self._pick_own_chunks(key)
        return self.view(np.ndarray)[key]

    def _pick_own_chunks(self, key: Any) -> Any:
        """Return the elements of an index, read chunk by chunk, after their request has failed."""
        from lazyarr.client.arrays.own_chunks import copying_view

        assert self._region is not None
        picked = copying_view(self._region, self.view(np.ndarray))[key]
        return picked if isinstance(picked, np.generic) else np.asarray(picked)

    def _gather(self, region: Region, key: Any) -> Any:
        """Return the elements that an advanced index selects."""
        plain = self.view(np.ndarray)
        try:
            if indexing.request(region, self._units_of_index(region, key)):
                return plain[key]
            from lazyarr.client.arrays import gathering

            return gathering.pick(region, plain, key)
        except ChunkError:
            return self._pick_own_chunks(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Change elements: in mode ``"r+"`` of the store, in ``"c"`` in this process alone.

        In mode ``"r+"`` they are in memory, which all processes of the pager share, and are
        written back by `flush`, by `close`, when there is no more room, and at the end.

        Raises
        ------
        ChunkError
            When a chunk that would be changed cannot be had.  Nothing is changed then, unless the
            index needs more chunks than there is room for at once.
        StoreError
            When there is no room, because what was written before cannot be written back.
        ValueError
            When the array is read-only.
        """
        self._require_writable()
        is_plain = type(value) is np.ndarray or isinstance(value, _PLAIN_VALUES)
        if is_plain and self._assign_row(key, value):
            return
        region, key, value = self._region, _read(key), _asked(value)
        plain = self.view(np.ndarray)
        if region is None:
            plain[key] = _whole(value)
            return
        from lazyarr.client.arrays import writing

        writing.assign(region, plain, key, value)

    def _assign_row(self, key: Any, value: Any) -> bool:
        """Assign within a row whose unit can be written to as it is; return whether it could."""
        place = key[0] if type(key) is tuple and key else key
        if type(place) is not int:
            return False
        rows = self._fast_rows()
        if rows is None or rows.region.is_forbidden or not HERE[0]:
            return False
        if not -rows.n_rows <= place < rows.n_rows:
            return False
        row = place if place >= 0 else place + rows.n_rows
        if rows.region.residency[(rows.first + row) // rows.per_unit] != RESIDENT | DIRTY:
            return False
        rows.plain[key] = value
        return True

    def _is_writable(self) -> bool:
        """Return whether elements can be changed: not after another array has taken its place."""
        region = self._region
        return self.flags.writeable and (region is None or not region.is_retired)

    def _require_writable(self) -> None:
        """Raise ValueError unless elements can be changed: before anything is read for that."""
        if not self._is_writable():
            region = self._region
            raise ValueError(READ_ONLY if region is None or not region.is_retired else RETIRED)

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the leading axis."""
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def take(  # type: ignore[override]  # NumPy has overloads by type of index
        self, indices: Any, axis: int | None = None, out: Any = None, mode: Any = "raise"
    ) -> Any:
        """Return elements by index, as `numpy.take`."""
        region = self._region
        indices = _read(indices)
        places = np.asarray(indices)
        if axis is None and self.flags.c_contiguous and self.ndim != 1:
            return self.reshape(-1).take(indices, 0, out, mode)
        axis = 0 if axis is None and self.ndim == 1 else axis
        is_plain = axis is not None and -self.ndim <= axis < self.ndim and mode == "raise"
        if region is None or not is_plain or out is not None:
            how = {"out": out, "mode": mode}
            return self._call("take", np.ndarray.take, (indices, axis), how)
        if not np.issubdtype(places.dtype, np.integer):
            return self.view(np.ndarray).take(indices, axis)
        before = (slice(None),) * range(self.ndim)[axis]  # type: ignore[index]  # is_plain says so
        return self._gather(region, (*before, places) if before else places)

    def item(self, *args: Any) -> Any:
        """Return an element as Python has it, as `numpy.ndarray.item`; its chunk alone is read."""
        place = place_of_item(self.shape, args)
        if place is None:  # NumPy refuses that, and reads nothing
            return np.ndarray.item(self.view(np.ndarray), *args)
        return self[place].item()

    # --- computing ------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """Load the operands, then compute on the plain arrays; on large arrays part by part."""
        # Plain arrays for NumPy, so that a chunk that cannot be had is an exception here, and no
        # signal while machine code computes.
        outputs = kwargs.get("out")
        if isinstance(kwargs.get("where"), LazyArray):
            kwargs["where"] = kwargs["where"]._loaded()
        if outputs:
            for out in outputs:
                if isinstance(out, LazyArray):
                    out._require_writable()
            kwargs["out"] = tuple(_asked_to_write(out) for out in outputs)
        first = _to_write_at(*inputs[:2]) if method == "at" else _asked(inputs[0])
        asked = (first, *(_asked(value) for value in inputs[1:]))
        result = NotImplemented
        if _has_operand((*asked, *kwargs.get("out", ()))):
            from lazyarr.client.arrays import large

            result = large.call_ufunc(ufunc, method, asked, kwargs)
        if result is NotImplemented:
            if outputs:
                kwargs["out"] = tuple(_required(out) for out in kwargs["out"])
            result = getattr(ufunc, method)(*_whole(asked), **kwargs)
        return outputs[0] if outputs and len(outputs) == 1 else result

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """Load the operands, then call the function on the plain arrays."""
        if func in IMITATING_FUNCTIONS and args:
            args = (_plain(args[0]), *args[1:])
        if func is np.take and isinstance(args[0], LazyArray):
            return super().__array_function__(func, types, (args[0], *_read(args[1:])), kwargs)
        if func in FREE_FUNCTIONS:
            if func in (np.broadcast_to, np.broadcast_arrays):
                kwargs = {"subok": True, **kwargs}
            return super().__array_function__(func, types, args, kwargs)
        if func in CHANGING_FUNCTIONS and args and isinstance(args[0], LazyArray):
            result = _change(func, args, kwargs)
            if result is not NotImplemented:
                return result
            args = (args[0]._to_write(), *args[1:])
        if isinstance(kwargs.get("out"), LazyArray):
            func(*args, **{**kwargs, "out": kwargs["out"]._to_write()})
            return kwargs["out"]
        if func in PRINTING_FUNCTIONS and args[0].size > np.get_printoptions()["threshold"]:
            return func(args[0]._with_corners(), *args[1:], **kwargs)
        if not _has_large((args, kwargs)):
            if func is np.save:
                args = replace_items(args, _steady)
            return func(*_read(args), **_read(kwargs))
        from lazyarr.client.arrays import large

        n_kept = large.n_delegated(func, args)
        if n_kept:
            args, kwargs = (*args[:n_kept], *_read(args[n_kept:])), _read(kwargs)
            return super().__array_function__(func, types, args, kwargs)
        asked_args, asked_kwargs = _asked(args), _asked(kwargs)
        result = large.call_function(func, asked_args, asked_kwargs)
        if result is NotImplemented:
            result = func(*_whole(asked_args), **_whole(asked_kwargs))
        return result

    def _call(self, name: str, plain: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Return what a method of ndarray returns; of a large array by parts, or of a copy."""
        out = kwargs.get("out")
        if isinstance(out, LazyArray):
            self._call(name, plain, args, {**kwargs, "out": out._to_write()})
            return out
        args, kwargs = _read(args), _read(kwargs)
        if name == "byteswap" and any((*args[:1], kwargs.get("inplace"))):
            return self._swap_in_place()
        asked = self._asked()
        if isinstance(asked, np.ndarray):
            return plain(_steady(self) if name == "tofile" else asked, *args, **kwargs)
        from lazyarr.client.arrays import large

        result = large.call_method(name, self, asked, args, kwargs)
        return plain(asked.whole(), *args, **kwargs) if result is NotImplemented else result

    def _swap_in_place(self) -> LazyArray:
        """Reverse the bytes of each element, and return this array."""
        region, asked = self._region, self._asked_to_write()
        if region is None or isinstance(asked, np.ndarray):
            self.view(np.ndarray).byteswap(inplace=True)
            return self
        from lazyarr.client.arrays.writing import apply_along

        apply_along(region, asked.view, None, lambda part: part.byteswap(inplace=True))
        return self

    def __eq__(self, other: object) -> Any:
        """Return where elements are equal; with None, which none is, nothing is read."""
        known = compare_with_none(self, other, np.equal)
        return super().__eq__(other) if known is None else known

    def __ne__(self, other: object) -> Any:
        """Return where elements differ."""
        known = compare_with_none(self, other, np.not_equal)
        return super().__ne__(other) if known is None else known

    __hash__ = None  # as ndarray's

    def astype(  # type: ignore[override]  # NumPy has overloads by data type
        self,
        dtype: Any,
        order: Any = "K",
        casting: Any = "unsafe",
        subok: bool = True,  # noqa: FBT001, FBT002 - NumPy's signature
        copy: bool = True,  # noqa: FBT001, FBT002 - NumPy's signature
    ) -> Any:
        """Return a copy of another data type; the array itself where no copy is needed."""
        if not copy and subok and order == "K" and np.dtype(dtype) == self.dtype:
            return self
        return self._call("astype", np.ndarray.astype, (dtype, order, casting, subok, copy), {})

    __array_wrap__ = _array_wrap

    @property
    def _baseclass(self) -> type[np.ndarray[Any, Any]]:
        """The class of the data of masked arrays that are made of this array (`numpy.ma`)."""
        # Masked arrays work on plain data, and never call lazyarr again.  So as much as fits is
        # loaded now, where a chunk that cannot be had is still an exception.
        self._asked()
        return np.ndarray

    @property
    def imag(self) -> Any:
        """The imaginary parts: a lazy view, or plain zeros where the elements have none."""
        array = self if self.dtype.kind == "c" else self.view(np.ndarray)
        return np.ndarray.imag.__get__(array)

    @imag.setter
    def imag(self, value: Any) -> None:
        if self.dtype.kind != "c":
            np.ndarray.imag.__set__(self, value)  # type: ignore[attr-defined]  # raises
        self.imag[...] = value

    @property
    def real(self) -> Any:
        """The real parts: a lazy view."""
        return np.ndarray.real.__get__(self)

    @real.setter
    def real(self, value: Any) -> None:
        self.real[...] = value

    def squeeze(self, axis: Any = None) -> Any:
        """Return a lazy view without the axes of length one."""
        # NumPy's own passes it through `__array_wrap__`, as a result, and it would be plain.
        view = self.view(np.ndarray).squeeze(axis).view(type(self))
        view._node, view._memory = self._node, self._memory
        return view

    def reshape(self, *shape: Any, **kwargs: Any) -> Any:
        """Return a lazy view of another shape where there is one, else a plain copy."""
        is_view = self.flags.c_contiguous and not kwargs.get("copy")
        if is_view and kwargs.get("order", "C") in "CK":
            return super().reshape(*shape, **kwargs)
        return self._loaded().reshape(*shape, **kwargs)

    def ravel(self, order: Any = "C") -> Any:
        """Return a lazy flat view where there is one, else a plain copy."""
        if self.flags.c_contiguous and order in "CKA":
            return super().ravel(order)
        return self._loaded().ravel(order)

    def __buffer__(self, flags: int, /) -> memoryview:
        """Give the bytes to C code, after a request for them.

        Called by Python 3.12 and later (PEP 688).
        """
        # C code may pass them to a system call.  Without full rights the kernel does not wait for
        # a page there, and a resident unit may be mapped in another process alone.  One that is to
        # be written to may be protected, until it was asked for.
        is_to_write = flags & _PYBUF_WRITABLE and self._is_writable()
        plain, units = self._to_write() if is_to_write else self._loaded(), self._units()
        if self._region is not None and not indexing.is_too_much(self._region, units):
            self._region.owner.map_here(self._region, units)
        return np.ndarray.__buffer__(plain, flags)  # type: ignore[attr-defined,no-any-return,unused-ignore]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle as a reference; see `__reduce__`."""
        return self.__reduce__()

    def __reduce__(self) -> Any:
        """Pickle as a reference: store, array and selection, and what was written here.

        Raises
        ------
        ValueError
            When more was written, in mode ``"c"``, than goes with a reference.
        """
        if self._node is None:
            return np.asarray(self).__reduce__()
        # First of all: in a child that C code has forked this makes the array's memory safe, and
        # what is imported could come to lie in its place.
        region = self._region
        from lazyarr.client.pickling.references import reduce_view
        from lazyarr.client.pickling.shared_reference import reference_of

        origin = None if region is None else reference_of(region, self._source)
        changes = self._changes()
        return reduce_view(
            self._source, self._start(), self.dtype, self.shape, self.strides, origin, changes
        )

    def _start(self) -> int:
        """Return where this view begins in the memory of the stored array, in bytes."""
        region = self._region
        if region is None:
            return 0
        address: int = self.__array_interface__["data"][0]
        return address - region.address

    def _changes(self) -> Changes:
        """Return what was written here and is not in the store."""
        # What is written in mode "r+" is in memory that the other process shares, or in the store.
        if self._region is None or self._source.mode != "c":
            return ()
        # Imported here: few arrays are written to and pickled.
        from lazyarr.client.pickling.changes import find_changes

        return find_changes(self._region, self.view(np.ndarray))

    def _write_changes(self, changes: Changes) -> None:
        """Write into this memory what another process had written to the same array."""
        if self._region is not None and changes:
            from lazyarr.client.pickling.changes import write_changes

            write_changes(self._region, changes)

    def copy(self, order: Any = "C") -> Any:
        """Return a plain copy."""
        return self if self._is_for_dask() else self._call("copy", np.ndarray.copy, (order,), {})

    def to_dask(self, chunks: Any = None) -> dask.array.Array:
        """Return the same elements as an array of dask's; nothing is read.

        Parameters
        ----------
        chunks : optional
            Blocks, as `dask.array.from_array` takes them; by default the stored array's chunks.
            ``"auto"``: as many whole chunks as dask likes blocks to have.

        Notes
        -----
        Tasks hold a reference to the array.  A worker on the same machine gets the pages that are
        there; one on another opens the store itself.

        Examples
        --------
        >>> import lazyarr, numpy, tempfile
        >>> directory = tempfile.TemporaryDirectory()
        >>> lazyarr.save(f"{directory.name}/x.zarr", numpy.arange(12).reshape(4, 3), chunks=2)
        >>> blocks = lazyarr.open(f"{directory.name}/x.zarr").to_dask()
        >>> blocks.chunks, int(blocks.sum().compute(scheduler="sync"))
        (((2, 2), (3,)), 66)
        >>> directory.cleanup()
        """
        with needing("dask"):
            from lazyarr.integrations.dask import from_array

            return from_array(self, chunks)

    def __deepcopy__(self, _: Any) -> np.ndarray[Any, Any]:  # type: ignore[override]
        """Return a plain copy."""
        copied: np.ndarray[Any, Any] = self.copy()
        return copied


def _is_fields(key: Any) -> bool:
    """Return whether an index names fields of a structured data type."""
    return isinstance(key, str) or (bool(key) and all(isinstance(item, str) for item in key))


def _plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, LazyArray) else value


def _read(value: Any) -> Any:
    """Return a value with the lazy arrays in it replaced by plain ones that are loaded."""
    return replace_items(
        value, lambda item: item._loaded() if isinstance(item, LazyArray) else item
    )


def _asked(value: Any) -> Any:
    """Return a value with the lazy arrays in it replaced by plain ones, or by operands."""
    return replace_items(value, lambda item: item._asked() if isinstance(item, LazyArray) else item)


def _whole(value: Any) -> Any:
    """Return a value with the operands in it replaced by plain arrays."""
    return replace_items(value, lambda item: item.whole() if _is_operand(item) else item)


def _is_operand(value: Any) -> bool:
    """Return whether a value stands for a large array, without importing its class for that."""
    return getattr(type(value), "is_operand", False) is True


def _has(value: Any, is_wanted: Callable[[Any], bool]) -> bool:
    """Return whether a value is wanted, or an item in its lists, tuples and dicts."""
    if type(value) in (list, tuple):
        return any(_has(item, is_wanted) for item in value)
    if type(value) is dict:
        return any(_has(item, is_wanted) for item in value.values())
    return is_wanted(value)


def _has_operand(value: Any) -> bool:
    return _has(value, _is_operand)


def _has_large(value: Any) -> bool:
    return _has(value, lambda item: isinstance(item, LazyArray) and item._is_large())


def _steady(value: Any) -> Any:
    """Return a value, which may be a lazy array, so that a system call can read it."""
    # With user-mode-only rights the kernel does not wait for a page in a system call, and a
    # resident page may be mapped in another process alone.  A copy has no such pages.
    region = value._region if isinstance(value, LazyArray) else None
    if region is None:
        return value
    return value.copy("K") if region.owner.is_user_mode_only else value._loaded()


def readable_by_calls(buffer: Any) -> Any:
    """Return a buffer, or a copy of its bytes where a system call could not read it.

    As `_steady` does, of plain arrays in lazyarr's memory and parts of them.
    """
    live = current_session()
    if isinstance(buffer, bytes) or live is None or not live.is_user_mode_only:
        return buffer
    view = memoryview(buffer)
    if not (view.nbytes and view.c_contiguous) or live.find(buffer_address(buffer)) is None:
        return buffer
    return view.tobytes()


def _asked_to_write(value: Any) -> Any:
    """Return a value, which may be a lazy array, as a plain array or operand to be written to."""
    return value._asked_to_write() if isinstance(value, LazyArray) else value


def _required(value: Any) -> Any:
    """Return an output as a plain array, each part of which was loaded once."""
    if not _is_operand(value):
        return value
    value.require()
    return value.view


def _to_write_at(value: Any, indices: Any) -> Any:
    """Return a value, which may be a lazy array, to be written to at some places."""
    if not isinstance(value, LazyArray):
        return value
    value._require_writable()
    plain, region = value.view(np.ndarray), value._region
    if region is not None:
        indexing.ask_all_to_write(region, indexing.units_of_index(region, plain, _read(indices)))
    return plain


def _change(func: Any, args: Any, kwargs: Any) -> Any:
    """Return what a function does that changes its first argument; NotImplemented for NumPy's."""
    array, region = args[0], args[0]._region
    if region is None or not array._is_writable():
        return NotImplemented
    if func is np.put:
        return array.put(*args[1:], **kwargs)
    if func is not np.copyto or not array._is_large():
        return NotImplemented
    from lazyarr.client.arrays import writing

    source, casting, where = _copyto_arguments(*args, **kwargs)
    return writing.copy_to(region, array.view(np.ndarray), _asked(source), casting, _asked(where))


def _copyto_arguments(
    _: Any,
    src: Any,
    casting: str = "same_kind",
    where: Any = True,  # noqa: FBT002 - NumPy's signature
) -> tuple[Any, str, Any]:
    return src, casting, where


def _scalar_method(name: str) -> Callable[..., Any]:
    plain = getattr(np.ndarray, name)

    def method(self: LazyArray) -> Any:
        # NumPy refuses more elements than one before it reads any.
        return plain(self._loaded() if self.size == 1 else self.view(np.ndarray))

    return _named(method, name)


def _reading_method(name: str) -> Callable[..., Any]:
    plain = getattr(np.ndarray, name)

    def method(self: LazyArray, *args: Any, **kwargs: Any) -> Any:
        return self._call(name, plain, args, kwargs)

    return _named(method, name)


def _changing_method(name: str) -> Callable[..., Any]:
    plain = getattr(np.ndarray, name)

    def method(self: LazyArray, *args: Any, **kwargs: Any) -> Any:
        args, kwargs, region = _read(args), _read(kwargs), self._region
        if region is not None and self._is_writable():
            from lazyarr.client.arrays import changing

            if changing.change(name, region, self.view(np.ndarray), args, kwargs):
                return None
        return plain(self._to_write(), *args, **kwargs)

    return _named(method, name)


def _named(method: Any, name: str) -> Callable[..., Any]:
    method.__name__ = name
    method.__qualname__ = f"LazyArray.{name}"
    method.__doc__ = f"Return what `numpy.ndarray.{name}` does, after a request for the array."
    return method  # type: ignore[no-any-return]


for _name in set(READING_METHODS) - set(vars(LazyArray)):
    setattr(LazyArray, _name, _reading_method(_name))
for _name in SCALAR_METHODS:
    setattr(LazyArray, _name, _scalar_method(_name))
for _name in CHANGING_METHODS:
    setattr(LazyArray, _name, _changing_method(_name))

if "dask.tokenize" in sys.modules:
    # dask has called that when it was imported, unless lazyarr's entry points cannot be found, as
    # in programs that are frozen.  distributed never does.
    from lazyarr.integrations.dask import register

    register(lambda: (LazyArray, readable_by_calls))
