"""The right to write to a store, for what is opened in mode "r+"."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import operator
import os
import sys
import threading
import weakref
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from lazyarr import settings
from lazyarr.client.arrays.live_attributes import AttributesRoot, is_same_json
from lazyarr.client.session import finalizers
from lazyarr.client.session.failures import do_each
from lazyarr.client.session.last_words import say_lost
from lazyarr.client.session.process import current_session
from lazyarr.errors import FormatError, LazyarrError, NodeNotFoundError, StoreError
from lazyarr.formats.paths import join_path
from lazyarr.opening.hierarchy import Hierarchy
from lazyarr.store import RetryingStore, RetryPolicy, open_store
from lazyarr.store.claim import Claim
from lazyarr.store.local import LocalStore
from lazyarr.store.urls import lives_in_this_process, local_path, without_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Protocol

    from lazyarr.client.arrays.live_attributes import LiveDict
    from lazyarr.opening.engines import Making
    from lazyarr.opening.nodes import Nodes
    from lazyarr.store import WritableStore
    from lazyarr.writer.editing import Editor

    class Holder(Protocol):
        """What keeps arrays that it has opened: a dataset."""

        def _let_go(self, path: str) -> dict[str, Any]:
            """Keep the arrays at and below a path no more; return them by name."""
            ...

        def _keep(self, nodes: Mapping[str, Any]) -> None:
            """Keep arrays again."""
            ...


__all__ = ["Claimed", "Writing", "begin_writing"]

_Key: TypeAlias = "tuple[Any, ...]"

_ROOT_NAMES = ("zarr.json", ".zgroup")


class _Opened(NamedTuple):
    """An array that was opened: itself, what its views have in common, and how it was made."""

    array: weakref.ref[Any]
    anchor: weakref.ref[Any]
    making: Making
    n_references: int


class Claimed:
    """A store that this process alone writes to, for as long as somebody here has it open.

    Two openings of one store in this process share it, and its arrays: what is written to one is
    seen in the other, as with two ``numpy.memmap`` of one file.  All paths are those from the root
    of the store on.

    Parameters
    ----------
    store : WritableStore
        The store, from its root on; owned.
    claim : Claim or None
        The lock on a local store; None where there are no locks.
    engine : str
        What fills arrays: one engine does not know what the other has in memory.

    Attributes
    ----------
    hierarchies : WeakSet
        All that have read documents.
    holders : WeakSet
        The datasets, which keep arrays.
    lock : threading.RLock
        Held while something is edited.
    """

    def __init__(self, store: WritableStore, claim: Claim | None, engine: str) -> None:
        self.store = store
        self.claim = claim
        self.engine = engine
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.hierarchies: weakref.WeakSet[Hierarchy] = weakref.WeakSet()
        self.holders: weakref.WeakSet[Holder] = weakref.WeakSet()
        self.handles: set[int] = set()
        self.is_closed = False
        self._editor: Editor | None = None
        self._opened: dict[tuple[str, str], _Opened] = {}
        self._attributes: dict[str, AttributesRoot] = {}

    def __repr__(self) -> str:
        return f"<Claimed {self.store.url}, {'closed' if self.is_closed else 'held'}>"

    def require_own(self) -> None:
        """Raise unless this process is the one that has the claim.

        Raises
        ------
        ValueError
            It is a forked child, or the claim has been given up.
        """
        if self.pid != os.getpid():
            raise ValueError(
                f"cannot edit {self.store.url}: process {self.pid} has opened it for writing, and "
                "shares its arrays with this one; edit it there"
            )
        if self.is_closed:
            raise ValueError(f"cannot edit {self.store.url}: it is closed; open it again")

    def end_unless_used(self) -> None:
        """Give the claim up when nobody in this process has the store open any more."""
        with _lock:
            if self.handles or self.is_closed:
                return
            try:
                self.flush_attributes(is_last=True)
            finally:
                self.is_closed = True
                for key, held in list(_held.items()):
                    if held is self:
                        del _held[key]
                if self.claim is not None:
                    self.claim.close()
                self.store.close()

    # --- arrays that are open -----------------------------------------------------------------

    def find(self, path: str, byteorder: str) -> Any:
        """Return an array that is open, so that there is one of each; None where there is none."""
        found = self._opened.get((path, byteorder))
        return None if found is None else found.array()

    def enter(self, path: str, byteorder: str, array: Any, making: Making) -> None:
        """Take note of an array that was opened."""
        anchor = weakref.ref(making.anchor_of(array))
        opened = _Opened(weakref.ref(array), anchor, making, _count_references(anchor))
        self._opened[path, byteorder] = opened

    def _open_below(self, path: str) -> dict[tuple[str, str], _Opened]:
        """Return the arrays at and below a path of which somebody has a view."""
        for key, opened in list(self._opened.items()):
            if opened.anchor() is None:
                self._opened.pop(key, None)
        return {key: o for key, o in self._opened.items() if _is_below(key[0], path)}

    def anchors(self, path: str) -> list[Any]:
        """Return what the values of the arrays at and below a path are in, of those that live.

        These are all of the process: also arrays that `append` and `resize` have returned, that
        another opening has opened, and of which there are nothing but views.
        """
        found = [opened.anchor() for opened in self._open_below(path).values()]
        return [anchor for anchor in found if anchor is not None]

    def _flush(self, path: str) -> None:
        """Have what was written to the arrays at and below a path be in the store."""
        for opened in self._open_below(path).values():
            anchor = opened.anchor()
            if anchor is not None:
                opened.making.flush(anchor)
        self.flush_attributes(path)

    def leave_behind(self, path: str) -> None:
        """Have an array take the place of one whose pager is gone, though somebody has it still.

        What was written to it is put into the store first, and nobody can write to it any more.

        Raises
        ------
        LazyarrError
            Something could not be written.  It stays in memory, and the next try writes it.
        """
        for (place, byteorder), opened in list(self._opened.items()):
            anchor = opened.anchor() if place == path else None
            if anchor is not None and opened.making.leave_behind(anchor):
                self._forget((place, byteorder), opened)
                self._let_go(path)

    def _retire(self, path: str) -> None:
        """Let nobody write to the arrays at a path any more, of which others take the place."""
        for key, opened in self._open_below(path).items():
            anchor = opened.anchor()
            if anchor is not None:
                opened.making.retire(anchor)
            self._forget(key, opened)
        self._let_go(path)

    def _forget(self, key: tuple[str, str], opened: _Opened) -> None:
        """Forget an array that nobody can write to any more; who opens it gets another."""
        import numpy

        array = opened.array()
        if isinstance(array, numpy.ndarray):
            # Of its views only lazyarr's own methods know.
            array.flags.writeable = False
        self._opened.pop(key, None)

    def _let_go(self, path: str) -> None:
        """Have datasets let go of their arrays at and below a path."""
        for holder in list(self.holders):
            holder._let_go(path)  # noqa: SLF001 - of the protocol

    def _require_unreferenced(self, path: str, what: str) -> None:
        """Raise while somebody has an array at or below a path; datasets let go of theirs.

        Raises
        ------
        ValueError
            Somebody does.
        """
        kept = [(holder, holder._let_go(path)) for holder in list(self.holders)]  # noqa: SLF001
        arrays = [weakref.ref(node) for _, nodes in kept for node in nodes.values()]
        names = [{name: weakref.ref(node) for name, node in nodes.items()} for _, nodes in kept]
        holders = [holder for holder, _ in kept]
        del kept
        if any(ref() is not None for ref in arrays) or self._open_below(path):
            gc.collect()  # of cycles, as tracebacks make them
        found = self._open_below(path)
        if not found:
            return
        for holder, refs in zip(holders, names, strict=True):
            _keep_again(holder, refs)
        first = min(found)[0]
        # The traceback lives on in an interpreter, and with it what this refers to.
        del found, names
        raise ValueError(
            f"cannot {what}: array {first!r} or a view of it is referenced in this process; del "
            "what refers to it, in a notebook Out and _ as well, and try again"
        )

    # --- attributes ---------------------------------------------------------------------------

    def attributes(self, path: str) -> LiveDict:
        """Return the attributes of a node, to be changed."""
        with self.lock:
            if path not in self._attributes:
                stored = self.editor.attributes(path)
                again = functools.partial(self._read_attributes, path)
                self._attributes[path] = AttributesRoot(stored, self.require_own, again)
            return self._attributes[path].attributes

    def _read_attributes(self, path: str) -> dict[str, Any]:
        """Return the attributes that a node has now; none where nobody could keep any."""
        with self.lock:
            self._forget_documents()
            try:
                return self.editor.attributes(path)
            except (NodeNotFoundError, FormatError):
                return {}

    def flush_attributes(self, path: str = "", *, is_last: bool = False) -> None:
        """Have changed attributes of the nodes at and below a path be in the store.

        Where another writer has changed those of a node too, this raises and puts them on top of
        what the other has put the next time; not with `is_last`, where nobody has asked for that.

        Raises
        ------
        StoreError
            Some cannot be written.  They stay, and the next flush tries again.
        """
        if self.pid != os.getpid():
            return
        with self.lock:
            roots = {
                key: root
                for key, root in self._attributes.items()
                if root.is_changed and _is_below(key, path)
            }
            taken: dict[str, dict[str, Any]] = {}
            take = [
                functools.partial(self._take_attributes, key, root, taken, is_last=is_last)
                for key, root in roots.items()
            ]
            do_each(*take, lambda: self._put_attributes(roots, taken))

    def _take_attributes(
        self,
        path: str,
        root: AttributesRoot,
        taken: dict[str, dict[str, Any]],
        *,
        is_last: bool,
    ) -> None:
        """Add to others what a node is to have; raise where another writer has changed that."""
        found, wanted = self.editor.attributes(path), root.take()
        is_theirs = not any(is_same_json(found, known) for known in (root.stored, wanted))
        if not is_theirs and not (is_last and root.is_in_conflict):
            taken[path] = wanted
            return
        root.put_on(found)
        raise self._conflict(path)

    def _put_attributes(
        self, roots: Mapping[str, AttributesRoot], taken: Mapping[str, dict[str, Any]]
    ) -> None:
        """Have nodes have the attributes that were taken from their roots."""
        if not taken:
            return
        try:
            self.editor.set_attributes(taken)
        except BaseException:
            for path in taken:
                roots[path].take_back()
            raise
        for path, wanted in taken.items():
            roots[path].stored, roots[path].is_in_conflict = wanted, False
        self._forget_documents()

    def _conflict(self, path: str) -> StoreError:
        url = self.store.url
        return StoreError(
            f"cannot store the attributes of {path or '/'!r} in {url}: another writer has changed "
            "them since this process read them; flush() again to have what was changed here on "
            "top of that, or drop it with attrs.refresh()",
            url=url,
            key=None,
            transient=False,
        )

    # --- edits --------------------------------------------------------------------------------

    @property
    def editor(self) -> Editor:
        """What changes the store; no more than one thread at a time, which has the lock."""
        if self._editor is None:
            # Imported here: those that change elements alone do without.
            from lazyarr.writer.editing import Editor

            self._editor = Editor(self.store)
        return self._editor

    def create_array(self, path: str, wanted: Mapping[str, Any]) -> None:
        """Add an array; see `Editor.create_array`."""
        with self._editing():
            self.editor.create_array(path, **wanted)

    def create_group(self, path: str, attributes: Mapping[str, Any] | None) -> None:
        """Add a group; see `Editor.create_group`."""
        with self._editing():
            self.editor.create_group(path, attributes)

    def append(self, path: str, rows: Any) -> None:
        """Add rows to an array, of which another takes the place; see `Editor.append`."""
        with self._editing():
            self.flush_attributes(path)
            self.editor.append(path, rows, begin=lambda: self._retire(path))

    def resize(self, path: str, shape: tuple[int, ...], *, refcheck: bool) -> None:
        """Give an array other lengths; another takes its place.

        Raises
        ------
        ValueError
            It gets smaller, and there are views of it besides the array itself.
        """
        with self._editing():
            old = self.editor.shape(path)
            if len(shape) != len(old) or min(shape, default=0) < 0:
                raise ValueError(
                    f"cannot resize {path!r} of shape {old} to {shape}; give as many lengths, "
                    "which are not negative"
                )
            if shape == old:
                return
            if refcheck and any(map(operator.lt, shape, old)):
                self._require_no_views(path)
            self.flush_attributes(path)
            self._retire(path)
            self.editor.resize(path, shape)

    def _require_no_views(self, path: str) -> None:
        for opened in self._open_below(path).values():
            _forget_own_views(opened)
            if _count_references(opened.anchor) > opened.n_references:
                raise ValueError(
                    f"cannot make array {path!r} smaller: views of it are referenced in this "
                    "process, and would lose their values; del them, or pass refcheck=False"
                )

    def delete(self, path: str) -> None:
        """Take a node away; see `Editor.delete`.

        Raises
        ------
        ValueError
            Somebody has an array of it.
        """
        with self._editing():
            self._flush(path)
            self._require_unreferenced(path, f"delete {path!r}")
            self.editor.delete(path)
            self._forget_attributes(path)

    def rename(self, old: str, new: str) -> None:
        """Have a node by another name; see `Editor.rename`, and `delete`."""
        with self._editing():
            self._flush(old)
            self._require_unreferenced(old, f"rename {old!r}")
            self.editor.rename(old, new)
            self._forget_attributes(old)

    @contextlib.contextmanager
    def _editing(self) -> Iterator[None]:
        self.require_own()
        # Arrays that nobody refers to any more are written back by then, where they are now.
        finalizers.settle()
        with self.lock:
            try:
                yield
            finally:
                self._forget_documents()

    def _forget_documents(self) -> None:
        for hierarchy in list(self.hierarchies):
            hierarchy.forget()

    def _forget_attributes(self, path: str) -> None:
        for key in [key for key in self._attributes if _is_below(key, path)]:
            del self._attributes[key]


def _is_below(path: str, parent: str) -> bool:
    """Return whether a path is another one, or lies in it."""
    return not parent or path == parent or path.startswith(f"{parent}/")


def _keep_again(holder: Holder, refs: Mapping[str, weakref.ref[Any]]) -> None:
    """Have a dataset keep those again that are still there."""
    nodes = {name: node for name, ref in refs.items() if (node := ref()) is not None}
    holder._keep(nodes)  # noqa: SLF001


def _forget_own_views(opened: _Opened) -> None:
    """Let an array do without the views of itself that it keeps."""
    array = opened.array()
    if array is not None:
        array._forget_views()  # noqa: SLF001


def _count_references(anchor: weakref.ref[Any]) -> int:
    """Return how many references there are to something, with those of this function."""
    return sys.getrefcount(anchor())


class Writing:
    """What an opening in mode "r+" and its arrays share; the claim is held while one of them lives.

    Attributes
    ----------
    claimed : Claimed
        The store from its root on, which other openings may share.
    prefix : str
        Where in that store the opening begins.
    store : WritableStore
        The store that the opening's paths are relative to: where changed chunks go.
    reopen : callable
        Opens the array at a path of the opening, as it is now.
    """

    reopen: Callable[[str], Any]

    def __init__(self, claimed: Claimed, prefix: str, store: WritableStore) -> None:
        self.claimed = claimed
        self.prefix = prefix
        self.store = store
        claimed.handles.add(id(self))
        # What the process leaves open at its end the kernel lets go.
        end = weakref.finalize(self, _let_go, claimed, id(self), store)
        end.atexit = False
        finalizers.expect()

    def __repr__(self) -> str:
        return f"<Writing to {self.store.url}>"

    @property
    def claim(self) -> Claim | None:
        """The lock on a local store; None where there are no locks."""
        return self.claimed.claim

    def path(self, path: str) -> str:
        """Return a node's path from the root of the store on."""
        return join_path(self.prefix, path)

    def attributes(self, path: str) -> LiveDict:
        """Return the attributes of a node by its path in the opening, to be changed."""
        return self.claimed.attributes(self.path(path))

    def flush_attributes(self, path: str) -> None:
        """Have the attributes of a node, and of those below it, be in the store."""
        self.claimed.flush_attributes(self.path(path))

    def anchors(self, path: str) -> list[Any]:
        """Return what the values of the open arrays at and below a path of the opening are in."""
        return self.claimed.anchors(self.path(path))

    def find(self, path: str, byteorder: str) -> Any:
        """Return the array that is open at a path of the opening; None where there is none."""
        return self.claimed.find(self.path(path), byteorder)

    def append(self, path: str, rows: Any) -> Any:
        """Add rows to an array, and return the array as it is then."""
        self.claimed.append(self.path(path), rows)
        return self.reopen(path)

    def resize(self, path: str, shape: int | Sequence[int], *, refcheck: bool) -> Any:
        """Give an array other lengths, and return the array as it is then."""
        from lazyarr.writer.stores import lengths_of

        old = self.claimed.editor.shape(self.path(path))
        lengths = lengths_of(shape)
        if not isinstance(shape, Iterable):
            lengths += old[1:]  # rows alone
        self.claimed.resize(self.path(path), lengths, refcheck=refcheck)
        return self.reopen(path)


