"""References in one file: written once, looked up without being parsed as a whole.

A document of a million references takes seconds to parse and a gigabyte as Python's objects.
So one process parses it and writes what it says into a file in memory, sorted and cut into
blocks.  Another process gets the descriptor, and parses the blocks that it needs.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, NamedTuple

from lazyarr.errors import StoreError
from lazyarr.store import files
from lazyarr.store.base import StoreReference
from lazyarr.store.descriptors import DescriptorPool
from lazyarr.store.references.entries import MAX_NBYTES, Target
from lazyarr.store.references.kept import KEPT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lazyarr.store.references.entries import Reference

__all__ = ["FewReferences", "PackedTable", "pack_table"]

_PER_BLOCK = 128
"""Keys in a block: to parse one takes some tens of microseconds, less than any read of a target."""
_MAX_FEW = 256
"""Keys of an array that go to another process as text.  A descriptor for each of a thousand small
arrays would be too many."""
_MAX_FEW_NBYTES = 32 << 10
_PARSED = 6
"""How much more memory parsed references take than their text."""


class _Block(NamedTuple):
    """Some references.

    Attributes
    ----------
    urls : list of str
        Their targets, each once.
    entries : dict
        By key: which target, first byte and length; or where in the file the bytes begin and end.
    """

    urls: list[str]
    entries: dict[str, list[Any]]


class PackedTable:
    """References in a file that never changes.

    Safe to use from several threads.  Survives fork.

    Parameters
    ----------
    file : int or bytes
        The file's descriptor, which the table owns unless it cannot be made.  Or its content,
        on systems that have no files in memory.
    start, stop : int
        Where in the file its index lies: first key, start and stop of each block.
    digest : str
        What differs as soon as a reference does.
    url : str
        What the references are, for messages.
    """

    def __init__(self, file: int | bytes, start: int, stop: int, digest: str, url: str) -> None:
        self._url = url
        self._digest = digest
        self._index_place = (start, stop)
        self._content = file if isinstance(file, bytes) else None
        self._pool = DescriptorPool(1, keep_in_child=True)
        if isinstance(file, int):
            self._pool.give_back(self._pool.lend("", file))
        # All tables on copies of one descriptor have the same blocks.
        status = os.fstat(file) if isinstance(file, int) else None
        place = (status.st_dev, status.st_ino) if status is not None else id(self)
        self._identity = (place, digest)

    def __repr__(self) -> str:
        return f"<PackedTable of {self._url}>"

    def find(self, key: str) -> Reference | None:
        """Return what a key stands for; None when there is no reference for it."""
        index = self._read_index()
        number = bisect_right(index, key, key=_first_key) - 1
        if number < 0:
            return None
        urls, entries = self._block(number)
        entry = entries.get(key)
        if entry is None:
            return None
        if len(entry) == 3:
            return Target(urls[entry[0]], entry[1], entry[2])
        return self._read(*entry)

    find_now = find

    def names(self, prefix: str) -> Iterator[tuple[str, bool]]:
        """Yield each name directly below a prefix, and whether more lies below that name."""
        start = prefix + "/" if prefix else ""
        position = start
        while True:
            for key in self._keys_from(position):
                if not key.startswith(start):
                    return
                name, slash, _ = key[len(start) :].partition("/")
                yield name, bool(slash)
                if slash:
                    # Behind all keys below the name: "0" comes after "/".
                    position = f"{start}{name}0"
                    break
            else:
                return

    def targets(self, prefix: str) -> Iterator[str]:
        """Yield the targets of the keys at a prefix and below it, each at least once."""
        index = self._read_index()
        first = max(0, bisect_right(index, prefix, key=_first_key) - 1)
        for number in range(first, len(index)):
            # "0" comes after "/", so that what lies below has ended.
            if prefix and index[number][0] >= prefix + "0":
                return
            yield from self._block(number).urls

    def reference(self, prefix: str) -> StoreReference:
        """Return where the index lies, and a copy of the descriptor; few references as text."""
        few = self._few(prefix)
        if few is not None:
            return StoreReference({"kind": "few", "references": few})
        start, stop = self._index_place
        description = {"kind": "packed", "index": [start, stop], "digest": self._digest}
        held = self._pool.borrow("")
        if held is None:
            raise self._closed()
        try:
            return StoreReference(description, (os.dup(held.fd),))
        finally:
            self._pool.give_back(held)

    def is_unchanged(self) -> bool:
        """Return True: the references are those that were there, and `digest` tells of others."""
        return True

    def rest(self) -> None:
        """Do nothing: there are no descriptors that could be opened again."""

    def close(self) -> None:
        """Close the descriptor, when no other thread reads from it any more."""
        self._pool.close()
        self._content = None

    def _keys_from(self, position: str) -> Iterator[str]:
        index = self._read_index()
        first = max(0, bisect_right(index, position, key=_first_key) - 1)
        for number in range(first, len(index)):
            yield from (key for key in self._block(number).entries if key >= position)

    def _few(self, prefix: str) -> dict[str, list[Any]] | None:
        """Return what lies at a prefix and below it as JSON can hold it; None where it is much."""
        start = prefix + "/" if prefix else ""
        found: dict[str, list[Any]] = {}
        nbytes = 0
        for key in itertools.chain([prefix] if prefix else [], self._keys_from(start)):
            reference = self.find(key) if key == prefix or key.startswith(start) else None
            if reference is None:
                if key == prefix:
                    continue
                break
            if isinstance(reference, bytes):
                found[key] = [base64.b64encode(reference).decode()]
            else:
                found[key] = [*reference]
            nbytes += len(key) + len(found[key][0])
            if len(found) > _MAX_FEW or nbytes > _MAX_FEW_NBYTES:
                return None
        return found

    def _read_index(self) -> list[tuple[str, int, int]]:
        index: list[tuple[str, int, int]] = self._parse(*self._index_place)
        return index

    def _block(self, number: int) -> _Block:
        _, start, stop = self._read_index()[number]
        return _Block(*self._parse(start, stop))

    def _parse(self, start: int, stop: int) -> Any:
        """Return what a part of the file says, which is kept for a while."""
        key = (self._identity, start)
        found = KEPT.get(key)
        if found is None:
            found = json.loads(self._read(start, stop))
            KEPT.put(key, found, _PARSED * (stop - start))
        return found

    def _read(self, start: int, stop: int) -> bytes:
        if self._content is not None:
            return self._content[start:stop]
        held = self._pool.borrow("")
        if held is None:
            raise self._closed()
        try:
            size = os.fstat(held.fd).st_size
            if not 0 <= start <= stop <= size:
                message = f"cannot read the references of {self._url}: their copy is damaged"
                raise StoreError(message, url=self._url, key=None, transient=False)
            data = bytearray(stop - start)
            files.pread_into(held.fd, memoryview(data), start)
            return bytes(data)
        finally:
            self._pool.give_back(held)

    def _closed(self) -> StoreError:
        message = f"cannot read the references of {self._url}: they are closed; open them again"
        return StoreError(message, url=self._url, key=None, transient=False)


def pack_table(references: Mapping[str, Reference], url: str) -> PackedTable:
    """Return a table of references, written into a new file in memory.

    Parameters
    ----------
    references : mapping
        All of them, by key.
    url : str
        What they are, for messages.
    """
    output = _Output()
    try:
        index = []
        keys = iter(sorted(references))
        while some := list(itertools.islice(keys, _PER_BLOCK)):
            index.append([some[0], *output.write(_block(some, references, output))])
        place = output.write(json.dumps(index).encode())
        digest = output.digest()
        return PackedTable(output.take(), *place, digest, url)
    except BaseException:
        output.close()
        raise


class FewReferences:
    """A table of a few references, as `PackedTable.reference` describes it."""

    def __init__(self, described: Mapping[str, Sequence[Any]]) -> None:
        self._references: dict[str, Reference] = {
            key: Target(*each) if len(each) == 3 else base64.b64decode(each[0])
            for key, each in described.items()
        }

    def __repr__(self) -> str:
        return f"<FewReferences: {len(self._references)}>"

    def find(self, key: str) -> Reference | None:
        """Return what a key stands for; None when there is no reference for it."""
        return self._references.get(key)

    find_now = find

    def names(self, prefix: str) -> Iterator[tuple[str, bool]]:
        """Yield each name directly below a prefix, and whether more lies below that name."""
        start = prefix + "/" if prefix else ""
        for key in self._references:
            if key.startswith(start):
                name, slash, _ = key[len(start) :].partition("/")
                yield name, bool(slash)

    def is_unchanged(self) -> bool:
        """Return True: the description has all of them."""
        return True

    def rest(self) -> None:
        """Do nothing: nothing is open."""

    def close(self) -> None:
        """Do nothing: nothing is open."""


class _Output:
    """A file in memory that is written from its beginning to its end."""

    def __init__(self) -> None:
        # Windows and macOS have none, and no other process that would need it.
        has_files = hasattr(os, "memfd_create")
        self._fd = os.memfd_create("lazyarr-references", os.MFD_CLOEXEC) if has_files else -1
        self._content = bytearray()
        self._nbytes = 0
        self._digest = hashlib.sha256()

    def write(self, data: bytes) -> tuple[int, int]:
        """Write bytes, and return where they are."""
        start = self._nbytes
        self._nbytes += len(data)
        self._digest.update(data)
        if self._fd < 0:
            self._content += data
            return start, self._nbytes
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        return start, self._nbytes

    def digest(self) -> str:
        return self._digest.hexdigest()

    def take(self) -> int | bytes:
        """Return the file, which is the caller's now."""
        fd, self._fd = self._fd, -1
        return bytes(self._content) if fd < 0 else fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def _block(keys: list[str], references: Mapping[str, Reference], output: _Output) -> bytes:
    urls: dict[str, int] = {}
    entries: dict[str, list[Any]] = {}
    for key in keys:
        reference = references[key]
        if isinstance(reference, bytes):
            entries[key] = [*output.write(reference)]
        else:
            number = urls.setdefault(reference.url, len(urls))
            assert reference.start < MAX_NBYTES
            entries[key] = [number, reference.start, reference.nbytes]
    return json.dumps([list(urls), entries]).encode()


def _first_key(block: tuple[str, int, int]) -> str:
    return block[0]
