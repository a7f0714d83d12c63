"""What every store can do, and which keys it takes.

A store gives bytes by key.  It is synchronous and safe to use from several
threads.  It never takes an object that it could not reach for one that does
not exist: `None` means that the store itself said so.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias

from lazyarr.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.store.descriptors import BorrowedFile

__all__ = [
    "ANYTHING",
    "METADATA_LIMIT_NBYTES",
    "METADATA_NAMES",
    "UNCHANGED",
    "Answer",
    "Anything",
    "Arrived",
    "AsyncStore",
    "Buffer",
    "ChangedError",
    "Expected",
    "NoObjectError",
    "Parts",
    "RefusedError",
    "Store",
    "StoreReference",
    "WritableStore",
    "check_key",
    "check_limit",
    "check_range",
    "list_directories",
]

Buffer: TypeAlias = bytes | bytearray | memoryview
"""What can be written: contiguous bytes.  `collections.abc.Buffer` needs Python 3.12."""

Parts: TypeAlias = bytes | bytearray | memoryview | list[Buffer]
"""All of an object: its bytes, or a list of parts that follow one another."""


Arrived: TypeAlias = "Callable[[memoryview], None]"
"""Told of the beginning of what was asked for, whenever more of it is there."""


class Answer(NamedTuple):
    """Bytes of an object, and what is known of the object.

    Attributes
    ----------
    data : bytes-like
        What was asked for.
    total_nbytes : int or None
        The object's size.
    version : str or None
        What differs from this as soon as a byte of the object does.
    came_nbytes : int or None
        How much has come, where that is more than what was asked for.
    """

    data: Buffer
    total_nbytes: int | None
    version: str | None = None
    came_nbytes: int | None = None

    @property
    def fetched_nbytes(self) -> int:
        """How many bytes have come over the network."""
        return len(self.data) if self.came_nbytes is None else self.came_nbytes


UNCHANGED = Answer(b"", None)
"""This very object: the version that was named is still the object's."""


class Anything(enum.Enum):
    """Stands for an object of any version, or none."""

    ANYTHING = "anything"


ANYTHING: Final = Anything.ANYTHING
"""Whatever is there is written over."""


Expected: TypeAlias = "str | Anything | None"
"""What must be there for an object to be written: this version, anything, or nothing."""


class ChangedError(StoreError):
    """An object is not what it was expected to be: somebody else has written it."""

    def __init__(self, url: str, key: str) -> None:
        super().__init__(
            f"cannot write {key!r} in {url}: another writer has changed it since this one read or "
            "wrote it; nothing is lost here: flush again to put this on top of what is there now, "
            "or open the store again to see that",
            url=url,
            key=key,
            transient=False,
        )


class NoObjectError(StoreError):
    """There is something where an object should be, and it is none.

    A link that points to nothing, a directory, a file where a directory should be: what is
    stored is out of reach, which is another thing than that nothing was stored.
    """


class RefusedError(StoreError, PermissionError):
    """The server refused to give an object, which may not even exist.

    S3 answers so for every key that does not exist to those who may not list the bucket.
    """


METADATA_NAMES = ("zarr.json", ".zmetadata", ".zarray", ".zgroup", ".zattrs")
"""The objects that make a Zarr node visible, of versions 3 and 2."""


METADATA_LIMIT_NBYTES = 256 << 20
"""How long a metadata document may be: consolidated metadata of 100,000 arrays takes 100 MB."""


class Store(Protocol):
    """Bytes by key.

    Keys are relative to the store's root: ``"images/c/0/0"``, never with a
    leading or trailing slash.  ``""`` names the root itself where a prefix is
    asked for.

    Attributes
    ----------
    url : str
        Where the store is, without credentials.

    Raises
    ------
    StoreError
        From every method: the store could not be reached, refused, or gave
        something else than was asked for.  `transient` says whether the same
        call may succeed later.
    """

    @property
    def url(self) -> str:
        """Where the store is, without credentials."""
        ...

    def read(self, key: str, *, limit_nbytes: int | None = None) -> bytes | None:
        """Return a whole object; None when it does not exist.

        Parameters
        ----------
        key : str
            The object.
        limit_nbytes : int, optional
            How many bytes it may have: with more it is not read, which is an error.
        """
        ...

    def read_range(
        self, key: str, start: int, stop: int, *, into: memoryview | None = None
    ) -> memoryview | None:
        """Return exactly ``stop - start`` bytes; None when the object does not exist.

        Parameters
        ----------
        key : str
            The object.
        start, stop : int
            Half-open range in bytes.
        into : memoryview, optional
            Where the bytes go: writable, contiguous, at least as long as the
            range.  The result is then its beginning.  Local reads go there
            without a copy.
        """
        ...

    def read_suffix(self, key: str, nbytes: int) -> tuple[bytes, int] | None:
        """Return the last `nbytes` and the object's size; None when it does not exist.

        An object shorter than `nbytes` is returned whole.
        """
        ...

    def size(self, key: str) -> int | None:
        """Return an object's size in bytes; None when it does not exist."""
        ...

    def list_names(self, prefix: str) -> tuple[str, ...]:
        """Return the sorted names of what lies directly below a prefix, objects and directories."""
        ...

    def borrow(self, key: str) -> BorrowedFile | None:
        """Return an object as a file, if it is one and open already, to be released; else None."""
        ...

    def forget(self, key: str) -> None:
        """Read an object from now on as it is now, if it has been replaced."""
        ...

    def rest(self) -> None:
        """Let go of what can be opened again when it is needed: descriptors."""
        ...

    def close(self) -> None:
        """Let go of descriptors and connections; the store is not to be used after that."""
        ...


