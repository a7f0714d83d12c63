"""Where the encoded chunks of a sharded Zarr array lie, for contestants that read files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

__all__ = ["ChunkPlace", "chunk_places"]


class ChunkPlace(NamedTuple):
    """Where an encoded chunk lies: `nbytes` from `offset` of a file."""

    path: str
    offset: int
    nbytes: int


def chunk_places(store: Path, *, trailer_nbytes: int = 0) -> list[ChunkPlace]:
    """Return the places of all chunks along the leading axis.

    Parameters
    ----------
    store : Path
        A Zarr v3 array in shards with their index at the end, one level of them.
    trailer_nbytes : int
        How much at the end of each chunk is to be left out, as a checksum.
    """
    # Not at the top: contestants are timed from before they import their library.
    from lazyarr.formats.zarr import ArrayMetadata, parse_node

    node = parse_node((store / "zarr.json").read_bytes(), path="")
    assert isinstance(node, ArrayMetadata)
    layout = node.layout()
    (level,) = layout.levels
    indexes = {}
    places = []
    for number in range(layout.grid_shape[0]):
        address = layout.locate((number, *(0 for _ in layout.grid_shape[1:])))
        path = store / address.key
        if path not in indexes:
            data = path.read_bytes()
            start, stop = level.index_range(len(data))
            indexes[path] = level.parse_index(data[start:stop], object_nbytes=len(data))
        entry = indexes[path].entry(address.entries[0])
        assert entry is not None, f"chunk {number} of {store} is not stored"
        places.append(ChunkPlace(str(path), entry[0], entry[1] - trailer_nbytes))
    return places
