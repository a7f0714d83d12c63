"""Anything that fsspec reaches, as a store."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from lazyarr.errors import StoreError
from lazyarr.store.base import (
    ANYTHING,
    METADATA_NAMES,
    Anything,
    ChangedError,
    StoreReference,
    check_key,
    check_range,
)
from lazyarr.store.connecting import connect
from lazyarr.store.failure import Fault, decode_failure, is_forbidden, status_of
from lazyarr.store.messages import check_plain, failed, read_only, wrong_length
from lazyarr.store.packed import pack_store
from lazyarr.store.transport import (
    AsyncTransport,
    ConditionalTransport,
    FsspecTransport,
    OtherVersionError,
    UnconditionalError,
    turn_of,
)
from lazyarr.store.transport_choice import choose_transport
from lazyarr.store.urls import lives_in_this_process, without_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lazyarr.store.base import Arrived, Expected, Parts
    from lazyarr.store.transport import Answer, Transport

__all__ = ["FsspecStore", "UrlStore"]

_Result = TypeVar("_Result")

_MAX_LOOKS = 8
_LARGE_NBYTES = 5 << 30
"""S3 takes more than that in parts, which are put without a condition."""

DENIED_IS_MISSING = "denied_is_missing"
"""A storage option: objects that are refused with status 403 are taken for missing.

