"""The store whose objects are what references say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from lazyarr.errors import StoreError
from lazyarr.store.base import (
    Answer,
    StoreReference,
    check_key,
    check_limit,
    check_range,
)
from lazyarr.store.references.entries import Target, Unread
from lazyarr.store.references.packed_table import FewReferences, PackedTable
from lazyarr.store.references.targets import TargetRules, Targets
from lazyarr.store.urls import without_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from lazyarr.store.base import Arrived, Store
    from lazyarr.store.references.entries import Reference, SharedTable, Table

__all__ = ["ReferenceStore", "open_references"]

_Result = TypeVar("_Result")


class ReferenceStore:
    """Objects that lie in references, or in the files to which these lead; for reading only.

    A key without a reference is not stored.  A key whose target is missing, or shorter than
    the reference says, is an error: it was stored, and is out of reach.

    Parameters
    ----------
    table : Table
        The references.
    targets : Targets
        Where they lead.
    url : str
        What has the references.
    protocols : collection of str
        Those of the targets, as far as they are known.
    root : str
        Below which key the store lies; "" for all of the references.

    Notes
    -----
    Safe to use from several threads.  Survives fork, as tables and targets do.
    """

    kind = "references to other files (kerchunk)"

    def __init__(
        self,
        table: Table,
        targets: Targets,
        url: str,
        protocols: Collection[str],
        *,
        root: str = "",
    ) -> None:
        self.url = without_credentials(f"{url}/{root}" if root else url)
        self._full_url = url
        self._root = root
        self._table = table
        self._targets = targets
        self._protocols = protocols
        # Targets on servers are read on the event loop, many at once.
        self.is_asynchronous = not {*protocols} <= {"file", "local", "memory"}

    def __repr__(self) -> str:
        return f"ReferenceStore({self.url!r}, {self._table!r}, {self._targets!r})"

    def read(self, key: str, *, limit_nbytes: int | None = None) -> bytes | None:
        """Return a whole object; None when there is no reference for it."""
        reference = self._find(key)
        if not isinstance(reference, Target):
            check_limit(key, len(reference or b""), limit_nbytes, self.url)
            return reference
        if reference.nbytes is not None:
            check_limit(key, reference.nbytes, limit_nbytes, self.url)
            return bytes(self._read_target(key, reference, 0, reference.nbytes, None))
        try:
            store, path = self._targets.find(reference.url)
            data = store.read(path, limit_nbytes=limit_nbytes)
        except StoreError as error:
            self._raise(key, reference, error)
        return data if data is not None else self._raise_missing(key, reference)

    def read_range(
        self, key: str, start: int, stop: int, *, into: memoryview | None = None
    ) -> memoryview | None:
        """Return exactly ``stop - start`` bytes; None when there is no reference for the key."""
        nbytes = check_range(start, stop, into)
        reference = self._find(key)
        if reference is None:
            return None
        if isinstance(reference, Target):
            return self._read_target(key, reference, start, stop, into)
        self._check_end(key, start, stop, len(reference))
        if into is None:
            return memoryview(bytearray(reference[start:stop]))
        target = into.cast("B")[:nbytes]
        target[:] = reference[start:stop]
        return target

    def read_suffix(self, key: str, nbytes: int) -> tuple[bytes, int] | None:
        """Return the last `nbytes` and the object's size; None without a reference for the key."""
        check_range(0, nbytes, None)
        size = self.size(key)
        if size is None:
            return None
        data = self.read_range(key, max(0, size - nbytes), size)
        return None if data is None else (bytes(data), size)

    def size(self, key: str) -> int | None:
        """Return an object's size in bytes; None when there is no reference for it.

        Only of a reference to a whole file the target is asked.
        """
        reference = self._find(key)
        if reference is None or not isinstance(reference, Target):
            return None if reference is None else len(reference)
        if reference.nbytes is not None:
            return reference.nbytes
        try:
            store, path = self._targets.find(reference.url)
            size = store.size(path)
        except StoreError as error:
            self._raise(key, reference, error)
        return size if size is not None else self._raise_missing(key, reference)

    async def fetch(
        self,
        key: str,
        start: int,
        stop: int | None,
        *,
        unless: str | None = None,  # noqa: ARG002 - versions are not told
        limit_nbytes: int | None = None,
        arrived: Arrived | None = None,
    ) -> Answer | None:
        """Return ``object[start:stop]`` and the object's size; see `AsyncStore`."""
        reference = await self._find_on_loop(key)
        if reference is None:
            return None
        if not isinstance(reference, Target):
            return self._slice(key, reference, start, stop, limit_nbytes)
        size = reference.nbytes
        if size is not None:
            first, last = _bounds(start, stop, size)
            if (start, stop) == (0, None):
                check_limit(key, size, limit_nbytes, self.url)
            self._check_end(key, first, last, size)
            start, stop = reference.start + first, reference.start + last
        from lazyarr.store.asynchronous import fetch

        try:
            found = self._targets.find_open(reference.url)
            if found is None:
                found = await _in_thread(self._targets.find, reference.url)
            # The loop's own threads: for targets that can only block.
            answer = await fetch(
                *found,
                *(start, stop),
                threads=cast("Any", None),
                limit_nbytes=limit_nbytes,
                arrived=arrived,
            )
        except StoreError as error:
            self._raise(key, reference, error)
        if answer is None:
            self._raise_missing(key, reference)
        return Answer(answer.data, answer.total_nbytes if size is None else size)

    def list_names(self, prefix: str) -> tuple[str, ...]:
        """Return the sorted names of what lies directly below a prefix."""
        check_key(prefix, self.url, is_prefix=True)
        return tuple(sorted({name for name, _ in self._table.names(self._full(prefix))}))

    def list_directories(self, prefix: str) -> tuple[str, ...]:
        """Return the sorted names directly below a prefix below which there is more."""
        check_key(prefix, self.url, is_prefix=True)
        names = self._table.names(self._full(prefix))
        return tuple(sorted({name for name, is_directory in names if is_directory}))

    def reference(self, prefix: str = "") -> StoreReference:
        """Return the table, and what else another process needs to read what lies at a prefix."""
        if not hasattr(self._table, "reference"):
            message = f"cannot hand a part of {self.url} to another process; open it there"
            raise StoreError(message, url=self.url, key=None, transient=False)
        table = cast("SharedTable", self._table).reference(self._full(prefix))
        memory = None
        if isinstance(self._table, PackedTable) and "memory" in self._protocols:
            memory = self._targets.pack_memory(self._table.targets(self._full(prefix)))
        description = {
            "kind": "references",
            "url": self._full_url,
            "root": self._root,
            "table": table.description,
            "targets": self._targets.describe(),
            "memory": None if memory is None else memory.description,
            # Two references with one digest are the same, whatever their descriptors are.
            "digest": None if memory is not None else table.description.get("digest"),
            "protocols": sorted(self._protocols),
            "is_remote": self.is_asynchronous,
        }
        return StoreReference(
            description, (*table.descriptors, *(memory.descriptors if memory else ()))
        )

    def is_unchanged(self) -> bool:
        """Return whether the references, and what was read of targets, certainly are as they were.

        False where a target on a server was read.
        """
        return self._table.is_unchanged() and self._targets.is_unchanged()

    def forget(self, key: str) -> None:
        """Read an object from now on as it is now, if its target has been replaced."""
        reference = self._find(key)
        if isinstance(reference, Target):
            store, path = self._targets.find(reference.url)
            store.forget(path)

    def rest(self) -> None:
        """Let go of what can be opened again when it is needed: descriptors."""
        self._table.rest()
        self._targets.rest()

    def borrow(self, key: str) -> None:
        """Return None: an object is a part of a file here, or of the references."""

    def close(self) -> None:
        """Let go of table and targets; the store is not to be used after that."""
        self._table.close()
        self._targets.close()

    def _find(self, key: str) -> Reference | None:
        return self._table.find(self._full(check_key(key, self.url)))

    def _full(self, key: str) -> str:
        """Return a key in the table for one below the root."""
        return f"{self._root}/{key}" if self._root and key else self._root or key

    async def _find_on_loop(self, key: str) -> Reference | None:
        full = self._full(check_key(key, self.url))
        found = self._table.find_now(full)
        return found if not isinstance(found, Unread) else await _in_thread(self._table.find, full)

    def _read_target(
        self, key: str, target: Target, start: int, stop: int, into: memoryview | None
    ) -> memoryview:
        if target.nbytes is not None:
            self._check_end(key, start, stop, target.nbytes)
        try:
            store, path = self._targets.find(target.url)
            data = store.read_range(path, target.start + start, target.start + stop, into=into)
        except StoreError as error:
            self._raise(key, target, error)
        return data if data is not None else self._raise_missing(key, target)

    def _slice(
        self, key: str, data: bytes, start: int, stop: int | None, limit_nbytes: int | None
    ) -> Answer:
        first, last = _bounds(start, stop, len(data))
        if (start, stop) == (0, None):
            check_limit(key, len(data), limit_nbytes, self.url)
        self._check_end(key, first, last, len(data))
        return Answer(data[first:last], len(data))

    def _check_end(self, key: str, start: int, stop: int, size: int) -> None:
        if stop > size:
            message = (
                f"cannot read bytes [{start}, {stop}) of {key!r} in {self.url}: its reference "
                f"is of {size} bytes; the references are of another version"
            )
            raise StoreError(message, url=self.url, key=key, transient=False)

    def _raise(self, key: str, target: Target, error: StoreError) -> NoReturn:
        # Of the same class for all: what a target's server refuses, or has a directory in place
        # of, is no metadata document of this store.
        message = f"cannot read {key!r} in {self.url}, {_describe(target)}: {error.message}"
        message = without_credentials(message)
        if _is_denied(error):
            message += "; options for targets go into storage_options={'remote_options': {...}}"
        raise StoreError(message, url=self.url, key=key, transient=error.transient) from error

    def _raise_missing(self, key: str, target: Target) -> NoReturn:
        message = (
            f"cannot read {key!r} in {self.url}, {_describe(target)}: there is no such file; "
            "put it there, or write the references anew"
        )
        raise StoreError(message, url=self.url, key=key, transient=False)


