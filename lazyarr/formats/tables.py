"""Arrays of which a file lists the chunks, or says where their one run of bytes begins."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lazyarr.errors import FormatError
from lazyarr.formats.base import ArrayDescription
from lazyarr.formats.runs import run_layout
from lazyarr.layout.datatype import parse_data_type_document
from lazyarr.layout.layout import Layout
from lazyarr.layout.pipeline import Pipeline
from lazyarr.layout.placement import ChunkTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from lazyarr.codecs.base import BytesCodec
    from lazyarr.layout.datatype import DataType
    from lazyarr.layout.entries import Entry
    from lazyarr.layout.swap import Swap

__all__ = ["MAX_CHUNKS", "ListedArray", "check_count", "check_end", "named_type"]

MAX_CHUNKS = 2**24
"""How many chunks an array may have: its table goes to the pager as text (`layout.document`)."""


class ListedArray(ArrayDescription):
    """An array of a file, whose chunks are listed.

    Attributes
    ----------
    path, shape, dtype, attributes, dimension_names, fill, document, format_name, swap
        As of `ArrayDescription`.
    key : str
        The file in its store.
    start : int or None
        Where the elements lie in the file, in bytes, if they are one run of it.
    chunk_shape : tuple of int
        Otherwise: the lengths of chunks.
    entries : sequence of Entry
        For each chunk where it lies; see `ChunkTable`.
    codecs : tuple of BytesCodec
        What chunks go through.
    is_padded : bool
        As of `ChunkTable`.
    """

    path: str
    shape: tuple[int, ...]
    dtype: DataType
    attributes: dict[str, Any]
    dimension_names: tuple[str | None, ...] | None
    fill: bytes
    document: dict[str, Any]
    format_name: tuple[str, str]
    key: str
    start: int | None
    chunk_shape: tuple[int, ...]
    entries: Sequence[Entry]
    codecs: tuple[BytesCodec, ...]
    is_padded: bool = True
    swap: Swap | None = None

    shards = None

    def __hash__(self) -> int:
        return hash((self.path, self.shape, self.dtype, self.key, self.start))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path!r}: {self.shape} {self.dtype.typestr}>"

    def native(self) -> Self:
        """Return the array with its elements in the machine's byte order."""
        found = super().native()
        if found.swap is None or self.swap is not None:
            return found
        return found._replace(fill=found.swap.apply_to(self.fill))

    def layout(self) -> Layout:
        """Return how the array lies in memory and where its bytes are."""
        if self.start is not None:
            itemsize = self.dtype.itemsize
            return run_layout(
                self.shape, itemsize, start=self.start, swap=self.swap, place=self.key
            )
        sides = zip(self.shape, self.chunk_shape, strict=True)
        grid_shape = tuple(-(-n // c) for n, c in sides)
        ones = (1,) * len(self.shape)
        chunk_nbytes = math.prod(self.chunk_shape) * self.dtype.itemsize
        return Layout(
            shape=self.shape,
            axes=tuple(range(len(self.shape))),
            chunk_shape=self.chunk_shape,
            grid_shape=grid_shape,
            itemsize=self.dtype.itemsize,
            fill=self.fill,
            pipeline=Pipeline(chunk_nbytes, self.codecs, self.swap),
            placement=ChunkTable(ones, (), (), grid_shape, ("",), self.entries, self.is_padded),
            # The file itself.
            witnesses=("",),
            place=self.key,
        )


def check_count(n_chunks: int, rewrite: str) -> int:
    """Return how many chunks an array has; refuse more than lazyarr maps."""
    if n_chunks > MAX_CHUNKS:
        raise FormatError(
            f"it has {n_chunks} chunks; lazyarr maps up to {MAX_CHUNKS}: {rewrite}, larger ones"
        )
    return n_chunks


def check_end(stop: int, nbytes: int) -> None:
    """Refuse what goes on beyond the end of its file."""
    if stop > nbytes:
        raise FormatError(
            f"its elements go on to byte {stop} of a file of {nbytes} bytes: it is damaged or was"
            " cut off; copy it again"
        )


def named_type(typestr: str) -> DataType:
    """Return a type by NumPy's string for it, with the name that NumPy gives it."""
    found = parse_data_type_document(typestr)
    return found._replace(name=found.to_numpy().name)
