"""What an array says of the one that is stored, whatever fills it."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lazyarr.client.array_ref import ArrayRef

__all__ = ["StoredAttributes"]

# Libraries that take an array with `chunks` for one of dask's, whose `chunks` are the
# lengths of all blocks, and which has to be computed by dask.
_EXPECTING_BLOCKS = ("xarray",)


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
            """
            if name == "chunks" and not _is_for_blocks():
                return self._source.metadata.chunks
            return object.__getattribute__(self, name)

    @property
    def _source(self) -> ArrayRef:
        raise NotImplementedError

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


def _is_for_blocks() -> bool:
    """Return whether the code that reads `chunks` would take it for dask's."""
    frame = sys._getframe(2)  # noqa: SLF001 - of the code that reads it
    while frame.f_back is not None and frame.f_globals.get("__name__") == "typing":
        frame = frame.f_back  # the code that compares with a protocol (before Python 3.12)
    return str(frame.f_globals.get("__name__")).partition(".")[0] in _EXPECTING_BLOCKS
