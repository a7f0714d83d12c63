"""References in Parquet files, each read when a key of its part is asked for.

Source: fsspec's `LazyReferenceMapper`, which kerchunk and VirtualiZarr write with.  A directory
has ``.zmetadata``, with the metadata documents of all nodes and `record_size`, and for each array
``<array>/refs.<n>.parq``.  Its row ``i`` is the reference of the array's chunk
``n * record_size + i``, counted in C order.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import re
import threading
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

from lazyarr.checks import as_integer, as_object, as_shape, chunk_lengths, parse_json, shown
from lazyarr.errors import FormatError, NodeNotFoundError, StoreError
from lazyarr.kernel import renew_in_child
from lazyarr.shortage import is_shortage
from lazyarr.store.base import METADATA_LIMIT_NBYTES, StoreReference
from lazyarr.store.references.entries import MAX_NBYTES, Target, Unread
from lazyarr.store.references.kept import KEPT
from lazyarr.store.stamps import is_unchanged

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lazyarr.store.base import Store
    from lazyarr.store.references.entries import Reference

__all__ = ["ParquetTable", "open_table"]

_METADATA = ".zmetadata"
_FILE = re.compile(r"refs\.([0-9]{1,18})\.parq")
_CHUNK = re.compile(r"(?:0|[1-9][0-9]{0,18})(?:[./](?:0|[1-9][0-9]{0,18}))*")
_COLUMNS = ("path", "offset", "size", "raw")
_MAX_PART_NBYTES = 1 << 30
"""How much one Parquet file may take when it is decompressed."""
_MAX_ROWS = 1 << 22
"""How many references one Parquet file may have."""


class _Grid(NamedTuple):
    """The chunks of an array: how many along each axis, and what is between their numbers."""

    shape: tuple[int, ...]
    separator: str


class _Part(NamedTuple):
    """One Parquet file: its columns, as arrays of pyarrow's, and their size in memory."""

    columns: Mapping[str, Any]
    n_rows: int
    nbytes: int


_EMPTY = _Part({}, 0, 0)
"""A Parquet file that was never written, for none of its chunks has a reference."""


