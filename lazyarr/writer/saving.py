"""`save`: arrays that exist, all at once."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from lazyarr.formats.zarr import group_document
from lazyarr.store.urls import local_path
from lazyarr.writer.boxes import whole
from lazyarr.writer.hierarchy import Hierarchy, check_name
from lazyarr.writer.labelled import expand, label
from lazyarr.writer.naming import ArrayOptions
from lazyarr.writer.opening import start_session
from lazyarr.writer.options import ChunksOption, CompressorOption, ShardsOption, plan_array
from lazyarr.writer.session import Session
from lazyarr.writer.source import Source, as_source

__all__ = ["save"]

DimensionNames: TypeAlias = Sequence[str | None] | None


@dataclass(frozen=True, slots=True)
class _Planned:
    """An array that is to be written, of which only the document is kept."""

    path: str
    document: bytes
    nbytes: int
    url: str | None
    open: Callable[[], Source]


def save(
    url: str | os.PathLike[str],
    data: Any,
    *,
    chunks: ChunksOption | Mapping[str, ChunksOption] = "auto",
    shards: ShardsOption | Mapping[str, ShardsOption] = "auto",
    compressor: CompressorOption = "zstd",
    level: int | None = None,
    attributes: Mapping[str, Any] | None = None,
    dimension_names: DimensionNames | Mapping[str, DimensionNames] = None,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    consolidated: bool | None = None,
    durable: bool = True,
    progress: bool = False,
) -> None:
    """Write an array, or several with names, as a store.

    Nobody sees the store before it is complete; see `create`, also for how much
    memory it takes.

    Parameters
    ----------
    url : str or os.PathLike
        A directory, or any URL that fsspec can write to.
    data : array-like, or mapping of str to array-like
        One array makes the root an array.  A mapping makes it a group; names such as
        ``"train/images"``, and mappings in mappings, make groups in it.  Arrays may be larger
        than memory: `numpy.memmap` and the arrays of zarr, h5py, dask and TensorStore are
        read a part at a time.  Attributes and names of axes of xarray, zarr, h5py and
        lazyarr are kept; so is an `xarray.Dataset` with its coordinates and the encoding of
        values, for `xarray.open_zarr`.
    chunks, shards : "auto", sequence of int, int, or mapping of str to one of these
        Shapes of the smallest chunks and of the objects that hold them; a number alone is
        one of rows.  ``"auto"`` gives contiguous chunks of about 512 KiB, and shards of about
        64 MiB.  ``shards=None`` makes every chunk an object.  For every array, or by the
        arrays' names; those that are not named have ``"auto"``.  A number that is for all of
        several arrays is multiplied where chunks would have less than 64 KiB by it, with a
        warning.
    compressor : {"zstd", "blosc", "none", "auto"}
        What compresses chunks.  ``"blosc"`` is zstd behind a shuffle of bytes: numbers of
        several bytes become smaller with it, and are read several times as fast; what is mostly
        zeros or repeats itself does not.  ``"none"`` begins every chunk at a page
        of its shard.  ``"auto"`` compresses up to eight chunks of each array, and picks
        "none" where that saves less than a twentieth; else blosc where it makes
        them at most a fifth larger than zstd does, or a tenth smaller if elements have one
        byte; else zstd.
    level : int, optional
        How hard the compressor tries: up to 22 with zstd, 3 by default; 1 to 9 with blosc, 1
        by default.
    attributes : mapping, optional
        Of the root: anything that JSON can hold, NumPy's numbers and arrays too.  By the arrays'
        names where each key is one, or ``""`` for the root, and each value a mapping.
    dimension_names : sequence of (str or None), or mapping of str to that, optional
        Names of the axes, for every array or by the arrays' names.
    overwrite : bool
        Whether a store that is there is replaced.  What is no store never is.
    storage_options : mapping, optional
        As fsspec takes them.
    consolidated : bool, optional
        Whether the root group holds copies of the metadata of all nodes, so that a reader
        needs one request for all.  By default it does, but for local stores: writers
        that do not know of the copies leave them stale.
    durable : bool
        Whether files and directories of a local store are forced to the disk (fsync) before
        the store is seen, so that it outlasts a power failure.
    progress : bool
        Whether to show a bar on stderr.

    Raises
    ------
    FileExistsError
        There is something already.
    FormatError
        Something does not fit into Zarr, or attributes not into JSON.
    TypeError
        Elements have no fixed size, as objects have, or something comes with an array that it
        would lose: coordinates, an index, columns, a unit.  The message says what keeps it.
    ValueError
        A name is not one that Zarr allows, or an option is given for an array that is not there.
    StoreError
        The place cannot be reached or written to.

    Examples
    --------
    >>> import lazyarr, numpy
    >>> images = numpy.zeros((100, 32, 32, 3), "uint8")
    >>> lazyarr.save("memory://doc-save", {"train/images": images})
    """
    given = {"chunks": chunks, "shards": shards, "dimension_names": dimension_names}
    # Everything is checked before anything is written, or deleted.
    groups, planned = _plan_all(
        data, {**given, "attributes": attributes}, {"compressor": compressor, "level": level}
    )
    _refuse_conflicts(groups, planned)
    _refuse_own_arrays(url, planned)
    root = groups.pop("", None)
    session = start_session(
        url,
        root,
        overwrite=overwrite,
        options=storage_options,
        consolidated=consolidated,
        durable=durable,
    )
    try:
        for path, document in sorted(groups.items()):
            session.add_group(path, document)
        with _progress_bar(planned, shown=progress) as report:
            for array in planned:
                _write(session, array, report)
        session.commit()
    except BaseException:
        session.abort()
        raise
    session.close()


def _plan_all(
    data: Any, given: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[dict[str, bytes], list[_Planned]]:
    """Return the documents of groups that are more than the way to an array, and all arrays.

    Parameters
    ----------
    data : array-like or mapping
        What is to be saved.
    given : mapping
        Options that may be given by name, attributes too.
    options : mapping
        Those that hold for all arrays.
    """
    groups: dict[str, dict[str, Any]] = {}
    arrays: dict[str, Callable[[], Any]] = {"": lambda: data}
    if isinstance(data, Mapping):
        arrays = dict(_flatten(data, "", groups))
    named = ArrayOptions(arrays, **given)
    planned = [_plan(path, give, named, options) for path, give in arrays.items()]
    for message in named.warnings():
        warnings.warn(message, UserWarning, stacklevel=3)
    documents = {path: group_document(inherited=members) for path, members in groups.items()}
    if groups:
        documents[""] = group_document(named.root_attributes, inherited=groups[""])
    return documents, planned


def _flatten(
    data: Mapping[str, Any], prefix: str, groups: dict[str, dict[str, Any]]
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield path, and a way to get the array, of everything in a mapping; note its groups.

    Not the array: a `numpy.lib.npyio.NpzFile` reads each when it is asked, and
    keeps none.
    """
    attributes, members = expand(data)
    if attributes or not prefix:
        groups[prefix.rstrip("/")] = attributes
    for name in members:
        path = prefix + check_name(name)
        value = members[name]
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{path}/", groups)
        else:
            yield path, lambda name=name: members[name]  # type: ignore[misc]


