"""Consolidated metadata of local stores, compared with the nodes' own documents.

A writer that changes a node writes the node's document, and often does not change the copy of
it in the consolidated metadata of the group above: zarr-python does not when it appends rows.
The times of files show cheaply which copies may be stale.  In other stores each look is a
request, so lazyarr takes the copies there as they are; `lazyarr.verify` compares all of them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeAlias

from lazyarr.client.warning import warn_user
from lazyarr.errors import FormatError, NodeNotFoundError, StoreWarning
from lazyarr.formats.paths import join_path
from lazyarr.formats.zarr import GroupMetadata
from lazyarr.formats.zarr.nodes import NODE_DOCUMENTS
from lazyarr.opening.documents import Documents, without_copies
from lazyarr.store.base import NoObjectError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazyarr.formats.base import Node as AnyNode
    from lazyarr.formats.zarr import Node
    from lazyarr.store import RetryingStore
    from lazyarr.store.local import LocalStore

__all__ = ["Copies", "is_same_node"]

Known: TypeAlias = "Node | FormatError"

_DOCUMENTS = (*NODE_DOCUMENTS, ".zattrs")

_COMPARED_AT_ONCE = 64
"""How many copies are compared when a group is opened; each other one when it is used."""


def is_same_node(copy: AnyNode | FormatError, own: AnyNode | FormatError) -> bool:
    """Return whether a node's copy in consolidated metadata equals its own document."""
    if isinstance(copy, FormatError) or isinstance(own, FormatError):
        return isinstance(copy, FormatError) and isinstance(own, FormatError)
    a, b = without_copies(copy), without_copies(own)
    try:
        if a == b:
            return True
        # NaN is not equal to itself, and attributes of Zarr v2 may have it: compare texts.
        texts = [json.dumps(node.attributes, sort_keys=True) for node in (a, b)]
    except RecursionError:
        return False
    return texts[0] == texts[1] and a._replace(attributes={}) == b._replace(attributes={})


class Copies:
    """The copies in a local store's consolidated metadata that were not compared yet.

    Parameters
    ----------
    store : RetryingStore
        The store.
    local : LocalStore
        The local store that `store` reads.
    known : dict
        The nodes by path, as copies have them.  A stale one is replaced by the node as its
        own document has it.
    """

    def __init__(self, store: RetryingStore, local: LocalStore, known: dict[str, Known]) -> None:
        self._store = local
        self._documents = Documents(store, consolidated=False)
        self._known = known
        self._since: dict[str, int] = {}
        self._is_told = False

    def __repr__(self) -> str:
        return f"<Copies: {len(self._since)} not compared, in {self._store.url}>"

    def add(self, group: GroupMetadata) -> None:
        """Add a group's copies: the first are compared at once, each other one when it is used."""
        assert group.consolidated is not None
        paths = [join_path(group.path, child) for child in group.consolidated]
        name = "zarr.json"
        if group.zarr_format == 2:  # .zmetadata has a copy of the group's own documents, too
            name = ".zmetadata"
            paths.insert(0, group.path)
        since = self._store.changed_ns(join_path(group.path, name)) or 0
        self._since.update(dict.fromkeys(paths, since))
        self.compare(paths[:_COMPARED_AT_ONCE])

    def compare(self, paths: Iterable[str]) -> None:
        """Compare copies with the nodes' own documents, which replace those that differ."""
        stale = []
        for path in paths:
            since = self._since.get(path)
            if since is not None:
                if self._is_stale(path, since):
                    stale.append(path)
                # Afterwards: another thread must not take a copy that is being compared.
                self._since.pop(path, None)
        self.tell(stale)

    def tell(self, stale: list[str]) -> None:
        """Warn, once for a store, of copies that differ from the nodes' documents or are absent."""
        if not stale or self._is_told:
            return
        self._is_told = True
        more = f" and {len(stale) - 1} more" if len(stale) > 1 else ""
        warn_user(
            f"the consolidated metadata of {self._store.url} is stale: it is not what "
            f"{stale[0]!r}{more} of its nodes say of themselves, which is used; bring it up "
            f"to date with zarr.consolidate_metadata({self._store.path!r})",
            StoreWarning,
        )

    def _is_stale(self, path: str, since: int) -> bool:
        copy = self._known.get(path)
        if copy is None or self._is_older(path, since):
            return False
        try:
            own: Known = without_copies(self._documents.read(path))
        except NodeNotFoundError:
            self._known.pop(path, None)
            return True
        except FormatError as error:
            own = error
        if is_same_node(copy, own):
            return False
        if isinstance(own, GroupMetadata) and isinstance(copy, GroupMetadata):
            own = own._replace(consolidated=copy.consolidated)
        self._known[path] = own
        return True

    def _is_older(self, path: str, since_ns: int) -> bool:
        """Return whether a node's documents are certainly older than its copy."""
        try:
            times = [self._store.changed_ns(join_path(path, name)) for name in _DOCUMENTS]
        except NoObjectError:
            return False
        # Clocks of file systems advance in steps: a document with the copy's own time may be
        # newer than the copy.
        found = [time for time in times if time is not None]
        return any(time is not None for time in times[:3]) and max(found) < since_ns
