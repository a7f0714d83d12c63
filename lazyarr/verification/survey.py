"""What there is to check in a store, and which of its metadata is damaged."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from lazyarr import settings
from lazyarr.client.hierarchy import Hierarchy, join_path
from lazyarr.client.survey import Found, walk
from lazyarr.client.text import reason
from lazyarr.errors import ChunkError, FormatError
from lazyarr.format import ArrayMetadata, GroupMetadata
from lazyarr.store.base import METADATA_LIMIT_NBYTES, METADATA_NAMES
from lazyarr.verification.checker import Checker
from lazyarr.verification.report import Skipped

if TYPE_CHECKING:
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
        The arrays that lazyarr can not map.
    """

    checkers: list[Checker]
    damaged: list[ChunkError]
    skipped: list[Skipped]


def survey_store(hierarchy: Hierarchy) -> Survey:
    """Return the arrays of a store, and what is wrong with those that can not be checked.

    Raises
    ------
    FormatError
        When the root itself can not be used.
    """
    survey = Survey([], [], [])
    root = hierarchy.node("")
    nodes: list[Found] = [("", root)]
    if isinstance(root, GroupMetadata):
        nodes.extend(walk(hierarchy))
    for path, found in nodes:
        if isinstance(found, ArrayMetadata):
            _add_array(survey, hierarchy.store, found)
        elif isinstance(found, FormatError):
            broken = _broken_document(hierarchy.store, path)
            if broken is None:
                survey.skipped.append(Skipped(path, reason(path, found)))
            else:
                survey.damaged.append(broken)
    return survey


def _add_array(survey: Survey, store: Store, metadata: ArrayMetadata) -> None:
    """Have an array checked, if one of its chunks fits into memory."""
    chunk_nbytes, limit_nbytes = metadata.layout().chunk_nbytes, settings.current().memory_limit
    if chunk_nbytes > limit_nbytes:
        why = (
            f"one chunk takes {chunk_nbytes} bytes, the memory limit is {limit_nbytes} "
            "bytes; raise it with lazyarr.configure(memory_limit=...)"
        )
        survey.skipped.append(Skipped(metadata.path, why))
    else:
        survey.checkers.append(Checker(store, metadata))


def _broken_document(store: Store, path: str) -> ChunkError | None:
    """Return what is wrong with metadata that nobody can read; None when lazyarr alone can not."""
    for name in METADATA_NAMES:
        key = join_path(path, name)
        data = store.read(key, limit_nbytes=METADATA_LIMIT_NBYTES)
        if data is None:
            continue
        try:
            members = json.loads(data)
        except (ValueError, RecursionError) as error:
            found = f"not JSON: {error}"
        else:
            if isinstance(members, dict):
                continue
            found = f"expected a JSON object, found a {type(members).__name__}"
        message = f"metadata of {path or '/'!r} in {store.url}: {found} in {key}; write it again"
        fields = {"url": store.url, "array": path, "key": key, "reason": found}
        return ChunkError(message, **fields)
    return None