def _plan(
    path: str, give: Callable[[], Any], named: ArrayOptions, options: Mapping[str, Any]
) -> _Planned:
    data = label(give(), name=path)
    source = as_source(data.data, name=path)
    own = named.of(path, source.shape, source.dtype.itemsize)
    if own["dimension_names"] is None:
        own["dimension_names"] = data.dimension_names
    document = plan_array(
        path,
        shape=source.shape,
        dtype=source.dtype,
        inherited=data.attributes,
        sample=source,
        **own,
        **options,
    )
    url = getattr(data.data, "url", None)

    def reopen() -> Source:
        return as_source(label(give(), name=path).data, name=path)

    return _Planned(path, document, source.nbytes, url, reopen)


def _refuse_conflicts(groups: Mapping[str, bytes], planned: Sequence[_Planned]) -> None:
    """Raise as the session would, before it has begun."""
    hierarchy = Hierarchy()
    for path in sorted(groups):
        hierarchy.add(path, groups[path])
    for array in planned:
        hierarchy.add(array.path, array.document)


def _refuse_own_arrays(url: str | os.PathLike[str], planned: Sequence[_Planned]) -> None:
    # A local store stays until the new one is complete, and can be read meanwhile.
    if local_path(url) is not None:
        return
    for array in planned:
        if array.url is not None and array.url.rstrip("/") == str(url).rstrip("/"):
            raise ValueError(
                f"cannot write {array.path or '/'!r} to {url}: it is read from there, and an old "
                "store is deleted first; write to another place"
            )


def _write(session: Session, array: _Planned, report: Callable[[int], None] | None) -> None:
    sink = session.add_array(array.path, array.document)
    with session.writing():
        sink.report = report
        sink.fill(whole(sink.metadata.shape), array.open())
        # Before the next array: what this one held open is not in its way then.
        sink.flush()


@contextmanager
def _progress_bar(
    planned: Sequence[_Planned], *, shown: bool
) -> Iterator[Callable[[int], None] | None]:
    if not shown:
        yield None
        return
    # Imported here: it costs tens of milliseconds and most do not ask for it.
    from tqdm.auto import tqdm

    total = sum(array.nbytes for array in planned)
    with tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024, desc="save") as bar:
        yield bar.update
