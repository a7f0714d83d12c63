"""The array that users hold where there is no userfaultfd."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

import numpy as np

from lazyarr.client.arrays import indexing
from lazyarr.client.arrays.attributes import READ_ONLY, StoredAttributes
from lazyarr.client.arrays.one_element import place_of_item
from lazyarr.client.arrays.passes import Operand, part_of
from lazyarr.client.arrays.residency import Residency, residency_of
from lazyarr.client.arrays.writing import require_broadcast
from lazyarr.copying.delegation import DelegatingArray, is_fields
from lazyarr.copying.indexing import pick
from lazyarr.copying.operand import CopyingOperand
from lazyarr.copying.phantom import is_phantom, make_phantom, start_of
from lazyarr.parts import needing

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dask.array

    from lazyarr.client.array_ref import ArrayRef
    from lazyarr.client.pickling.changes import Changes
    from lazyarr.copying.phantom import Phantom
    from lazyarr.copying.stored import StoredArray
    from lazyarr.flush_report import FlushReport
    from lazyarr.units import Span

__all__ = ["CopyArray"]

_ANY = np.empty(0)  # says what NumPy says of every array


class CopyArray(StoredAttributes, DelegatingArray):
    """An array that loads what is asked for, and gives copies of it.

    What `lazyarr.open` gives in place of a `LazyArray` where the kernel does not let
    memory fill on touch.  It has the same attributes, methods and errors, and is used as
    an `numpy.ndarray` is, but it is none: ``numpy.asarray(x)`` reads all of it into new
    memory.  Slicing, transposing and reshaping are free and give another `CopyArray`.
    Picking and computing read what they need and give plain arrays and scalars.

    Decoded chunks are kept, over all arrays, up to the memory limit.  What is larger than a
    quarter of that is computed on part by part where that can be done, and else on a copy of
    all of it.

    In modes ``"c"`` and ``"r+"``, what is written is kept in the chunks' decoded copies, and seen
    by all views; those stay in memory, in mode ``"r+"`` until they are written back.  ``x[i]`` is
    then a view as well, so that ``x[i] += 1`` works.  What gives a copy where there is no memory,
    as ``numpy.asarray(x)``, ``x.flat`` and ``x.view(dtype)`` of another size, is read-only.

    Made by `lazyarr.open`, not by calling the class.

    Notes
    -----
    Safe to use from several threads and after fork.  It pickles as a reference to the stored
    array, in mode ``"c"`` with what was written to it, and is opened by whatever engine the
    receiving process has.

    Examples
    --------
    >>> import lazyarr, numpy, tempfile
    >>> directory = tempfile.TemporaryDirectory()
    >>> lazyarr.save(f"{directory.name}/x.zarr", numpy.arange(12).reshape(4, 3))
    >>> with lazyarr.configure(engine="copy"):
    ...     x = lazyarr.open(f"{directory.name}/x.zarr")
    >>> x[1:3].sum(axis=1)
    array([12, 21])
    >>> directory.cleanup()
    """

    _stored: StoredArray
    _phantom: Phantom
    _dtype: np.dtype[Any]

    def __init__(self, *_: Any, **__: Any) -> None:
        raise TypeError("CopyArray is made by lazyarr.open(...), not by calling it")

    @classmethod
    def _over(cls, stored: StoredArray, phantom: Phantom, dtype: np.dtype[Any]) -> CopyArray:
        array = cls.__new__(cls)
        array._stored, array._phantom, array._dtype = stored, phantom, dtype
        return array

    def _view(self, phantom: Phantom) -> CopyArray:
        return self._over(self._stored, phantom, self.dtype)

    # --- what it says of itself -----------------------------------------------------

    @property
    def _source(self) -> ArrayRef:
        return self._stored.node

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the elements are."""
        return self._dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        shape: tuple[int, ...] = self._phantom.shape
        return shape

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return self._phantom.ndim

    @property
    def size(self) -> int:
        """How many elements there are."""
        return self._phantom.size

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.itemsize

    @property
    def strides(self) -> tuple[int, ...]:
        """How far elements would be apart in memory, in bytes."""
        return self._phantom.strides

    @property
    def flags(self) -> Any:
        """As of an ndarray; ``writeable`` is true in modes ``"c"`` and ``"r+"``."""
        if self._stored.is_retired:
            retired = self._phantom.view()
            retired.flags.writeable = False
            return retired.flags
        return self._phantom.flags

    def __repr__(self) -> str:
        return self._described()

    def __len__(self) -> int:
        """Length of the leading axis."""
        return len(self._phantom)

    # --- memory -----------------------------------------------------------------------

    def _units(self) -> list[Span]:
        return indexing.units_of_view(self._stored, self._phantom, to_load=False)

    def prefetch(self, index: Any = ..., *, wait: bool = True, progress: bool = False) -> None:
        """Have a part of the array loaded and kept; as `LazyArray.prefetch`."""
        from lazyarr.client.arrays.prefetch import prefetch_units

        units = indexing.units_of_index(self._stored, self._phantom, index)
        prefetch_units(self._stored, units, wait=wait, progress=progress)

    def evict(self) -> None:
        """Have this array, or the chunks of this view, taken out of memory.

        They are read again when they are asked for.  Chunks that were written to stay.
        """
        for span in self._units():
            self._stored.evict(span)

    def flush(self, *, progress: bool = False) -> FlushReport:
        """Have what was changed be in the store; as `LazyArray.flush`."""
        return self._flush_with_attributes(
            lambda: self._stored.flush(self._units(), progress=progress)
        )

    def advise(self, advice: str) -> None:
        """Take any advice that a `LazyArray` does; nothing is read ahead, so it changes nothing."""
        indexing.check_advice(advice)

    def residency(self) -> Residency:
        """Return how much of this array, or of this view, is in memory."""
        return residency_of(self._stored if self._stored.geometry.nbytes else None, self._units())

    # --- reading ------------------------------------------------------------------------

    def _read(self) -> np.ndarray[Any, Any]:
        """Return all of it as a new array."""
        return self._stored.read_view(self._phantom, self.dtype)

    def read_once(self) -> np.ndarray[Any, Any]:
        """Return all of it as a new array, and keep nothing of what was loaded for that."""
        return self._stored.read_view(self._phantom, self.dtype, is_kept=False)

    def _asked(self) -> np.ndarray[Any, Any] | CopyingOperand:
        """Return all of it, to compute on and not to write to; an operand if it is too much."""
        if self._is_large():
            return CopyingOperand(self._stored, self._phantom, self.dtype)
        return self._loaded()

    def _is_large(self) -> bool:
        """Return whether it is too large to load all of it at once."""
        return self._stored.is_too_much(self._phantom)

    def _loaded(self) -> np.ndarray[Any, Any]:
        """Return all of it, to compute on and not to write to."""
        plain = self._read()
        plain.flags.writeable = False
        return plain

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        """Return all of it in new memory, which is read-only unless a copy is asked for."""
        if copy is False:
            raise ValueError(
                "cannot give an array without a copy: there is no userfaultfd; run 'lazyarr doctor'"
            )
        plain = self._read()
        if dtype is not None:
            plain = plain.astype(dtype, copy=False)
        plain.flags.writeable = copy is True
        return plain

    def __arrow_array__(self, type: Any = None) -> Any:  # noqa: A002 - pyarrow's name
        """Return all of it as an array of pyarrow's, which would take each element by itself."""
        import pyarrow

        return pyarrow.array(self._loaded(), type=type)

    @property
    def device(self) -> Any:
        """Where the elements are: where those of any ndarray are."""
        return _ANY.device

    def to_device(self, device: Any, /, *, stream: Any = None) -> CopyArray:
        """Return the array itself, as ndarrays do; there is no other device."""
        _ANY.to_device(device, stream=stream)
        return self

    # No __array_namespace__: who finds that expects no more than the standard's indexing.

    def __dlpack_device__(self) -> Any:
        """Return that elements are in the processor's memory (DLPack)."""
        return _ANY.__dlpack_device__()

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: Any = None,
        dl_device: Any = None,
        copy: Any = None,
    ) -> Any:
        """Return all of it in new memory, for another library to have (DLPack).

        Raises
        ------
        BufferError
            When it is to be no copy, or NumPy's arrays cannot be had that way.
        """
        if copy is False:
            raise BufferError(
                "cannot give an array without a copy: there is no userfaultfd; run 'lazyarr doctor'"
            )
        return self._read().__dlpack__(stream=stream, max_version=max_version, dl_device=dl_device)

    def __getitem__(self, key: Any) -> Any:
        """Return a lazy view for slices, plain elements for picks."""
        if isinstance(key, str | list) and is_fields(key):
            return self._fields(key)
        if not indexing.is_basic(key):
            picked = pick(self._phantom, key)
            result = self._stored.read_picked(picked, self.dtype)
            is_scalar = not result.ndim and isinstance(self._phantom[key], np.void)
            return result[()] if is_scalar else result
        is_scalar = isinstance(self._phantom[key], np.void)
        view = indexing.basic_view(self._phantom, key)
        if is_scalar:
            return self._stored.read_view(view, self.dtype)[()]
        is_pick = indexing.is_pick(key, self.ndim) and not self.flags.writeable
        if not is_pick or self._stored.is_too_much(view):
            return self._view(view)
        plain = self._stored.read_view(view, self.dtype)
        plain.flags.writeable = False
        return plain

    def _fields(self, key: str | list[str]) -> Any:
        """Return the same elements of a struct's members."""
        template = np.empty((), self.dtype)[key]  # raises what NumPy has to say
        offset = self.dtype.fields[key][1] if isinstance(key, str) and self.dtype.fields else 0
        return self._parts(offset, template)

    def _parts(self, offset: int, template: np.ndarray[Any, Any]) -> CopyArray:
        """Return a part of each element, which is an array of its own where `template` is one."""
        parts = make_phantom(
            start_of(self._phantom) + offset,
            self.shape + template.shape,
            self.strides + template.strides,
            writable=self.flags.writeable,
        )
        return self._over(self._stored, parts, template.dtype)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Change elements: in mode ``"r+"`` of the store, in ``"c"`` in this process alone.

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
        if isinstance(key, str | list) and is_fields(key):
            self._fields(key)[...] = value
        elif indexing.is_basic(key):
            self._assign(indexing.basic_view(self._phantom, key), value)
        else:
            picked = pick(self._phantom, key)
            self._stored.write_picked(picked, self._assigned(picked.shape, value))

    def _require_writable(self) -> None:
        """Raise ValueError unless elements can be changed: before anything is read for that."""
        self._stored.require_writable()
        if not self._phantom.flags.writeable:
            raise ValueError(READ_ONLY)

    def _assign(self, view: Phantom, value: Any) -> None:
        """Change the elements of a view; of a large one part by part."""
        if not self._stored.is_too_much(view):
            self._stored.write_view(view, self._assigned(view.shape, value))
            return
        target = CopyingOperand(self._stored, view, self.dtype)
        source = self._asked_for(view, value)
        for box in target.passes():
            part = indexing.basic_view(view, box)
            given = part_of(source, box, view.shape)
            self._stored.write_view(part, self._assigned(part.shape, given))

    def _asked_for(self, view: Phantom, value: Any) -> Any:
        """Return a value that can be assigned to a view part by part."""
        if isinstance(value, CopyArray):
            # Which part would be read after it is written depends on both; NumPy makes a copy too.
            beside = self._view(view)._addresses_beside(value)
            is_apart = beside is None or not np.may_share_memory(*beside)
            value = value._asked() if is_apart else value._loaded()
        if not isinstance(value, np.ndarray | Operand):
            value = np.asarray(value, self.dtype)
        shape = value.view.shape if isinstance(value, Operand) else value.shape
        surplus = len(shape) - view.ndim
        if surplus > 0 and set(shape[:surplus]) == {1}:
            value = value.whole() if isinstance(value, Operand) else value
            value, shape = value.reshape(shape[surplus:]), shape[surplus:]
        require_broadcast(tuple(shape), view.shape)
        return value

    def _assigned(self, shape: tuple[int, ...], value: Any) -> np.ndarray[Any, Any]:
        """Return what an array of some shape would be after all of it is assigned to."""
        plain = np.empty(shape, self.dtype)
        plain[...] = value
        return plain

    def __iter__(self) -> Iterator[Any]:
        """Give the places of the leading axis, one after the other."""
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def take(
        self, indices: Any, axis: int | None = None, out: Any = None, mode: Any = "raise"
    ) -> Any:
        """Return elements by index, as `numpy.take`."""
        if axis is None and is_phantom(flat := self._phantom.reshape(-1)):
            return self._view(flat).take(indices, 0, out, mode)
        if axis is None or out is not None or mode != "raise":
            return self._take(indices, axis, out=out, mode=mode)
        place = range(self.ndim)[axis]
        return self[(*[slice(None)] * place, np.asarray(indices))]

    def item(self, *args: Any) -> Any:
        """Return an element as Python has it, as `numpy.ndarray.item`; its chunk alone is read."""
        place = place_of_item(self.shape, args)
        # What NumPy refuses it refuses of what has no elements, too.
        return self._phantom.item(*args) if place is None else self[place].item()

    # --- views ----------------------------------------------------------------------------

    @property
    def T(self) -> CopyArray:  # noqa: N802 - NumPy's name
        """The array with its axes in the opposite order."""
        return self._view(self._phantom.T)

    @property
    def mT(self) -> CopyArray:  # noqa: N802 - NumPy's name
        """The array with its last two axes exchanged."""
        return self._view(self._phantom.mT)

    def view(self, dtype: Any = None, type: Any = None) -> Any:  # noqa: A002 - NumPy's name
        """Return the same bytes as another data type: a lazy view, or a copy if sizes differ."""
        is_class = isinstance(dtype, builtins.type) and issubclass(dtype, np.ndarray)
        if type is not None or is_class:
            return self._loaded().view(*(v for v in (dtype, type) if v is not None))
        viewed = self.dtype if dtype is None else np.dtype(dtype)
        if viewed.hasobject or viewed.itemsize != self.itemsize:
            return self._loaded().view(viewed)
        return self._over(self._stored, self._phantom, viewed)

    def astype(
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
        return super().astype(dtype, order, casting, subok, copy)  # type: ignore[misc]

    @property
    def real(self) -> CopyArray:
        """The real parts, as a lazy view."""
        return self._parts(0, np.empty((), self.dtype).real) if self.dtype.kind == "c" else self

    @real.setter
    def real(self, value: Any) -> None:
        self.real[...] = value

    @property
    def imag(self) -> Any:
        """The imaginary parts: a lazy view, or plain zeros where the elements have none."""
        if self.dtype.kind == "c":
            return self._parts(self.itemsize // 2, np.empty((), self.dtype).imag)
        zeros = np.zeros(self.shape, self.dtype)
        zeros.flags.writeable = False
        return zeros

    @imag.setter
    def imag(self, value: Any) -> None:
        if self.dtype.kind != "c":
            _ANY.imag = value  # raises what there is to say
        self.imag[...] = value

    def _addresses_beside(self, other: CopyArray) -> tuple[Phantom, Phantom] | None:
        if self._stored is not other._stored:
            return None
        one, two = (
            make_phantom(start_of(v._phantom), v.shape, v.strides, itemsize=v.itemsize)
            for v in (self, other)
        )
        return one, two

    def reshape(self, *shape: Any, **kwargs: Any) -> Any:
        """Return a lazy view of another shape where there is one, else a plain copy."""
        view = self._phantom.reshape(*shape, **kwargs)
        return self._view(view) if is_phantom(view) else self._loaded().reshape(*shape, **kwargs)

    def ravel(self, order: Any = "C") -> Any:
        """Return a lazy flat view where there is one, else a plain copy."""
        return self.reshape(-1, order=order)

    # --- computing ------------------------------------------------------------------------

    def __str__(self) -> str:
        """Return the elements as NumPy prints them; of a large array only the corners are read."""
        if self.size <= np.get_printoptions()["threshold"]:
            return str(self._loaded())
        edge = np.get_printoptions()["edgeitems"]
        # The same text is made of an array in which longer axes have one place between their ends.
        corners = self[np.ix_(*(_ends(length, edge) for length in self.shape))]
        with np.printoptions(threshold=0):
            return str(corners)

    def __format__(self, spec: str) -> str:
        """Return `str` of the array, or its only element formatted."""
        return str(self) if self.ndim and not spec else format(self._loaded(), spec)

    def __reduce__(self) -> Any:
        """Pickle as a reference: store, array and selection, and what was written here.

        Raises
        ------
        ValueError
            When more was written, in mode ``"c"``, than goes with a reference.
        """
        from lazyarr.client.pickling.hashed import is_hashed, reduce_to_content
        from lazyarr.client.pickling.references import reduce_view

        if is_hashed():
            return reduce_to_content(self)
        start, changes = self._start(), self._changes()
        view = (start, self.dtype, self.shape, self.strides)
        return reduce_view(
            self._source, *view, changes=changes, opening=self._stored.name_of_opening()
        )

    def _start(self) -> int:
        """Return where this view begins in the memory of the stored array, in bytes."""
        return start_of(self._phantom)

    def _changes(self) -> Changes:
        """Return what was written here and is not in the store."""
        return self._stored.changes_in(self._phantom)

    def _write_changes(self, changes: Changes) -> None:
        """Have the stored array hold what was written to it in another process."""
        self._stored.write_changes(changes)

    def copy(self, order: Any = "C") -> Any:
        """Return a plain copy."""
        return self if self._is_for_dask() else np.ndarray.copy(self._read(), order)

    def to_dask(self, chunks: Any = None) -> dask.array.Array:
        """Return the same elements as an array of dask's; as `LazyArray.to_dask`."""
        with needing("dask"):
            from lazyarr.integrations.dask import from_array

            return from_array(self, chunks)

    def __deepcopy__(self, _: Any) -> np.ndarray[Any, Any]:
        """Return a plain copy."""
        return self._read()


def _ends(length: int, edge: int) -> list[int]:
    """Return the places of an axis of which NumPy prints the first and the last, or all."""
    places = range(length)
    return list(places if length <= 2 * edge else (*places[:edge], 0, *places[length - edge :]))
