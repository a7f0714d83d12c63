"""What an array says of the one that is stored, whatever fills it."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lazyarr.client.array_ref import ArrayRef
    from lazyarr.client.pickling.changes import Changes

__all__ = ["StoredAttributes"]

# Libraries that take an array with `chunks` for one of dask's, whose `chunks` are the
# lengths of all blocks, and which has to be computed by dask.
_EXPECTING_BLOCKS = ("xarray",)

# Attributes of the CF conventions by which elements are turned into values.
_DECODED_BY = ("scale_factor", "add_offset", "_FillValue")


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
        """The stored array's attributes, which cannot be changed here."""
        from lazyarr.client.arrays.frozen_attributes import freeze

        metadata = self._source.metadata
        return freeze(metadata.attributes, f"array {metadata.path or '/'!r} of {self.url}")

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

    def _is_for_dask(self) -> bool:
        """Return whether a copy is asked for by `dask.array.from_array`, which needs none.

        It copies all arrays, for they could be changed while blocks are read.  This one cannot be
        changed, unless it is writable.  Called by `copy` alone.
        """
        caller = sys._getframe(2)  # noqa: SLF001 - of the code that calls `copy`
        is_dask = caller.f_globals.get("__name__") == "dask.array.core"
        array: Any = self
        return is_dask and caller.f_code.co_name == "from_array" and not array.flags.writeable

    def _undecoded(self) -> str:
        """Return what ``repr`` says where elements are not yet the values they stand for."""
        there = [name for name in _DECODED_BY if name in self._source.metadata.attributes]
        return f", not decoded: {', '.join(there)} (see Dataset.decoded)" if there else ""

    @property
    def dimension_names(self) -> tuple[str | None, ...] | None:
        """Names of the stored array's axes; None when it has none."""
        return self._source.metadata.dimension_names

    @property
    def url(self) -> str:
        """The store."""
        return self._source.store_url

    @property
    def path(self) -> str:
        """The stored array's place in the store."""
        return self._source.metadata.path

    @property
    def info(self) -> str:
        """What the stored array is, and how much of it is in memory, as text."""
        from lazyarr.client.arrays.describe import describe_array

        return describe_array(self)  # type: ignore[arg-type]  # both classes are what it takes


def _reader() -> str:
    """Return the library whose code reads `chunks`."""
    frame = sys._getframe(2)  # noqa: SLF001 - of the code that reads it
    while frame.f_back is not None and frame.f_globals.get("__name__") == "typing":
        frame = frame.f_back  # the code that compares with a protocol (before Python 3.12)
    return str(frame.f_globals.get("__name__")).partition(".")[0]