class ParquetTable:
    """References in Parquet files of a store.

    Safe to use from several threads.

    Parameters
    ----------
    store : Store
        What has the files; the table owns it.
    documents : mapping of str to str
        The metadata documents by key.
    record_size : int
        How many references a file has.
    url : str
        What the references are, for messages.
    """

    def __init__(
        self, store: Store, documents: Mapping[str, str], record_size: int, url: str
    ) -> None:
        self._store = store
        self._documents = dict(documents)
        self._record_size = record_size
        self._url = url
        self._number = next(_numbers)
        self._grids: dict[str, _Grid | FormatError] = {}
        self._start_anew()
        _tables.add(self)

    def _start_anew(self) -> None:
        """Forget what is being read: in a forked child nobody reads it, whoever held the lock."""
        self._lock = threading.Lock()
        self._reading: dict[tuple[str, int], Future[_Part]] = {}

    def __repr__(self) -> str:
        return f"<ParquetTable of {self._url}>"

    def find(self, key: str) -> Reference | None:
        """Return what a key stands for; None when there is no reference for it."""
        found = self.find_now(key)
        if not isinstance(found, Unread):
            return found
        array, number, row = self._place(key) or ("", 0, 0)
        return self._reference(key, self._part(array, number), row)

    def find_now(self, key: str) -> Reference | Unread | None:
        """Return what `find` does where the file is here that has the reference."""
        document = self._documents.get(key)
        if document is not None:
            return document.encode("utf-8", "surrogatepass")
        place = self._place(key)
        if place is None:
            return None
        part = KEPT.get((self._number, *place[:2]))
        return Unread.UNREAD if part is None else self._reference(key, part, place[2])

    def names(self, prefix: str) -> Iterator[tuple[str, bool]]:
        """Yield each name directly below a prefix, and whether more lies below that name."""
        start = prefix + "/" if prefix else ""
        for key in self._keys(prefix):
            if key.startswith(start):
                name, slash, _ = key[len(start) :].partition("/")
                yield name, bool(slash)

    def _keys(self, prefix: str) -> Iterator[str]:
        """Yield all keys of documents, and those of the chunks of one array, if it is in one."""
        yield from self._documents
        array = self._array_of(prefix) if prefix else None
        grid = self._grid(array) if array is not None else None
        if array is None or grid is None:
            return
        n_chunks = math.prod(grid.shape)
        names = (_FILE.fullmatch(name) for name in self._store.list_names(array))
        for number in sorted(int(name.group(1)) for name in names if name):
            first = number * self._record_size
            part = self._part(array, number)
            for row in range(min(part.n_rows, n_chunks - first)):
                key = f"{array}/{_chunk_name(grid, first + row)}"
                if self._reference(key, part, row) is not None:
                    yield key

    def reference(self, prefix: str) -> StoreReference:
        """Return where the files are, and the documents of what lies at a prefix and below it."""
        start = prefix + "/" if prefix else ""
        documents = {k: text for k, text in self._documents.items() if k.startswith(start)}
        # Past what tries again: the other process does that itself.
        plain: Any = getattr(self._store, "inner", self._store)
        inner: StoreReference = plain.reference()
        description = {
            "kind": "parquet",
            "store": inner.description,
            "documents": documents,
            "record_size": self._record_size,
        }
        return StoreReference(description, inner.descriptors)

    def is_unchanged(self) -> bool:
        """Return whether the files that were read are certainly what they were."""
        return is_unchanged(self._store)

    def rest(self) -> None:
        """Let go of descriptors; what was read is kept."""
        self._store.rest()

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()

    def _place(self, key: str) -> tuple[str, int, int] | None:
        """Return array, file and row of a chunk's key; None for keys of no chunk."""
        array = self._array_of(key)
        grid = self._grid(array) if array is not None else None
        if array is None or grid is None:
            return None
        name = key[len(array) + 1 :] if array else key
        if not _CHUNK.fullmatch(name):
            return None
        indexes = [int(part) for part in name.split(grid.separator) if part.isdigit()]
        if name != grid.separator.join(map(str, indexes)) or len(indexes) != len(grid.shape):
            return None
        number = 0
        for index, length in zip(indexes, grid.shape, strict=True):
            if index >= length:
                return None
            number = number * length + index
        return (array, *divmod(number, self._record_size))

    def _array_of(self, key: str) -> str | None:
        """Return the array in which a key lies, if there is one."""
        while f"{key}/.zarray" not in self._documents:
            key, slash, _ = key.rpartition("/")
            if not slash:
                return "" if ".zarray" in self._documents else None
        return key

    def _grid(self, array: str) -> _Grid | None:
        found = self._grids.get(array)
        if found is None:
            try:
                found = _parse_grid(self._documents[f"{array}/.zarray" if array else ".zarray"])
            except FormatError as error:
                found = error
            self._grids[array] = found
        return None if isinstance(found, FormatError) else found

    def _part(self, array: str, number: int) -> _Part:
        """Return a file's references, read by one thread while others that want them wait."""
        place = (array, number)
        with self._lock:
            kept: _Part | None = KEPT.get((self._number, *place))
            if kept is not None:
                return kept
            reading = self._reading.get(place)
            is_first = reading is None
            if reading is None:
                reading = self._reading[place] = Future()
        if not is_first:
            return reading.result()
        try:
            part = self._read_part(array, number)
        except BaseException as error:
            with self._lock:
                del self._reading[place]
            reading.set_exception(error)
            raise
        with self._lock:
            del self._reading[place]
            if part is not _EMPTY:  # that may be written yet
                KEPT.put((self._number, *place), part, part.nbytes)
        reading.set_result(part)
        return part

    def _read_part(self, array: str, number: int) -> _Part:
        key = f"{array}/refs.{number}.parq" if array else f"refs.{number}.parq"
        data = self._store.read(key, limit_nbytes=METADATA_LIMIT_NBYTES)
        if data is not None:
            return _parse_part(data, f"{key!r} in {self._url}", self._record_size)
        # A file without references is never written.  Where all files are gone, that is no proof.
        if self._store.size(_METADATA) is None:
            message = (
                f"cannot read the references of {self._url}: there is no {_METADATA} any more; "
                "they were moved or deleted after they were opened"
            )
            raise StoreError(message, url=self._url, key=key, transient=False)
        return _EMPTY

    def _reference(self, key: str, part: _Part, row: int) -> Reference | None:
        if row >= part.n_rows:
            return None
        values = {name: column[row].as_py() for name, column in part.columns.items()}
        raw, path = _given(values.get("raw")), _given(values.get("path"))
        if isinstance(raw, str):
            raw = raw.encode("utf-8", "surrogatepass")
        if isinstance(raw, bytes):
            return raw
        if raw is None and path is None:
            return None
        start, nbytes = values.get("offset", 0), values.get("size", 0)
        is_valid = all(type(n) is int and 0 <= n < MAX_NBYTES for n in (start, nbytes))
        if raw is not None or not isinstance(path, str) or not is_valid:
            raise FormatError(
                f"the reference of {key!r} in {self._url} is {shown(values)}; it must be bytes, or "
                "a path with offset and size"
            )
        return Target(path, start, None if start == nbytes == 0 else nbytes)


