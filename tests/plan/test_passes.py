"""The boxes that a large array is gone through in."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.plan.passes import is_in_order, plan_passes


@st.composite
def views(draw):
    """Draw an array of numbers of its elements, and a view of it as NumPy makes them."""
    shape = draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
    base = np.arange(int(np.prod(shape)), dtype=np.uint16).reshape(shape)
    steps = [draw(st.sampled_from([1, 1, 2, -1, -2])) for _ in shape]
    view = base[tuple(slice(None, None, step) for step in steps)]
    return base, view.transpose(draw(st.permutations(range(len(shape)))))


@given(views(), st.integers(1, 40), st.integers(1, 200))
def test_boxes_are_all_of_a_view(view, unit_nbytes, room_nbytes):
    """Each element lies in one box, and boxes are a grid in ascending order along each axis."""
    _, array = view
    n_seen = np.zeros(array.shape, int)
    earlier = []
    for box in plan_passes(
        array.shape, array.strides, unit_nbytes=unit_nbytes, room_nbytes=room_nbytes
    ):
        assert all(0 <= side.start < side.stop for side in box)
        n_seen[box] += 1
        starts = [side.start for side in box]
        for before in earlier:
            differing = [a < b for a, b in zip(before, starts, strict=True) if a != b]
            assert len(differing) != 1 or differing == [True]
        earlier.append(starts)
    assert (n_seen == 1).all()


@given(views(), st.integers(1, 40), st.integers(1, 200))
def test_boxes_lie_in_few_units(view, unit_nbytes, room_nbytes):
    """In no more than there is room for, or twice as many where a view begins within units."""
    base, array = view
    room_nbytes = max(room_nbytes, unit_nbytes)
    for box in plan_passes(
        array.shape, array.strides, unit_nbytes=unit_nbytes, room_nbytes=room_nbytes
    ):
        places = array[box].ravel().astype(int) * base.itemsize
        units = {place // unit_nbytes for place in places.tolist()}
        hull = max(units) - min(units) + 1
        assert min(hull, len(units)) <= 2 * -(-room_nbytes // unit_nbytes)


@given(views(), st.integers(1, 40), st.integers(1, 200))
def test_boxes_in_order_hold_the_elements_in_order(view, unit_nbytes, room_nbytes):
    """One after the other they are the flat array, where that is said of the first box."""
    _, array = view
    boxes = list(
        plan_passes(array.shape, array.strides, unit_nbytes=unit_nbytes, room_nbytes=room_nbytes)
    )
    if is_in_order(boxes[0], array.shape, array.strides):
        parts = np.concatenate([array[box].ravel() for box in boxes])
        assert parts.tolist() == array.ravel().tolist()


def test_an_array_in_order_is_cut_between_units():
    """As many of them to a box as there is room for."""
    boxes = list(
        plan_passes((32, 64, 512), (65536, 1024, 2), unit_nbytes=131072, room_nbytes=400_000)
    )
    assert [(box[0].start, box[0].stop) for box in boxes] == [
        (i, min(i + 6, 32)) for i in range(0, 32, 6)
    ]
    assert all(box[1:] == (slice(0, 64), slice(0, 512)) for box in boxes)


def test_long_rows_are_cut_themselves():
    """Where one does not fit, they come one by one, in parts."""
    boxes = list(plan_passes((2, 1 << 20), (1 << 20, 1), unit_nbytes=65536, room_nbytes=262144))
    assert boxes[0] == (slice(0, 1), slice(0, 262144))
    assert len(boxes) == 8


def test_nothing_is_cut_that_is_nothing():
    """Of no elements there is no box; of one there is one."""
    assert list(plan_passes((4, 0), (8, 8), unit_nbytes=8, room_nbytes=8)) == []
    assert list(plan_passes((), (), unit_nbytes=8, room_nbytes=8)) == [()]
    boxes = list(plan_passes((10, 10**6), (0, 1), unit_nbytes=65536, room_nbytes=300_000))
    assert all(box[0] == slice(0, 10) for box in boxes)
