"""From a URL to a store's nodes, and from a node to an array."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lazyarr import settings
from lazyarr.client.array_ref import ArrayRef, Reopening, enter_reopening
from lazyarr.client.session import process
from lazyarr.client.session.interpreter import NoPagerError
from lazyarr.errors import FormatError, LazyarrError
from lazyarr.formats.base import ArrayDescription, in_byte_order
from lazyarr.opening.engines import begin_engine, copy_instead, find_making
from lazyarr.opening.nodes import open_nodes
from lazyarr.store.urls import local_path
from lazyarr.values import Value

if TYPE_CHECKING:
    import numpy as np

    from lazyarr.client.array_ref import CopyingViews
    from lazyarr.client.arrays.lazyarray import LazyArray
    from lazyarr.client.pickling.changes import Changes
    from lazyarr.client.pickling.shared_reference import (
        OpeningArguments,
        SharedReference,
        StoredRows,
    )
    from lazyarr.opening.engines import Making
    from lazyarr.opening.nodes import Nodes

__all__ = [
    "Opening",
    "begin_opening",
    "come_to_pager",
    "invite_to_pager",
    "open_array",
    "reopen_view",
]

_MODES = ("r", "c", "r+")
_MEMORY_KINDS = (None, "shared", "private")
_BYTE_ORDERS = ("native", "stored")


class Opening(Value):
    """How a store was opened: what its arrays and its groups have in common.

    Attributes
    ----------
    url : str
        What another process opens to reach the same store.
    storage_options : mapping or None
        As the user gave them.
    mode : str
        ``"r"`` or ``"c"``.
    memory : str or None
        The kind of memory that the user asked for.
    hierarchy : Nodes
        The nodes of the store.
    engine : str
        What fills its arrays: ``"userfaultfd"`` or ``"copy"``.
    byteorder : str
        ``"native"`` or ``"stored"``.
    """

    url: str
    storage_options: Mapping[str, Any] | None
    mode: str
    memory: str | None
    hierarchy: Nodes
    engine: str
    byteorder: str


def begin_opening(
    url: str | os.PathLike[str],
    mode: str,
    *,
    storage_options: Mapping[str, Any] | None,
    use_consolidated: bool | None,
    memory: str | None,
    byteorder: str,
) -> Opening:
    """Return an opened store; see `lazyarr.open` for the parameters."""
    _check_mode(mode, memory)
    if byteorder not in _BYTE_ORDERS:
        raise ValueError(f"byteorder={byteorder!r:.80} is not one of 'native' and 'stored'")
    engine = begin_engine()
    hierarchy = open_nodes(url, storage_options, use_consolidated=use_consolidated)
    options = None if storage_options is None else dict(storage_options)
    return Opening(_absolute(url), options, mode, memory, hierarchy, engine, byteorder)


def open_array(opening: Opening, metadata: ArrayDescription) -> LazyArray:
    """Return an array of an opened store, with nothing read."""
    return _open_array(opening, metadata)[0]


def _open_array(opening: Opening, metadata: ArrayDescription) -> tuple[LazyArray, Making]:
    """Return an array, and the engine that it has: what was to be the pager may be none."""
    from lazyarr.client.arrays.chunk_objects import warn_of_strays

    warn_of_strays(opening.hierarchy.store, metadata)
    node = ArrayRef(
        store_url=opening.hierarchy.store.url,
        url=opening.url,
        storage_options=opening.storage_options,
        metadata=in_byte_order(metadata, opening.byteorder),
        mode=opening.mode,
        memory=opening.memory,
        byteorder=opening.byteorder,
    )
    making = find_making(opening.engine)
    try:
        return making.make_array(node, opening.hierarchy), making
    except NoPagerError as error:
        making = find_making(copy_instead(error))
    return making.make_array(node, opening.hierarchy), making


def invite_to_pager(opening: Opening) -> str | None:
    """Return how others come to the pager whose pages they can have, if there is one."""
    if opening.engine == "copy" or opening.mode != "r":
        return None
    try:
        return process.session().invite()
    except (LazyarrError, OSError):
        return None


def come_to_pager(invitation: str | None) -> None:
    """Have arrays that are opened here share the pages of those of a pager, where that can be."""
    if invitation is not None and settings.current().engine != "copy":
        process.session_at(invitation)


# Pickles name this function by its module.  Where it moves, older pickles end in
# ModuleNotFoundError instead of the error that tells of another version: leave it here.
def reopen_view(*reference: Any) -> Any:
    """Return a view that was pickled as a reference (see `reduce_view`).

    Raises
    ------
    LazyarrError
        When it cannot be had; in a worker process when it is used (see `raise_later`).
    """
    try:
        from lazyarr.client.pickling.references import require_version

        version, *fields = reference
        require_version(version)
        return _reopen_view(*fields)
    except Exception as error:  # noqa: BLE001 - what a missing driver raises, too
        from lazyarr.client.pickling.unreachable import raise_later

        return raise_later(error)


def _reopen_view(
    place: OpeningArguments,
    start: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    rows: StoredRows,
    origin: SharedReference | None = None,
    changes: Changes = (),
) -> LazyArray:
    """Return a view on the same pages, or else opened anew.

    Parameters
    ----------
    place : tuple
        URL, storage options, path, mode, kind of memory and byte order.
    start : int
        Where the view begins in the memory of the array, in bytes.
    dtype, shape, strides
        Of the view.
    rows : StoredRows
        Of the whole array.
    origin : SharedReference, optional
        Where the pages are.
    changes : tuple
        What was written to them in mode ``"c"``.

    Raises
    ------
    FormatError
        When there is a group in its place now, or an array of other rows.
    """
    from lazyarr.client.pickling.shared_reference import require_same_rows

    if origin is not None and settings.current().engine != "copy":
        from lazyarr.client.arrays.making import attach_array, restride

        shared = attach_array(place, origin)
        if shared is not None:
            return restride(shared, start, dtype, shape, strides)
    url, storage_options, path, mode, memory, byteorder = place
    opening = begin_opening(
        url,
        mode,
        storage_options=storage_options,
        use_consolidated=None,
        memory=memory,
        byteorder=byteorder,
    )
    metadata = opening.hierarchy.node(path)
    if not isinstance(metadata, ArrayDescription):
        raise FormatError(
            f"expected an array at {path!r} of {url}, found a group; open it and pickle it again",
            path=path,
        )
    in_order = in_byte_order(metadata, byteorder)
    require_same_rows(rows, in_order, opening.hierarchy.store.url)
    array, making = _open_array(opening, metadata)
    array._write_changes(changes)  # noqa: SLF001 - what `reduce_view` was given
    return making.restride(array, start, dtype, shape, strides)


def _check_mode(mode: str, memory: str | None) -> None:
    if mode not in _MODES:
        raise ValueError(
            f"mode={mode!r:.80} is not one of 'r' and 'c'; to write, use lazyarr.save or "
            "lazyarr.create"
        )
    if mode == "r+":
        raise NotImplementedError(
            "mode 'r+' is not there yet; use mode 'c' to change values in memory, and "
            "lazyarr.save or lazyarr.create to write"
        )
    if memory not in _MEMORY_KINDS:
        raise ValueError(f"memory={memory!r:.80} is not one of 'shared' and 'private'")
    if mode == "c" and memory == "shared":
        raise ValueError(
            "memory='shared' does not go with mode 'c', where what is written is private; "
            "leave it out"
        )


def _absolute(url: str | os.PathLike[str]) -> str:
    """Return a URL that means the same in a process with another working directory."""
    text = os.fsdecode(url)
    path = None if "://" in text else local_path(url)
    return text if path is None else os.path.abspath(path)


def _open_copying(node: ArrayRef) -> CopyingViews:
    """Open an array by the engine that copies; return what makes views of it."""
    from lazyarr.copying.making import make_array, restride

    nodes = open_nodes(node.url, node.storage_options, use_consolidated=False, compares=False)
    return functools.partial(restride, make_array(node, nodes))


enter_reopening(Reopening(view=reopen_view, copying=_open_copying))
