"""Where a store is being written, and how it becomes visible."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from lazyarr.errors import FormatError, NodeNotFoundError, StoreError
from lazyarr.store.base import METADATA_NAMES
from lazyarr.store.local import LocalStore
from lazyarr.writer.resuming import is_continued

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazyarr.store import Buffer, WritableStore
    from lazyarr.writer.resuming import Plan

__all__ = ["ExistingStore", "NewPrefix", "Place", "refuse_existing"]

_MARKER = ".lazyarr-partial"
"""An object that says: what lies here is of a writer that has not finished."""


class Place(Protocol):
    """Somewhere to put objects; readers see the store when it is published."""

    @property
    def url(self) -> str:
        """Where the store is, without credentials."""
        ...

    def read(self, key: str, *, limit_nbytes: int | None = None) -> bytes | None:
        """Return a whole object; None when it does not exist."""
        ...

    def list_names(self, prefix: str) -> tuple[str, ...]:
        """Return the names of what lies directly below a prefix."""
        ...

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Put an object that consists of some parts."""
        ...

    def delete(self, key: str) -> None:
        """Take an object away, if it is there."""
        ...

    def delete_prefix(self, prefix: str) -> None:
        """Take away everything below a prefix."""
        ...

    def sync(self) -> None:
        """Let what was put outlast a power failure, before a document says that it is there."""
        ...

    @property
    def is_resumable(self) -> bool:
        """Whether another writer may go on with what was put: every object is complete then."""
        ...

    @property
    def is_resumed(self) -> bool:
        """Whether there are objects of a writer that was stopped and had the same plan."""
        ...

    def has(self, key: str) -> bool:
        """Return whether there is such an object, which is whole then."""
        ...

    def publish(self) -> None:
        """Make the store visible; everything was put, the root's document last."""
        ...

    def suspend(self) -> bool:
        """Leave what was put to a writer with the same plan.

        Return whether there is anything for it to go on with.
        """
        ...

    def abort(self) -> None:
        """Take away what was put and not published."""
        ...

    def close(self) -> None:
        """Let go of descriptors and connections."""
        ...


def refuse_existing(url: str, *, is_store: bool) -> FileExistsError:
    """Return the error for a place that is taken, by a store or by something else."""
    if is_store:
        remedy = "there is a store already; choose another place, or pass overwrite=True"
    else:
        remedy = "there is something that is no store; choose another place, or take it away"
    return FileExistsError(f"cannot write {url}: {remedy}")


class StorePlace:
    """What all places share: objects are in a store, and are put there whole."""

    is_resumable = is_resumed = False

    def __init__(self, store: WritableStore) -> None:
        self._store = store
        self.url = store.url

    def has(self, key: str) -> bool:
        """Return whether there is such an object."""
        return self._store.size(key) is not None

    def suspend(self) -> bool:
        """Return that nobody can go on."""
        return False

    def read(self, key: str, *, limit_nbytes: int | None = None) -> bytes | None:
        """Return a whole object; None when it does not exist."""
        return self._store.read(key, limit_nbytes=limit_nbytes)

    def list_names(self, prefix: str) -> tuple[str, ...]:
        """Return the names of what lies directly below a prefix."""
        return self._store.list_names(prefix)

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        """Put an object, in place of an older one in one step."""
        self._store.write(key, list(parts))

    def delete(self, key: str) -> None:
        """Take an object away, if it is there."""
        self._store.delete(key)

    def delete_prefix(self, prefix: str) -> None:
        """Take away everything below a prefix."""
        self._store.delete_prefix(prefix)

    def sync(self) -> None:
        """Do nothing: an object store has what it says that it has."""

    def close(self) -> None:
        """Let go of descriptors and connections."""
        self._store.close()