# The stores that this process has claimed.
_held: dict[_Key, Claimed] = {}
_lock = threading.RLock()


def begin_writing(
    hierarchy: Nodes, url: str, options: Mapping[str, Any] | None, *, engine: str
) -> Writing:
    """Return the right to write to what was opened, which nobody else has now.

    Parameters
    ----------
    hierarchy : Nodes
        What the URL means, as far as it was read.
    url, options
        What opens it again.
    engine : str
        What fills its arrays.

    Raises
    ------
    FormatError
        It is none that lazyarr can change.
    StoreError
        Somebody else writes to it, or it cannot be written to.
    """
    _require_zarr(hierarchy, url)
    if engine != "copy" and lives_in_this_process(url):
        shown = without_credentials(url)
        raise StoreError(
            f"cannot write to {shown}: it is in the memory of this process, and the process that "
            "fills and writes back arrays cannot reach it; open it with "
            "lazyarr.configure(engine='copy')",
            url=shown,
            key=None,
            transient=False,
        )
    root_url, prefix = _find_root(url, options)
    with _lock:
        store = _open(root_url, options)
        try:
            key = _key(store, root_url, options)
            claimed = _held.get(key)
            if claimed is None:
                claim = _claim(store)
                if isinstance(store, LocalStore):
                    store.remove_discarded()
                claimed = _held[key] = Claimed(store, claim, engine)
                claimed.pid = _owner(claim)
        except BaseException:
            store.close()
            raise
        if claimed.store is not store:
            store.close()
        if claimed.engine != engine:
            raise StoreError(
                f"cannot write to {claimed.store.url}: this process has it open with "
                f"engine={claimed.engine!r}, which does not know what engine={engine!r} has in "
                "memory; close that one first",
                url=claimed.store.url,
                key=None,
                transient=False,
            )
        inner = claimed.store if not prefix else _open(url, options)
        return Writing(claimed, prefix, inner)


