"""Which units of an array lie in one object of its store."""

from __future__ import annotations

import math

from lazyarr.layout.geometry import Geometry

__all__ = ["ObjectGrid"]


class ObjectGrid:
    """The objects of one array: an object that is put is written whole.

    Objects side by side, of which each unit has a part, count as one.  A unit that lies in several
    that follow one another belongs to the first.

    Parameters
    ----------
    geometry : Geometry
        Where the units lie.
    chunks_per_object : tuple of int
        How many chunks an object has along each axis, axes as in the geometry; empty where no
        object has chunks of two units.

    Examples
    --------
    >>> geometry = Geometry((100, 64), (8, 64), itemsize=8, page_nbytes=4096)
    >>> grid = ObjectGrid(geometry, (4, 1))
    >>> grid.place_of(5), grid.nbytes_of(grid.place_of(5))
    ((1,), 16384)
    """

    def __init__(self, geometry: Geometry, chunks_per_object: tuple[int, ...] = ()) -> None:
        self._geometry = geometry
        self._steps = chunks_per_object[: geometry.unit_axis + 1]

    def __repr__(self) -> str:
        return f"<ObjectGrid: {self._steps or 'an object or more for each unit'}>"

    def place_of(self, unit: int) -> tuple[int, ...]:
        """Return what units have in common that lie in one object, and no others."""
        if not self._steps:
            return (unit,)
        first = self._geometry.first_chunk(unit)
        return tuple(c // n for c, n in zip(first, self._steps, strict=False))

    def nbytes_of(self, place: tuple[int, ...]) -> int:
        """Return how many bytes of the array lie in the object at a place."""
        geometry = self._geometry
        if not self._steps:
            return geometry.unit_bytes(place[0]).size
        nbytes = geometry.itemsize * math.prod(geometry.shape[len(self._steps) :])
        for at, n, chunk, length in zip(
            place, self._steps, geometry.chunk_shape, geometry.shape, strict=False
        ):
            nbytes *= min((at + 1) * n * chunk, length) - at * n * chunk
        return nbytes
