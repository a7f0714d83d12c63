"""The nodes of a store by their documents, and in which order they are written.  Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lazyarr.errors import FormatError
from lazyarr.formats.zarr import group_document
from lazyarr.store.base import METADATA_NAMES

__all__ = [
    "Hierarchy",
    "ancestors",
    "check_name",
    "document_key",
    "holds_copies",
    "node_type",
    "without_copies",
]

_HIDDEN_PREFIX = ".lazyarr-"
"""Names of objects that are in the way of a writer, and no nodes."""


def check_name(name: str) -> str:
    """Return the path of a node that Zarr allows.

    Raises
    ------
    ValueError
        It is not made of names between single slashes, or one is reserved
        (zarr-specs v3.1, "node names").

    Examples
    --------
    >>> check_name("train/images")
    'train/images'
    """
    parts = name.split("/") if isinstance(name, str) else [""]
    for part in parts:
        reserved = part in METADATA_NAMES or part.startswith(("__", _HIDDEN_PREFIX))
        if not part.strip(".") or reserved or "\0" in part:
            raise ValueError(
                f"cannot create {name!r}: {part!r} is not a name that Zarr allows; "
                "use names such as 'images' or 'train/images'"
            )
    return name


def ancestors(path: str) -> tuple[str, ...]:
    """Return the paths of the groups that a node is in, the root first.

    Examples
    --------
    >>> ancestors("a/b/c")
    ('', 'a', 'a/b')
    """
    parts = path.split("/") if path else []
    return tuple("/".join(parts[:depth]) for depth in range(len(parts)))


def document_key(path: str) -> str:
    """Return the key of a node's document."""
    return f"{path}/zarr.json" if path else "zarr.json"


def node_type(document: bytes) -> str | None:
    """Return ``"array"`` or ``"group"``; None for what is neither."""
    try:
        members = json.loads(document)
    except (ValueError, RecursionError):
        return None
    found = members.get("node_type") if isinstance(members, dict) else None
    return found if found in ("array", "group") else None


def holds_copies(document: bytes) -> bool:
    """Return whether a group's document holds copies of those below it."""
    return _consolidated_member(document) is not None


def without_copies(document: bytes) -> bytes:
    """Return a group's document without copies of those below it."""
    return _dump(_without_copies(document))


class Hierarchy:
    """The documents of a store's nodes, and which of them have to be written.

    Attributes
    ----------
    documents : dict
        What is known, by path; ``""`` is the root.
    changed : set
        Paths of those that the store does not have, or has otherwise.
    """

    def __init__(self, documents: Mapping[str, bytes] | None = None) -> None:
        self.documents = dict(documents or {})
        self.changed: set[str] = set()

    def __repr__(self) -> str:
        return f"<Hierarchy of {len(self.documents)} nodes, {len(self.changed)} changed>"

    def put(self, path: str, document: bytes) -> None:
        """Add a node, or change one."""
        if self.documents.get(path) != document:
            self.documents[path] = document
            self.changed.add(path)

    def require_free(self, path: str) -> None:
        """Raise unless a node can be added at a path.

        Raises
        ------
        FileExistsError
            There is a node at this path.
        ValueError
            An ancestor is an array.
        """
        if path in self.documents:
            raise FileExistsError(
                f"cannot create {path!r}: there is a node of this name; choose another, or "
                "write to the one that is there"
            )
        for parent in ancestors(path):
            if parent in self.documents and node_type(self.documents[parent]) != "group":
                raise ValueError(
                    f"cannot create {path!r}: {parent or '/'!r} is an array, which holds no other "
                    "nodes; choose a name that is not below it"
                )

    def add(self, path: str, document: bytes) -> None:
        """Add a node, and a group for each ancestor that is not there; see `require_free`."""
        self.require_free(path)
        for parent in ancestors(path):
            if parent not in self.documents:
                self.put(parent, group_document())
        self.put(path, document)

    def stale_groups(self) -> tuple[str, ...]:
        """Return the groups that hold copies of documents which have changed, innermost first."""
        changed = {parent for path in self.changed for parent in ancestors(path)} | self.changed
        return tuple(
            path
            for path in sorted(changed, key=_depth, reverse=True)
            if _consolidated_member(self.documents.get(path)) is not None
        )

    def consolidate(self, path: str) -> None:
        """Put copies of all documents below a group into its own."""
        members = json.loads(self.documents[path])
        if members.get("node_type") != "group":
            raise FormatError(f"cannot consolidate {path!r}: it is no group", path=path)
        prefix = f"{path}/" if path else ""
        spelled = json.loads(group_document(consolidated={}))["consolidated_metadata"]
        spelled["metadata"] = {
            name.removeprefix(prefix): _without_copies(document)
            for name, document in sorted(self.documents.items())
            if name != path and name.startswith(prefix)
        }
        members["consolidated_metadata"] = spelled
        self.put(path, _dump(members))

    def plan_commit(self) -> tuple[tuple[str, bytes], ...]:
        """Return key and document of what has to be written, innermost first, the root last.

        Readers that look into the root see a node when everything below is there.
        """
        order = sorted(self.changed, key=_depth, reverse=True)
        return tuple((document_key(path), self.documents[path]) for path in order)


def _depth(path: str) -> tuple[int, str]:
    return (path.count("/") + 1 if path else 0, path)


def _consolidated_member(document: bytes | None) -> dict[str, Any] | None:
    members = json.loads(document) if document is not None else {}
    found = members.get("consolidated_metadata")
    return found if isinstance(found, dict) else None


def _without_copies(document: bytes) -> dict[str, Any]:
    # The outermost copy is enough, and copies in copies would grow with every level.
    members: dict[str, Any] = json.loads(document)
    members.pop("consolidated_metadata", None)
    return members


def _dump(members: dict[str, Any]) -> bytes:
    # Other writers put NaN into attributes, which JSON does not have, and halves of
    # characters, which only an escape can hold; what they wrote is copied as it is.
    return json.dumps(members, ensure_ascii=False).encode("utf-8", "backslashreplace")
