"""What one reference says, and the interface of a table of them."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazyarr.store.base import StoreReference

__all__ = ["MAX_NBYTES", "Reference", "SharedTable", "Table", "Target", "Unread"]

MAX_NBYTES = 1 << 62
"""Above any offset and any length that a file can have: sums of two stay below 2**63."""


class Target(NamedTuple):
    """Where the bytes of a key lie.

    Attributes
    ----------
    url : str
        The file, as the references name it: a URL, or a path.
    start : int
        Where in it they begin.
    nbytes : int or None
        How many they are; None for the whole file.
    """

    url: str
    start: int
    nbytes: int | None


class Unread(enum.Enum):
    """Stands for a reference that nobody has read yet."""

    UNREAD = "unread"


Reference: TypeAlias = bytes | Target
"""The bytes themselves, or where they lie."""


class Table(Protocol):
    """References by key."""

    def find(self, key: str) -> Reference | None:
        """Return what a key stands for; None when there is no reference for it.

        Raises
        ------
        FormatError, StoreError
            When the table cannot be read.
        """
        ...

    def find_now(self, key: str) -> Reference | Unread | None:
        """Return what `find` does where that needs no wait for a file or a server."""
        ...

    def names(self, prefix: str) -> Iterator[tuple[str, bool]]:
        """Yield each name directly below a prefix, and whether more lies below that name."""
        ...

    def is_unchanged(self) -> bool:
        """Return whether what was read of the table is certainly what is stored now."""
        ...

    def rest(self) -> None:
        """Let go of descriptors that can be opened again."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class SharedTable(Table, Protocol):
    """A table that another process can have too."""

    def reference(self, prefix: str) -> StoreReference:
        """Return what another process needs to have the same table below a prefix."""
        ...