def open_references(
    description: Mapping[str, Any],
    descriptors: Sequence[int],
    open_reference: Callable[..., Store],
    *,
    timeout_seconds: float,
) -> ReferenceStore:
    """Return the store that `ReferenceStore.reference` describes.

    Parameters
    ----------
    description : mapping
        As `reference` gave it, also after a journey as JSON.
    descriptors : sequence of int
        The open files that came with it.  They are the store's, also where this raises.
    open_reference : callable
        Opens the stores of which the description has descriptions.
    timeout_seconds : float
        How long one attempt on a remote store may take.

    Raises
    ------
    LookupError, TypeError, ValueError, StoreError
        When it is no such description.
    """
    left = list(descriptors)
    try:
        url, table = description["url"], description["table"]
        memory: Store | None = None
        if description["memory"] is not None:
            memory = open_reference(description["memory"], (left.pop(),))
        targets = Targets(
            TargetRules(**description["targets"]),
            timeout_seconds=timeout_seconds,
            memory=memory,
            is_elsewhere=True,
        )
        given, left = left, []
        found = _open_table(table, given, url, open_reference, timeout_seconds)
        return ReferenceStore(
            found, targets, url, description["protocols"], root=description["root"]
        )
    finally:
        for descriptor in left:
            os.close(descriptor)


