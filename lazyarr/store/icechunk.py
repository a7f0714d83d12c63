"""A version of an icechunk repository as a store of bytes by key, through icechunk itself."""

from __future__ import annotations

import asyncio
import atexit
import os
import re
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from lazyarr.errors import LazyarrError, NodeNotFoundError, StoreError
from lazyarr.kernel import renew_in_child
from lazyarr.store.asynchronous import event_loop
from lazyarr.store.base import (
    METADATA_NAMES,
    Answer,
    StoreReference,
    check_key,
    check_limit,
    check_range,
)
from lazyarr.store.failure import REMEDIES, Fault
from lazyarr.store.icechunk_sessions import begin_session, icechunk_library, secrets_of
from lazyarr.store.messages import check_plain, wrong_length
from lazyarr.store.repositories import SESSION, VERSIONS
from lazyarr.store.urls import local_path, without_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from lazyarr.store.base import Arrived

__all__ = ["IcechunkStore"]

_Result = TypeVar("_Result")

_DOCUMENT = "zarr.json"
# icechunk has nothing of Zarr v2, and some of its versions do not take these names for keys.
_OF_VERSION_2 = frozenset(METADATA_NAMES) - {_DOCUMENT}
# What icechunk says of storage that may answer later.  Its version 1 has one class of error and
# no code in it.
_STORAGE_WORDS = re.compile(
    "object store error|error getting object|dispatch failure|timeout|timed out|throttl|"
    "connection|service error|i/o error",
    re.IGNORECASE,
)
_LASTING_WORDS = re.compile(
    "not found|no such|nosuch|denied|forbidden|unauthorized|invalidaccesskey|signature|"
    "range|credential|size is incorrect|too small",
    re.IGNORECASE,
)
_NO_REPOSITORY = "the repository doesn't exist"
_ALIVE_SECONDS = 5.0
# Some hundred times what a thread of icechunk's takes to let go of Python after its answer.
_LET_GO_SECONDS = 0.05


