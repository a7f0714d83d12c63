"""What `lazyarr convert` reads: every array and group that a URL means."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lazyarr.client.arrays.text import reason
from lazyarr.errors import EngineWarning, FormatError
from lazyarr.formats.base import GroupDescription
from lazyarr.opening.nodes import address, open_nodes
from lazyarr.opening.survey import walk
from lazyarr.verification.checker import Checker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazyarr.client.arrays.lazyarray import LazyArray
    from lazyarr.formats.base import ArrayDescription

__all__ = ["Collection", "open_collection"]


@dataclass(frozen=True, slots=True)
class Collection:
    """What a URL means.

    Attributes
    ----------
    url : str
        As the user gave it.
    storage_options : mapping or None
        As the user gave them.
    format : str or None
        What the URL means, where its name does not tell.
    arrays : dict
        The arrays by their paths, in the order to write them; "" is the root.
    groups : dict
        The groups' attributes by path, parents first.
    unsupported : list of str
        The arrays that cannot be read, and why.
    """

    url: str
    storage_options: Mapping[str, Any] | None
    format: str | None
    arrays: dict[str, ArrayDescription] = field(default_factory=dict)
    groups: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    unsupported: list[str] = field(default_factory=list)

    @property
    def nbytes(self) -> int:
        """Size of all arrays in memory."""
        return sum(array.nbytes for array in self.arrays.values())

    def open(self, path: str) -> LazyArray:
        """Return an array."""
        from lazyarr.dataset import Dataset
        from lazyarr.dataset import open as open_node

        where = self.arrays[path].path
        with warnings.catch_warnings():
            # All of it is read, once: copies will do.
            warnings.simplefilter("ignore", EngineWarning)
            array = open_node(
                self.url, path=where, storage_options=self.storage_options, format=self.format
            )
        assert not isinstance(array, Dataset)
        return array

    def check(self) -> None:
        """Compare arrays with the checksums that their file has of them as a whole.

        Raises
        ------
        ChunkError
            One is not what was written.
        """
        arrays = [array for array in self.arrays.values() if array.checked_whole is not None]
        if not arrays:
            return
        nodes = open_nodes(self.url, self.storage_options, file_format=self.format)
        try:
            for array in arrays:
                Checker(nodes.store, array, url=nodes.url).check_whole()
        finally:
            nodes.store.close()


def open_collection(
    url: str,
    storage_options: Mapping[str, Any] | None,
    file_format: str | None,
) -> Collection:
    """Return the arrays and groups that a URL means; what is read now is metadata.

    Raises
    ------
    LazyarrError
        There is nothing, or it cannot be read.
    """
    nodes = open_nodes(url, storage_options, file_format=file_format)
    found = Collection(address(url, nodes), storage_options, nodes.format)
    try:
        root = nodes.node(nodes.start)
        below = walk(nodes, nodes.start) if isinstance(root, GroupDescription) else ()
        for place, node in [(nodes.start, root), *below]:
            path = place[len(nodes.start) :].lstrip("/")
            if isinstance(node, FormatError):
                found.unsupported.append(f"array {path!r}: {reason(path, node)}")
            elif isinstance(node, GroupDescription):
                found.groups[path] = node.attributes
            else:
                found.arrays[path] = node
    finally:
        nodes.store.close()
    return found
