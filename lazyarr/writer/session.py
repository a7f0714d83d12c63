"""One store as it is written: its arrays, its documents, its threads."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from lazyarr import settings
from lazyarr.errors import NodeNotFoundError, StoreError
from lazyarr.formats.zarr import SHARD_NBYTES, ArrayMetadata, parse_node, resized_document
from lazyarr.writer.documents import read_document, read_documents, read_each
from lazyarr.writer.hierarchy import Hierarchy, ancestors, document_key, node_type
from lazyarr.writer.pump import Pump
from lazyarr.writer.sink import ArraySink

if TYPE_CHECKING:
    from lazyarr.writer.place import Place
    from lazyarr.writer.source import Source

__all__ = ["Session"]

_WINDOW_NBYTES = 2 * SHARD_NBYTES
"""What is being encoded, and again what is being put, at a time: one in work, one coming."""

_PUT_THREADS = 4
"""Objects that are put at once: a remote store takes each in its own time."""


class Session:
    """Everything between opening a store for writing and publishing it.

    Parameters
    ----------
    place : Place
        Where the store is written; closed with the session.
    root : bytes or None
        The root group's document for a new store; None for a new store whose root will be an
        array, and for one that exists.
    is_new : bool
        Whether nothing is in the store yet.
    consolidated : bool
        Whether the root of a new store gets copies of all documents below it.

    Attributes
    ----------
    lock : threading.RLock
        Held by whoever calls a method or uses a sink.
    """

    def __init__(
        self, place: Place, root: bytes | None, *, is_new: bool, consolidated: bool = False
    ) -> None:
        self.place = place
        self.lock = threading.RLock()
        self.is_new = is_new
        self._consolidated = consolidated
        self._hierarchy = Hierarchy()
        if root is not None:
            self._hierarchy.add("", root)
        self._found: dict[str, bytes | None] = {}
        self._sinks: dict[str, ArraySink] = {}
        self._encoding = Pump(settings.current().threads, _WINDOW_NBYTES, "encode")
        self._putting = Pump(_PUT_THREADS, _WINDOW_NBYTES, "put")
        self._pid = os.getpid()
        self._is_broken = False
        self._is_closed = False

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "broken" if self._is_broken else "open"
        return f"<Session {self.place.url!r}, {state}, {self._hierarchy!r}>"

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock while something is written; an error breaks the session for good.

        Raises
        ------
        ValueError
            The session is closed, was broken, or belongs to another process.
        """
        with self.lock:
            self._require_usable()
            self._is_broken = True  # until it is known to have gone well
            yield
            self._is_broken = False

    def add_group(self, path: str, document: bytes) -> None:
        """Add a group and its ancestors."""
        with self.lock:
            self._require_usable()
            self._load(path)
            self._hierarchy.add(path, document)

    def add_array(
        self, path: str, document: bytes, choose: Callable[[Source], bytes] | None = None
    ) -> ArraySink:
        """Add an array and the groups that it is in.

        Parameters
        ----------
        path : str
            Where the array is to be.
        document : bytes
            What it says of itself.
        choose : callable, optional
            Gives another document, of the same shape and chunks, for the first elements
            that are written.

        Raises
        ------
        FileExistsError
            There is a node at this path.
        ValueError
            An ancestor is an array.
        """
        with self.lock:
            self._require_usable()
            self._load(path)
            self._hierarchy.require_free(path)
            if not self.is_new:
                # Chunks without a document are what a writer that died left behind.
                self.place.delete_prefix(f"{path}/c")
            self._hierarchy.add(path, document)
            return self._add_sink(path, document, choose)

    def open_array(self, path: str) -> ArraySink:
        """Return the sink of an array that the store has.

        Raises
        ------
        NodeNotFoundError
            There is no such array.
        """
        with self.lock:
            self._require_usable()
            if path in self._sinks:
                return self._sinks[path]
            self._load(path)
            document = self._hierarchy.documents.get(path)
            if document is None or node_type(document) != "array":
                raise NodeNotFoundError(
                    f"cannot write to {path or '/'!r} in {self.place.url}: there is no such array; "
                    "make it with create_array",
                    url=self.place.url,
                    key=document_key(path),
                    path=path,
                )
            return self._add_sink(path, document)

    def change_document(self, path: str, change: Callable[[bytes], bytes]) -> None:
        """Have another document of a node that the store has.

        Raises
        ------
        NodeNotFoundError
            It has none.
        """
        with self.lock:
            self._require_usable()
            self._load(path)
            document = self._hierarchy.documents.get(path)
            if document is None:
                raise NodeNotFoundError(
                    f"cannot change {path or '/'!r} in {self.place.url}: there is no such node",
                    url=self.place.url,
                    key=document_key(path),
                    path=path,
                )
            self._hierarchy.put(path, change(document))

    def commit(self) -> None:
        """Put everything that is left, documents last, and publish the store.

        Raises
        ------
        StoreError
            It cannot be written, or another writer has changed it meanwhile.
        """
        with self.writing():
            self._refuse_changed()
            for path, sink in self._sinks.items():
                sink.flush()
                if sink.has_grown:
                    document = self._hierarchy.documents[path]
                    self._hierarchy.put(path, resized_document(document, sink.metadata.shape))
            self._consolidate()
            self._refuse_changed()
            self.place.sync()
            for key, document in self._hierarchy.plan_commit():
                self.place.put(key, [document])
            self.place.publish()

    def suspend(self) -> bool:
        """Stop, and leave what was put to a session that has the same plan.

        Returns
        -------
        bool
            Whether there is anything for it to go on with; otherwise `abort` is what happened.
        """
        with self.lock:
            if self._is_closed or self._pid != os.getpid():
                return False
            self._is_broken = True
            self._stop_threads()
            is_left = False
            with contextlib.suppress(StoreError):
                is_left = self.place.suspend()
            if is_left:
                self.close()
            else:
                self.abort()
            return is_left

    def abort(self) -> None:
        """Take away what can be, and stop."""
        with self.lock:
            if self._is_closed or self._pid != os.getpid():
                return
            self._is_broken = True
            self._stop_threads()
            # Whoever aborts has an error to tell already, and it is often this store
            # that cannot be reached.  The next writer takes away what is left.
            with contextlib.suppress(StoreError):
                self.place.abort()
            self.close()

    def close(self) -> None:
        """Let go of threads and descriptors."""
        with self.lock:
            if self._is_closed or self._pid != os.getpid():
                return
            self._is_closed = True
            self._stop_threads()
            self.place.close()

    @property
    def is_closed(self) -> bool:
        """Whether there is nothing more to do."""
        return self._is_closed

    @property
    def is_abandoned(self) -> bool:
        """Whether there is something to publish, if nobody is left who will."""
        return not (self._is_closed or self._is_broken) and self._pid == os.getpid()

    def _require_usable(self) -> None:
        reason = None
        if self._pid != os.getpid():
            reason = f"it belongs to process {self._pid}; open the store again in this one"
        elif self._is_closed:
            reason = "it is closed; open the store again"
        elif self._is_broken:
            reason = "an earlier write failed, so that the data would have a gap; begin again"
        if reason is not None:
            raise ValueError(f"cannot use the writer of {self.place.url}: {reason}")

    def _stop_threads(self) -> None:
        self._encoding.close()
        self._putting.close()

    def _add_sink(
        self, path: str, document: bytes, choose: Callable[[Source], bytes] | None = None
    ) -> ArraySink:
        def decide(source: Source) -> ArrayMetadata:
            assert choose is not None
            self._hierarchy.put(path, choose(source))
            return _parse_array(self._hierarchy.documents[path], path)

        sink = ArraySink(
            _parse_array(document, path),
            self.place,
            encoding=self._encoding,
            putting=self._putting,
            choose=decide if choose is not None else None,
        )
        self._sinks[path] = sink
        return sink

    def _load(self, path: str) -> None:
        """Have the documents of a node and of its ancestors, as far as the store has them."""
        if self.is_new:
            return
        known = self._hierarchy.documents
        for needed in (*ancestors(path), path):
            if needed not in known:
                self._found[needed] = document = read_document(self.place, needed)
                if document is not None:
                    known[needed] = document

    def _refuse_changed(self) -> None:
        """Raise where a document that is about to be replaced is not what it was.

        No lock keeps two writers apart in an object store, on two machines, or where one
        of them is not lazyarr's.  The one that comes to its end last has other rows in
        mind than the store has, and what it puts would end or replace those.  What is left is
        the time between this look and the last object.
        """
        concerned = {*self._sinks, *self._hierarchy.changed} & self._found.keys()
        for path, document in read_each(self.place, sorted(concerned)).items():
            if document != self._found[path]:
                key, url = document_key(path), self.place.url
                raise StoreError(
                    f"cannot write {key!r} in {url}: another writer has changed it since this one "
                    "read it; open the store again and give it the same rows",
                    url=url,
                    key=key,
                    transient=False,
                )

    def _consolidate(self) -> None:
        known = self._hierarchy.documents
        if self.is_new:
            if self._consolidated and node_type(known.get("", b"")) == "group":
                self._hierarchy.consolidate("")
            return
        stale = self._hierarchy.stale_groups()
        if stale:
            # The copies in the store may be stale as well: documents count.
            for path, document in read_documents(self.place).items():
                known.setdefault(path, document)
        for path in stale:
            self._hierarchy.consolidate(path)


def _parse_array(document: bytes, path: str) -> ArrayMetadata:
    metadata = parse_node(document, path=path)
    assert isinstance(metadata, ArrayMetadata)
    return metadata
