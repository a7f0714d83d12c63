"""What an array says of the one that is stored, whatever fills it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lazyarr.client.node import ArrayNode

__all__ = ["StoredAttributes"]


class StoredAttributes:
    """The attributes that arrays of both engines have from the stored one."""

    @property
    def _source(self) -> ArrayNode:
        raise NotImplementedError

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of the stored array's smallest chunks."""
        return self._source.metadata.chunks

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Shape of the stored array's shards; None when it has none."""
        return self._source.metadata.shards

    @property
    def nchunks(self) -> int:
        """How many chunks the stored array has."""
        return math.prod(self._source.metadata.layout().grid_shape)

    @property
    def fill_value(self) -> Any:
        """What elements are that were never written."""
        return self._source.metadata.fill_value

    @property
    def attrs(self) -> dict[str, Any]:
        """The stored array's attributes; a copy."""
        return dict(self._source.metadata.attributes)

    @property
    def dimension_names(self) -> tuple[str | None, ...] | None:
        """Names of the stored array's axes; None when it has none."""
        return self._source.metadata.dimension_names

    @property
    def url(self) -> str:
        """The store."""
        return self._source.store_url

    @property
    def path(self) -> str:
        """The stored array's place in the store."""
        return self._source.metadata.path

    @property
    def info(self) -> str:
        """What the stored array is, and how much of it is in memory, as text."""
        from lazyarr.client.describe import describe_array

        return describe_array(self)  # type: ignore[arg-type]  # both classes are what it takes
