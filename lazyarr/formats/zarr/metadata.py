"""What an array and a group say of themselves."""

from __future__ import annotations

from typing import Any, TypeAlias

from lazyarr.errors import FormatError
from lazyarr.formats.base import ArrayDescription, GroupDescription
from lazyarr.formats.zarr.codec_chain import CodecChain
from lazyarr.formats.zarr.layouts import build_layout
from lazyarr.layout.datatype import DataType
from lazyarr.layout.grid import KeyEncoding
from lazyarr.layout.layout import Layout
from lazyarr.layout.swap import Swap, find_swap

__all__ = ["ArrayMetadata", "GroupMetadata", "Node"]


class ArrayMetadata(ArrayDescription):
    """An array, along its logical axes: those that its users see.

    Attributes
    ----------
    path : str
        Its place in the store.
    zarr_format : int
        2 or 3.
    shape : tuple of int
        Its lengths, in elements.
    dtype : DataType
        Its elements in memory, in the byte order in which they are stored unless `swap` says
        otherwise.
    chunk_shape : tuple of int
        What one object holds: shards where there are some, chunks otherwise.
    key_encoding : KeyEncoding
        How objects are named.
    codecs : CodecChain
        What chunks go through.
    fill_head : bytes
        One element that holds the fill value, without the zeros that it ends with: a
        short document may claim elements of any size.
    attributes : dict
        What users have put there.
    dimension_names : tuple of (str or None), or None
        Names of the axes.
    document : dict
        What all of this was read from, without the attributes and without what is
        not known, for those who look at it.  Other processes are told of the layout.
    swap : Swap or None
        What turns elements around between store and memory.
    """

    path: str
    zarr_format: int
    shape: tuple[int, ...]
    dtype: DataType
    chunk_shape: tuple[int, ...]
    key_encoding: KeyEncoding
    codecs: CodecChain
    fill_head: bytes
    attributes: dict[str, Any]
    dimension_names: tuple[str | None, ...] | None
    document: dict[str, Any]
    swap: Swap | None = None

    def __eq__(self, other: object) -> bool:
        """Return whether both say the same, whichever way it is written."""
        if not isinstance(other, ArrayMetadata):
            return NotImplemented
        return self._asdict() | {"document": other.document} == other._asdict()

    def __hash__(self) -> int:
        return hash((self.path, self.shape, self.dtype, self.chunk_shape, self.codecs))

    @property
    def fill(self) -> bytes:
        """One element that holds the fill value."""
        return self.fill_head.ljust(self.dtype.itemsize, b"\0")

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Shape of the shards; None where every chunk is an object of its own."""
        return None if self.codecs.sharding is None else self.chunk_shape

    @property
    def format_name(self) -> tuple[str, str]:
        """What the format is called, and its version."""
        return "zarr", str(self.zarr_format)

    @property
    def missing_value(self) -> Any:
        """What means "missing" by the CF conventions; None where nothing does.

        In Zarr v2 xarray has no other place for it than the fill value of its arrays, which are
        those with names of axes (``use_zarr_fill_value_as_mask`` of its engine).  Of byte strings
        it has none in Zarr v3.
        """
        # Here: most processes ask for none.
        from lazyarr.formats.zarr.missing_value import decode_missing_value

        said = self.attributes.get("_FillValue")
        if self.zarr_format == 3:
            return decode_missing_value(said, self.dtype.kind)
        is_of_xarray = self.dimension_names is not None and self.dtype.kind in "biufc"
        if said is None and is_of_xarray and self.document.get("fill_value") is not None:
            return self.fill_value.item()
        return said

    def native(self) -> ArrayMetadata:
        """Return the array with its elements in the machine's byte order, however it is stored."""
        swap = find_swap(self.dtype)
        if swap is None:
            return self
        head = swap.apply_to(self.fill).rstrip(b"\0") if self.fill_head else b""
        return self._replace(dtype=swap.native, fill_head=head, swap=swap)

    def layout(self) -> Layout:
        """Return how the array lies in memory and where its bytes are."""
        return build_layout(
            shape=self.shape,
            chunk_shape=self.chunk_shape,
            chain=self.codecs,
            key_encoding=self.key_encoding,
            fill=self.fill,
            swap=self.swap,
        )


class GroupMetadata(GroupDescription):
    """A group.

    Attributes
    ----------
    path : str
        Its place in the store.
    zarr_format : int
        2 or 3.
    attributes : dict
        What users have put there.
    consolidated : dict, or None
        All nodes below the group, by their path relative to it, where its
        document holds them.  One that lazyarr cannot map is there as the
        `FormatError` that says why; the others can be opened all the same.
    """

    path: str
    zarr_format: int
    attributes: dict[str, Any]
    consolidated: dict[str, ArrayMetadata | GroupMetadata | FormatError] | None = None

    def __hash__(self) -> int:
        return hash((self.path, self.zarr_format))

    @property
    def format_name(self) -> tuple[str, str]:
        """What the format is called, and its version."""
        return "zarr", str(self.zarr_format)


Node: TypeAlias = ArrayMetadata | GroupMetadata
"""What a document describes."""