class IcechunkStore:
    """The objects of one version of an icechunk repository; for reading only.

    A branch or a tag is looked up when the store is first used.  From then on it has that one
    snapshot, also in other processes.

    Parameters
    ----------
    url : str
        A path, or a URL of a kind of storage that icechunk has.
    storage_options : mapping
        Which version, by ``branch``, ``tag`` or ``snapshot``, and what icechunk needs to read.
    timeout_seconds : float
        How long one call may take.

    Notes
    -----
    icechunk's threads do not survive fork: in a child of a process that has used icechunk,
    every call is an error instead of waiting for ever.
    """

    is_asynchronous = True

    def __init__(
        self, url: str, storage_options: Mapping[str, Any], *, timeout_seconds: float = 60.0
    ) -> None:
        path = local_path(url)
        self._full_url = url if path is None else os.path.abspath(path)
        self.url = without_credentials(url) if path is None else f"file://{self._full_url}"
        self.timeout_seconds = timeout_seconds
        self._options = dict(storage_options)
        self._secrets = secrets_of(self._options)
        self._session: Any = None
        self._opening = asyncio.Lock()

    def __repr__(self) -> str:
        version = {name: self._options[name] for name in VERSIONS if name in self._options}
        if self._session is not None:
            version = {"snapshot": self._session.snapshot_id}
        shown = "".join(f", {name}={value!r}" for name, value in version.items())
        return f"IcechunkStore({self.url!r}{shown})"

    @property
    def snapshot(self) -> str:
        """The snapshot that is read; looked up when that has not been done yet."""
        if self._session is None:
            self._wait("open", None, _nothing)
        return str(self._session.snapshot_id)

    @property
    def kind(self) -> str:
        """What the store is, for those who look at it."""
        return f"an icechunk repository, snapshot {self.snapshot}"

    @property
    def pinned(self) -> dict[str, Any]:
        """Storage options that mean this snapshot, whatever a branch or a tag means by now."""
        if SESSION in self._options:
            return self._options
        rest = {name: value for name, value in self._options.items() if name not in VERSIONS}
        return {**rest, "snapshot": self.snapshot}

    def is_unchanged(self) -> bool:
        """Return True: what a snapshot has does not change."""
        return True

    def read(self, key: str, *, limit_nbytes: int | None = None) -> bytes | None:
        """Return a whole object; None when it does not exist."""
        answer = self._wait("read", key, lambda: self._fetch(key, 0, None, limit_nbytes))
        return None if answer is None else bytes(answer.data)

    def read_range(
        self, key: str, start: int, stop: int, *, into: memoryview | None = None
    ) -> memoryview | None:
        """Return exactly ``stop - start`` bytes; None when the object does not exist."""
        check_range(start, stop, into)
        answer = self._wait("read", key, lambda: self._fetch(key, start, stop, None))
        if answer is None:
            return None
        if into is None:
            return memoryview(answer.data)
        target = into.cast("B")[: stop - start]
        target[:] = answer.data
        return target

    def read_suffix(self, key: str, nbytes: int) -> tuple[bytes, int] | None:
        """Return the last `nbytes` and the object's size; None when it does not exist."""
        check_range(0, nbytes, None)
        if nbytes == 0:
            size = self.size(key)
            return None if size is None else (b"", size)
        answer = self._wait("read", key, lambda: self._fetch(key, -nbytes, None, None))
        if answer is None:
            return None
        assert answer.total_nbytes is not None
        return bytes(answer.data), answer.total_nbytes

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
        """Return ``object[start:stop]`` and the object's size; see `AsyncStore`."""
        del unless, arrived  # objects have no versions, and come as a whole
        self._check_fork()
        return await self._within("read", key, lambda: self._fetch(key, start, stop, limit_nbytes))

    def size(self, key: str) -> int | None:
        """Return an object's size in bytes; None when it does not exist."""
        return self._wait("look up", key, lambda: self._size(key))

    def list_names(self, prefix: str) -> tuple[str, ...]:
        """Return the sorted names of what lies directly below a prefix, objects and directories."""
        return self._wait("list", prefix, lambda: self._list(prefix), is_prefix=True)

    def list_directories(self, prefix: str) -> tuple[str, ...]:
        """Return the sorted names directly below a prefix below which there may be something."""
        return tuple(name for name in self.list_names(prefix) if name != _DOCUMENT)

    def reference(self, prefix: str = "") -> StoreReference:
        """Return where the repository is, and which snapshot of it this is.

        Raises
        ------
        StoreError
            When an option is no plain value and cannot be handed to another process.
        """
        del prefix  # a snapshot is there as a whole
        check_plain(self._options, self.url)
        description = {"kind": "icechunk", "url": self._full_url, "storage_options": self.pinned}
        return StoreReference(description)

    def borrow(self, key: str) -> None:
        """Return None: an object is no open file here."""

    def forget(self, key: str) -> None:
        """Do nothing: nothing is kept of an object."""

    def rest(self) -> None:
        """Do nothing: there are no descriptors that could be opened again."""

    def close(self) -> None:
        """Do nothing: icechunk lets go when nobody has the session any more."""

    async def _open(self) -> None:
        async with self._opening:
            if self._session is None:
                try:
                    session = await begin_session(self._full_url, self._options)
                    self._objects = session.store
                except LazyarrError:
                    raise
                except Exception as error:  # noqa: BLE001 - as in `_within`
                    self._raise(error, "open", None)
                self._session = session

    async def _fetch(
        self, key: str, start: int, stop: int | None, limit_nbytes: int | None
    ) -> Answer | None:
        name = key.rpartition("/")[2]
        if name in _OF_VERSION_2:
            return None
        # Documents come from the snapshot, and icechunk 2.3 panics at ranges beyond their end.
        if name == _DOCUMENT:
            return await self._fetch_document(key, start, stop, limit_nbytes)
        total: int | None = None
        if stop is None:
            # From the manifest, without a request.
            total = await self._size(key)
            if total is None:
                return None
            check_limit(key, total, limit_nbytes, self.url)
            start, stop = (0, total) if start == 0 else (max(0, total + start), total)
        if start == stop:
            total = await self._size(key) if total is None else total
            return None if total is None else Answer(b"", total)
        data = await self._get(key, (start, stop))
        if data is None:
            return None
        if len(data) != stop - start:
            # icechunk 1 takes no notice of a range that ends behind the object.
            total = await self._size(key) if total is None else total
            raise wrong_length(self.url, key, start, stop, Answer(data, total))
        return Answer(data, total)

    async def _fetch_document(
        self, key: str, start: int, stop: int | None, limit_nbytes: int | None
    ) -> Answer | None:
        data = await self._get(key, None)
        if data is None:
            # icechunk 1 says so too when it cannot load the snapshot, which `exists` does not.
            if await self._objects.exists(key):
                raise TimeoutError
            return None
        total = len(data)
        if stop is None and start == 0:
            check_limit(key, total, limit_nbytes, self.url)
        elif start < 0:
            start, stop = max(0, total + start), total
        if stop is not None and stop > total:
            part = Answer(data[start:stop], total)
            raise wrong_length(self.url, key, start, stop, part)
        return Answer(data[start:stop], total)

    async def _get(self, key: str, span: tuple[int, int] | None) -> memoryview | None:
        """Return an object, or a part of it; None when it does not exist."""
        from zarr.abc.store import RangeByteRequest
        from zarr.buffer.cpu import buffer_prototype

        asked = None if span is None else RangeByteRequest(*span)
        found = await self._objects.get(key, buffer_prototype, asked)
        return None if found is None else memoryview(found.as_numpy_array()).cast("B")

    async def _size(self, key: str) -> int | None:
        if key.rpartition("/")[2] in _OF_VERSION_2:
            return None
        # `getsize` gives 0 for a chunk that is not there.
        if not await self._objects.exists(key):
            return None
        return int(await self._objects.getsize(key))

    async def _list(self, prefix: str) -> tuple[str, ...]:
        # If the snapshot cannot be loaded, icechunk lists nothing, and `exists` says why.
        for _ in range(2):
            await self._objects.exists(_DOCUMENT)
            listed = [name.rstrip("/") async for name in self._objects.list_dir(prefix)]
            if listed:
                break
        return tuple(sorted({name.rpartition("/")[2] for name in listed} - {""}))

    def _wait(
        self,
        action: str,
        key: str | None,
        ask: Callable[[], Coroutine[Any, Any, _Result]],
        *,
        is_prefix: bool = False,
    ) -> _Result:
        """Have the event loop do something, and wait for it."""
        if key is not None:
            check_key(key, self.url, is_prefix=is_prefix)
        self._check_fork()
        future = asyncio.run_coroutine_threadsafe(self._within(action, key, ask), event_loop())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _within(
        self, action: str, key: str | None, ask: Callable[[], Coroutine[Any, Any, _Result]]
    ) -> _Result:
        """Do something in the time that is set, and turn what icechunk raises into errors."""

        async def ask_session() -> _Result:
            if self._session is None:
                await self._open()
            return await ask()

        try:
            return await asyncio.wait_for(ask_session(), self.timeout_seconds)
        except LazyarrError:
            raise
        except Exception as error:  # noqa: BLE001 - icechunk's versions have classes of their own
            self._raise(error, action, key)
        finally:
            _note_answer()

    def _raise(self, error: Exception, action: str, key: str | None) -> NoReturn:
        what = f"the icechunk repository {self.url}" if key is None else f"{key!r} in {self.url}"
        is_reached = self._session is not None
        found, transient, remedy = _decode(error, self.timeout_seconds, is_reached=is_reached)
        found = without_credentials(found)
        for secret in self._secrets:
            found = found.replace(secret, "***")
        message = f"cannot {action} {what}: {found}; {remedy}"
        if found.startswith(_NO_REPOSITORY):
            raise NodeNotFoundError(message, url=self.url, path="") from None
        raise StoreError(message, url=self.url, key=key, transient=transient) from None

    def _check_fork(self) -> None:
        """Refuse to use icechunk where its threads have stayed in the parent of a fork."""
        if not _runs_here():
            message = (
                f"cannot read {self.url}: this process was forked from one that had used icechunk, "
                "whose threads do not survive that; start processes with 'spawn' or 'forkserver'"
            )
            raise StoreError(message, url=self.url, key=None, transient=False)