class ExistingStore(StorePlace):
    """A store that readers see all the time: every object is whole, old or new.

    Parameters
    ----------
    store : WritableStore
        The store.

    Raises
    ------
    NodeNotFoundError
        There is none.
    FormatError
        It is of Zarr v2.
    """

    def __init__(self, store: WritableStore) -> None:
        super().__init__(store)
        if store.size("zarr.json") is not None:
            return
        if any(store.size(name) is not None for name in METADATA_NAMES):
            raise FormatError(
                f"cannot write to {self.url}: it is of Zarr v2, which lazyarr only reads; "
                "run 'lazyarr convert'",
                path="",
            )
        raise NodeNotFoundError(
            f"cannot write to {self.url}: there is no store; make one with lazyarr.create",
            url=self.url,
            key="zarr.json",
            path="",
        )

    def sync(self) -> None:
        """Have a local store force names to the disk, if it is to."""
        if isinstance(self._store, LocalStore):
            self._store.sync()

    def publish(self) -> None:
        """Do nothing more than that: documents were put after the data."""
        self.sync()

    def abort(self) -> None:
        """Do nothing: no document names what was put."""


class NewPrefix(StorePlace):
    """A new store where nothing can be renamed, as in object stores.

    It becomes visible with the root's document, which is put last.  Until then a
    marker says that the objects are of an unfinished store, so that the next writer
    knows that it may take them away.  It may do so while this one lives, for nothing tells a
    writer that works from one that died; so the marker names its writer, and who finds another
    name in it does not go on: half of each would be a store that looks whole.

    Parameters
    ----------
    store : WritableStore
        The store.
    overwrite : bool
        Whether a store that is there may be replaced.  It is gone from the
        first moment: its documents are deleted first, so that no reader mixes old
        documents with new data.
    plan : Plan, optional
        What is going to be written: where a stopped writer had the same plan, its objects are
        kept.  Nothing tells whether it lives; if it does, it does not publish the store any more.
    restart : bool
        Whether what a stopped writer left is taken away, whatever its plan was.

    Raises
    ------
    FileExistsError
        There is something, and it is no store or must not be replaced.
    StoreError
        A stopped writer had another plan.
    """

    def __init__(
        self,
        store: WritableStore,
        *,
        overwrite: bool,
        plan: Plan | None = None,
        restart: bool = False,
    ) -> None:
        super().__init__(store)
        names = store.list_names("")
        is_store = any(name in METADATA_NAMES for name in names)
        is_partial = not is_store and _MARKER in names
        if names and not is_partial and not (is_store and overwrite):
            raise refuse_existing(self.url, is_store=is_store)
        if is_partial and plan is not None:
            found = (store.read(_MARKER) or b"").partition(b"\n")[2]
            self.is_resumed = is_continued(found, plan, self.url, restart=restart)
        self.is_resumable = plan is not None
        token = os.urandom(16).hex().encode()
        self._marker = token if plan is None else token + b"\n" + plan.encode()
        store.write(_MARKER, self._marker)
        if not self.is_resumed:
            self._delete_all(names)

    def sync(self) -> None:
        """Raise if another writer has begun at this place."""
        if not self._is_mine():
            raise StoreError(
                f"cannot write {self.url}: another writer has begun at the same place and taken "
                "away what this one had put; have one write at a time",
                url=self.url,
                key=_MARKER,
                transient=False,
            )

    def publish(self) -> None:
        """Take the marker away."""
        self._store.delete(_MARKER)

    def suspend(self) -> bool:
        """Leave what was put, and the marker that says what it is."""
        return self.is_resumable and len(self._store.list_names("")) > 1

    def abort(self) -> None:
        """Delete what was put, the marker last; nothing where another writer has begun."""
        if not self._is_mine():
            return
        self._delete_all(self._store.list_names(""))
        self._store.delete(_MARKER)

    def _is_mine(self) -> bool:
        return self._store.read(_MARKER) == self._marker

    def _delete_all(self, names: Sequence[str]) -> None:
        for name in METADATA_NAMES:
            if name in names:
                self._store.delete(name)
        for name in names:
            if name != _MARKER and name not in METADATA_NAMES:
                self._store.delete_prefix(name)
