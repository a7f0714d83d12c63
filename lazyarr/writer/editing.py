"""Changes to a store that exists, each short and under a claim that is held: `Editor`."""

from __future__ import annotations

import contextlib
import functools
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

from lazyarr.checks import parse_json
from lazyarr.errors import FormatError, NodeNotFoundError, StoreError
from lazyarr.formats.paths import join_path
from lazyarr.formats.zarr import (
    ArrayMetadata,
    attributes_document,
    group_document,
    parse_node,
    resized_document,
)
from lazyarr.store import METADATA_LIMIT_NBYTES
from lazyarr.store.base import METADATA_NAMES
from lazyarr.store.local import LocalStore
from lazyarr.writer.arrays import ArrayWriter
from lazyarr.writer.blanking import blank_outside
from lazyarr.writer.documents import read_document, read_documents
from lazyarr.writer.hierarchy import (
    Hierarchy,
    ancestors,
    check_name,
    document_key,
    holds_copies,
    node_type,
    without_copies,
)
from lazyarr.writer.place import ExistingStore
from lazyarr.writer.session import Session
from lazyarr.writer.stores import array_planner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from lazyarr.store import WritableStore

__all__ = ["Editor"]

_COPYING_THREADS = 16
"""Objects that are moved at once where a store cannot rename: most of the time is waiting."""


class _HeldStore(ExistingStore):
    """A store that others go on using when a session of it has ended."""

    def close(self) -> None:
        """Leave the store open."""