_answered_at: float | None = None


def _note_answer() -> None:
    """Take down that icechunk has answered just now."""
    global _answered_at
    if _answered_at is None:
        atexit.register(_let_go)
    _answered_at = time.monotonic()


def _let_go() -> None:
    """Wait at the end of the interpreter until icechunk's threads are done with Python.

    A thread answers first, and lets go of Python's objects then.  Where the interpreter ends in
    between, Python before 3.14 ends the thread in a way that makes it free them without the GIL:
    SIGSEGV (https://github.com/PyO3/pyo3-async-runtimes/issues/40).
    """
    if _answered_at is not None:
        time.sleep(max(0.0, _answered_at + _LET_GO_SECONDS - time.monotonic()))


async def _nothing() -> None:
    """Do nothing: what is wanted is the session."""


_process: int | None = None
_starting = threading.Lock()


def _renew() -> None:
    """Forget a thread of the parent that was importing icechunk, and what it has imported.

    The fork has not waited for it: `logging` holds its lock over a fork, and zarr-python, which
    icechunk imports, asks for that.
    """
    global _starting, _process
    _starting = threading.Lock()
    spec = getattr(sys.modules.get("icechunk"), "__spec__", None)
    if getattr(spec, "_initializing", False):
        _process = 0


renew_in_child(_renew)