def _let_go(claimed: Claimed, handle: int, store: WritableStore) -> None:
    """Take note that an opening and its arrays are gone; takes no lock (see `finalizers`)."""
    claimed.handles.discard(handle)

    def end() -> None:
        if store is not claimed.store:
            store.close()
        try:
            claimed.end_unless_used()
        except (LazyarrError, OSError) as error:
            _say_lost(error)

    finalizers.defer(end, is_end=True)


def _require_zarr(hierarchy: Nodes, url: str) -> None:
    """Raise unless a URL means a Zarr store that can be changed where it lies."""
    remedy, what = "make a Zarr store of it with 'lazyarr convert'", ""
    if not isinstance(hierarchy, Hierarchy):
        what = "a file of another format, which lazyarr only reads"
    elif "::" in url or hierarchy.store.url.startswith("zip:"):
        what = "reached through an archive, a cache or references, which lazyarr only reads"
        remedy = "unpack it, or open the URL behind the '::'"
    elif hierarchy.format == "kerchunk" or type(hierarchy.store.inner).__name__ == "ReferenceStore":
        what = "references to other files, which lazyarr only reads"
    elif url.partition(":")[0] in ("http", "https"):
        what, remedy = "reached by HTTP, which is for reading only", "open the store by another URL"
    else:
        _look_up(hierarchy)
        if hierarchy.store.inner.__class__.__name__ != "IcechunkStore":
            return
        what, remedy = "an icechunk repository", "write with icechunk and zarr"
    shown = without_credentials(url)
    raise FormatError(f"cannot write to {shown}: it is {what}; {remedy}", path="")


