"""Stored arrays of several layouts, whose objects can be damaged and mended."""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import lazyarr
from lazyarr.formats.zarr import ArrayMetadata, parse_node
from lazyarr.reading.units import geometry_of
from tests.stores import images

if TYPE_CHECKING:
    import numpy as np

__all__ = ["LAYOUTS", "Damage", "Layout", "StoredArray", "write_arrays"]

_PAGE_NBYTES = os.sysconf("SC_PAGE_SIZE")


class Layout(NamedTuple):
    """How an array is stored; its objects are rows of the leading axis, or tiles of such rows."""

    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None = None


LAYOUTS = {
    "pages": Layout((24, 16, 128), "u2", (2, 16, 128)),  # units of two whole pages
    "shared_pages": Layout((50, 7, 33), "u1", (3, 7, 33)),  # several units in each page
    "tiles": Layout((12, 20, 300), "i2", (2, 7, 128)),  # units of nine tiles
    "shards": Layout((32, 8, 128), "u4", (2, 8, 128), (8, 8, 128)),
    "large": Layout((32, 64, 512), "u2", (1, 64, 512)),  # larger than some memory limits
    "elsewhere": Layout((64, 16, 512), "u2", (8, 16, 512), (32, 16, 512)),  # by other processes
}


class Damage(enum.Enum):
    """What becomes of an object; a checksum tells each of them."""

    FLIPPED = "flipped"
    TRUNCATED = "truncated"
    EMPTY = "empty"
    ZEROS = "zeros"
    LONGER = "longer"

    def spoil(self, content: bytes, place: int) -> bytes:
        """Return the object damaged at some place."""
        place %= len(content)
        if self is Damage.FLIPPED:
            flipped = bytes([content[place] ^ 0x10])
            return content[:place] + flipped + content[place + 1 :]
        if self is Damage.TRUNCATED:
            return content[:place]
        return {
            Damage.EMPTY: b"",
            Damage.ZEROS: bytes(len(content)),
            Damage.LONGER: content + content[: place + 1],
        }[self]


class StoredArray:
    """An array in a store, what is in it, and which of its objects are damaged.

    Parameters
    ----------
    directory : Path
        Where its objects are.
    data : ndarray
        What it holds.
    layout : Layout
        How it is stored.
    """

    def __init__(self, directory: Path, data: np.ndarray[Any, Any], layout: Layout) -> None:
        self.data = data
        self.layout = layout
        self.rows = (layout.shards or layout.chunks)[0]
        self.row_nbytes = data[0].nbytes
        self._sound = {p: p.read_bytes() for p in sorted(directory.glob("c/**/*")) if p.is_file()}
        self.name = directory.name
        node = parse_node((directory / "zarr.json").read_bytes(), path="")
        assert isinstance(node, ArrayMetadata)
        self._unit_nbytes = geometry_of(node.layout()).unit_nbytes
        self._directory = directory
        self.damaged: dict[Path, Damage] = {}

    def __repr__(self) -> str:
        return f"<StoredArray {self.name}: {len(self.damaged)} objects damaged>"

    def spoil(self, number: int, damage: Damage, place: int, *, in_place: bool) -> None:
        """Damage an object, in place or by another one that takes its place."""
        path = list(self._sound)[number % len(self._sound)]
        _put(path, damage.spoil(self._sound[path], place), in_place=in_place)
        self.damaged[path] = damage

    def mend(self, *, in_place: bool) -> None:
        """Give every damaged object its content back."""
        for path in list(self.damaged):
            _put(path, self._sound[path], in_place=in_place)
            del self.damaged[path]

    def damaged_rows(self) -> set[int]:
        """Return the rows that some damaged object holds a part of."""
        places = {int(path.relative_to(self._directory).parts[1]) for path in self.damaged}
        return {
            row for place in places for row in range(place * self.rows, (place + 1) * self.rows)
        }

    def is_sound(self, start: int, stop: int) -> bool:
        """Return whether bytes of the array, and all units of their pages, can be loaded."""
        for nbytes in (_PAGE_NBYTES, self._unit_nbytes):
            start -= start % nbytes
            stop += -stop % nbytes
        rows = range(start // self.row_nbytes, -(-stop // self.row_nbytes))
        return self.damaged_rows().isdisjoint(rows)


def _put(path: Path, content: bytes, *, in_place: bool) -> None:
    if in_place:
        path.write_bytes(content)
        return
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    new.replace(path)


def write_arrays(directory: Path) -> dict[str, StoredArray]:
    """Write a store with an array of each layout; return them by name."""
    arrays = {name: images(layout.shape, layout.dtype) for name, layout in LAYOUTS.items()}
    with lazyarr.create(directory) as writer:
        for name, layout in LAYOUTS.items():
            array = writer.create_array(
                name,
                shape=layout.shape,
                dtype=layout.dtype,
                chunks=layout.chunks,
                shards=layout.shards,
            )
            array[:] = arrays[name]
    return {name: StoredArray(directory / name, arrays[name], LAYOUTS[name]) for name in LAYOUTS}
