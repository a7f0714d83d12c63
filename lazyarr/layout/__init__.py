"""How an array lies in memory, and where its bytes are stored: values without any input or output.

Public: the names below, `geometry` (bytes, pages, units and chunks of one array), `placement`
(where chunks are stored) and `document` (layouts as text for other processes).
Not here: the documents of a file format (`lazyarr.formats`), and reading (`lazyarr.reading`).
"""

from typing import TYPE_CHECKING

from lazyarr.parts import import_on_use

if TYPE_CHECKING:
    from lazyarr.layout.datatype import DataType
    from lazyarr.layout.geometry import Geometry
    from lazyarr.layout.grid import KeyEncoding
    from lazyarr.layout.layout import Layout
    from lazyarr.layout.placement import ChunkAddress
    from lazyarr.layout.shard import ShardIndex, ShardLevel

__all__ = [
    "ChunkAddress",
    "DataType",
    "Geometry",
    "KeyEncoding",
    "Layout",
    "ShardIndex",
    "ShardLevel",
]

__getattr__ = import_on_use(
    globals(),
    {
        "datatype": "DataType",
        "geometry": "Geometry",
        "grid": "KeyEncoding",
        "layout": "Layout",
        "placement": "ChunkAddress",
        "shard": "ShardIndex ShardLevel",
    },
)
