from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lazyarr.writer.boxes import slices_in, whole
from lazyarr.writer.indexing import parse_index


@given(st.data(), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))
def test_selects_what_numpy_selects(data, shape):
    """Any index without steps has the elements and the shape that NumPy gives it."""
    index = data.draw(hnp.basic_indices(shape, allow_ellipsis=True))
    parts = index if isinstance(index, tuple) else (index,)
    index = tuple(slice(p.start, p.stop) if isinstance(p, slice) else p for p in parts)
    numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    selection = parse_index(index, shape)
    assert selection.shape == numbers[index].shape
    found = numbers[slices_in(selection.box, whole(shape))]
    assert np.array_equal(found.reshape(selection.shape), numbers[index])


@pytest.mark.parametrize(
    "index",
    [
        *(slice(0, 4, 2), slice(None, None, -1), [0, 1], None, True, 1.5, "x", 7, -8),
        *((0, 0, 0), (..., ...), np.array([True] * 7)),
    ],
    ids=str,
)
def test_refuses_the_rest(index):
    """Steps, lists, masks, new axes and what lies outside raise IndexError."""
    with pytest.raises(IndexError):
        parse_index(index, (7, 3))


def test_takes_integers_of_numpy():
    """An index from `numpy.arange` counts as an integer."""
    assert parse_index(np.int64(2), (7, 3)).shape == (3,)