def _runs_here() -> bool:
    """Return whether icechunk works in this process; it is imported for that."""
    global _process
    if _process is None:
        with _starting:
            if _process is None:
                _process = _find_process()
    return _process == os.getpid()


def _find_process() -> int:
    """Return the process in which icechunk works; 0 for one that has ended or is not known."""
    was_imported = "icechunk" in sys.modules
    icechunk_library()
    if not was_imported:
        return os.getpid()
    # Somebody else has imported it, maybe before a fork.  Then it does nothing, for ever.
    future = asyncio.run_coroutine_threadsafe(_ask_for_nothing(), event_loop())
    try:
        future.result()
    except TimeoutError:
        return 0
    return os.getpid()


async def _ask_for_nothing() -> None:
    icechunk = icechunk_library()
    nowhere = icechunk.Repository.exists_async(icechunk.in_memory_storage())
    await asyncio.wait_for(nowhere, _ALIVE_SECONDS)


def _decode(error: Exception, timeout_seconds: float, *, is_reached: bool) -> tuple[str, bool, str]:
    """Return what was found, whether that may pass, and what to do."""
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        found = f"icechunk gave no answer within {timeout_seconds:g} seconds"
        return found, True, "try again, or raise timeout and retries"
    found, remedy = _first_words(error), "check the URL, the version and storage_options"
    if re.search("not found|nosuchkey", found.lower()) and "ref not found" not in found:
        remedy = "the repository has lost an object, or its garbage was collected; open a newer one"
    if found.startswith(_NO_REPOSITORY):
        remedy = "check the URL and storage_options; what is in a repository is named by path="
    if "authoriz" in found.lower():
        remedy = "name the place in the storage option 'authorize_virtual_chunk_access'"
    if "connection refused" in found.lower() and not is_reached:
        return found, False, REMEDIES[Fault.UNREACHABLE]
    is_storage = _STORAGE_WORDS.search(found) or type(error).__name__ == "StorageError"
    if is_storage and not _LASTING_WORDS.search(found):
        return found, True, "try again, or raise timeout and retries"
    return found, False, remedy


def _first_words(error: Exception) -> str:
    """Return what icechunk says, without the places in its source that it lists after that."""
    text = str(error)
    # Version 1 draws a tree, and breaks its lines: "  x what  |  |  context: ...  `-> why".
    head, _, rest = text.partition("context:")
    whys = re.split(r"[|`]-> ", rest)[1:]
    parts = (re.sub(r"[\s|]+", " ", part).strip().removeprefix("x ") for part in (head, *whys))
    said = ": ".join(dict.fromkeys(part for part in parts if part))
    return said[:1000] or type(error).__name__
