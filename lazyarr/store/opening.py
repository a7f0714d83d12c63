"""Which store a URL means, and how another process opens the same one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from lazyarr.errors import StoreError
from lazyarr.store.base import StoreReference
from lazyarr.store.files import HAS_DIRECTORY_DESCRIPTORS
from lazyarr.store.local import LocalStore
from lazyarr.store.repositories import means_repository
from lazyarr.store.retry import RetryingStore
from lazyarr.store.urls import absolute, absolute_options, local_path, without_credentials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazyarr.store.base import Store, WritableStore
    from lazyarr.store.retry import RetryPolicy

__all__ = [
    "open_reference",
    "open_repository",
    "open_store",
    "open_writable",
    "store_reference",
]

_UNWRITABLE = {
    "packed": (
        "its objects are in the memory of another process, and what is written here would not "
        "get there; open it with engine='copy'"
    ),
    "icechunk": "it is an icechunk repository; write with icechunk and zarr",
    "references": "it refers to other files, which lazyarr only reads; run 'lazyarr convert'",
}


def open_store(
    url: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None = None,
    *,
    writable: bool = False,
    timeout_seconds: float = 60.0,
    is_reached: bool = False,
) -> WritableStore:
    """Return the store at a path or an fsspec URL.

    Parameters
    ----------
    url : str or os.PathLike
        A directory, a ``file://`` URL, or any other URL that fsspec takes, chained
        ones too.  Nothing needs to be there yet.
    storage_options : mapping, optional
        As fsspec takes them; local directories have none and ignore them.
    writable : bool
        Whether the methods that change something are allowed; without it they
        raise.
    timeout_seconds : float
        How long one attempt on a remote store may take.
    is_reached : bool
        Whether a server is known to answer.  Where one never has, connections that nobody takes
        are an error for good; else it may be starting anew.

    Raises
    ------
    StoreError
        When the protocol is not known, its package is not installed, or the
        options are not right.
    TypeError
        When the options are no mapping.
    ValueError
        When the path is empty.

    Examples
    --------
    >>> store = open_store("memory://example", writable=True)
    >>> store.write("a/b", b"0123456789")
    >>> bytes(store.read_range("a/b", 2, 5))
    b'234'
    >>> store.read("a/c") is None
    True
    """
    path = local_path(url)
    if path == "":
        raise ValueError(f"{url!r} names no store; give a path, '.' for this directory, or a URL")
    if not isinstance(storage_options, Mapping | None):
        raise TypeError(
            f"storage_options={storage_options!r:.80} is no mapping; give one, as {{'anon': True}}"
        )
    options: dict[str, Any] = dict(storage_options or {})
    if options and means_repository(url, options):
        return open_repository(url, options, writable=writable, timeout_seconds=timeout_seconds)
    if path is not None:
        if HAS_DIRECTORY_DESCRIPTORS:
            return LocalStore(path, writable=writable)
        url, options = "file://" + os.path.abspath(path), {"auto_mkdir": writable}
    # Imported here: local stores do without fsspec, which costs a tenth of a second.
    from lazyarr.store.remote import FsspecStore

    url, options = absolute(str(url)), absolute_options(options)
    return FsspecStore(
        *(url, options),
        writable=writable,
        timeout_seconds=timeout_seconds,
        is_reached=is_reached,
    )


def open_repository(
    url: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None,
    *,
    writable: bool = False,
    timeout_seconds: float = 60.0,
) -> WritableStore:
    """Return the store that a version of the icechunk repository at a path or a URL is.

    Raises
    ------
    StoreError
        When it is to be written to.  Nothing is read yet.
    """
    # Imported here: it is for repositories alone.
    from lazyarr.store.icechunk import IcechunkStore

    text = os.fsdecode(url)
    if writable:
        shown = without_credentials(text)
        message = (
            f"cannot write to the icechunk repository {shown}: lazyarr reads them; "
            "write with icechunk and zarr"
        )
        raise StoreError(message, url=shown, key=None, transient=False)
    # The methods that write are those that it does not have.
    return cast(
        "WritableStore",
        IcechunkStore(text, storage_options or {}, timeout_seconds=timeout_seconds),
    )


def store_reference(store: Store, *, prefix: str = "") -> StoreReference:
    """Return what another process needs to open the same store.

    Parameters
    ----------
    store : Store
        A store from `open_store` or `open_reference`, or one around it that tries again.
    prefix : str
        What is needed of it, usually an array's path.  Objects in the memory of this
        process, ``memory://``, are copied from there as they are now; for other
        stores it means nothing.

    Raises
    ------
    StoreError
        When the store cannot be opened by another process.
    """
    while isinstance(store, RetryingStore):
        store = store.inner
    if not hasattr(store, "reference"):
        message = f"cannot hand {store.url} to another process: it is a {type(store).__name__}"
        raise StoreError(message, url=store.url, key=None, transient=False)
    return cast("StoreReference", store.reference(prefix))


def open_reference(
    description: Mapping[str, Any],
    descriptors: Sequence[int] = (),
    *,
    timeout_seconds: float = 60.0,
) -> Store:
    """Return the store that a reference describes.

    Parameters
    ----------
    description : mapping
        As `store_reference` gave it, also after a journey as JSON.
    descriptors : sequence of int
        The open files that came with it.  The store owns them, and they are closed where
        there can be none.
    timeout_seconds : float
        How long one attempt on a remote store may take.

    Raises
    ------
    StoreError
        When the description is not one, or the store cannot be opened.

    Examples
    --------
    >>> description, descriptors = store_reference(open_store("/data/train.zarr"))
    >>> open_reference(description, descriptors).url
    'file:///data/train.zarr'
    """
    kind = description.get("kind")
    unused = list(descriptors)
    try:
        if kind == "local":
            return _open_local(description)
        if kind == "packed":
            # Imported here: it is for what lives in the client's memory alone.
            from lazyarr.store.packed import PackedStore

            store = PackedStore(descriptors[0], description["index"], description["url"])
            del unused[0]
            return store
        if kind == "references":
            # Imported here: few stores are references.
            from lazyarr.store.references.reference_store import open_references

            unused, given = [], unused
            return open_references(
                description, given, open_reference, timeout_seconds=timeout_seconds
            )
        if kind == "icechunk":
            options = description["storage_options"]
            return open_repository(description["url"], options, timeout_seconds=timeout_seconds)
        if kind == "fsspec":
            return open_store(
                *(description["url"], description["storage_options"]),
                writable=description["writable"],
                timeout_seconds=timeout_seconds,
                is_reached=True,  # by whoever refers to it
            )
        problem = "the two processes run different versions"
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        problem = f"{error!r}"
    finally:
        for descriptor in unused:
            os.close(descriptor)
    message = f"cannot open a store of kind {kind!r}: {problem}"
    raise StoreError(message, url="", key=None, transient=False)


def open_writable(
    description: Mapping[str, Any],
    descriptors: Sequence[int] = (),
    *,
    timeout_seconds: float = 60.0,
    policy: RetryPolicy | None = None,
) -> WritableStore:
    """Return the store that a reference describes, for writing whatever it was opened for.

    What is put in a local store is on the disk before it has its name; `sync` forces the names.

    Parameters
    ----------
    description, descriptors, timeout_seconds
        As of `open_reference`.
    policy : RetryPolicy, optional
        When calls are tried again that failed; without one they are not.  Local stores are
        never tried again.

    Raises
    ------
    StoreError
        It is of a kind that cannot be written to.

    Examples
    --------
    >>> import tempfile
    >>> description, descriptors = store_reference(open_store(tempfile.mkdtemp()))
    >>> open_writable(description, descriptors).write("a", b"0123456789") is None
    False
    """
    url = str(description.get("url", ""))
    problem = _UNWRITABLE.get(str(description.get("kind")))
    if "::" in url or url.startswith("zip:"):
        problem = "it is reached by way of an archive or a cache; unpack it, or name what is behind"
    if problem is not None:
        for descriptor in descriptors:
            os.close(descriptor)
        shown = without_credentials(url)
        message = f"cannot write to {shown}: {problem}"
        raise StoreError(message, url=shown, key=None, transient=False)
    store = open_reference(
        {**description, "writable": True}, descriptors, timeout_seconds=timeout_seconds
    )
    if isinstance(store, LocalStore):
        store.durable = True
        return store
    return cast("WritableStore", store if policy is None else RetryingStore(store, policy))


def _open_local(description: Mapping[str, Any]) -> LocalStore:
    identity = description["identity"]
    return LocalStore(
        description["path"],
        writable=description["writable"],
        identity=None if identity is None else (identity[0], identity[1]),
    )
