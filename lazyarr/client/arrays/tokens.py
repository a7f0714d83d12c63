"""Names for what an array holds, by which dask recognizes results that it has already."""

from __future__ import annotations

import hashlib
import os
import pickle
import uuid
from typing import TYPE_CHECKING, Any

from lazyarr.layout.placement import KeyPerChunk
from lazyarr.store.base import METADATA_NAMES
from lazyarr.store.urls import local_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy

    from lazyarr.client.array_ref import ArrayRef
    from lazyarr.client.pickling.changes import Changes
    from lazyarr.formats.base import ArrayDescription

__all__ = ["token_of"]

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
    metadata = node.metadata
    stored = (node.store_url, repr(node.storage_options), metadata.path, metadata.format_name)
    described = repr((metadata.shape, metadata.document, metadata.attributes))
    start, shape, strides, dtype = view
    place = (start, shape, strides, dtype.str, repr(dtype))
    written = "" if node.mode == "r" else _token_of_changes(changes)
    return "lazyarr", stored, described, tuple(_stamps(node.url, metadata)), place, written


def _token_of_changes(changes: Callable[[], Changes]) -> str:
    """Return what tells an array that was written to, in mode ``"c"``, from the stored one."""
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
