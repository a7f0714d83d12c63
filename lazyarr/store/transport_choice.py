"""Which way to ask for bytes suits which fsspec file system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazyarr.store.transport import FsspecTransport, class_names

if TYPE_CHECKING:
    from lazyarr.store.transport import Transport

__all__ = ["choose_transport"]


def choose_transport(fs: Any, timeout_seconds: float) -> Transport:
    """Return the way that suits a file system, known by its classes' names."""
    names = class_names(fs)
    if "AsyncFileSystem" in names and "HTTPFileSystem" in names:
        from lazyarr.store.transport_http import HttpTransport

        return HttpTransport(fs, timeout_seconds)
    if "S3FileSystem" in names:
        from lazyarr.store.transport_s3 import S3Transport

        return S3Transport(fs, timeout_seconds)
    if "SimpleCacheFileSystem" in names and not fs.compression:
        from lazyarr.store.transport_cached import CachedTransport

        return CachedTransport(fs, choose_transport(fs.fs, timeout_seconds))
    if "CachingFileSystem" in names:
        from lazyarr.store.transport_cached import CachingTransport

        return CachingTransport(fs, choose_transport(fs.fs, timeout_seconds), timeout_seconds)
    return FsspecTransport(fs, timeout_seconds)
