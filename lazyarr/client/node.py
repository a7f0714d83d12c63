"""An array in a store, before and behind its memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lazyarr import settings
from lazyarr.errors import FormatError
from lazyarr.kernel import PAGE_NBYTES
from lazyarr.plan.geometry import Geometry
from lazyarr.store import store_reference
from lazyarr.values import Value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazyarr.client.region import Memory
    from lazyarr.format import ArrayMetadata
    from lazyarr.store import Store

__all__ = ["ArrayNode"]

# Stores whose chunks are a system call away: read by the thread that decodes them.
_LOCAL_KINDS = ("local", "packed")


class ArrayNode(Value):
    """Which array of which store, and how it was opened.

    Attributes
    ----------
    store_url : str
        The store, without credentials.
    url : str
        What another process opens to reach the same store.
    storage_options : mapping or None
        As the user gave them.
    metadata : ArrayMetadata
        What the array says of itself.
    mode : str
        ``"r"`` or ``"c"``.
    memory : str or None
        The kind of memory that the user asked for.
    """

    store_url: str
    url: str
    storage_options: Mapping[str, Any] | None
    metadata: ArrayMetadata
    mode: str
    memory: str | None

    @property
    def is_private(self) -> bool:
        """Whether the memory is this process's own."""
        return self.mode == "c" or self.memory == "private"

    def geometry(self) -> Geometry:
        """Return the arithmetic of the array.

        Raises
        ------
        FormatError
            When one unit would not fit the memory limit.
        """
        layout = self.metadata.layout()
        geometry = Geometry(layout.shape, layout.chunk_shape, layout.itemsize, PAGE_NBYTES)
        limit_nbytes = settings.current().memory_limit
        # A chunk is decoded whole, also where it reaches far beyond the array.
        unit_nbytes = max(geometry.unit_nbytes, layout.chunk_nbytes)
        if geometry.nbytes and unit_nbytes > limit_nbytes:
            raise FormatError(
                f"cannot map array {self.metadata.path!r} of {self.store_url}: one unit of its "
                f"chunks takes {unit_nbytes} bytes, the memory limit is {limit_nbytes} "
                "bytes; raise it with lazyarr.configure(memory_limit=...), or store smaller "
                "chunks with 'lazyarr convert'",
                path=self.metadata.path,
            )
        return geometry

    def map(self, geometry: Geometry, store: Store) -> Memory:
        """Return memory that fills with the array's bytes when it is touched."""
        from lazyarr.client.process import session

        reference = store_reference(store, prefix=self.metadata.path)
        array = {
            "url": self.store_url,
            "path": self.metadata.path,
            "document": json.dumps(self.metadata.document, separators=(",", ":")),
            "zarr_format": self.metadata.zarr_format,
            "store": reference.description,
            "is_remote": reference.description["kind"] not in _LOCAL_KINDS,
        }
        memory = session().open_region(
            geometry, private=self.is_private, array=array, descriptors=reference.descriptors
        )
        memory.region.node = memory.region.node or self
        return memory
