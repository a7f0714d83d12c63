"""Writing stores: `save`, `create`, and `open_writer` for those that exist.

Public: the names below.
Not here: what documents say (`lazyarr.formats.zarr`), and how a store keeps objects
(`lazyarr.store`).
"""

from lazyarr.writer.arrays import ArrayWriter
from lazyarr.writer.saving import save
from lazyarr.writer.stores import Writer, create, open_writer

__all__ = ["save", "create", "open_writer", "Writer", "ArrayWriter"]
