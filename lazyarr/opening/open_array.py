"""From a URL to a store's nodes, and from a node to an array."""

from __future__ import annotations

import functools
import os
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lazyarr import settings
from lazyarr.client.array_ref import ArrayRef, Reopening, enter_reopening
from lazyarr.client.session import process
from lazyarr.client.session.interpreter import NoPagerError
from lazyarr.errors import FormatError, LazyarrError, StoreError
from lazyarr.formats.base import ArrayDescription, in_byte_order
from lazyarr.integrations.distributed import is_worker
from lazyarr.opening.engines import begin_engine, chosen_engine, copy_instead, find_making
from lazyarr.opening.hierarchy import Hierarchy
from lazyarr.opening.nodes import address, open_nodes
from lazyarr.store.repositories import place_of_session
from lazyarr.store.urls import without_credentials
from lazyarr.values import Value

if TYPE_CHECKING:
    import icechunk
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
    from lazyarr.opening.writing import Writing

__all__ = [
    "Opening",
    "begin_opening",
    "come_to_pager",
    "forget_reopened",
    "invite_to_pager",
    "open_array",
    "reopen_view",
]

_MODES = ("r", "c", "r+")
_MEMORY_KINDS = (None, "shared", "private")
_BYTE_ORDERS = ("native", "stored")

# Arrays that were opened for references from elsewhere, by what the sender calls them, with the
# time of the last use.  Each task of a cluster brings the same reference.  Without this the array
# would be let go of at the end of a task, with its pages, and opened anew by the next one.  After
# a pause it is opened anew, for the store may have changed.
#
# Workers of distributed also keep arrays on the sender's pages, without a `Making`: a row that is
# mapped is read five times as fast as one that each task maps again.  Others do not: loky takes
# what stays mapped after a task for a leak, and ends the worker.
_reopened: dict[str, tuple[LazyArray, Making | None, float]] = {}
_MAX_REOPENED = 16
_KEPT_SECONDS = 60.0


class Opening(Value):
    """How a store was opened: what its arrays and its groups have in common.

    Attributes
    ----------
    url : str
        What another process opens to reach the same store.
    given_options : mapping or None
        Storage options as the user gave them.
    mode : str
        ``"r"``, ``"c"`` or ``"r+"``.
    memory : str or None
        The kind of memory that the user asked for.
    hierarchy : Nodes
        The nodes of the store.
    engine : str
        What fills its arrays: ``"userfaultfd"`` or ``"copy"``.
    byteorder : str
        ``"native"`` or ``"stored"``.
    writing : Writing or None
        The right to write to it, in mode ``"r+"``.
    """

    url: str
    given_options: Mapping[str, Any] | None
    mode: str
    memory: str | None
    hierarchy: Nodes
    engine: str
    byteorder: str
    writing: Writing | None = None

    @property
    def storage_options(self) -> Mapping[str, Any] | None:
        """Storage options that mean the version of the store that is open."""
        return self.hierarchy.store.pinned or self.given_options


def begin_opening(
    url: str | os.PathLike[str] | icechunk.Session | icechunk.IcechunkStore,
    mode: str,
    *,
    storage_options: Mapping[str, Any] | None,
    use_consolidated: bool | None,
    memory: str | None,
    byteorder: str,
    file_format: str | None = None,
    recognises: bool = False,
) -> Opening:
    """Return an opened store; see `lazyarr.open` for the parameters."""
    _check_mode(mode, memory)
    if byteorder not in _BYTE_ORDERS:
        raise ValueError(f"byteorder={byteorder!r:.80} is not one of 'native' and 'stored'")
    engine = begin_engine()
    url, storage_options = place_of_session(url, storage_options)
    hierarchy = open_nodes(
        url,
        storage_options,
        file_format=file_format,
        use_consolidated=use_consolidated,
        recognises=recognises,
    )
    options = None if storage_options is None else dict(storage_options)
    where = address(url, hierarchy)
    writing = None
    if mode == "r+":
        # Imported here: readers do without.
        from lazyarr.opening.writing import begin_writing

        writing = begin_writing(hierarchy, where, options, engine=engine)
        # Anew: what was read before the claim may have been changed by then.
        hierarchy = open_nodes(
            url, storage_options, file_format=file_format, use_consolidated=use_consolidated
        )
        assert isinstance(hierarchy, Hierarchy)
        writing.claimed.hierarchies.add(hierarchy)
    opening = Opening(where, options, mode, memory, hierarchy, engine, byteorder)
    if writing is None:
        return opening
    # With a weak reference: the claim is given up by whoever lets go of it last.
    writing.reopen = functools.partial(_reopen_array, weakref.ref(writing), opening)
    return opening._replace(writing=writing)


