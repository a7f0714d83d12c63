"""From what a user asks for to the document of a new array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from lazyarr.checks import shown
from lazyarr.errors import FormatError
from lazyarr.formats.zarr import (
    COMPRESSORS,
    Compressor,
    array_document,
    data_type_from_numpy,
    default_chunks,
    default_shards,
)
from lazyarr.writer.choosing import choose_compressor
from lazyarr.writer.inherited import inherited_attributes

if TYPE_CHECKING:
    import numpy

    from lazyarr.layout import DataType
    from lazyarr.writer.source import Source

__all__ = ["ChunksOption", "CompressorOption", "ShardsOption", "plan_array"]

ChunksOption: TypeAlias = Literal["auto"] | int | Sequence[int]
"""Shape of the smallest chunks; a number alone is one of rows, which chunks have whole."""

ShardsOption: TypeAlias = ChunksOption | None
"""Shape of the shards; None for an object per chunk."""

CompressorOption: TypeAlias = Compressor | Literal["auto"]
"""What compresses chunks; "auto" for what suits the data."""

_CHOICES = (*COMPRESSORS, "auto")


def plan_array(
    name: str,
    *,
    shape: tuple[int, ...],
    dtype: numpy.dtype[Any],
    chunks: ChunksOption = "auto",
    shards: ShardsOption = "auto",
    compressor: CompressorOption = "zstd",
    level: int | None = None,
    fill_value: Any = 0,
    attributes: Mapping[str, Any] | None = None,
    inherited: Mapping[str, Any] | None = None,
    dimension_names: Sequence[str | None] | None = None,
    sample: Source | None = None,
) -> bytes:
    """Return the document of a new array, everything checked.

    Parameters are those of `save` and `Writer.create_array`, and two more.  `sample` is what
    ``compressor="auto"`` looks at, which stands for zstd where there is none.  `inherited` are
    attributes of the array that is copied; `attributes` replace those of the same name.

    Raises
    ------
    FormatError
        Something does not fit together, or not into Zarr, or not into JSON.

    Examples
    --------
    >>> import json, numpy
    >>> document = plan_array("x", shape=(10,), dtype=numpy.dtype("i4"), chunks=4)
    >>> json.loads(document)["chunk_grid"]["configuration"]["chunk_shape"]
    [12]
    """
    try:
        data_type = data_type_from_numpy(dtype)
        chosen, outer = _plan_grid(shape, data_type.itemsize, chunks, shards)
        return array_document(
            shape=shape,
            dtype=data_type,
            chunks=chosen,
            shards=outer,
            compressor=_choose(compressor, level, chosen, data_type, sample),
            level=level,
            fill_value=fill_value,
            attributes=attributes,
            inherited=inherited_attributes(inherited or {}, dtype, dimension_names),
            dimension_names=dimension_names,
        )
    except FormatError as error:
        # Of a document that cannot be read back, what is wrong with it.
        cause = error.__cause__ if isinstance(error.__cause__, FormatError) else error
        raise FormatError(
            f"cannot create array {name or '/'!r}: {cause.message}", path=name
        ) from error


def _choose(
    compressor: str,
    level: int | None,
    chunks: tuple[int, ...],
    dtype: DataType,
    sample: Source | None,
) -> str:
    if compressor not in _CHOICES:
        raise FormatError(f"compressor is {compressor!r:.80}; it must be one of {_CHOICES}")
    if compressor != "auto":
        return compressor
    stored = dtype.with_byte_order("<").to_numpy()
    return choose_compressor(sample, chunks, stored, level=level)


def _plan_grid(
    shape: tuple[int, ...], itemsize: int, chunks: ChunksOption, shards: ShardsOption
) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Return the shapes of chunks and of shards, chosen where they are not given."""
    outer = None if shards is None or shards == "auto" else _lengths(shards, shape, "shards")
    if chunks != "auto":
        chosen = _lengths(chunks, shape, "chunks")
    elif outer is None:
        chosen = default_chunks(shape, itemsize)
    else:
        chosen = _dividing(default_chunks(outer, itemsize), outer)
    if shards == "auto":
        outer = default_shards(shape, chosen, itemsize)
    return chosen, outer


def _lengths(
    given: str | int | Sequence[int], shape: tuple[int, ...], option: str
) -> tuple[int, ...]:
    lengths = given
    if isinstance(given, int):
        # A number alone is one of rows.
        is_rows = not isinstance(given, bool) and len(shape) > 0
        lengths = (given, *(max(1, n) for n in shape[1:])) if is_rows else ()
    if not isinstance(lengths, str | int):
        try:
            checked = tuple(length.__index__() for length in lengths)
        except (AttributeError, TypeError):
            checked = ()
        if len(checked) == len(shape) and all(length > 0 for length in checked):
            return checked
    way = {
        0: "give () for an array without axes",
        1: "give a positive number of rows",
        2: "give a positive length for each of its two axes, or a number of rows",
    }.get(len(shape), f"give {len(shape)} positive lengths, one for each axis, or a number of rows")
    none = ", or None for no shards" if option == "shards" else ""
    raise FormatError(
        f"{option} are {shown(given)} for an array of shape {shape}; {way}, or 'auto'{none}"
    )


def _dividing(chunks: tuple[int, ...], shards: tuple[int, ...]) -> tuple[int, ...]:
    # The largest divisor that is not longer: shards are made of whole chunks.
    return tuple(
        next(n for n in range(chunk, 0, -1) if shard % n == 0)
        for chunk, shard in zip(chunks, shards, strict=True)
    )
