"""Which place a URL means, and the session that writes there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lazyarr import settings
from lazyarr.store import RetryingStore, RetryPolicy, open_store
from lazyarr.store.local import LocalStore
from lazyarr.writer.place import ExistingStore, NewPrefix, Place
from lazyarr.writer.session import Session
from lazyarr.writer.staging import StagedDirectory
from lazyarr.writer.zipped import ZipPlace

if TYPE_CHECKING:
    from lazyarr.store import WritableStore
    from lazyarr.writer.resuming import Plan

__all__ = ["resume_session", "start_session"]


def start_session(
    url: str | os.PathLike[str],
    root: bytes | None,
    *,
    overwrite: bool,
    options: Mapping[str, Any] | None,
    consolidated: bool | None = None,
    durable: bool = True,
    plan: Plan | None = None,
    restart: bool = False,
    in_archive: bool = False,
) -> Session:
    """Return the session of a new store.

    Parameters
    ----------
    url : str or os.PathLike
        Where the store is to be.
    root : bytes or None
        The document of its root, a group; None where the root will be an array.
    overwrite : bool
        Whether a store that is there is replaced.
    options : mapping or None
        As fsspec takes them.
    consolidated : bool or None
        Whether the root holds copies of all documents; None for stores that are not local.
    durable : bool
        Whether a local store is forced to the disk before it is seen.
    plan : Plan, optional
        What is going to be written, for a writer that goes on where a stopped one was.
    restart : bool
        Whether what a stopped writer left is taken away, whatever its plan was.
    in_archive : bool
        Whether a local store is to be in a zip archive.

    Raises
    ------
    FileExistsError
        There is something already.
    StoreError
        The place cannot be reached or written to, or a stopped writer had another plan.
    """
    store = _open_store(url, options)
    with _closing_on_error(store):
        place: Place
        if consolidated is None:
            # A request per node is what copies save.  Files are quick without, and other
            # writers leave copies as they are: zarr-python appends rows that nobody sees then.
            consolidated = not isinstance(store, LocalStore)
        if isinstance(store, LocalStore) and in_archive:
            place = ZipPlace(store.path, overwrite=overwrite, plan=plan, restart=restart)
        elif isinstance(store, LocalStore):
            place = StagedDirectory(
                store.path, overwrite=overwrite, durable=durable, plan=plan, restart=restart
            )
        else:
            place = NewPrefix(store, overwrite=overwrite, plan=plan, restart=restart)
        return Session(place, root, is_new=True, consolidated=consolidated)


def resume_session(
    url: str | os.PathLike[str], *, options: Mapping[str, Any] | None, durable: bool = True
) -> Session:
    """Return the session of a store that exists.

    Raises
    ------
    NodeNotFoundError
        There is none.
    FormatError
        It is of Zarr v2.
    StoreError
        It cannot be reached or written to, or somebody else is writing to it.
    """
    store = _open_store(url, options)
    with _closing_on_error(store):
        place = ExistingStore(store)
        if isinstance(store, LocalStore):
            store.claim()
            store.durable = durable
        return Session(place, None, is_new=False)


@contextlib.contextmanager
def _closing_on_error(store: WritableStore) -> Iterator[None]:
    try:
        yield
    except BaseException:
        store.close()
        raise


def _open_store(url: str | os.PathLike[str], options: Mapping[str, Any] | None) -> WritableStore:
    now = settings.current()
    store = open_store(url, options, writable=True, timeout_seconds=now.timeout)
    if isinstance(store, LocalStore):
        return store
    return RetryingStore(store, RetryPolicy(now.retries, now.timeout))
