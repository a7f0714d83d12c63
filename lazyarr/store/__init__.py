"""Bytes from somewhere: local files, anything that fsspec reaches, objects in memory."""

from lazyarr.store.asynchronous import AsyncStore, event_loop, fetch
from lazyarr.store.base import (
    METADATA_LIMIT_NBYTES,
    UNCHANGED,
    Answer,
    Buffer,
    Store,
    StoreReference,
    WritableStore,
)
from lazyarr.store.descriptors import BorrowedFile
from lazyarr.store.opening import open_reference, open_store, store_reference
from lazyarr.store.retry import RetryingStore, RetryPolicy
from lazyarr.store.stamps import is_unchanged

__all__ = [
    "BorrowedFile",
    "Store",
    "WritableStore",
    "Buffer",
    "open_store",
    "StoreReference",
    "store_reference",
    "open_reference",
    "RetryPolicy",
    "RetryingStore",
    "AsyncStore",
    "event_loop",
    "fetch",
    "Answer",
    "METADATA_LIMIT_NBYTES",
    "UNCHANGED",
    "is_unchanged",
]
