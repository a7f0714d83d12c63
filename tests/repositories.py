"""icechunk repositories for tests, written by icechunk and zarr-python."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import icechunk
import zarr

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["SPEC_VERSIONS", "commit", "make_repository", "oracle"]

_HAS_VERSIONS = "spec_version" in inspect.signature(icechunk.Repository.create).parameters

SPEC_VERSIONS = (1, 2) if _HAS_VERSIONS else (1,)
"""The versions of repositories that the icechunk that is installed can write."""


def make_repository(
    place: Path | Any, spec_version: int = SPEC_VERSIONS[-1], **options: Any
) -> icechunk.Repository:
    """Return a new repository in a directory, or in a storage of icechunk's."""
    if not isinstance(place, icechunk.Storage):
        icechunk.set_logs_filter("error")
        place = icechunk.local_filesystem_storage(str(place))
        icechunk.set_logs_filter(None)
    version = {"spec_version": spec_version} if _HAS_VERSIONS else {}
    return icechunk.Repository.create(place, **version, **options)


def commit(
    repository: icechunk.Repository, change: Callable[[Any], object], branch: str = "main"
) -> str:
    """Change what a branch has by way of zarr-python's store; return the new snapshot."""
    session = repository.writable_session(branch)
    change(session.store)
    return session.commit("a change")


def oracle(repository: icechunk.Repository, path: str, **version: str) -> Any:
    """Return an array as zarr-python reads it from icechunk's own store."""
    session = repository.readonly_session(**(version or {"branch": "main"}))
    return zarr.open_array(session.store, path=path, mode="r")[...]
