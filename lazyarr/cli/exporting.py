"""A conversion to one file: a few MiB at a time, checked, and complete or not there.

It can be stopped and gone on with: what a file has around its elements is written first, and how
far the elements have come is kept beside it.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import numpy

from lazyarr.cli.converting import (
    DifferenceError,
    leave_out_unfit,
    progress_bar,
    require_unchanged,
    say_stopped,
    stamp,
)
from lazyarr.cli.file_writers import WRITERS, Outgoing
from lazyarr.client.arrays.text import count, format_nbytes
from lazyarr.dataset import open as open_node
from lazyarr.formats.base import is_path
from lazyarr.formats.zarr import default_chunks
from lazyarr.store.urls import local_path
from lazyarr.writer.boxes import box_shape, plan_reads, whole
from lazyarr.writer.new_file import NewFile
from lazyarr.writer.resuming import Plan
from lazyarr.writer.sink import is_same
from lazyarr.writer.source import as_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from lazyarr.cli.file_writers import FileWriter
    from lazyarr.cli.sources import Collection
    from lazyarr.writer.boxes import Box
    from lazyarr.writer.source import Source

__all__ = ["convert_to_file", "file_format_of"]

_READ_AS = {"netcdf": "hdf5"}
_KEPT_NBYTES = 1 << 26  # as much is written again, at most


class _Progress(NamedTuple):
    """How far a file has come.

    Attributes
    ----------
    starts : list of int
        Where the elements of each array begin in it.
    nbytes : int
        How much of them is there, and forced to the disk, in the order of the arrays.
    """

    starts: list[int]
    nbytes: int = 0


def convert_to_file(collection: Collection, dst: str, options: Mapping[str, Any]) -> None:
    """Write everything to a file beside its place, check it, and give it its name.

    Parameters
    ----------
    collection : Collection
        What is read.
    dst : str
        The path of the file to be.
    options : mapping
        Those of the command.

    Raises
    ------
    ValueError
        The format cannot hold what the source has, or the file comes back different.
    FileExistsError
        There is something at `dst`.
    StoreError
        A conversion to this place was stopped half-way, and had another source or other arrays.
    """
    word = file_format_of(dst)
    assert word is not None
    writer = WRITERS[word]
    leave_out_unfit(collection, writer.find_unfit(), skip=options["skip"])
    arrays = [_outgoing(collection, path, writer) for path in collection.arrays]
    plan = Plan(stamp(collection), _digest(word, arrays, collection))
    path = local_path(dst)
    assert path is not None
    file = NewFile(path, overwrite=options["overwrite"], plan=plan, restart=options["restart"])
    try:
        with file.errors():
            _fill(file, writer, arrays, collection, options)
        if options["check"]:
            _check(file.path, word, arrays, collection, options)
        require_unchanged(collection, plan.source)
        with file.errors():
            file.publish()
    except BaseException as error:
        # After a difference, or of another source, there is nothing to go on with.
        if not isinstance(error, ValueError) and file.suspend():
            say_stopped(error)
        raise
    finally:
        file.close()


def file_format_of(dst: str) -> str | None:
    """Return which format a file of this name is written in; None for a store."""
    ends = ((word, writer.suffixes) for word, writer in WRITERS.items())
    return next((word for word, suffixes in ends if dst.lower().endswith(suffixes)), None)


def _outgoing(collection: Collection, path: str, writer: FileWriter) -> Outgoing:
    if path and not is_path(path):
        raise ValueError(f"cannot write array {path!r}: it is no name for an array in a file")
    return Outgoing(path or writer.root_name, path, collection.arrays[path].native())


def _digest(word: str, arrays: Sequence[Outgoing], collection: Collection) -> str:
    """Return what differs from this when the file is to be another."""
    said = [(a.name, a.shape, a.dtype.descr, a.attributes()) for a in arrays]
    return hashlib.sha256(repr((word, said, collection.groups)).encode()).hexdigest()


def _fill(
    file: NewFile,
    writer: FileWriter,
    arrays: Sequence[Outgoing],
    collection: Collection,
    options: Mapping[str, Any],
) -> None:
    """Write what is around the elements, and all elements, but for what is there."""
    _say_what_is_lost(writer, collection)
    progress = _Progress(**file.kept) if file.kept else None
    if progress is None:
        progress = _Progress(writer.make(file.path, arrays, collection.groups))
    else:
        said = format_nbytes(progress.nbytes)
        click.echo(f"going on where a conversion was stopped: {said} are written", err=True)
    with progress_bar("convert", collection.nbytes, options) as report:
        report(progress.nbytes)
        with open(file.path, "r+b", buffering=0) as opened:
            _copy(opened.fileno(), file, arrays, collection, progress, report)
    writer.finish(file.path, arrays, progress.starts)


def _copy(
    fd: int,
    file: NewFile,
    arrays: Sequence[Outgoing],
    collection: Collection,
    progress: _Progress,
    report: Callable[[int], object],
) -> None:
    stop, kept = 0, progress.nbytes
    for array, begins in zip(arrays, progress.starts, strict=True):
        start, source = stop, None
        for box in _runs(array.shape, array.dtype.itemsize):
            nbytes = int(numpy.prod(box_shape(box), dtype=object)) * array.dtype.itemsize
            stop += nbytes
            if stop <= progress.nbytes:
                continue
            source = source or as_source(collection.open(array.path), name=array.path)
            block = numpy.ascontiguousarray(source.read(box))
            _write(fd, block, begins + stop - nbytes - start)
            report(nbytes)
            if stop - kept >= _KEPT_NBYTES:
                os.fdatasync(fd)
                file.keep(progress._replace(nbytes=stop)._asdict())
                kept = stop


def _write(fd: int, block: numpy.ndarray[Any, Any], at: int) -> None:
    data = _bytes_of(block)
    while data:
        n = os.pwrite(fd, data, at)
        data, at = data[n:], at + n


def _bytes_of(block: numpy.ndarray[Any, Any]) -> memoryview:
    # Types of ml_dtypes and dates refuse the buffer protocol; bytes do not.
    return block.reshape(-1).view(numpy.uint8).data


def _runs(shape: tuple[int, ...], itemsize: int) -> Iterator[Box]:
    """Yield boxes of up to about 64 MiB, each a run of elements in C order."""
    chunks = default_chunks(shape, itemsize)
    return plan_reads(whole(shape), chunks, chunks, itemsize)


def _say_what_is_lost(writer: FileWriter, collection: Collection) -> None:
    n_attributes = 0
    if not writer.keeps_attributes:
        nodes = {**collection.groups, **{p: a.attributes for p, a in collection.arrays.items()}}
        if writer.called == "safetensors":
            nodes[""] = {k: v for k, v in nodes.get("", {}).items() if not isinstance(v, str)}
        n_attributes = sum(bool(attributes) for attributes in nodes.values())
    names = [array.dimension_names for array in collection.arrays.values()]
    n_names = sum(each is not None and not writer.keeps_names(each) for each in names)
    if n_attributes or n_names:
        click.echo(
            f"left out, for {writer.called} files have no place for them: attributes of "
            f"{count(n_attributes, 'node')}, names of axes of {count(n_names, 'array')}",
            err=True,
        )


def _check(
    written: str,
    word: str,
    arrays: Sequence[Outgoing],
    collection: Collection,
    options: Mapping[str, Any],
) -> None:
    """Compare a file, as `lazyarr.open` reads it, with its source."""
    with progress_bar("check", collection.nbytes, options) as report:
        for number, array in enumerate(arrays):
            name = WRITERS[word].place(array, number, len(arrays))
            node = open_node(written, path=name, format=_READ_AS.get(word, word))
            read = as_source(node, name=array.name)
            expected = as_source(collection.open(array.path), name=array.path)
            different = _difference(expected, read, report)
            if different is not None:
                raise DifferenceError(
                    f"what was written of array {array.path or '/'!r} is not what was read of it, "
                    f"{different}; nothing is published: check memory and disk"
                )


def _difference(expected: Source, found: Source, report: Callable[[int], object]) -> str | None:
    kinds = [f"{source.dtype} {source.shape}" for source in (expected, found)]
    if kinds[0] != kinds[1]:
        return f"{kinds[0]}, but {kinds[1]}"
    for box in _runs(expected.shape, expected.dtype.itemsize):
        part = expected.read(box)
        if not is_same(part, found.read(box)):
            return f"in [{', '.join(f'{span.start}:{span.stop}' for span in box)}]"
        report(part.nbytes)
    return None
