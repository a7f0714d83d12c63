"""Bytes from somewhere: local files, anything that fsspec reaches, objects in memory.

Public: the names below; for the packages above also `base`, `urls`, `local`, `cache` and `claim`.
Not here: what the bytes mean.  fsspec is imported in this package and nowhere else.
"""

from typing import TYPE_CHECKING

from lazyarr.parts import import_on_use

if TYPE_CHECKING:
    from lazyarr.store.asynchronous import event_loop, fetch
    from lazyarr.store.base import (
        METADATA_LIMIT_NBYTES,
        UNCHANGED,
        Answer,
        Arrived,
        AsyncStore,
        Buffer,
        Store,
        StoreReference,
        WritableStore,
    )
    from lazyarr.store.descriptors import BorrowedFile, OpenFile
    from lazyarr.store.opening import (
        open_reference,
        open_repository,
        open_store,
        open_writable,
        store_reference,
    )
    from lazyarr.store.retry import RetryingStore, RetryPolicy
    from lazyarr.store.stamps import is_unchanged

__all__ = [
    "BorrowedFile",
    "OpenFile",
    "Store",
    "WritableStore",
    "Buffer",
    "open_store",
    "open_repository",
    "StoreReference",
    "store_reference",
    "open_writable",
    "open_reference",
    "RetryPolicy",
    "RetryingStore",
    "AsyncStore",
    "event_loop",
    "fetch",
    "Answer",
    "Arrived",
    "METADATA_LIMIT_NBYTES",
    "UNCHANGED",
    "is_unchanged",
]

__getattr__ = import_on_use(
    globals(),
    {
        "asynchronous": "event_loop fetch",
        "base": "METADATA_LIMIT_NBYTES UNCHANGED Answer Arrived AsyncStore Buffer Store"
        " StoreReference WritableStore",
        "descriptors": "BorrowedFile OpenFile",
        "opening": "open_reference open_repository open_store open_writable store_reference",
        "retry": "RetryingStore RetryPolicy",
        "stamps": "is_unchanged",
    },
)
