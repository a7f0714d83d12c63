"""Arrays whose elements lie in a file one after the other, uncompressed: one run of bytes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lazyarr.formats.base import ArrayDescription
from lazyarr.layout.layout import Layout
from lazyarr.layout.pipeline import Pipeline
from lazyarr.layout.placement import OneRun

if TYPE_CHECKING:
    from lazyarr.layout.swap import Swap

__all__ = ["BareArray", "RunArray", "run_chunks", "run_layout"]

_CHUNK_NBYTES = 1 << 20
_PAGE_NBYTES = 4096


class BareArray(ArrayDescription):
    """An array of which a file says no more than where it is: no names of axes, no fill value.

    All elements are stored.  Each format has a subclass, with the fields of `ArrayDescription`.
    """

    dimension_names = None
    shards = None

    def __hash__(self) -> int:
        return hash((self.path, self.shape, self.dtype))

    @property
    def fill(self) -> bytes:
        """One element of zeros."""
        return bytes(self.dtype.itemsize)


class RunArray(BareArray):
    """An array whose elements lie in a file one after the other.

    Each format has a subclass, whose fields are those of `ArrayDescription` and these attributes.

    Attributes
    ----------
    start : int
        Where the first element lies in the file, in bytes.
    is_fortran : bool
        Whether the first axis varies fastest.
    file : str
        The file, in its store.
    """

    # Not at run time: as in `ArrayDescription`.
    if TYPE_CHECKING:

        @property
        def start(self) -> int: ...  # noqa: D102 - see above
        @property
        def is_fortran(self) -> bool: ...  # noqa: D102 - see above
        @property
        def file(self) -> str: ...  # noqa: D102 - see above

    is_fortran = False  # type: ignore[assignment]

    @property
    def document(self) -> dict[str, Any]:
        """What chunks go through: nothing."""
        return {"codecs": ["none"]}

    def layout(self) -> Layout:
        """Return how the array lies in memory and where its bytes are."""
        return run_layout(
            self.shape,
            self.dtype.itemsize,
            start=self.start,
            swap=self.swap,
            is_fortran=self.is_fortran,
            place=self.file,
        )


def run_layout(
    shape: tuple[int, ...],
    itemsize: int,
    *,
    start: int,
    swap: Swap | None,
    is_fortran: bool = False,
    place: str,
) -> Layout:
    """Return the layout of an array that is one run of a file.

    Parameters
    ----------
    shape : tuple of int
        The array's lengths, in elements.
    itemsize : int
        Size of an element in bytes.
    start : int
        Where the first element lies in the file, in bytes.
    swap : Swap or None
        What turns elements around between store and memory.
    is_fortran : bool
        Whether the first axis varies fastest.
    place : str
        The file, in its store.
    """
    axes = tuple(range(len(shape)))
    axes = axes[::-1] if is_fortran else axes
    shape = tuple(shape[axis] for axis in axes)
    chunk_shape = run_chunks(shape, itemsize)
    return Layout(
        shape=shape,
        axes=axes,
        chunk_shape=chunk_shape,
        grid_shape=tuple(-(-n // c) for n, c in zip(shape, chunk_shape, strict=True)),
        itemsize=itemsize,
        fill=bytes(itemsize),
        pipeline=Pipeline(math.prod(chunk_shape) * itemsize, (), swap),
        placement=OneRun((1,) * len(shape), (), (), "", start, shape, chunk_shape, itemsize),
        # The file itself.
        witnesses=("",),
        place=place,
    )


def run_chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return the shape of chunks of about 1 MiB that are runs of an array in C order.

    Examples
    --------
    >>> run_chunks((60_000, 28, 28), 1), run_chunks((3, 5000, 5000), 8), run_chunks((), 8)
    ((1280, 28, 28), (1, 26, 5000), ())
    """
    axis, row_nbytes = 0, math.prod(n or 1 for n in shape[1:]) * itemsize
    while axis < len(shape) - 1 and row_nbytes > _CHUNK_NBYTES:
        axis += 1
        row_nbytes //= shape[axis] or 1
    if not shape:
        return ()
    n_rows = max(1, _CHUNK_NBYTES // row_nbytes)
    # A chunk of whole pages shares no page with the next one.
    n_whole = _PAGE_NBYTES // math.gcd(_PAGE_NBYTES, row_nbytes)
    n_rows = max(n_rows // n_whole * n_whole, n_whole if n_rows >= n_whole else n_rows)
    behind = tuple(n or 1 for n in shape[axis + 1 :])
    return (*(1 for _ in shape[:axis]), min(n_rows, shape[axis] or 1), *behind)