def _look_up(hierarchy: Hierarchy) -> None:
    """Find out what there is: a repository is known as one only then."""
    try:
        hierarchy.node(hierarchy.start)
    except NodeNotFoundError as error:
        raise NodeNotFoundError(
            f"{error}; to make a store use lazyarr.create, mode 'r+' changes one that exists",
            url=error.url,
            path=error.path,
        ) from None
    except FormatError:
        pass  # whoever asks for the node is told


def _find_root(url: str, options: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return the outermost group that a node is in, by its URL, and the node's path from there.

    Consolidated metadata may be in each of them, and writers are to keep out of each other's way
    wherever in the store each has begun.
    """
    root, inside = url.rstrip("/") or "/", ""
    while True:
        parent, name = _parent(root)
        if parent is None or not _has_document(parent, options):
            return root, inside
        root, inside = parent, join_path(name, inside)


def _parent(url: str) -> tuple[str | None, str]:
    path = local_path(url)
    if path is not None:
        parent, name = os.path.split(os.path.abspath(path))
        return (parent if name else None), name
    head, mark, rest = url.rpartition("://")
    above, slash, name = rest.rpartition("/")
    return (f"{head}{mark}{above}" if slash and above else None), name


def _has_document(url: str, options: Mapping[str, Any] | None) -> bool:
    store = _open(url, options)
    try:
        return any(store.size(name) is not None for name in _ROOT_NAMES)
    except StoreError:
        return False  # others may have no right to what the store lies in
    finally:
        store.close()


def _open(url: str, options: Mapping[str, Any] | None) -> WritableStore:
    now = settings.current()
    store = open_store(url, options, writable=True, timeout_seconds=now.timeout)
    if isinstance(store, LocalStore):
        store.durable = True
        return store
    return RetryingStore(store, RetryPolicy(now.retries, now.timeout))


def _owner(claim: Claim | None) -> int:
    """Return the process that has taken a claim: it alone edits the store."""
    holder = None if claim is None else claim.holder()
    return os.getpid() if holder is None else holder


def _key(store: WritableStore, url: str, options: Mapping[str, Any] | None) -> _Key:
    if isinstance(store, LocalStore):
        with suppress(OSError):
            status = os.stat(store.path)
            return status.st_dev, status.st_ino
    return url, repr(sorted((options or {}).items(), key=lambda item: item[0]))


def _claim(store: WritableStore) -> Claim | None:
    if not isinstance(store, LocalStore):
        return None
    # With the rights that are in force, also of a program that has given up some.
    by_effective = os.access in os.supports_effective_ids
    if not os.access(store.path, os.W_OK | os.X_OK, effective_ids=by_effective):
        raise StoreError(
            f"cannot write to {store.url}: this user may not write to that directory; change its "
            "rights, or open it with mode='r'",
            url=store.url,
            key=None,
            transient=False,
        )
    # First: the claim may be there for the asking, and a lock that is held is waited for.
    return _claim_of_pager(store) or store.claim()


def _claim_of_pager(store: LocalStore) -> Claim | None:
    """Return the claim on a store that this process's pager has, of this process or another one.

    Of this process when the last array has gone, and what was written to it has not been written
    back yet.  Processes that share a pager share its memory, so they write together.
    """
    live = current_session()
    if live is None:
        return None
    with suppress(LazyarrError, OSError):
        status = os.stat(store.path)
        found = live.find_claim((status.st_dev, status.st_ino))
        if found is not None:
            return Claim.received(found, store.url)
    return None


def _flush_at_exit() -> None:
    for claimed in list(_held.values()):
        try:
            claimed.flush_attributes(is_last=True)
        except (LazyarrError, OSError) as error:
            _say_lost(error, is_at_end=True)


def _say_lost(error: Exception, *, is_at_end: bool = False) -> None:
    notes = (f"; {note}" for note in getattr(error, "__notes__", ()))
    say_lost(f"attributes could not be stored: {error}{''.join(notes)}", is_at_end=is_at_end)


atexit.register(_flush_at_exit)


def _forget_in_child() -> None:
    # The claim is the parent's: a child that opens the store anew gets its error.
    global _lock
    _lock = threading.RLock()
    for claimed in _held.values():
        claimed.lock = threading.RLock()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
