"""Which units lie in one object."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.layout.geometry import Geometry
from lazyarr.plan.objects import ObjectGrid


@st.composite
def grids(draw):
    """Draw a geometry, and how many of its chunks are in an object."""
    n_axes = draw(st.integers(0, 3))
    numbers = st.lists(st.integers(1, 9), min_size=n_axes, max_size=n_axes).map(tuple)
    geometry = Geometry(
        draw(numbers), draw(numbers), 2, 16, group_nbytes=draw(st.sampled_from([0, 64]))
    )
    return geometry, draw(numbers)


@given(grids())
def test_units_of_one_object_are_together(case):
    """And an object is whole when all of them are there, if no unit is in two that follow."""
    geometry, per_object = case
    grid = ObjectGrid(geometry, per_object)
    of_units: Counter[tuple[int, ...]] = Counter()
    for unit in range(geometry.n_units):
        of_units[grid.place_of(unit)] += geometry.unit_bytes(unit).size
    objects = {
        unit: {
            tuple(c // n for c, n in zip(piece.chunk, per_object, strict=True))
            for piece in geometry.pieces(unit)
        }
        for unit in range(geometry.n_units)
    }
    axis = geometry.unit_axis
    if any(len({each[: axis + 1] for each in places}) > 1 for places in objects.values()):
        return
    for one in range(geometry.n_units):
        for other in range(one):
            if objects[one] & objects[other]:
                assert grid.place_of(one) == grid.place_of(other)
    assert of_units == {place: grid.nbytes_of(place) for place in of_units}


@pytest.mark.parametrize("unit", [0, 12])
def test_without_shards_each_unit_is_whole_by_itself(unit):
    """Also the last one, which is shorter."""
    geometry = Geometry((100, 64), (8, 64), itemsize=8, page_nbytes=4096)
    grid = ObjectGrid(geometry)
    assert grid.place_of(unit) == (unit,)
    assert grid.nbytes_of(grid.place_of(unit)) == geometry.unit_bytes(unit).size


def test_a_unit_of_several_objects_makes_them_whole():
    """An object of one chunk, and units of 64 of them."""
    geometry = Geometry((1_000,), (1,), 1, 16, group_nbytes=64)
    grid = ObjectGrid(geometry, (1,))
    assert all(
        grid.nbytes_of(grid.place_of(unit)) <= geometry.unit_bytes(unit).size
        for unit in range(geometry.n_units)
    )
