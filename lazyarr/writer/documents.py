"""Reading the documents of all nodes of a store."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from lazyarr.store import METADATA_LIMIT_NBYTES
from lazyarr.writer.hierarchy import document_key, node_type

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from lazyarr.writer.place import Place

__all__ = ["read_document", "read_documents", "read_each"]

_Result = TypeVar("_Result")

_THREADS = 16
"""Requests at once: each waits for a remote store most of the time."""


def read_document(place: Place, path: str) -> bytes | None:
    """Return the document of a node; None when there is none."""
    return place.read(document_key(path), limit_nbytes=METADATA_LIMIT_NBYTES)


def read_each(place: Place, paths: Collection[str]) -> dict[str, bytes | None]:
    """Return the documents of some nodes by their paths; None where there is none."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="lazyarr-read") as threads:
        documents = _map(threads, lambda path: read_document(place, path), paths)
        return dict(zip(paths, documents, strict=True))


def read_documents(place: Place, path: str = "") -> dict[str, bytes]:
    """Return the documents of a node and of all nodes below it by their paths.

    A node that is no v3 array or group, or that is in none, is not there.

    Parameters
    ----------
    place : Place
        The store.
    path : str
        The node; the root by default.
    """
    found: dict[str, bytes] = {}
    level = [path]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="lazyarr-read") as threads:
        while level:
            documents = _map(threads, lambda path: read_document(place, path), level)
            groups = []
            for path, document in zip(level, documents, strict=True):
                kind = None if document is None else node_type(document)
                if document is not None and kind is not None:
                    found[path] = document
                if kind == "group":
                    groups.append(path)
            names = _map(threads, place.list_names, groups)
            level = [
                f"{group}/{name}" if group else name
                for group, inside in zip(groups, names, strict=True)
                for name in inside
                if name != "zarr.json"
            ]
    return found


def _map(
    threads: ThreadPoolExecutor, call: Callable[[str], _Result], paths: Collection[str]
) -> list[_Result]:
    """Return what a call gives for each path, asked on several threads."""
    if len(paths) > 1:
        # While the interpreter ends, a pool takes nothing any more (RuntimeError).
        with contextlib.suppress(RuntimeError):
            return list(threads.map(call, paths))
    return [call(path) for path in paths]
