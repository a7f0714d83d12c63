"""Stores as their users write them: `create`, `open_writer`, `Writer`."""

from __future__ import annotations

import functools
import operator
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy

from lazyarr.formats.zarr import group_document
from lazyarr.writer.arrays import ArrayWriter
from lazyarr.writer.hierarchy import check_name
from lazyarr.writer.opening import resume_session, start_session
from lazyarr.writer.options import ChunksOption, CompressorOption, ShardsOption, plan_array
from lazyarr.writer.source import as_source

if TYPE_CHECKING:
    from typing import Self

    from lazyarr.writer.session import Session
    from lazyarr.writer.source import Source

__all__ = [
    "Writer",
    "array_planner",
    "create",
    "lengths_of",
    "open_writer",
    "start_session",
]


class Writer:
    """A store that is being written; `lazyarr.create` gives it.

    Parameters
    ----------
    session : Session
        The store.

    Notes
    -----
    A context manager: at its end the store is published, or, after an exception, what was
    written is taken away.  Without ``with``, call `close` or `abort`.  Safe from several
    threads; not to be used in a forked child.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def __repr__(self) -> str:
        state = "closed" if self._session.is_closed else "open"
        return f"<Writer {self.url!r}, {state}>"

    def __del__(self) -> None:
        """Warn of what is lost: nobody can publish the store any more."""
        if self._session.is_abandoned:
            message = f"{self!r} was neither closed nor aborted: what it wrote is not published"
            warnings.warn(message, ResourceWarning, stacklevel=1, source=self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __getitem__(self, path: str) -> ArrayWriter:
        """Return an array of the store; ``""`` is the root, where that is an array.

        Raises
        ------
        NodeNotFoundError
            There is no such array.
        FormatError
            It is not what lazyarr can write.
        """
        return ArrayWriter(self._session, self._session.open_array(path))

    @property
    def url(self) -> str:
        """Where the store is, or will be, without credentials."""
        return self._session.place.url

    def create_array(
        self,
        name: str,
        *,
        shape: int | Sequence[int],
        dtype: Any,
        chunks: ChunksOption = "auto",
        shards: ShardsOption = "auto",
        compressor: CompressorOption = "zstd",
        level: int | None = None,
        fill_value: Any = 0,
        attributes: Mapping[str, Any] | None = None,
        dimension_names: Sequence[str | None] | None = None,
    ) -> ArrayWriter:
        """Return a new array, which is all fill value until elements are written.

        Parameters
        ----------
        name : str
            Its place in the store, such as ``"train/images"``; the groups above are
            made when they are missing.
        shape : int or sequence of int
            Its lengths.  The first one may be 0, for an array that grows by `append`.
        dtype : dtype-like
            Its elements; stored little endian.
        chunks, shards, compressor, level
            As `save` takes them.  ``compressor="auto"`` looks at the first elements that are
            written.
        fill_value : object
            What elements are that nobody wrote.  Chunks of nothing else are not stored.
        attributes : mapping, optional
            Anything that JSON can hold, and NumPy's numbers and arrays, which become such.
        dimension_names : sequence of (str or None), optional
            Names of the axes.

        Raises
        ------
        FileExistsError
            There is a node of this name.
        FormatError
            Something does not fit together, or not into Zarr.
        TypeError
            Elements of this dtype have no fixed size.
        ValueError
            The name is not one that Zarr allows, or the writer is closed.
        """
        document, choose = array_planner(
            name,
            shape=shape,
            dtype=dtype,
            chunks=chunks,
            shards=shards,
            compressor=compressor,
            level=level,
            fill_value=fill_value,
            attributes=attributes,
            dimension_names=dimension_names,
        )
        sink = self._session.add_array(check_name(name), document, choose)
        return ArrayWriter(self._session, sink)

    def create_group(self, name: str, *, attributes: Mapping[str, Any] | None = None) -> None:
        """Make a group, for its attributes: `create_array` makes those that it needs.

        Raises
        ------
        FileExistsError
            There is a node of this name.
        FormatError
            The attributes do not fit into JSON.
        ValueError
            The name is not one that Zarr allows, or the writer is closed.
        """
        self._session.add_group(check_name(name), group_document(attributes))

    def close(self) -> None:
        """Put what is left, and make the store, or what was added to it, visible.

        Raises
        ------
        StoreError
            It could not be written; nothing is visible then.
        """
        if self._session.is_closed:
            return
        try:
            self._session.commit()
        except BaseException:
            self._session.abort()
            raise
        self._session.close()

    def abort(self) -> None:
        """Take away what was written.

        Elements of arrays that existed before, and were given new values, may have them.
        """
        self._session.abort()


def array_planner(
    name: str,
    *,
    shape: int | Sequence[int],
    dtype: Any,
    compressor: CompressorOption = "zstd",
    **wanted: Any,
) -> tuple[bytes, Callable[[Source], bytes] | None]:
    """Return a new array's document, and what gives one that suits the first elements.

    The parameters are those of `Writer.create_array`.  The second is None unless the document
    depends on elements.
    """
    example = as_source(numpy.empty(0, dtype), name=name)
    plan = functools.partial(
        plan_array,
        name,
        shape=lengths_of(shape),
        dtype=example.dtype,
        compressor=compressor,
        **wanted,
    )
    choose = (lambda sample: plan(sample=sample)) if compressor == "auto" else None
    return plan(), choose


def lengths_of(shape: int | Sequence[int]) -> tuple[int, ...]:
    """Return a shape that may be a number alone."""
    try:
        given = shape if isinstance(shape, Iterable) else (shape,)
        return tuple(map(operator.index, given))
    except TypeError:
        raise TypeError(
            f"shape is {shape!r:.80}; give a whole number for each axis, 0 for a leading axis "
            "that grows"
        ) from None


def create(
    url: str | os.PathLike[str],
    *,
    attributes: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    consolidated: bool | None = None,
    durable: bool = True,
) -> Writer:
    """Return the writer of a new store.

    The store is seen by nobody before the writer is closed.  On a local file system
    it is written in a hidden directory beside its place and then renamed: a writer that
    dies leaves no store, or the old one, and at most a ``.name.partial-*`` directory
    that the next one removes.  Elsewhere the root's document is put last; an old store
    is deleted first.

    Parameters
    ----------
    url : str or os.PathLike
        A directory, or any URL that fsspec can write to.
    attributes : mapping, optional
        Of the root group: anything that JSON can hold, and NumPy's numbers and arrays, which
        become such.
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

    Raises
    ------
    FileExistsError
        There is something already.
    FormatError
        The attributes do not fit into JSON.
    StoreError
        The place cannot be reached or written to.

    See Also
    --------
    lazyarr.open : with mode ``"r+"``, changes a store that exists.

    Notes
    -----
    Stands to ``lazyarr.open(url, "r+")`` as ``"w+"`` to ``"r+"`` with `numpy.memmap`.

    Compresses on as many threads as `lazyarr.configure(threads=...)` says.  Up to 128 MiB
    of elements are in work at a time, up to 128 MiB of compressed shards are on their
    way to the store, and up to 128 MiB wait for the rest of their shards; more only
    where one shard is larger.

    Examples
    --------
    >>> import lazyarr
    >>> with lazyarr.create("memory://doc-create", attributes={"by": "me"}) as writer:
    ...     labels = writer.create_array("train/labels", shape=(100,), dtype="int64")
    ...     labels[:] = range(100)
    """
    document = group_document(attributes)
    session = start_session(
        url,
        document,
        overwrite=overwrite,
        options=storage_options,
        consolidated=consolidated,
        durable=durable,
    )
    return Writer(session)


def open_writer(
    url: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None = None,
    *,
    durable: bool = True,
) -> Writer:
    """Return the writer of a store that exists, to append to its arrays or add more.

    Objects are replaced one at a time, each in one step, and an array's document is
    written after its data: readers see the old length or the new one, and a writer
    that dies loses no row that was there.

    Parameters
    ----------
    url : str or os.PathLike
        The store.
    storage_options : mapping, optional
        As fsspec takes them.
    durable : bool
        Whether what is written to a local store is forced to the disk (fsync): data before the
        documents that count it, so that a power failure leaves the old rows, or all.

    Raises
    ------
    NodeNotFoundError
        There is no store.
    FormatError
        It is of Zarr v2.
    StoreError
        It cannot be reached or written to, or somebody else is writing to it.

    Notes
    -----
    One writer at a time.  Of two for a local store, in any process of this machine, the second
    gets a `StoreError` that names the process of the first.  In an object store, or from
    several machines, the one that is closed last gets one, if the other has changed the
    same documents meanwhile; if both are closed within the same moment, rows can still be lost.

    Examples
    --------
    >>> import lazyarr
    >>> from lazyarr.writer import open_writer
    >>> lazyarr.save("memory://doc-open", {"labels": [7, 8]})
    >>> with open_writer("memory://doc-open") as writer:
    ...     writer["labels"].append([1, 2, 3])
    """
    return Writer(resume_session(url, options=storage_options, durable=durable))
