"""An object of a store as a file, for libraries that list what is in files of their format."""

from __future__ import annotations

import contextlib
import io
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lazyarr.errors import FormatError, LazyarrError, StoreError
from lazyarr.shortage import is_shortage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lazyarr.formats.base import Node, ObjectReader

__all__ = ["ListedFormat", "ObjectFile", "reason"]

_KEPT_NBYTES = 64 << 20


class ObjectFile(io.RawIOBase):
    """An object of a store as a file, read in blocks of which the last used are kept.

    Parameters
    ----------
    objects : ObjectReader
        The store.
    key : str
        The object.
    nbytes : int
        Its size.
    block_nbytes : int
        How much is read at once, at least.
    most_blocks : int
        How many blocks are read at once where reads follow one another: each time twice as many.

    Attributes
    ----------
    failure : LazyarrError or None
        Why a read has failed.  The library may tell of it in words of its own, or not at all.
    """

    def __init__(
        self,
        objects: ObjectReader,
        key: str,
        nbytes: int,
        *,
        block_nbytes: int,
        most_blocks: int = 1,
    ) -> None:
        self.nbytes = nbytes
        self.failure: LazyarrError | None = None
        self.key = key
        self.url = objects.url
        self._objects = objects
        self._at = 0
        self._block_nbytes = block_nbytes
        self._most_blocks = most_blocks
        self._n_at_once = 1
        self._next_block = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that the place in it can be changed."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Change the place at which is read next; return it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.nbytes}[whence]
        self._at = max(0, start + offset)
        return self._at

    def tell(self) -> int:
        """Return the place at which is read next."""
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Return the next bytes, as far as the object goes, and go on behind them."""
        stop = self.nbytes if size is None or size < 0 else self._at + size
        found = self.bytes_at(self._at, stop)
        self._at += len(found)
        return found

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, as far as the object goes."""
        view = memoryview(buffer).cast("B")
        found = self.read(len(view))
        view[: len(found)] = found
        return len(found)

    def bytes_at(self, start: int, stop: int) -> bytes:
        """Return a part of the object, as far as the object goes.

        Raises
        ------
        LazyarrError
            It cannot be read.
        """
        size, stop = self._block_nbytes, min(stop, self.nbytes)
        if start >= stop:
            return b""
        block = self._blocks.get(start // size)
        skipped = start % size
        if block is not None and skipped + stop - start <= size:
            self._blocks.move_to_end(start // size)
            return block[skipped : skipped + stop - start]
        if stop - start > _KEPT_NBYTES // 2:
            return self._read(start, stop)
        numbers = range(start // size, -(-stop // size))
        missing = [number for number in numbers if number not in self._blocks]
        if missing:
            self._fetch(missing[0], missing[-1])
        for number in numbers:
            self._blocks.move_to_end(number)
        found = b"".join(self._blocks[number] for number in numbers)
        while len(self._blocks) * size > _KEPT_NBYTES:
            self._blocks.popitem(last=False)
        return found[skipped : skipped + stop - start]

    def _fetch(self, first: int, last: int) -> None:
        """Read blocks that are missing in one read, what lies between them too."""
        is_next = first == self._next_block
        self._n_at_once = min(2 * self._n_at_once, self._most_blocks) if is_next else 1
        size = self._block_nbytes
        last = min(max(last, first + self._n_at_once - 1), (self.nbytes - 1) // size)
        data = self._read(first * size, min((last + 1) * size, self.nbytes))
        for number in range(first, last + 1):
            self._blocks[number] = data[(number - first) * size :][:size]
        self._next_block = last + 1

    def _read(self, start: int, stop: int) -> bytes:
        try:
            data = self._objects.read_range(self.key, start, stop)
        except LazyarrError as error:
            self.failure = error
            raise
        if data is None:
            raise self.refuse("it is gone")
        return bytes(data)

    def refuse(self, why: str) -> FormatError:
        """Return an error that also counts where the library that reads does not pass it on."""
        self.failure = FormatError(why, path=self.key)
        return self.failure


_File = TypeVar("_File", bound=ObjectFile)


class ListedFormat(Generic[_File]):
    """The format of files of which a library lists what they hold.

    Parameters
    ----------
    file : callable
        Makes a file of a store, an object in it and its size.
    nodes : callable
        Returns what a file holds, by the path in it.
    """

    def __init__(
        self,
        file: Callable[[ObjectReader, str, int], _File],
        nodes: Callable[[_File], dict[str, Node | FormatError]],
    ) -> None:
        self._file = file
        self._nodes = nodes

    def describe(self, objects: ObjectReader, key: str) -> Mapping[str, Node | FormatError] | None:
        """Return what a file holds, by the path in it; None when there is no such file."""
        nbytes = objects.size(key)
        if nbytes is None:
            return None
        file = self._file(objects, key, nbytes)
        with _told_as_lazyarr_does(file):
            return self._nodes(file)


@contextlib.contextmanager
def _told_as_lazyarr_does(file: ObjectFile) -> Iterator[None]:
    """Raise whatever a library raises of a file as `FormatError`, and a store's error as it is.

    A read that has failed counts, whatever the library made of it.
    """
    try:
        yield
        if file.failure is not None:
            raise file.failure
    # Libraries raise whatever suits them for files that are damaged.
    except Exception as error:
        found = file.failure or error
        if is_shortage(found) or isinstance(found, StoreError):
            raise found from None
        why = found.message if isinstance(found, LazyarrError) else reason(found)
        message = f"cannot map {file.key!r} in {file.url}: {why}"
        raise FormatError(message, path=file.key) from error


def reason(error: Exception) -> str:
    """Return what went wrong in a library, in its words."""
    return str(error.args[0]) if error.args else type(error).__name__