S3 answers so for what does not exist where listing the bucket is not allowed, and then sparse
arrays cannot be read otherwise.  It is dangerous: when rights are lost for some chunks alone,
those are read as their fill value.
"""


class FsspecStore:
    """Objects below an fsspec URL.

    Parameters
    ----------
    url : str
        Any fsspec URL, chained ones too.
    storage_options : mapping
        As fsspec takes them.
    writable : bool
        Whether the methods that change something are allowed.
    timeout_seconds : float
        How long one attempt may take.
    is_reached : bool
        Whether the server is known to answer.  One that has never done so, and takes no
        connections, is an error that is not transient: nobody waits for it.

    Raises
    ------
    StoreError
        When the protocol is not known, its package is not installed, or the options
        are not right.

    Notes
    -----
    A file system and its event loop do not survive fork: the child makes its own at the
    first use.
    """

    def __init__(
        self,
        url: str,
        storage_options: Mapping[str, Any],
        *,
        writable: bool = False,
        timeout_seconds: float = 60.0,
        is_reached: bool = False,
    ) -> None:
        self.url = without_credentials(url)
        self.writable = writable
        self.timeout_seconds = timeout_seconds
        self._full_url = url
        self._options = dict(storage_options)
        # A wish of lazyarr's own, which fsspec would not know.
        self._denied_is_missing = self._options.get(DENIED_IS_MISSING, False) is True
        self._has_conditions = True
        self._is_reached = is_reached
        self._inherited: list[object] = []
        self._connect()
        if writable and "HTTPFileSystem" in {c.__name__ for c in type(self._fs).__mro__}:
            message = f"cannot write to {self.url}: HTTP is for reading only; use another store"
            raise StoreError(message, url=self.url, key=None, transient=False)

    def __repr__(self) -> str:
        return f"FsspecStore({self.url!r}, {type(self._transport).__name__})"

    def read(self, key: str, *, limit_nbytes: int | None = None) -> bytes | None:
        """Return a whole object; None when it does not exist."""
        answer = self._ask(
            "read", key, lambda way, path: way.fetch(path, limit_nbytes=limit_nbytes)
        )
        return None if answer is None else bytes(answer.data)

    def read_range(
        self, key: str, start: int, stop: int, *, into: memoryview | None = None
    ) -> memoryview | None:
        """Return exactly ``stop - start`` bytes; None when the object does not exist.

        Raises
        ------
        StoreError
            Also when there are fewer or more: transient when the object is long enough,
            so that the transfer must have failed.
        """
        nbytes = check_range(start, stop, into)
        if nbytes == 0:
            size = self.size(key)
            return None if size is None else memoryview(b"")
        answer = self._ask("read", key, lambda way, path: way.fetch(path, start, stop))
        if answer is None:
            return None
        if len(answer.data) != nbytes:
            if answer.total_nbytes is None:
                answer = answer._replace(total_nbytes=self.size(key))
            raise wrong_length(self.url, key, start, stop, answer)
        if into is None:
            return memoryview(answer.data)
        target = into.cast("B")[:nbytes]
        target[:] = answer.data
        return target

    def read_suffix(self, key: str, nbytes: int) -> tuple[bytes, int] | None:
        """Return the last `nbytes` and the object's size; None when it does not exist."""
        check_range(0, nbytes, None)
        if nbytes == 0:
            size = self.size(key)
            return None if size is None else (b"", size)
        answer = self._ask("read", key, lambda way, path: way.fetch_suffix(path, nbytes))
        if answer is None:
            return None
        total = answer.total_nbytes
        if total is None or len(answer.data) != min(nbytes, total):
            raise wrong_length(
                self.url, key, max(0, (total or 0) - nbytes), total or nbytes, answer
            )
        return bytes(answer.data), total

    @property
    def is_asynchronous(self) -> bool:
        """Whether `fetch` may be used."""
        # Asked for each read; a child of fork, too, gets the same kind of transport.
        return self._is_asynchronous

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

        What `read`, `read_range` and `read_suffix` do, on `event_loop` and without a thread
        that waits.
        """
        check_key(key, self.url)
        way = cast("AsyncTransport", self._way())
        try:
            async with asyncio.timeout(self.timeout_seconds):
                answer = await way.read(
                    self._path(key),
                    *(start, stop),
                    unless=unless,
                    limit_nbytes=limit_nbytes,
                    arrived=arrived,
                )
        except Exception as error:  # noqa: BLE001 - every protocol has errors of its own
            if self._is_missing(error, "read"):
                return None
            self._raise(error, "read", key)
        self._is_reached = True
        if start < 0 or stop is not None:
            total = answer.total_nbytes or 0
            first, end = (start, stop) if stop is not None else (max(0, total + start), total)
            if len(answer.data) != end - first:
                raise wrong_length(self.url, key, first, end, answer)
        return answer

    def size(self, key: str) -> int | None:
        """Return an object's size in bytes; None when it does not exist."""
        return self._ask("look up", key, lambda way, path: way.size(path))

    def list_names(self, prefix: str) -> tuple[str, ...]:
        """Return the sorted names of what lies directly below a prefix.

        Raises
        ------
        StoreError
            Also from HTTP servers that do not list: an empty answer would make a
            group look empty.
        """
        return tuple(sorted({name.rstrip("/") for name in self._list(prefix)}))

    def list_directories(self, prefix: str) -> tuple[str, ...]:
        """Return the sorted names of what lies directly below a prefix and is no object."""
        return tuple(sorted({name[:-1] for name in self._list(prefix) if name.endswith("/")}))

    def _list(self, prefix: str) -> Iterator[str]:
        paths = self._ask("list", prefix, lambda way, path: way.list_paths(path), is_prefix=True)
        itself = self._path(prefix).strip("/")
        for path in paths or ():
            inside = path.strip("/")
            if inside != itself:
                yield inside.rpartition("/")[2] + ("/" if path.endswith("/") else "")

    def list_keys(self, prefix: str) -> tuple[str, ...]:
        """Return the sorted keys of all objects at a prefix and below it."""
        root = self._path("").strip("/")
        skip = len(root) + 1 if root else 0
        paths = self._change("list", prefix, lambda path: self._fs.find(path)) or ()
        return tuple(sorted(str(p).strip("/")[skip:] for p in paths))

    def forget(self, key: str) -> None:
        """Do nothing: nothing is kept of an object."""

    def rest(self) -> None:
        """Do nothing: there are no descriptors that could be opened again."""

    def borrow(self, key: str) -> None:
        """Return None: an object is no open file here."""

    def version(self, key: str) -> str | None:
        """Return what differs as soon as a byte of the object does; None when there is none."""
        return self._ask("look up", key, lambda _, path: self._writing.version(path))

    def read_version(self, key: str) -> tuple[bytes, str] | None:
        """Return a whole object and its version; None when it does not exist."""
        before: str | None = None
        for _ in range(_MAX_LOOKS):
            answer = self._ask("read", key, lambda way, path: way.fetch(path))
            if answer is None:
                return None
            if answer.version is not None:  # of this very answer
                return bytes(answer.data), answer.version
            version = self.version(key)
            if version is not None and version == before:
                return bytes(answer.data), version
            before = version
        message = f"cannot read {key!r} in {self.url}: it changes all the time; try again"
        raise StoreError(message, url=self.url, key=key, transient=True)

    def write(self, key: str, data: Parts, *, expected: Expected = ANYTHING) -> str | None:
        """Put a whole object; return its version where that is known.

        S3 compares what is there with what is expected, and puts the object, in one step.  For
        other stores it is compared just before.
        """
        self._check_writable("write", key)
        whole = b"".join(data) if isinstance(data, list) else bytes(data)

        def put(_: Transport, path: str) -> str | None:
            way = self._writing
            if not isinstance(expected, Anything):
                if isinstance(way, ConditionalTransport) and self._has_conditions:
                    try:
                        return way.put_if(path, whole, expected)
                    except UnconditionalError:
                        self._has_conditions = len(whole) > _LARGE_NBYTES
                if self.version(key) != expected:
                    raise OtherVersionError
            return way.put(path, whole)

        try:
            # What is missing here is what the object should lie in.
            version = self._ask("write", key, put, is_missing_allowed=False)
        except OtherVersionError:
            # An attempt of which no answer came may have put it.
            found = self.read_version(key)
            if found is None or found[0] != whole:
                raise ChangedError(self.url, key) from None
            return found[1]
        return version

    def delete(self, key: str) -> None:
        """Take an object away; nothing happens when there is none."""
        self._check_writable("delete", key)
        self._ask("delete", key, self._in_turn(lambda path: self._fs.rm_file(path)))

    def delete_prefix(self, prefix: str) -> None:
        """Take away the object at a prefix and everything below it, metadata first."""
        for name in METADATA_NAMES:
            self.delete(f"{prefix}/{name}" if prefix else name)
        # Not the root itself: that can be a bucket.
        children = [prefix] if prefix else self.list_names("")
        for child in children:
            self._change("delete", child, lambda path: self._fs.rm(path, recursive=True))

    def exists_any(self, prefix: str) -> bool:
        """Return whether there is an object at a prefix or anywhere below it."""
        return bool(self._change("list", prefix, self._contains_objects))

    def sync(self) -> None:
        """Do nothing: an object store has what it says that it has."""

    def reference(self, prefix: str = "") -> StoreReference:
        """Return URL and options, or a copy of what lies below a prefix in memory.

        Raises
        ------
        StoreError
            When an option is no plain value and cannot be handed to another process.
        """
        if lives_in_this_process(self._full_url):
            packed = pack_store(self, prefix)
            try:
                return packed.reference(prefix)
            finally:
                packed.close()
        check_plain(self._options, self.url)
        description = {"kind": "fsspec", "url": self._full_url, "writable": self.writable}
        return StoreReference({**description, "storage_options": self._options})

    def close(self) -> None:
        """Do nothing: fsspec shares connections between all who use the same options."""

    def _connect(self) -> None:
        try:
            options = {k: v for k, v in self._options.items() if k != DENIED_IS_MISSING}
            self._fs, self._root = connect(self._full_url, options)
        except Exception as error:  # noqa: BLE001 - every protocol has errors of its own
            self._raise(error, "open", None)
        self._turn = turn_of(self._fs)
        self._transport: Transport = choose_transport(self._fs, self.timeout_seconds)
        self._is_asynchronous = isinstance(self._transport, AsyncTransport)
        # What is put goes past caches, and past what reads HTTP.
        is_usual = isinstance(self._transport, FsspecTransport)
        self._writing = (
            cast("FsspecTransport", self._transport)
            if is_usual
            else FsspecTransport(self._fs, self.timeout_seconds)
        )
        self._pid = os.getpid()

    def _path(self, key: str) -> str:
        if self._root.startswith("http"):
            key = self._quote(key)
        return "/".join(part for part in (self._root, key) if part)

    def _quote(self, key: str) -> str:
        from urllib.parse import quote

        return quote(key)

    def _way(self) -> Transport:
        if self._pid != os.getpid():
            # Kept, never freed: its finalizer would wait for an event loop whose thread
            # is in the parent.
            self._inherited.append((self._fs, self._transport))
            self._connect()
        return self._transport

    def _ask(
        self,
        action: str,
        key: str,
        ask: Callable[[Transport, str], _Result],
        *,
        is_prefix: bool = False,
        is_missing_allowed: bool = True,
    ) -> _Result | None:
        check_key(key, self.url, is_prefix=is_prefix)
        way = self._way()
        try:
            answer = ask(way, self._path(key))
        except Exception as error:  # noqa: BLE001 - every protocol has errors of its own
            if is_missing_allowed and self._is_missing(error, action):
                return None
            self._raise(error, action, key)
        self._is_reached = True
        return answer

    def _is_missing(self, error: Exception, action: str) -> bool:
        fault = decode_failure(error).fault
        self._is_reached |= fault is Fault.MISSING or status_of(error) is not None
        if fault is Fault.DENIED and action in ("read", "look up"):
            return self._denied_is_missing and is_forbidden(error)
        # A directory is no object that could be deleted.
        return fault is Fault.MISSING or (fault is Fault.DIRECTORY and action == "delete")

    def _change(self, action: str, key: str, change: Callable[[str], _Result]) -> _Result | None:
        return self._ask(action, key, self._in_turn(change), is_prefix=True)

    def _in_turn(self, call: Callable[[str], _Result]) -> Callable[[Transport, str], _Result]:
        """Return what `_ask` takes for a call that goes past the transport."""

        def ask(_: Transport, path: str) -> _Result:
            with self._turn:
                return call(path)

        return ask

    def _contains_objects(self, path: str) -> bool:
        self._fs.invalidate_cache(path)
        for entry in self._fs.ls(path, detail=True):
            if entry["type"] != "directory" or self._contains_objects(entry["name"]):
                return True
        return False

    def _check_writable(self, action: str, key: str) -> None:
        if not self.writable:
            raise read_only(self.url, action, key)

    def _raise(self, error: Exception, action: str, key: str | None) -> NoReturn:
        if isinstance(error, StoreError | OtherVersionError):
            raise error
        raise failed(
            *(self.url, action, key, error),
            timeout_seconds=self.timeout_seconds,
            is_reached=self._is_reached,
        ) from error


class UrlStore(FsspecStore):
    """A server whose keys are the rest of URLs, as these have it: quoted, and with a query."""

    def _quote(self, key: str) -> str:
        return key
