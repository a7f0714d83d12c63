"""What writes the units of one array into its store, as far as the pager knows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeAlias

__all__ = ["Chunks", "Committing"]

Chunks: TypeAlias = dict[tuple[int, ...], bytes | None]
"""Chunks by their places in the grid, as they are stored; None for nothing but the fill value."""


class Committing(Protocol):
    """Writes the units of one array into its store."""

    def group(self, units: Iterable[int]) -> list[tuple[int, ...]]:
        """Return units in groups, those together whose chunks lie in the same objects."""
        ...

    def encode(self, unit: int, data: memoryview) -> Chunks:
        """Return the chunks of a unit, encoded; several threads may do so at once."""
        ...

    def put(self, chunks: Mapping[tuple[int, ...], bytes | None]) -> tuple[str, ...]:
        """Write the objects in which chunks lie; return their keys."""
        ...

    def sync(self) -> None:
        """Return when all that was put is durable."""
        ...

    def close(self) -> None:
        """Let go of the store."""
        ...