def _open_table(
    description: Mapping[str, Any],
    descriptors: Sequence[int],
    url: str,
    open_reference: Callable[..., Store],
    timeout_seconds: float,
) -> Table:
    if description["kind"] == "packed":
        start, stop = description["index"]
        (descriptor,) = descriptors
        return PackedTable(descriptor, start, stop, description["digest"], without_credentials(url))
    if description["kind"] == "few":
        return FewReferences(description["references"])
    if description["kind"] == "parquet":
        # Imported here: most references are in one document.
        from lazyarr.store.references.parquet_table import ParquetTable

        store = open_reference(description["store"], descriptors, timeout_seconds=timeout_seconds)
        return ParquetTable(
            store, description["documents"], description["record_size"], without_credentials(url)
        )
    raise ValueError(f"no table is of kind {description['kind']!r}")


def _bounds(start: int, stop: int | None, size: int) -> tuple[int, int]:
    if start < 0:
        return max(0, size + start), size
    return start, size if stop is None else stop


async def _in_thread(call: Callable[[str], _Result], argument: str) -> _Result:
    """Return what a call returns that may wait, made in a thread of the event loop's."""
    # Imported here: opening local references does not need it.
    import asyncio

    return await asyncio.get_running_loop().run_in_executor(None, call, argument)


def _describe(target: Target) -> str:
    url = without_credentials(target.url)[:1000]
    if target.nbytes is None:
        return f"which is {url}"
    return f"which is bytes [{target.start}, {target.start + target.nbytes}) of {url}"


def _is_denied(error: StoreError) -> bool:
    from lazyarr.store.base import RefusedError

    return isinstance(error, RefusedError) or "credentials" in error.message.lower()
