"""Names for what an array holds, by which dask recognizes results that it has already."""

from __future__ import annotations

import hashlib
import os
import pickle
import uuid
from typing import TYPE_CHECKING, Any

from lazyarr.errors import FormatError
from lazyarr.formats.base import GroupDescription
from lazyarr.layout.placement import KeyPerChunk
from lazyarr.store.base import METADATA_NAMES
from lazyarr.store.urls import local_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy

    from lazyarr.client.array_ref import ArrayRef
    from lazyarr.client.pickling.changes import Changes
    from lazyarr.formats.base import ArrayDescription

__all__ = ["token_of", "token_of_group"]

_MAX_DIRECTORIES = 4096
"""Directories of chunks that are looked at: some milliseconds on a local disk."""


def token_of(
    node: ArrayRef,
    view: tuple[int, tuple[int, ...], tuple[int, ...], numpy.dtype[Any]],
    changes: Callable[[], Changes],
) -> tuple[Any, ...]:
    """Return what tells a view of a stored array from all others; nothing of it is read.

    Parameters
    ----------
    node : ArrayRef
        The stored array.
    view : tuple
        Where the view begins in the memory of the array, in bytes; its shape, strides, data type.
    changes : callable
        Returns what was written to the view.

    Returns
    -------
    tuple
        The same in all processes, and another one when a local store has changed.
    """
    # Another store may be in the same place tomorrow, and dask's results be kept that long.  So
    # what is stored counts, as far as that can be seen without a request.
    store = (node.store_url, repr(node.storage_options))
    start, shape, strides, dtype = view
    place = (start, shape, strides, dtype.str, repr(dtype))
    written = "" if node.mode == "r" else _token_of_changes(changes)
    return "lazyarr", store, _token_of_stored(node.url, node.metadata), place, written


def token_of_group(
    place: tuple[str, str, Any],
    group: tuple[str, GroupDescription],
    below: Iterable[tuple[str, Any]],
    changes: Callable[[], Any],
) -> tuple[Any, ...]:
    """Return what tells a group from all others; no element of an array is read.

    Parameters
    ----------
    place : tuple
        The store's URL without credentials, what opens it, and its storage options.
    group : tuple
        The group's path, and its metadata.
    below : iterable of tuple
        Path and metadata of each node below, as `lazyarr.opening.survey.walk` gives them.
    changes : callable
        Returns what was written to arrays below.
    """
    store_url, url, storage_options = place
    path, metadata = group
    nodes = tuple((path, _token_of_node(url, node)) for path, node in below)
    stored = (path, repr(metadata.attributes), nodes)
    return "lazyarr", (store_url, repr(storage_options)), stored, _token_of_changes(changes)


def _token_of_node(url: str, node: Any) -> Any:
    """Return what tells a node from others: an array, a group, or what cannot be mapped."""
    if isinstance(node, FormatError):
        return uuid.uuid4().hex  # nothing is known of what is stored there
    is_group = isinstance(node, GroupDescription)
    return repr(node.attributes) if is_group else _token_of_stored(url, node)


def _token_of_stored(url: str, metadata: ArrayDescription) -> tuple[Any, ...]:
    stored = (metadata.path, metadata.format_name)
    described = repr((metadata.shape, metadata.document, metadata.attributes))
    return stored, described, tuple(_stamps(url, metadata))


def _token_of_changes(changes: Callable[[], Any]) -> str:
    """Return what tells what was written to, in mode ``"c"``, from what is stored."""
    try:
        written = changes()
    except ValueError:  # more than is taken out of memory for that
        return uuid.uuid4().hex
    return hashlib.sha256(pickle.dumps(written)).hexdigest() if written else ""


def _stamps(url: str, metadata: ArrayDescription) -> Iterator[tuple[Any, ...]]:
    """Yield what changes when a local array is written to; nothing for other stores.

    Whoever replaces a file changes its directory: zarr-python, TensorStore and lazyarr write a
    chunk beside the old one and rename it.  Arrays have fewer directories than chunks, and their
    documents are files that are looked at one by one.
    """
    root = local_path(url)
    if root is None:
        return
    if not os.path.isdir(root):
        yield from _stamp(root)
        return
    place = os.path.join(root, metadata.path)
    placement = metadata.layout().placement
    depth = 0
    if isinstance(placement, KeyPerChunk):
        depth = len(placement.key_encoding.patterns(len(metadata.shape))) - 1
    for name in METADATA_NAMES:
        yield from _stamp(os.path.join(place, name))
    waiting = [(place, depth)]
    for _ in range(_MAX_DIRECTORIES):
        if not waiting:
            return
        directory, below = waiting.pop()
        yield from _stamp(directory)
        if below:
            try:
                with os.scandir(directory) as entries:
                    inside = sorted(entry.path for entry in entries if entry.is_dir())
            except OSError:
                continue
            waiting.extend((path, below - 1) for path in inside)


def _stamp(path: str) -> Iterator[tuple[Any, ...]]:
    try:
        status = os.stat(path)
    except OSError:
        return
    changed = (status.st_mtime_ns, status.st_ctime_ns)
    yield os.path.basename(path), status.st_dev, status.st_ino, status.st_size, *changed