def _reopen_array(writing: weakref.ref[Writing], opening: Opening, path: str) -> LazyArray:
    """Return an array of an opening in mode "r+" as it is now."""
    metadata = opening.hierarchy.node(path)
    assert isinstance(metadata, ArrayDescription)
    return open_array(opening._replace(writing=writing()), metadata)


def open_array(opening: Opening, metadata: ArrayDescription) -> LazyArray:
    """Return an array of an opened store, with nothing read."""
    return _open_array(opening, metadata)[0]


def _open_array(
    opening: Opening, metadata: ArrayDescription, origin: str = ""
) -> tuple[LazyArray, Making]:
    """Return an array, and the engine that it has: what was to be the pager may be none."""
    if opening.writing is not None:
        # One of each, whoever opens it: what is written to it is seen by all.
        claimed, path = opening.writing.claimed, opening.writing.path(metadata.path)
        with claimed.lock:
            claimed.leave_behind(path)
            known = claimed.find(path, opening.byteorder)
            if known is not None:
                return known, find_making(opening.engine)
            made = _make_array(opening, metadata, origin)
            claimed.enter(path, opening.byteorder, *made)
            return made
    return _make_array(opening, metadata, origin)


def _make_array(
    opening: Opening, metadata: ArrayDescription, origin: str
) -> tuple[LazyArray, Making]:
    from lazyarr.client.arrays.chunk_objects import warn_of_strays

    warn_of_strays(opening.hierarchy.store, metadata)
    node = ArrayRef(
        store_url=opening.hierarchy.url,
        url=opening.url,
        storage_options=opening.storage_options,
        metadata=in_byte_order(metadata, opening.byteorder),
        mode=opening.mode,
        memory=opening.memory,
        byteorder=opening.byteorder,
        format=opening.hierarchy.format,
        origin=origin,
        writing=opening.writing,
    )
    making = find_making(opening.engine)
    try:
        return making.make_array(node, opening.hierarchy), making
    except NoPagerError as error:
        making = find_making(copy_instead(error))
    return making.make_array(node, opening.hierarchy), making


def invite_to_pager(opening: Opening) -> str | None:
    """Return how others come to the pager whose pages they can have, if there is one."""
    if opening.engine == "copy" or opening.mode == "c":
        return None
    try:
        return process.session().invite()
    except (LazyarrError, OSError):
        return None


def come_to_pager(invitation: str | None) -> None:
    """Have arrays that are opened here share the pages of those of a pager, where that can be."""
    if invitation is None or settings.current().engine == "copy":
        return
    if process.session_at(invitation) is None:
        _meet(invitation)


