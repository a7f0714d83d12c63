"""Lists of codecs, as documents have them, become what a chunk goes through.

A list is made of codecs from arrays to arrays, one from an array to bytes, and
codecs from bytes to bytes (zarr-specs v3.1, "codecs").  Where the middle one is
`sharding_indexed` it holds another such list for its inner chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from lazyarr.checks import (
    as_configuration,
    as_integer,
    as_list,
    as_shape,
    bounded_product,
    refuse_unknown,
    shown,
)
from lazyarr.codecs.base import BytesCodec
from lazyarr.errors import FormatError
from lazyarr.formats.zarr.codec_names import check_count, parse_bytes_codec, parse_filter
from lazyarr.layout.datatype import DataType
from lazyarr.layout.shard import MAX_ENTRIES, ShardLevel
from lazyarr.values import Value

__all__ = ["CodecChain", "Sharding", "parse_codecs"]

_MAX_SHARD_DEPTH = 4


class Sharding(Value):
    """What `sharding_indexed` does.

    Attributes
    ----------
    chunk_shape : tuple of int
        Shape of the inner chunks, along the axes that the shard is stored in.
    level : ShardLevel
        Its index.
    inner : CodecChain
        What the inner chunks go through.
    """

    chunk_shape: tuple[int, ...]
    level: ShardLevel
    inner: CodecChain


class CodecChain(Value):
    """What a chunk goes through between memory and its object.

    Attributes
    ----------
    order : tuple of int
        Stored axis `k` is axis `order[k]` of the chunk: all `transpose` codecs together.
    codecs : tuple of BytesCodec
        From elements to bytes, in the order of encoding; empty with sharding.
    sharding : Sharding or None
        How the chunk is divided further.
    """

    order: tuple[int, ...]
    codecs: tuple[BytesCodec, ...] = ()
    sharding: Sharding | None = None

    @property
    def innermost(self) -> CodecChain:
        """The chain that the smallest chunks go through."""
        return self if self.sharding is None else self.sharding.inner.innermost


def parse_codecs(
    value: object, *, chunk_shape: tuple[int, ...], dtype: DataType, depth: int = 0
) -> tuple[CodecChain, DataType]:
    """Return the codecs of a v3 document, and the data type with the byte order they store.

    Parameters
    ----------
    value : object
        The list as JSON has it.
    chunk_shape : tuple of int
        Shape of the chunks that go through it.
    dtype : DataType
        The array's data type.
    depth : int
        How many shards the list is inside of.

    Raises
    ------
    FormatError
        A codec is not known, misplaced, or cannot be mapped.
    """
    named = [as_configuration(codec, "a codec") for codec in as_list(value, "codecs")]
    check_count(named, "codecs")
    order = tuple(range(len(chunk_shape)))
    at = 0
    while at < len(named) and named[at][0] == "transpose":
        order = _parse_transpose(named[at][1], order)
        at += 1
    stored_shape = tuple(chunk_shape[axis] for axis in order)
    if at < len(named) and named[at][0] == "sharding_indexed":
        if named[at + 1 :]:
            raise FormatError(
                f"codec {shown(named[at + 1][0])} follows 'sharding_indexed', so no chunk can be"
                " read without its shard; rewrite the array with the codec inside of the shards"
            )
        sharding, dtype = _parse_sharding(named[at][1], stored_shape, dtype, depth)
        return CodecChain(order, (), sharding), dtype
    codecs, dtype = _parse_elements(named[at:], dtype)
    return CodecChain(order, codecs), dtype


def _parse_transpose(configuration: dict[str, Any], order: tuple[int, ...]) -> tuple[int, ...]:
    refuse_unknown(configuration, ("order",), "codec 'transpose'")
    axes = configuration.get("order")
    if axes in ("C", "F"):  # drafts of Zarr v3 had these
        return order if axes == "C" else order[::-1]
    axes = as_shape(axes, "the order of codec 'transpose'", ndim=len(order))
    if sorted(axes) != list(range(len(order))):
        raise FormatError(
            f"the order of codec 'transpose' is {shown(axes)}; it must be a permutation"
        )
    return tuple(order[axis] for axis in axes)


def _parse_elements(
    named: Sequence[tuple[str, dict[str, Any]]], dtype: DataType
) -> tuple[tuple[BytesCodec, ...], DataType]:
    """Return codecs for elements without sharding: filters, `bytes`, compressors."""
    filters: list[BytesCodec] = []
    for at, (name, configuration) in enumerate(named):
        if name == "bytes":
            stored = _parse_bytes(configuration, dtype)
            if filters and stored.byte_order == ">":
                raise FormatError(
                    f"codec {shown(named[0][0])} with big-endian elements cannot be mapped;"
                    " rewrite the array little endian"
                )
            after = [parse_bytes_codec(n, c, typesize=dtype.itemsize) for n, c in named[at + 1 :]]
            return (*filters, *after), stored
        filters.append(parse_filter(name, configuration, dtype))
    raise FormatError("codecs has no codec from arrays to bytes; it must have 'bytes'")


def _parse_bytes(configuration: dict[str, Any], dtype: DataType) -> DataType:
    refuse_unknown(configuration, ("endian",), "codec 'bytes'")
    endian = configuration.get("endian")
    if endian not in ("little", "big", None):
        raise FormatError(
            f"endian of codec 'bytes' is {shown(endian)}; it must be 'little' or 'big'"
        )
    if dtype.byte_order == "|":
        return dtype
    if endian is None and dtype.fields:
        return dtype  # zarr-python up to 3.1 leaves it out for structs, and means little
    if endian is None:
        raise FormatError(
            f"codec 'bytes' has no endian; data_type {dtype.name!r} needs 'little' or 'big'"
        )
    return dtype.with_byte_order("<" if endian == "little" else ">")


def _parse_sharding(
    configuration: dict[str, Any], shard_shape: tuple[int, ...], dtype: DataType, depth: int
) -> tuple[Sharding, DataType]:
    if depth >= _MAX_SHARD_DEPTH:
        raise FormatError(
            f"codec 'sharding_indexed' nests deeper than {_MAX_SHARD_DEPTH}; use less"
        )
    known = ("chunk_shape", "codecs", "index_codecs", "index_location")
    refuse_unknown(configuration, known, "codec 'sharding_indexed'")
    chunk_shape = as_shape(
        configuration.get("chunk_shape"),
        "chunk_shape of codec 'sharding_indexed'",
        minimum=1,
        ndim=len(shard_shape),
    )
    if any(shard % chunk for shard, chunk in zip(shard_shape, chunk_shape, strict=True)):
        raise FormatError(
            f"inner chunks of shape {chunk_shape} do not divide shards of shape {shard_shape};"
            " make every length a divisor"
        )
    level = _parse_index(configuration, shard_shape, chunk_shape)
    inner, dtype = parse_codecs(
        configuration.get("codecs"), chunk_shape=chunk_shape, dtype=dtype, depth=depth + 1
    )
    return Sharding(chunk_shape, level, inner), dtype


def _parse_index(
    configuration: dict[str, Any], shard_shape: tuple[int, ...], chunk_shape: tuple[int, ...]
) -> ShardLevel:
    grid = tuple(s // c for s, c in zip(shard_shape, chunk_shape, strict=True))
    n_entries = bounded_product(grid, "a shard index")
    as_integer(n_entries, "the number of chunks in a shard", maximum=MAX_ENTRIES)
    level = ShardLevel(grid, _parse_location(configuration.get("index_location", "end")))
    if "index_codecs" not in configuration:
        return level  # zarr-python's default, which is ours
    return _parse_index_codecs(configuration["index_codecs"], level)


def _parse_location(value: object) -> Literal["start", "end"]:
    if value == "start":
        return "start"
    if value == "end":
        return "end"
    raise FormatError(f"index_location is {shown(value)}; it must be 'start' or 'end'")


def _parse_index_codecs(value: object, level: ShardLevel) -> ShardLevel:
    named = [as_configuration(codec, "an index codec") for codec in as_list(value, "index_codecs")]
    names = [name for name, _ in named]
    if names not in (["bytes"], ["bytes", "crc32c"]):
        raise FormatError(
            f"index_codecs are {shown(names)}; they must be 'bytes', then 'crc32c' or none"
        )
    numbers = _parse_bytes(named[0][1], DataType("uint64", 8, "<u8"))
    checksum = len(named) == 2
    if checksum:
        parse_bytes_codec("crc32c", named[1][1], typesize=8)  # checks its parameters
    return level._replace(little_endian=numbers.byte_order == "<", checksum=checksum)
