"""A conversion to a Zarr store, which can be stopped and gone on with, and is checked."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from lazyarr.cli.options import lengths_of
from lazyarr.client.arrays.text import count, printable
from lazyarr.errors import ChunkError, FormatError
from lazyarr.formats.zarr import data_type_from_numpy, group_document
from lazyarr.formats.zarr.datatype_v3 import data_type_document
from lazyarr.store.urls import local_path, without_credentials
from lazyarr.writer.boxes import whole
from lazyarr.writer.hierarchy import check_name
from lazyarr.writer.naming import fit_rows
from lazyarr.writer.options import plan_array
from lazyarr.writer.resuming import Plan
from lazyarr.writer.source import as_source
from lazyarr.writer.stores import start_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lazyarr.cli.sources import Collection
    from lazyarr.formats.base import ArrayDescription
    from lazyarr.writer.session import Session
    from lazyarr.writer.sink import ArraySink

__all__ = [
    "DifferenceError",
    "convert_to_store",
    "leave_out_unfit",
    "progress_bar",
    "require_unchanged",
    "say_stopped",
    "stamp",
]


class DifferenceError(ValueError):
    """What was written is not what the source has."""


@dataclass(frozen=True, slots=True)
class _Documents:
    """The documents of the store to be."""

    root: bytes | None
    groups: dict[str, bytes]
    arrays: dict[str, bytes]

    def digest(self) -> str:
        found = hashlib.sha256(self.root or b"")
        for path, document in (*self.groups.items(), *self.arrays.items()):
            found.update(b"%d %b %d %b" % (len(path), path.encode(), len(document), document))
        return found.hexdigest()


def convert_to_store(collection: Collection, dst: str, options: Mapping[str, Any]) -> None:
    """Write everything, check it, and publish it.

    Parameters
    ----------
    collection : Collection
        What is read.
    dst : str
        Where the store is to be.
    options : mapping
        Those of the command.

    Raises
    ------
    DifferenceError
        The store has other elements than the source.
    StoreError
        Also where the source has changed meanwhile, or another conversion to this place was
        stopped half-way.
    """
    leave_out_unfit(collection, _find_unfit, skip=options["skip"])
    documents = _plan_documents(collection, options)
    plan = Plan(stamp(collection), documents.digest())
    session = start_session(
        dst,
        documents.root,
        overwrite=options["overwrite"],
        options=options["dst_storage_options"],
        plan=plan,
        restart=options["restart"],
        in_archive=dst.lower().endswith(".zip"),
    )
    try:
        _fill(session, collection, documents, options)
        require_unchanged(collection, plan.source)
        session.commit()
    except BaseException as error:
        # After a difference, or of another source, there is nothing to go on with but by --restart.
        if session.suspend() and not isinstance(error, ValueError):
            say_stopped(error)
        raise
    session.close()


def _fill(
    session: Session, collection: Collection, documents: _Documents, options: Mapping[str, Any]
) -> None:
    """Put all objects that are missing, and compare all."""
    if session.place.is_resumed:
        click.echo("going on where a conversion was stopped", err=True)
    for path, document in documents.groups.items():
        session.add_group(path, document)
    sinks = {path: session.add_array(path, text) for path, text in documents.arrays.items()}
    nbytes = collection.nbytes
    with progress_bar("convert", nbytes, options) as report:
        for path, sink in sinks.items():
            sink.report = report
            with session.writing():
                _copy(collection, path, sink)
    if session.place.is_resumed:
        n_kept = sum(sink.n_kept for sink in sinks.values())
        click.echo(f"kept {count(n_kept, 'object')} that had been written", err=True)
    if options["check"]:
        with progress_bar("check", nbytes, options) as report:
            for path, sink in sinks.items():
                sink.report = report
                with session.writing():
                    _check(collection, path, sink, session.place.url)


def _copy(collection: Collection, path: str, sink: ArraySink) -> None:
    # The source is closed at the end: to check is to read it anew, and not the same memory.
    source = as_source(collection.open(path), name=path)
    sink.fill(whole(source.shape), source)
    # Before the next array: what this one held open is not in its way then.
    sink.flush()


def _check(collection: Collection, path: str, sink: ArraySink, url: str) -> None:
    source = as_source(collection.open(path), name=path)
    found = ""
    try:
        different = sink.find_difference(source)
        if different is not None:
            where = ", ".join(f"{span.start}:{span.stop}" for span in different)
            found = f"what was written of it is not what was read of it, in [{where}]"
    except ChunkError as error:
        if error.url != url:
            raise  # it is one of the source
        found = str(error)
    if found:
        raise DifferenceError(
            f"array {path or '/'!r} does not come back: {found}; nothing is published; check "
            "memory and disk, and begin anew with --restart"
        )


def say_stopped(error: BaseException) -> None:
    """Say that the same command goes on; end the command where its user has stopped it."""
    click.echo("stopped: the same command goes on from here", err=True)
    if isinstance(error, KeyboardInterrupt):
        raise click.Abort from error


def leave_out_unfit(
    collection: Collection, find_unfit: Callable[[ArrayDescription], str | None], *, skip: bool
) -> None:
    """Take away the arrays of a collection that cannot be written, and name them.

    Parameters
    ----------
    collection : Collection
        What is read.
    find_unfit : callable
        Says why what is written cannot hold an array; None where it can.
    skip : bool
        Whether arrays may be left out.

    Raises
    ------
    FormatError
        There is such an array, and it must not be left out.
    """
    for path, array in tuple(collection.arrays.items()):
        unfit = find_unfit(array.native())
        if unfit is None:
            continue
        why = f"array {path or '/'!r}: {unfit}"
        if not skip:
            raise FormatError(
                f"{why}; leave such arrays out with --skip, or write another format", path=path
            )
        click.echo(printable(f"left out: {why}"), err=True)
        del collection.arrays[path]


def _find_unfit(array: ArrayDescription) -> str | None:
    dtype = array.dtype.to_numpy()
    try:
        data_type_document(data_type_from_numpy(dtype))
    except FormatError:
        return f"it is of dtype {dtype}, which Zarr v3 stores do not have"
    return None


def require_unchanged(collection: Collection, before: str) -> None:
    """Raise where a source has another stamp than it had."""
    if stamp(collection) != before:
        raise ValueError(
            f"cannot convert {without_credentials(collection.url)}: it has changed while it was "
            "read; convert it when nobody writes to it"
        )


def stamp(collection: Collection) -> str:
    """Return what differs from this as soon as the source does, as far as can be told cheaply.

    Of local files their names, sizes and times of change.  Nobody tells as much of other stores
    without a request for each object; there it is what the arrays say of themselves.
    """
    found = hashlib.sha256()
    for path, array in collection.arrays.items():
        found.update(repr((path, array.shape, array.dtype, array.document)).encode())
    local = local_path(collection.url)
    for name, nbytes, changed_ns in () if local is None else _files(os.path.realpath(local)):
        found.update(b"%b %d %d\0" % (os.fsencode(name), nbytes, changed_ns))
    return found.hexdigest()


def _files(path: str) -> Iterator[tuple[str, int, int]]:
    """Yield name, size and time of change of a file, or of all files below a directory."""
    if not os.path.isdir(path):
        status = os.stat(path)
        yield "", status.st_size, status.st_mtime_ns
        return
    seen: set[tuple[int, int]] = set()
    for directory, below, names in os.walk(path, followlinks=True):
        status = os.stat(directory)
        if (status.st_dev, status.st_ino) in seen:  # a link leads back to it
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        # The store that is being written may lie in the directory that is read.
        below[:], names = (
            sorted(n for n in found if not (n.startswith(".") and ".partial-" in n))
            for found in (below, names)
        )
        for name in names:
            where = os.path.join(directory, name)
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(where)
                yield os.path.relpath(where, path), status.st_size, status.st_mtime_ns


def _plan_documents(collection: Collection, options: Mapping[str, Any]) -> _Documents:
    # Names come from a file or a store that anybody may have made.
    for path in (*collection.groups, *collection.arrays):
        if path:
            check_name(path)
    groups = {
        path: group_document(inherited=members) for path, members in collection.groups.items()
    }
    is_alone = len(collection.arrays) == 1
    arrays = {
        path: _plan_array(collection, path, options, is_alone=is_alone)
        for path in collection.arrays
    }
    return _Documents(groups.pop("", None), groups, arrays)


def _plan_array(
    collection: Collection, path: str, options: Mapping[str, Any], *, is_alone: bool
) -> bytes:
    """Return the document of an array as it will be written."""
    found = collection.arrays[path].native()
    shape, dtype = found.shape, found.dtype.to_numpy()
    chunks: Any = lengths_of(options["chunks"], shape, is_alone=is_alone)
    shards: Any = lengths_of(options["shards"], shape, is_alone=is_alone)
    if not is_alone:
        before = chunks, shards
        chunks, shards = fit_rows(shape, dtype.itemsize, chunks, shards)
        if (chunks, shards) != before:
            what = f"chunks of {chunks}" if chunks != before[0] else f"shards of {shards}"
            asked = before[0] if chunks != before[0] else before[1]
            line = f"{path}: {what} rows, for {asked} would have less than 64 KiB"
            click.echo(printable(line), err=True)
    attributes = dict(found.attributes)
    if found.missing_value is not None:
        attributes["_FillValue"] = found.missing_value
    is_auto = options["compressor"] == "auto"
    return plan_array(
        path,
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        compressor=options["compressor"],
        level=options["level"],
        fill_value=found.fill_value,
        inherited=attributes,
        dimension_names=found.dimension_names,
        sample=as_source(collection.open(path), name=path) if is_auto else None,
    )


@contextlib.contextmanager
def progress_bar(
    what: str, nbytes: int, options: Mapping[str, Any]
) -> Iterator[Callable[[int], object]]:
    """Give what is told of how many bytes more are done, and shows it unless it is to be quiet."""
    from tqdm import tqdm

    units = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
    with tqdm(total=nbytes, desc=what, disable=options["quiet"], **units) as bar:
        yield bar.update
