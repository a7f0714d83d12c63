"""Reading the documents of all nodes of a store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from lazyarr.store import METADATA_LIMIT_NBYTES
from lazyarr.writer.hierarchy import document_key, node_type

if TYPE_CHECKING:
    from collections.abc import Collection

    from lazyarr.writer.place import Place

__all__ = ["read_document", "read_documents", "read_each"]

_THREADS = 16
"""Requests at once: each waits for a remote store most of the time."""


def read_document(place: Place, path: str) -> bytes | None:
    """Return the document of a node; None when there is none."""
    return place.read(document_key(path), limit_nbytes=METADATA_LIMIT_NBYTES)


def read_each(place: Place, paths: Collection[str]) -> dict[str, bytes | None]:
    """Return the documents of some nodes by their paths; None where there is none."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="lazyarr-read") as threads:
        documents = threads.map(lambda path: read_document(place, path), paths)
        return dict(zip(paths, documents, strict=True))


def read_documents(place: Place) -> dict[str, bytes]:
    """Return the documents of all nodes of a store by their paths.

    A node that is no v3 array or group, or that is in none, is not there.
    """
    found: dict[str, bytes] = {}
    level = [""]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="lazyarr-read") as threads:
        while level:
            documents = threads.map(lambda path: read_document(place, path), level)
            groups = []
            for path, document in zip(level, documents, strict=True):
                kind = None if document is None else node_type(document)
                if document is not None and kind is not None:
                    found[path] = document
                if kind == "group":
                    groups.append(path)
            names = threads.map(place.list_names, groups)
            level = [
                f"{group}/{name}" if group else name
                for group, inside in zip(groups, names, strict=True)
                for name in inside
                if name != "zarr.json"
            ]
    return found
