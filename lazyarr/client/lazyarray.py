"""The array that users hold."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import numpy as np

from lazyarr import settings
from lazyarr.client import picking, walks
from lazyarr.client.attributes import StoredAttributes
from lazyarr.client.numpy_names import FREE_FUNCTIONS, READING_METHODS
from lazyarr.client.residency import Residency, await_arriving, residency_of
from lazyarr.client.rows import Rows, maybe_rows
from lazyarr.errors import LazyarrError
from lazyarr.units import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lazyarr.client.node import ArrayNode
    from lazyarr.client.region import Memory, Region

__all__ = ["LazyArray"]


class _NotAsked(enum.Enum):
    """Stands for what nobody has looked for yet."""

    NOT_ASKED = "not asked"


_NOT_ASKED = _NotAsked.NOT_ASKED


class LazyArray(StoredAttributes, np.ndarray[Any, Any]):
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
    its pages with the parent.  It pickles as a reference to the stored array.

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

    _node: ArrayNode | None
    _memory: Memory | None
    _rows: Rows | _NotAsked | None

    def __new__(cls, *_: Any, **__: Any) -> LazyArray:
        """Refuse: an array without a store behind it would never fill."""
        raise TypeError("LazyArray is made by lazyarr.open(...), not by calling it")

    def __array_finalize__(self, template: Any) -> None:
        """Keep the tie to the store, unless this is memory of its own."""
        owns_memory = self.base is None
        self._node = None if owns_memory else getattr(template, "_node", None)
        self._memory = None if owns_memory else getattr(template, "_memory", None)
        self._rows = _NOT_ASKED

    # --- what it says of itself -----------------------------------------------------

    @property
    def _source(self) -> ArrayNode:
        if self._node is None:
            raise LazyarrError("this array has no store behind it: it is a copy")
        return self._node

    @property
    def _region(self) -> Region | None:
        return None if self._memory is None else self._memory.region

    def __repr__(self) -> str:
        if self._node is None:
            return repr(np.asarray(self))
        here = self.residency()
        return (
            f"<LazyArray {self.path or '/'} {self.shape} {self.dtype}, "
            f"{here.resident_units} of {here.total_units} units resident, {self.url}>"
        )

    def __str__(self) -> str:
        """Return the elements as NumPy shows them; of a large array its corners are read alone."""
        options, region = np.get_printoptions(), self._region
        if self.size <= options["threshold"] or region is None:
            return str(self._loaded())
        plain = self.view(np.ndarray)
        corners = picking.units_of_corners(region, plain, options["edgeitems"])
        picking.request(region, corners)
        return str(plain)

    def __format__(self, spec: str) -> str:
        """Return `str` of it, or of its only element as the format says."""
        return str(self) if self.ndim and not spec else format(self._loaded(), spec)

    # --- memory -----------------------------------------------------------------------

    def _units(self, *, to_load: bool = True) -> list[Span]:
        region = self._region
        return [] if region is None else picking.units_of_view(region, self, to_load=to_load)

    def prefetch(self, index: Any = ..., *, wait: bool = True, progress: bool = False) -> None:
        """Have a part of the array brought into memory.

        Parameters
        ----------
        index : index, optional
            Which part; all of it by default.
        wait : bool
            Whether to wait until it is there; without it, what fails is reported
            when it is touched.
        progress : bool
            Whether to show a progress bar on stderr.

        Raises
        ------
        ChunkError
            When a chunk can not be had, and `wait` is true.
        ValueError
            When the part is larger than the memory limit.
        """
        from lazyarr.client.prefetch import prefetch_units

        if self._region is not None:
            units = picking.units_of_index(self._region, np.asarray(self), index)
            prefetch_units(self._region, units, wait=wait, progress=progress)
            if wait:
                self._region.owner.map_here(self._region, units)

    def evict(self) -> None:
        """Have this array, or the chunks of this view, taken out of memory.

        They are read again on the next touch.  Memory of mode ``"c"`` stays: it may
        hold what was written.
        """
        region = self._region
        if region is not None:
            region.arriving = ()
            for span in self._units(to_load=False):
                region.owner.evict(region, span)

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
        picking.check_advice(advice)
        region = self._region
        units = self._units(to_load=False)
        if region is not None and units:
            # What lies between the units of a strided view is read the same way.
            hull = Span(units[0].start, units[-1].stop)
            region.owner.advise(region, hull, advice)

    def residency(self) -> Residency:
        """Return how much of this array, or of this view, is in memory.

        Chunks of which a row was given while the rest was on its way are waited for, for a
        moment.
        """
        if self._region is not None and self._region.arriving:
            await_arriving(self._region)
        return residency_of(self._region, self._units(to_load=False))

    def _short_way(self) -> Rows | None:
        """Return how places of the leading axis are found quickly, if they can be."""
        rows = self._rows
        if rows is _NOT_ASKED:
            rows = self._rows = maybe_rows(self._memory, self)
        return rows

    def _units_of_index(self, region: Region, key: Any) -> list[Span]:
        """Return the units that an advanced index needs."""
        rows, short_way = picking.as_rows(key), self._short_way()
        if rows is not None and short_way is not None:
            return short_way.units_of(rows)
        return picking.units_of_index(region, np.asarray(self), key)

    def _loaded(self, walk: walks.Walk = None) -> np.ndarray[Any, Any]:
        """Return the plain array after asking for all of it, if it is not too much at once.

        If it is, and the walk would have chunks loaded again and again, a copy is returned
        that was made in the order of the memory; and for a system call that does not wait for
        pages, for what is resident need not be mapped in this process.
        """
        region = self._region
        plain = self.view(np.ndarray)
        if region is None:
            return plain
        rows = self._short_way()
        units = self._units() if rows is None else [rows.units(0, rows.n_rows)]
        needs_copy = walk == "kernel" and region.owner.is_user_mode_only
        if not picking.request(region, units) and not plain.flags.writeable:
            room_nbytes = settings.current().memory_limit
            needs_copy |= walks.comes_back(plain.shape, plain.strides, walk, room_nbytes)
        if needs_copy:
            plain = plain.copy("K")
            plain.flags.writeable = False
        return plain

    # --- picking ------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        """Return a lazy view for slices, plain elements for picks."""
        if type(key) is slice:
            return super().__getitem__(key)
        place = key[0] if type(key) is tuple and key else key
        if type(place) is int or isinstance(place, np.integer):
            rows = self._short_way()
            if rows is not None and -rows.n_rows <= place < rows.n_rows:
                row = int(place) if place >= 0 else int(place) + rows.n_rows
                unit = (rows.first + row) // rows.per_unit
                if not rows.region.residency[unit]:
                    rows.load(unit, row)
                return rows.plain[key]
        return self._get(key)

    def _get(self, key: Any) -> Any:
        region = self._region
        if region is None or (isinstance(key, str | list) and _is_fields(key)):
            return super().__getitem__(key)
        if not picking.is_basic(key):
            picking.request(region, self._units_of_index(region, key))
            return self.view(np.ndarray)[key]
        if not picking.is_pick(key, self.ndim):
            return super().__getitem__(key)
        view = picking.basic_view(np.asarray(self), key)
        if not picking.request(region, picking.units_of_view(region, view)):
            return super().__getitem__(key)
        return self.view(np.ndarray)[key]

    def __iter__(self) -> Iterator[Any]:
        """Give the places of the leading axis, one after the other."""
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def take(  # type: ignore[override]  # NumPy has overloads by type of index
        self, indices: Any, axis: int | None = None, out: Any = None, mode: Any = "raise"
    ) -> Any:
        """Return elements by index, as `numpy.take`."""
        plain = self.view(np.ndarray)
        region = self._region
        rows = np.asarray(indices)
        if region is None or axis not in (0, -self.ndim) or mode != "raise":
            plain = self._loaded()
        elif np.issubdtype(rows.dtype, np.integer):
            picking.request(region, picking.units_of_rows(region, plain, rows))
        return plain.take(indices, axis, out, mode)

    # --- computing ------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """Ask for the operands, then compute on the plain arrays."""
        outputs = kwargs.get("out")
        if outputs:
            kwargs["out"] = tuple(_plain(out) for out in outputs)
        walk = walks.of_ufunc(ufunc, method, inputs, kwargs)
        result = getattr(ufunc, method)(*_read(inputs, walk), **kwargs)
        return outputs[0] if outputs and len(outputs) == 1 else result

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """Ask for the operands, then call the function on the plain arrays."""
        if func in FREE_FUNCTIONS:
            return super().__array_function__(func, types, args, kwargs)
        walk = walks.of_function(func, args, kwargs)
        return func(*_read(args, walk), **_read(kwargs, walk))

    def __array_wrap__(
        self,
        array: Any,
        context: Any = None,
        return_scalar: bool = False,  # noqa: FBT001, FBT002 - NumPy's signature
    ) -> Any:
        """Return results as plain arrays and scalars."""
        plain = np.asarray(array)
        return plain[()] if return_scalar else plain

    def reshape(self, *shape: Any, **kwargs: Any) -> Any:
        """Return a lazy view of another shape where there is one, else a plain copy."""
        if self.flags.c_contiguous and kwargs.get("order", "C") in "CK":
            return super().reshape(*shape, **kwargs)
        return self._loaded(walks.of_method("ravel", (), kwargs)).reshape(*shape, **kwargs)

    def ravel(self, order: Any = "C") -> Any:
        """Return a lazy flat view where there is one, else a plain copy."""
        if self.flags.c_contiguous and order in "CKA":
            return super().ravel(order)
        return self._loaded(walks.of_method("ravel", (order,), {})).ravel(order)

    def __buffer__(self, flags: int, /) -> memoryview:
        """Give the bytes to C code after asking for them: a system call may not wait for them.

        Called by Python 3.12 and later (PEP 688).
        """
        plain, units = self._loaded(), self._units()
        if self._region is not None and not picking.is_too_much(self._region, units):
            self._region.owner.map_here(self._region, units)
        return np.ndarray.__buffer__(plain, flags)  # type: ignore[attr-defined,no-any-return,unused-ignore]

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle as a reference: store, array and selection, never the data."""
        return self.__reduce__()

    def __reduce__(self) -> Any:
        """Pickle as a reference: store, array and selection, never the data."""
        if self._node is None:
            return np.asarray(self).__reduce__()
        from lazyarr.client.opening import reduce_view
        from lazyarr.client.origin import origin_of

        region = self._region
        start = 0 if region is None else self.__array_interface__["data"][0] - region.address
        origin = None if region is None else origin_of(region, self._source)
        return reduce_view(self._source, start, self.dtype, self.shape, self.strides, origin)

    def __deepcopy__(self, _: Any) -> np.ndarray[Any, Any]:  # type: ignore[override]
        """Return a plain copy."""
        return self._loaded().copy()


def _is_fields(key: Any) -> bool:
    return isinstance(key, str) or (bool(key) and all(isinstance(item, str) for item in key))


def _plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, LazyArray) else value


def _read(value: Any, walk: walks.Walk) -> Any:
    """Return a value with the lazy arrays in it replaced by plain ones that are loaded."""
    if isinstance(value, LazyArray):
        return value._loaded(walk)
    if type(value) in (list, tuple):
        return type(value)(_read(item, walk) for item in value)
    if type(value) is dict:
        return {key: _read(item, walk) for key, item in value.items()}
    return value


def _reading_method(name: str) -> Callable[..., Any]:
    plain = getattr(np.ndarray, name)

    def method(self: LazyArray, *args: Any, **kwargs: Any) -> Any:
        return plain(self._loaded(walks.of_method(name, args, kwargs)), *args, **kwargs)

    method.__name__ = name
    method.__qualname__ = f"LazyArray.{name}"
    method.__doc__ = f"Return what `numpy.ndarray.{name}` does, after asking for the array."
    return method


for _name in READING_METHODS:
    setattr(LazyArray, _name, _reading_method(_name))