class AsyncStore(Protocol):
    """A store that can be read on the event loop, when it says so."""

    @property
    def is_asynchronous(self) -> bool:
        """Whether `fetch` may be used."""
        ...

    async def fetch(
        self,
        key: str,
        start: int,
        stop: int | None,
        *,
        unless: str | None = None,
        limit_nbytes: int | None = None,
        arrived: Arrived | None = None,
    ) -> Answer | None:
        """Return ``object[start:stop]`` and the object's size; None when it does not exist.

        Parameters
        ----------
        key : str
            The object.
        start, stop : int, int or None
            ``(0, None)`` for all of it, ``(-n, None)`` for the last `n` bytes, else a range
            that must be there.
        unless : str, optional
            A version: `UNCHANGED` when all of it was asked for and it is of that version still.
        limit_nbytes : int, optional
            How many bytes an object may have of which all is asked for.
        arrived : callable, optional
            Told, maybe, of the beginning of a range before all of it is there: what it is given
            stays as it is, and is right even if the rest never comes.  After a failure that
            is tried again it begins anew.

        Raises
        ------
        StoreError
            As from every method of a store.
        """
        ...


class StoreReference(NamedTuple):
    """What another process needs to open the same store.

    Attributes
    ----------
    description : dict
        Can be written as JSON.  It holds the storage options, so it is as secret as they are.
    descriptors : tuple of int
        Open files to hand over with it.  The receiver of a reference owns them: close them
        after they were sent, or pass them to `open_reference`.
    """

    description: dict[str, Any]
    descriptors: tuple[int, ...] = ()


class WritableStore(Store, Protocol):
    """A store that takes objects too."""

    def write(self, key: str, data: Parts, *, expected: Expected = ANYTHING) -> str | None:
        """Put a whole object; readers see the old one or the new one, never a part.

        Parameters
        ----------
        key : str
            The object.
        data : bytes-like, or list of bytes-like
            All of it; in a list, parts that follow one another.
        expected : str, None or ANYTHING
            The version that must be there, None for no object at all.  Some stores compare and
            put in one step; in others, somebody may write between the two.

        Returns
        -------
        str or None
            The version that the object has now, where that is known.

        Raises
        ------
        ChangedError
            There is something else than what was expected; nothing was written.
        """
        ...

    def version(self, key: str) -> str | None:
        """Return what differs as soon as a byte of the object does; None when there is none."""
        ...

    def read_version(self, key: str) -> tuple[bytes, str] | None:
        """Return a whole object and its version; None when it does not exist."""
        ...

    def delete(self, key: str) -> None:
        """Take an object away; nothing happens when there is none."""
        ...

    def delete_prefix(self, prefix: str) -> None:
        """Take away the object at a prefix and everything below it, metadata first."""
        ...

    def exists_any(self, prefix: str) -> bool:
        """Return whether there is an object at a prefix or anywhere below it."""
        ...

    def sync(self) -> None:
        """Let what was written and deleted before outlast a power failure, where that is wanted."""
        ...


def list_directories(store: Store, prefix: str) -> tuple[str, ...]:
    """Return the sorted names directly below a prefix below which there may be something.

    All names, of stores that cannot tell.
    """
    ask: Callable[[str], tuple[str, ...]] = getattr(store, "list_directories", store.list_names)
    return ask(prefix)


def check_key(key: str, url: str, *, is_prefix: bool = False) -> str:
    """Return a key that stays below the store's root.

    Keys come from metadata, which is untrusted: one with ``..`` would read, or
    delete, outside of the store.

    Parameters
    ----------
    key : str
        The key.
    url : str
        The store, for the message.
    is_prefix : bool
        Whether ``""``, the root, is meant too.

    Raises
    ------
    StoreError
        When the key is absolute, is empty, has an empty, ``.`` or ``..`` part, or is
        nothing that a file can be called.

    Examples
    --------
    >>> check_key("images/c/0/0", "file:///data")
    'images/c/0/0'
    >>> check_key("../secret", "file:///data")
    Traceback (most recent call last):
    ...
    lazyarr.errors.StoreError: cannot use key '../secret' in file:///data: it leaves the store or \
is not normalised; keys are relative, with names between single slashes
    """
    if is_prefix and key == "":
        return key
    parts = key.split("/")
    if "\0" in key or not _is_encodable(key) or any(part in ("", ".", "..") for part in parts):
        message = (
            f"cannot use key {key!r} in {url}: it leaves the store or is not normalised; "
            f"keys are relative, with names between single slashes"
        )
        raise StoreError(message, url=url, key=key, transient=False)
    return key


def _is_encodable(key: str) -> bool:
    try:
        key.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def check_limit(key: str, nbytes: int, limit_nbytes: int | None, url: str) -> None:
    """Refuse to read an object that is longer than it may be.

    Raises
    ------
    StoreError
        When it is.
    """
    if limit_nbytes is not None and nbytes > limit_nbytes:
        from lazyarr.store.failure import REMEDIES, Fault, too_long

        message = (
            f"cannot read {key!r} in {url}: {too_long(limit_nbytes)}; {REMEDIES[Fault.LENGTH]}"
        )
        raise StoreError(message, url=url, key=key, transient=False)


def check_range(start: int, stop: int, into: memoryview | None) -> int:
    """Return how many bytes a range has, after checking that they fit.

    Raises
    ------
    ValueError
        When the range is reversed or negative, or `into` is too short: a
        mistake of the caller, not of the store.
    """
    if not 0 <= start <= stop:
        message = f"cannot read bytes [{start}, {stop}): the range is negative or reversed"
        raise ValueError(message)
    nbytes = stop - start
    if into is not None and into.nbytes < nbytes:
        message = f"cannot read {nbytes} bytes into a buffer of {into.nbytes} bytes"
        raise ValueError(message)
    return nbytes
