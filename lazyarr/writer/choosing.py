"""Which compressor suits an array, found out on samples of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy

from lazyarr.formats.zarr.codec_names import parse_bytes_codec
from lazyarr.formats.zarr.compressors import compressor_codecs
from lazyarr.units import Span
from lazyarr.writer.boxes import box_shape

if TYPE_CHECKING:
    from lazyarr.codecs.base import BytesCodec
    from lazyarr.formats.zarr import Compressor
    from lazyarr.writer.boxes import Box
    from lazyarr.writer.source import Source

__all__ = ["candidate_codecs", "choose_compressor", "plan_samples"]

_MAX_SAMPLES = 8
_SAMPLE_NBYTES = 1 << 20
_TELLING_NBYTES = 1 << 16

# How fast a chunk decodes is not measured: a clock gives another answer every time,
# and the same data is to give the same store.  Where several bytes make an element,
# blosc gives back numbers two to seven times as fast as zstd, so it may be somewhat
# larger; single bytes it gives back as fast, so it has to be smaller (benchmarks/codecs.py).
_WORTH_COMPRESSING = 0.95
_BLOSC_MAY_BE = 1.2
_BLOSC_OF_BYTES_MAY_BE = 0.9


def choose_compressor(
    sample: Source | None, chunks: tuple[int, ...], dtype: numpy.dtype[Any], *, level: int | None
) -> Compressor:
    """Return what to compress an array with: by size, and what is known of speed.

    "none" where nothing makes it smaller by a twentieth; else blosc where it is at most a
    fifth larger than zstd, or, for elements of one byte, a tenth smaller; else zstd.
    That too where there is less than 64 KiB to judge by.  The same data gives
    the same answer.

    Parameters
    ----------
    sample : Source or None
        The array or some part of it, of which up to eight chunks are read; with None the
        level is checked, and that is all.
    chunks : tuple of int
        Shape of the chunks that will be compressed.
    dtype : numpy.dtype
        Elements as they will be stored.
    level : int or None
        How hard the compressors will try.

    Raises
    ------
    FormatError
        One of the compressors has no such level.
    """
    codecs = candidate_codecs(level, dtype.itemsize)
    if sample is None:
        return "zstd"
    raw_nbytes = 0
    nbytes = dict.fromkeys(codecs, 0)
    for box in plan_samples(sample.shape, chunks, dtype.itemsize):
        elements = numpy.ascontiguousarray(sample.read(box), dtype=dtype)
        data = elements.reshape(-1).view(numpy.uint8).data
        raw_nbytes += len(data)
        for name, codec in codecs.items():
            nbytes[name] += len(codec.encode(data))
    if raw_nbytes < _TELLING_NBYTES:
        return "zstd"
    if min(nbytes.values()) > _WORTH_COMPRESSING * raw_nbytes:
        return "none"
    may_be = _BLOSC_MAY_BE if dtype.itemsize > 1 else _BLOSC_OF_BYTES_MAY_BE
    return "blosc" if nbytes["blosc"] <= may_be * nbytes["zstd"] else "zstd"


def candidate_codecs(level: int | None, itemsize: int) -> dict[Compressor, BytesCodec]:
    """Return the compressors among which is chosen, for elements of so many bytes."""
    names: tuple[Compressor, ...] = ("zstd", "blosc")
    return {
        name: parse_bytes_codec(codec["name"], codec["configuration"], typesize=itemsize)
        for name in names
        for codec in compressor_codecs(name, level, itemsize=itemsize, chunk_nbytes=0)
    }


def plan_samples(shape: tuple[int, ...], chunks: tuple[int, ...], itemsize: int) -> Iterator[Box]:
    """Yield boxes of up to eight chunks that lie evenly in an array, first and last among them.

    Parameters
    ----------
    shape, chunks : tuple of int
        Of the array and its chunks.
    itemsize : int
        Size of an element in bytes; of a larger chunk about the first MiB is taken.

    Examples
    --------
    >>> [box[0].start for box in plan_samples((100, 4), (5, 4), 1)]
    [0, 10, 25, 40, 50, 65, 80, 95]
    """
    grid = tuple(-(-length // chunk) for length, chunk in zip(shape, chunks, strict=True))
    n_chunks = math.prod(grid)
    n_samples = min(n_chunks, _MAX_SAMPLES)
    for sample in range(n_samples):
        rest = sample * (n_chunks - 1) // max(1, n_samples - 1)
        place = []
        for length in reversed(grid):
            rest, coordinate = divmod(rest, length)
            place.append(coordinate)
        box = tuple(
            Span(c * n, min((c + 1) * n, length))
            for c, n, length in zip(reversed(place), chunks, shape, strict=True)
        )
        yield _beginning(box, itemsize)


def _beginning(box: Box, itemsize: int) -> Box:
    """Return the first elements of a box, about a MiB of them."""
    spans = list(box)
    for axis, span in enumerate(spans):
        row_nbytes = math.prod(box_shape(tuple(spans[axis + 1 :]))) * itemsize
        length = max(1, min(span.size, _SAMPLE_NBYTES // row_nbytes))
        spans[axis] = Span(span.start, span.start + length)
        if length > 1:
            break
    return tuple(spans)