def _meet(invitation: str) -> None:
    """Have one pager with others of this machine that got references of a pager elsewhere."""
    if chosen_engine() != "copy":
        process.meet(invitation, lambda: begin_engine() == "userfaultfd")


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
    opened: str = "",
) -> LazyArray:
    """Return a view on the same pages, or else opened anew.

    Parameters
    ----------
    place : tuple
        URL, storage options, path, mode, kind of memory, byte order and format.
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
    opened : str
        What the sender calls the array that it has opened; "" where that has no name.

    Raises
    ------
    FormatError
        When there is a group in its place now, or an array of other rows.
    """
    from lazyarr.client.pickling.references import is_named_here
    from lazyarr.client.pickling.shared_reference import require_same_rows

    if origin is not None and settings.current().engine != "copy":
        from lazyarr.client.arrays.making import attach_array, restride

        shared = attach_array(place, origin)
        if shared is not None:
            if is_worker() and not is_named_here(opened):
                _keep(opened, shared, None)
            return restride(shared, start, dtype, shape, strides)
    kept = _reopened.get(opened)
    if kept is not None:
        array, making, used_at = kept
        if making is not None and used_at > time.monotonic() - _KEPT_SECONDS:
            _keep(opened, array, making)
            return making.restride(array, start, dtype, shape, strides)
        # Not kept by what is kept: what is opened now has to be asked for anew.
        _reopened.pop(opened, None)
        del kept, array
    if origin is not None:
        _meet(origin.pager)
    url, storage_options, path, mode, memory, byteorder, file_format = place
    try:
        opening = begin_opening(
            url,
            mode,
            storage_options=storage_options,
            use_consolidated=None,
            memory=memory,
            byteorder=byteorder,
            file_format=file_format,
        )
    except StoreError as error:
        if mode == "r+" and origin is None:
            raise _no_second_writer(error, url) from error
        raise
    metadata = opening.hierarchy.node(path)
    if not isinstance(metadata, ArrayDescription):
        raise FormatError(
            f"expected an array at {path!r} of {url}, found a group; open it and pickle it again",
            path=path,
        )
    in_order = in_byte_order(metadata, byteorder)
    require_same_rows(rows, in_order, opening.hierarchy.url)
    array, making = _open_array(opening, metadata, "" if origin is None else origin.name)
    array._write_changes(changes)  # noqa: SLF001 - what `reduce_view` was given
    is_with_sender = origin is not None and process.session_at(origin.pager) is not None
    if opened and mode == "r" and not is_with_sender and not is_named_here(opened):
        _keep(opened, array, making)
    return making.restride(array, start, dtype, shape, strides)


def _no_second_writer(error: StoreError, url: str) -> StoreError:
    """Return what is said where an array of mode "r+" comes to a process that cannot write too."""
    return StoreError(
        f"{error}; an array of mode 'r+' that copies is used by the process that has opened it: "
        "send a copy, as numpy.array(x), or flush it and open it with mode='r' here",
        url=without_credentials(url),
        key=error.key,
        transient=error.transient,
    )


def _keep(opened: str, array: LazyArray, making: Making | None) -> None:
    """Keep an array that was opened for a reference, for the references that come after it."""
    _reopened[opened] = array, making, time.monotonic()
    while len(_reopened) > _MAX_REOPENED:
        with suppress(KeyError, RuntimeError):  # another thread was faster
            del _reopened[next(iter(_reopened))]


def forget_reopened() -> None:
    """Let go of the arrays that are kept for references that may come."""
    _reopened.clear()


def _check_mode(mode: str, memory: str | None) -> None:
    if mode not in _MODES:
        raise ValueError(
            f"mode={mode!r:.80} is not one of 'r', 'r+' and 'c'; to make a store, use "
            "lazyarr.save or lazyarr.create"
        )
    if memory not in _MEMORY_KINDS:
        raise ValueError(f"memory={memory!r:.80} is not one of 'shared' and 'private'")
    if mode == "r+" and memory == "private":
        raise ValueError(
            "memory='private' does not go with mode 'r+', where what is written goes to the store; "
            "leave it out"
        )
    if mode == "c" and memory == "shared":
        raise ValueError(
            "memory='shared' does not go with mode 'c', where what is written is private; "
            "leave it out"
        )


def _open_copying(node: ArrayRef) -> CopyingViews:
    """Open an array by the engine that copies; return what makes views of it."""
    from lazyarr.copying.making import make_array, restride

    nodes = open_nodes(
        node.url,
        node.storage_options,
        file_format=node.format,
        use_consolidated=False,
        compares=False,
        recognises=False,
    )
    return functools.partial(restride, make_array(node, nodes))


enter_reopening(Reopening(view=reopen_view, copying=_open_copying))