class Editor:
    """Changes documents, and what goes with them; each call is one change that readers see whole.

    Parameters
    ----------
    store : WritableStore
        The store from its root on, which this process alone writes to.

    Notes
    -----
    Belongs to one thread at a time.  A process that is killed in the middle of a call leaves the
    store as it was before, or as it is after.  Two things may be left of it: groups without
    anything in them that a new node was to be in, and a store without consolidated metadata, which
    is slower to open.  In stores where nothing can be renamed, `rename` may leave the array
    at both places, and `delete` some of a group's arrays; each of them is whole.
    """

    def __init__(self, store: WritableStore) -> None:
        self._store = store

    def __repr__(self) -> str:
        return f"<Editor of {self._store.url}>"

    # --- attributes -----------------------------------------------------------------------

    def attributes(self, path: str) -> dict[str, Any]:
        """Return the attributes of a node, as its own document has them.

        Raises
        ------
        NodeNotFoundError
            It has no document.
        FormatError
            That is not JSON.
        """
        key = self._attributes_key(path)
        document = self._store.read(key, limit_nbytes=METADATA_LIMIT_NBYTES)
        members = {} if document is None else parse_json(document, key)
        found = members if key.endswith(".zattrs") else members.get("attributes")
        return found if isinstance(found, dict) else {}

    def set_attributes(self, changed: Mapping[str, dict[str, Any]]) -> None:
        """Give nodes other attributes, by path."""
        old_style = {p for p in changed if self._attributes_key(p).endswith(".zattrs")}
        if len(old_style) < len(changed):
            with self._session() as session:
                for path, attributes in changed.items():
                    if path not in old_style:
                        change = functools.partial(attributes_document, attributes=attributes)
                        session.change_document(path, change)
        for path in sorted(old_style):
            self._set_v2_attributes(path, changed[path])

    def _attributes_key(self, path: str) -> str:
        if self._store.size(document_key(path)) is not None:
            return document_key(path)
        if any(self._store.size(join_path(path, n)) is not None for n in (".zarray", ".zgroup")):
            return join_path(path, ".zattrs")
        url = self._store.url
        raise NodeNotFoundError(
            f"cannot keep attributes of {path or '/'!r} in {url}: it has no document; make the "
            "group with create_group",
            url=url,
            path=path,
        )

    def _set_v2_attributes(self, path: str, attributes: dict[str, Any]) -> None:
        text = json.dumps(attributes, ensure_ascii=False, indent=4)
        self._store.write(join_path(path, ".zattrs"), text.encode("utf-8", "backslashreplace"))
        # Innermost first, as with version 3.
        for holder in (path, *reversed(ancestors(path))):
            key = join_path(holder, ".zmetadata")
            document = self._store.read(key, limit_nbytes=METADATA_LIMIT_NBYTES)
            if document is None:
                continue
            members = json.loads(document)
            inside = path[len(holder) :].lstrip("/")
            members["metadata"][join_path(inside, ".zattrs")] = attributes
            text = json.dumps(members, ensure_ascii=False, indent=4)
            self._store.write(key, text.encode("utf-8", "backslashreplace"))
        self._sync()

    # --- nodes ----------------------------------------------------------------------------

    def create_array(self, path: str, *, values: Any = None, **wanted: Any) -> None:
        """Add an array; the parameters are those of `Writer.create_array`, and one more.

        `values` are its elements, instead of nothing but the fill value.

        Raises
        ------
        FileExistsError
            There is a node of this name.
        FormatError
            Something does not fit together, or not into Zarr.
        ValueError
            The name is not one that Zarr allows, or one above it is an array's.
        """
        check_name(path)
        plan, choose = array_planner(path, **wanted)
        with self._session() as session:
            sink = session.add_array(path, plan, choose)
            if values is not None:
                ArrayWriter(session, sink)[...] = values

    def create_group(self, path: str, attributes: Mapping[str, Any] | None) -> None:
        """Add a group; see `create_array` for what it raises."""
        document = group_document(attributes)
        with self._session() as session:
            session.add_group(check_name(path), document)

    def append(self, path: str, rows: Any, begin: Callable[[], object] | None = None) -> None:
        """Add rows at the end of an array's leading axis; see `ArrayWriter.append`.

        Parameters
        ----------
        path : str
            The array.
        rows : array-like
            What is added.
        begin : callable, optional
            Called when it is known that they fit, before anything is read or written.
        """
        with self._session() as session:
            writer = ArrayWriter(session, session.open_array(path))
            writer.require_rows(rows)
            if begin is not None:
                begin()
            writer.append(rows)

    def shape(self, path: str) -> tuple[int, ...]:
        """Return the lengths of an array."""
        return self._array(self._place(), path).shape

    def resize(self, path: str, shape: tuple[int, ...]) -> None:
        """Give an array other lengths: what is new is the fill value, what is beyond is lost.

        Raises
        ------
        NodeNotFoundError
            There is no such array.
        """
        place = self._place()
        old = self._array(place, path)
        largest = tuple(map(max, old.shape, shape))
        # Writers that were killed, and others that let an array shrink, leave values beyond its
        # end.  They must be gone before the document says that they count.
        blank_outside(place, old, largest)
        with self._session() as session:
            session.change_document(path, functools.partial(resized_document, shape=shape))
        blank_outside(place, self._array(place, path), largest)
        self._sync()

    def delete(self, path: str) -> None:
        """Take an array or a group away, with all that is in it.

        Raises
        ------
        NodeNotFoundError
            There is none.
        """
        place = self._place()
        self._require_node(place, path)
        with self._without_copies(place, path):
            if isinstance(self._store, LocalStore):
                self._store.discard(path)
                return
            # Documents first, those of groups before those of what is in them: what has lost
            # chunks is no array any more.
            below = read_documents(place, path)
            for node in sorted({path, *below}):
                place.delete(document_key(node))
            place.delete_prefix(path)

    def rename(self, old: str, new: str) -> None:
        """Have an array or a group by another name, with all that is in it.

        Raises
        ------
        NodeNotFoundError
            There is none of the old name.
        FileExistsError
            There is one of the new name.
        ValueError
            The name is not one that Zarr allows, or lies in the node itself, or in an array.
        """
        place = self._place()
        check_name(new)
        self._require_node(place, old)
        if f"{new}/".startswith(f"{old}/"):
            raise ValueError(
                f"cannot rename {old!r} to {new!r}: that is in the node itself; choose another name"
            )
        known = {p: d for p in (*ancestors(new), new) if (d := read_document(place, p)) is not None}
        Hierarchy(known).require_free(new)
        if any(name != "c" for name in place.list_names(new)):
            raise FileExistsError(
                f"cannot rename {old!r} to {new!r}: there is something of this name; choose another"
            )
        with self._without_copies(place, old, new):
            place.delete_prefix(f"{new}/c")  # chunks that a writer left which was killed
            for group in ancestors(new):
                if group not in known:
                    place.put(document_key(group), [group_document()])
            if isinstance(self._store, LocalStore):
                self._store.rename(old, new)
            else:
                keys: tuple[str, ...] = cast("Any", self._store).list_keys(old)
                self._move(place, [key[len(old) :] for key in keys], old, new)

    def _move(self, place: ExistingStore, keys: list[str], old: str, new: str) -> None:
        """Copy objects, documents after all they count, and then delete the old ones likewise."""
        documents = sorted(
            (key for key in keys if key.rpartition("/")[2] in METADATA_NAMES),
            key=lambda key: -key.count("/"),
        )
        chunks = sorted({*keys} - {*documents})

        def copy(key: str) -> None:
            data = place.read(old + key)
            if data is not None:
                place.put(new + key, [data])

        with ThreadPoolExecutor(_COPYING_THREADS, thread_name_prefix="lazyarr-move") as threads:
            list(threads.map(copy, chunks))
        for key in documents:
            copy(key)
        for key in reversed(documents):
            place.delete(old + key)
        place.delete_prefix(old)

    # --- what the calls share ---------------------------------------------------------------

    @contextlib.contextmanager
    def _session(self) -> Iterator[Session]:
        session = Session(self._place(), None, is_new=False)
        try:
            yield session
            session.commit()
        except BaseException:
            session.abort()
            raise
        session.close()

    def _place(self) -> _HeldStore:
        store = self._store
        names = (".zgroup", ".zarray")
        if store.size("zarr.json") is None and any(store.size(n) is not None for n in names):
            raise FormatError(
                f"cannot change what {store.url} consists of: it is of Zarr v2, of which lazyarr "
                "changes elements and attributes only; run 'lazyarr convert'",
                path="",
            )
        return _HeldStore(store)

    def _array(self, place: ExistingStore, path: str) -> ArrayMetadata:
        document = read_document(place, path)
        metadata = None if document is None else parse_node(document, path=path)
        if not isinstance(metadata, ArrayMetadata):
            raise self._not_found(path)
        return metadata

    def _require_node(self, place: ExistingStore, path: str) -> None:
        if not path:
            raise ValueError(
                f"cannot take away or rename the root of {place.url}; do it with the directory"
            )
        if read_document(place, path) is not None:
            return
        # What has no document is a group where nodes are below it; chunks are none.
        if not read_documents(place, path):
            raise self._not_found(path)

    def _not_found(self, path: str) -> NodeNotFoundError:
        url = self._store.url
        return NodeNotFoundError(
            f"there is no array or group {path or '/'!r} in {url}; list the names with ds.tree()",
            url=url,
            path=path,
        )

    def _sync(self) -> None:
        if isinstance(self._store, LocalStore):
            self._store.sync()

    @contextlib.contextmanager
    def _without_copies(self, place: ExistingStore, *paths: str) -> Iterator[None]:
        """Have no copies of documents above some nodes, while what is there changes.

        Copies and directories cannot change in one step.  A reader that has copies of what is gone
        would take missing chunks for the fill value; without copies it looks, and finds what is.
        """
        above = sorted({parent for path in paths for parent in ancestors(path)})
        found = {parent: read_document(place, parent) for parent in above}
        holders = {p: d for p, d in found.items() if d is not None and holds_copies(d)}
        for path, document in holders.items():
            place.put(document_key(path), [without_copies(document)])
        place.sync()
        try:
            yield
            place.sync()
        except BaseException:
            with contextlib.suppress(StoreError):
                self._put_copies(place, holders)
            raise
        self._put_copies(place, holders)
        place.sync()

    def _put_copies(self, place: ExistingStore, holders: Mapping[str, bytes]) -> None:
        if not holders:
            return
        hierarchy = Hierarchy(read_documents(place))
        for path in sorted(holders, reverse=True):
            if node_type(hierarchy.documents.get(path, b"")) == "group":
                hierarchy.consolidate(path)
        for key, document in hierarchy.plan_commit():
            place.put(key, [document])