def open_table(store: Store, url: str) -> ParquetTable:
    """Return the table in a directory of Parquet files.

    Parameters
    ----------
    store : Store
        The directory; the table owns it, unless this raises.
    url : str
        Where it is, for messages.

    Raises
    ------
    NodeNotFoundError
        There is nothing.
    FormatError
        It is something else, or pyarrow is not installed.
    """
    document = store.read(_METADATA, limit_nbytes=METADATA_LIMIT_NBYTES)
    if document is None:
        message = f"cannot open {url}: there is no {_METADATA} of references there; check the URL"
        raise NodeNotFoundError(message, url=url, path="")
    try:
        members = parse_json(document, _METADATA)
        record_size = as_integer(members.get("record_size"), "record_size", minimum=1)
        documents = as_object(members.get("metadata"), "metadata")
    except FormatError as error:
        raise FormatError(f"cannot open {url} as references in Parquet files: {error}") from error
    _pyarrow()
    texts = {key: json.dumps(value) for key, value in documents.items()}
    return ParquetTable(store, texts, record_size, url)


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        if is_shortage(error):
            raise
        raise FormatError(
            "pyarrow, which reads references in Parquet files, is not installed; "
            "pip install 'lazyarr[kerchunk]'"
        ) from error
    return pyarrow.parquet


def _parse_part(data: bytes, what: str, record_size: int) -> _Part:
    try:
        file = _pyarrow().ParquetFile(io.BytesIO(data))
        groups = [file.metadata.row_group(n) for n in range(file.metadata.num_row_groups)]
        n_rows, nbytes = file.metadata.num_rows, sum(group.total_byte_size for group in groups)
        most = min(record_size, _MAX_ROWS)
        if n_rows > most or nbytes > _MAX_PART_NBYTES:
            raise FormatError(
                f"{what} has {n_rows} references in {nbytes} bytes; there may be {most} in "
                f"{_MAX_PART_NBYTES}"
            )
        names = [name for name in _COLUMNS if name in file.schema_arrow.names]
        # A text that a million rows have is kept once, however long it is.
        once = [name for name in ("path", "raw") if name in names]
        file = _pyarrow().ParquetFile(io.BytesIO(data), read_dictionary=once)
        table = file.read(names, use_threads=False).combine_chunks()
    except FormatError:
        raise
    # ArrowInvalid is a ValueError, ArrowIOError an OSError; there are more.
    except Exception as error:
        raise FormatError(f"{what} is no Parquet file: {error}") from error
    columns = {name: table.column(name) for name in names}
    return _Part(columns, table.num_rows, table.nbytes + len(data))


def _given(value: object) -> object:
    """Return a value; None for what pandas has in place of one that is missing."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _parse_grid(document: str) -> _Grid:
    members = parse_json(document.encode("utf-8", "surrogatepass"), ".zarray")
    shape = as_shape(members.get("shape"), "shape")
    chunks = chunk_lengths(members.get("chunks"), "chunks", shape)
    lengths = tuple(-(-n // c) for n, c in zip(shape, chunks, strict=True))
    # The only chunk of an array without axes has the key "0".
    return _Grid(lengths or (1,), "/" if members.get("dimension_separator") == "/" else ".")


def _chunk_name(grid: _Grid, number: int) -> str:
    indexes = []
    for length in reversed(grid.shape):
        number, index = divmod(number, length)
        indexes.append(str(index))
    return grid.separator.join(reversed(indexes))


_numbers = itertools.count()
_tables: weakref.WeakSet[ParquetTable] = weakref.WeakSet()


def _start_all_anew() -> None:
    for table in list(_tables):
        table._start_anew()  # noqa: SLF001 - the module's own class


renew_in_child(_start_all_anew)
