"""`save`: arrays that exist, all at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lazyarr.format import group_document
from lazyarr.store.urls import local_path
from lazyarr.writer.boxes import whole
from lazyarr.writer.hierarchy import Hierarchy, check_name
from lazyarr.writer.opening import start_session
from lazyarr.writer.options import ChunksOption, CompressorOption, ShardsOption, plan_array
from lazyarr.writer.session import Session
from lazyarr.writer.source import Source, as_source

__all__ = ["save"]


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
    chunks: ChunksOption = "auto",
    shards: ShardsOption = "auto",
    compressor: CompressorOption = "zstd",
    level: int | None = None,
    attributes: Mapping[str, Any] | None = None,
    dimension_names: Sequence[str | None] | None = None,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
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
        read a part at a time.
    chunks, shards : "auto", sequence of int, or int
        Shapes of the smallest chunks and of the objects that hold them, for every
        array; a number alone is one of rows.  ``"auto"`` gives contiguous chunks of about
        512 KiB, and shards of about 64 MiB.  ``shards=None`` makes every chunk an object.
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
        Of the root: anything that JSON can hold.
    dimension_names : sequence of (str or None), optional
        Names of the axes, for every array.
    overwrite : bool
        Whether a store that is there is replaced.  What is no store never is.
    storage_options : mapping, optional
        As fsspec takes them.
    progress : bool
        Whether to show a bar on stderr.

    Raises
    ------
    FileExistsError
        There is something already.
    FormatError
        Something does not fit into Zarr, or attributes not into JSON.
    TypeError
        Elements have no fixed size, as objects have.
    ValueError
        A name is not one that Zarr allows.
    StoreError
        The place can not be reached or written to.

    Examples
    --------
    >>> import lazyarr, numpy
    >>> images = numpy.zeros((100, 32, 32, 3), "uint8")
    >>> lazyarr.save("memory://doc-save", {"train/images": images})
    """
    options: dict[str, Any] = {"chunks": chunks, "shards": shards}
    options |= {"compressor": compressor, "level": level, "dimension_names": dimension_names}
    if isinstance(data, Mapping):
        # Everything is checked before anything is written, or deleted.
        root = group_document(attributes)
        planned = [_plan(path, give, options) for path, give in _flatten(data, "")]
    else:
        root = None
        planned = [_plan("", lambda: data, {**options, "attributes": attributes})]
    _refuse_conflicts(root, planned)
    _refuse_own_arrays(url, planned)
    session = start_session(url, root, overwrite=overwrite, options=storage_options)
    try:
        with _progress_bar(planned, shown=progress) as report:
            for array in planned:
                _write(session, array, report)
        session.commit()
    except BaseException:
        session.abort()
        raise
    session.close()


def _flatten(data: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield path, and a way to get the array, of everything in a mapping.

    Not the array: a `numpy.lib.npyio.NpzFile` reads each when it is asked, and
    keeps none.
    """
    for name in data:
        path = prefix + check_name(name)
        value = data[name]
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{path}/")
        else:
            yield path, lambda name=name: data[name]  # type: ignore[misc]


def _plan(path: str, give: Callable[[], Any], options: Mapping[str, Any]) -> _Planned:
    data = give()
    source = as_source(data, name=path)
    document = plan_array(path, shape=source.shape, dtype=source.dtype, sample=source, **options)
    url = getattr(data, "url", None)
    return _Planned(path, document, source.nbytes, url, lambda: as_source(give(), name=path))


def _refuse_conflicts(root: bytes | None, planned: Sequence[_Planned]) -> None:
    """Raise as the session would, before it has begun."""
    hierarchy = Hierarchy()
    if root is not None:
        hierarchy.add("", root)
    for array in planned:
        hierarchy.add(array.path, array.document)


def _refuse_own_arrays(url: str | os.PathLike[str], planned: Sequence[_Planned]) -> None:
    # A local store stays until the new one is complete, and can be read meanwhile.
    if local_path(url) is not None:
        return
    for array in planned:
        if array.url is not None and array.url.rstrip("/") == str(url).rstrip("/"):
            raise ValueError(
                f"cannot write {array.path!r} to {url}: it is read from there, and an old store "
                "is deleted first; write to another place"
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
