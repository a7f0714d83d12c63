"""The objects that hold an array's chunks, and strays: objects whose keys are not chunks' keys.

A chunk that is not stored is read as the fill value.  Where the metadata says that the parts of
chunk keys are separated by ".", but the files are named ``0/1``, the whole array is read as the
fill value, without any error.
"""

from __future__ import annotations

import contextlib
import math
import re
from typing import TYPE_CHECKING, NamedTuple

from lazyarr.client.warning import warn_user
from lazyarr.errors import StoreError, StoreWarning
from lazyarr.formats.paths import join_path
from lazyarr.formats.zarr import ArrayMetadata
from lazyarr.formats.zarr.nodes import NODE_DOCUMENTS
from lazyarr.layout.placement import KeyPerChunk
from lazyarr.store.base import METADATA_NAMES, NoObjectError
from lazyarr.store.urls import local_path, means_references

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazyarr.formats.base import ArrayDescription
    from lazyarr.store import RetryingStore, Store

__all__ = ["Objects", "count_objects", "find_objects", "look_at_local", "warn_of_strays"]

_CHUNK_NAME = r"c|(c\.)?[0-9]+(\.[0-9]+)*"
_MAX_STRAYS = 8


class Objects(NamedTuple):
    """The objects below an array.

    Attributes
    ----------
    n_stored : int
        How many of the array's shards are stored, or of its chunks where it has no shards.
    strays : tuple of str
        Keys of some objects that look like chunks, but are none of this array's.  Where
        `n_stored` is 0, keys of any other objects.
    """

    n_stored: int
    strays: tuple[str, ...]


def count_objects(metadata: ArrayDescription) -> int:
    """Return how many objects an array has when all its chunks are stored."""
    return math.prod(_grid(metadata))


def find_objects(store: Store, metadata: ArrayDescription) -> Objects:
    """Return the objects below an array, with one listing for each of its directories.

    Raises
    ------
    StoreError
        When the store cannot be listed.
    """
    grid = _grid(metadata)
    n_stored, odd = 0, []
    for key, fits in _walk(store, metadata):
        if not fits:
            odd.append(key)
        elif all(int(c) < n for c, n in zip(re.findall("[0-9]+", key), grid, strict=False)):
            n_stored += 1
    candidates = (key for key in odd if not n_stored or _looks_like_chunk(key))
    strays: list[str] = []
    for key in candidates:
        found = _first_object(store, join_path(metadata.path, key))
        if found is not None:
            strays.append(found)
        if len(strays) == _MAX_STRAYS:
            break
    return Objects(n_stored, tuple(strays))


def look_at_local(url: str, metadata: ArrayDescription) -> Objects | None:
    """Return the objects below an array of a local store.

    None for other stores, where chunks are no objects, and where the store cannot be listed.
    """
    from lazyarr.store import open_store
    from lazyarr.store.local import LocalStore

    if local_path(url) is None or not isinstance(metadata.layout().placement, KeyPerChunk):
        return None
    if means_references(url):
        return None  # the files there are no chunks
    store = open_store(url)
    try:
        if not isinstance(store, LocalStore) or not _has_document(store, metadata.path):
            return None  # an icechunk repository, for one
        return find_objects(store, metadata)
    except StoreError:
        return None
    finally:
        store.close()


def _has_document(store: Store, path: str) -> bool:
    return any(store.size(join_path(path, name)) is not None for name in NODE_DOCUMENTS)


def warn_of_strays(store: RetryingStore, metadata: ArrayDescription) -> None:
    """Warn of a local array that has no stored chunk, though other objects lie below it."""
    local = store.local
    if local is None or 0 in metadata.shape or not isinstance(metadata, ArrayMetadata):
        return
    encoding = metadata.key_encoding
    first = re.compile(encoding.patterns(len(metadata.shape))[0])
    odd = []
    # The listing is closed at the first name of a chunk: there may be a million more.
    with contextlib.closing(local.iterate_names(metadata.path)) as names:
        for name in names:
            if first.fullmatch(name):
                return
            if not _is_hidden(name):
                odd.append(name)
    for name in odd[:_MAX_STRAYS]:
        stray = _first_object(store, join_path(metadata.path, name))
        if stray is not None:
            key = encoding.key((0,) * len(metadata.shape))
            warn_user(
                f"no chunk of array {metadata.path or '/'!r} in {store.url} is stored under its "
                f"name, such as {join_path(metadata.path, key)!r}, so all of it is the fill "
                f"value, but there is {stray!r}; if that is a chunk, mend the separator or the "
                "encoding of chunk keys in the array's metadata",
                StoreWarning,
            )
            return


def _grid(metadata: ArrayDescription) -> tuple[int, ...]:
    """Return how many objects there are along each axis."""
    sides = zip(metadata.shape, metadata.shards or metadata.chunks, strict=True)
    return tuple(-(-n // size) for n, size in sides)


def _is_hidden(name: str) -> bool:
    return name in METADATA_NAMES or name.startswith(".")


def _looks_like_chunk(key: str) -> bool:
    return re.fullmatch(_CHUNK_NAME, key.rpartition("/")[2]) is not None


def _walk(store: Store, metadata: ArrayDescription) -> Iterator[tuple[str, bool]]:
    """Yield keys below an array, relative to it, and whether each may be the key of a chunk."""
    placement = metadata.layout().placement
    assert isinstance(placement, KeyPerChunk)
    patterns = [re.compile(p) for p in placement.key_encoding.patterns(len(metadata.shape))]
    waiting = [("", 0)]
    while waiting:
        prefix, depth = waiting.pop()
        for name in store.list_names(join_path(metadata.path, prefix)):
            key = join_path(prefix, name)
            if _is_hidden(name):
                continue
            if not patterns[depth].fullmatch(name):
                yield key, False
            elif depth + 1 < len(patterns):
                waiting.append((key, depth + 1))
            else:
                yield key, True


def _first_object(store: Store, prefix: str) -> str | None:
    """Return the key of one object at a prefix or below it; None where there is a node, or none."""
    waiting = [prefix]
    while waiting:
        place = waiting.pop()
        try:
            names = store.list_names(place)
        except NoObjectError:  # a broken link, which stands for an object
            return place
        if any(name in NODE_DOCUMENTS for name in names):
            return None
        if not names:
            with contextlib.suppress(NoObjectError):  # an empty directory
                if store.size(place) is not None:
                    return place
        waiting.extend(join_path(place, name) for name in reversed(names))
    return None
