"""The arrays of a store that can be checked, and its damaged metadata."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, NamedTuple

from lazyarr import settings
from lazyarr.client.arrays.chunk_objects import find_objects
from lazyarr.client.arrays.text import reason
from lazyarr.errors import ChunkError, FormatError, NodeNotFoundError, StoreError
from lazyarr.formats.base import ArrayDescription, GroupDescription, Node
from lazyarr.formats.paths import join_path
from lazyarr.layout.placement import KeyPerChunk
from lazyarr.opening.consolidated_copies import is_same_node
from lazyarr.opening.nodes import FileNodes
from lazyarr.opening.survey import walk
from lazyarr.store.base import METADATA_LIMIT_NBYTES, METADATA_NAMES, NoObjectError
from lazyarr.verification.checker import Checker
from lazyarr.verification.report import Skipped, Strays

if TYPE_CHECKING:
    from lazyarr.opening.nodes import Nodes
    from lazyarr.store import Store

__all__ = ["Survey", "survey_store"]


class Survey(NamedTuple):
    """The arrays of a store, before any chunk is read.

    Attributes
    ----------
    checkers : list of Checker
        One for each array that can be checked.
    damaged : list of ChunkError
        One for each document of metadata that is no JSON.
    skipped : list of Skipped
        The arrays that lazyarr cannot map.
    strays : list of Strays
        Arrays below which there are objects whose keys are not those of chunks.
    stale : list of str
        Nodes whose own documents differ from the consolidated metadata.
    """

    checkers: list[Checker]
    damaged: list[ChunkError]
    skipped: list[Skipped]
    strays: list[Strays]
    stale: list[str]


def survey_store(hierarchy: Nodes, documents: Nodes) -> Survey:
    """Return the arrays of a store, and what is wrong with those that cannot be checked.

    Parameters
    ----------
    hierarchy : Nodes
        The nodes as consolidated metadata has them, where there is some.
    documents : Nodes
        The same nodes as their own documents have them.

    Raises
    ------
    FormatError
        When the root itself cannot be used.
    """
    survey = Survey([], [], [], [], [])
    root = hierarchy.node(hierarchy.start)
    nodes: dict[str, Node | FormatError] = {hierarchy.start: root}
    if isinstance(root, GroupDescription):
        nodes.update(walk(hierarchy, hierarchy.start))
        if root.consolidated:
            nodes = _compare(survey, nodes, documents)
    for path, found in nodes.items():
        if isinstance(found, ArrayDescription):
            _add_array(survey, hierarchy, found)
        elif isinstance(found, FormatError):
            is_file = isinstance(hierarchy, FileNodes)
            broken = None if is_file else _broken_document(hierarchy.store, path)
            if broken is None:
                survey.skipped.append(Skipped(path, reason(path, found)))
            else:
                survey.damaged.append(broken)
    return survey


def _compare(
    survey: Survey, copies: dict[str, Node | FormatError], documents: Nodes
) -> dict[str, Node | FormatError]:
    """Return the nodes by their own documents, or by consolidated metadata if they have none.

    Nodes of which the two differ are added to the survey's `stale`.
    """
    own: dict[str, Node | FormatError] = {documents.start: documents.node(documents.start)}
    try:
        own.update(walk(documents, documents.start))
    except StoreError as error:
        if error.transient:
            raise
        # The store cannot be listed: there may be more nodes than can be found.
        for path in copies:
            with contextlib.suppress(NodeNotFoundError):
                own[path] = _own(documents, path)
    for path in sorted({*copies, *own}):
        if path in copies and path in own:
            is_same = is_same_node(copies[path], own[path])
        else:  # a group may have no document, and no copy
            is_same = isinstance(copies.get(path, own.get(path)), GroupDescription)
        if not is_same:
            survey.stale.append(path)
    # A remote store's nodes are opened from consolidated metadata, so those that are only
    # there are checked.  In a local store such a node cannot be opened.
    return own if documents.store.local is not None else copies | own


def _own(documents: Nodes, path: str) -> Node | FormatError:
    try:
        return documents.node(path)
    except FormatError as error:
        return error


def _add_array(survey: Survey, hierarchy: Nodes, metadata: ArrayDescription) -> None:
    """Have an array checked, if one of its chunks fits into memory."""
    chunk_nbytes, limit_nbytes = metadata.layout().chunk_nbytes, settings.current().memory_limit
    if chunk_nbytes > limit_nbytes:
        why = (
            f"one chunk takes {chunk_nbytes} bytes, the memory limit is {limit_nbytes} "
            "bytes; raise it with lazyarr.configure(memory_limit=...)"
        )
        survey.skipped.append(Skipped(metadata.path, why))
    else:
        survey.checkers.append(Checker(hierarchy.store, metadata, url=hierarchy.url))
    if not isinstance(metadata.layout().placement, KeyPerChunk):
        return  # chunks are no objects
    try:
        strays = find_objects(hierarchy.store, metadata).strays
    except StoreError as error:
        if error.transient:
            raise
        return  # the server does not list keys
    if strays:
        survey.strays.append(Strays(metadata.path, strays))


def _broken_document(store: Store, path: str) -> ChunkError | None:
    """Return the error of a document that no reader can use; None where lazyarr alone cannot."""
    for name in METADATA_NAMES:
        key = join_path(path, name)
        try:
            data = store.read(key, limit_nbytes=METADATA_LIMIT_NBYTES)
            found = None if data is None else _what_is_broken(data)
        except NoObjectError as error:
            found = error.message
        if found is not None:
            message = f"metadata of {path or '/'!r} in {store.url}: {found} in {key}"
            fields = {"url": store.url, "array": path, "key": key, "reason": found}
            return ChunkError(f"{message}; write it again", **fields)
    return None


def _what_is_broken(document: bytes) -> str | None:
    try:
        members = json.loads(document)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    if isinstance(members, dict):
        return None
    return f"expected a JSON object, found a {type(members).__name__}"
