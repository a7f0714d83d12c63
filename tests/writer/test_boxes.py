from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.formats.zarr import SHARD_NBYTES
from lazyarr.units import Span
from lazyarr.writer.boxes import box_shape, cells, count_cells, meet, plan_reads, slices_in, whole


@st.composite
def boxes(draw, max_side=40):
    """Draw the shape of an array and a box in it."""
    shape = tuple(draw(st.lists(st.integers(0, max_side), max_size=3)))
    box = []
    for length in shape:
        start = draw(st.integers(0, length))
        box.append(Span(start, draw(st.integers(start, length))))
    return shape, tuple(box)


@given(st.data(), boxes())
def test_cells_tile_a_box(data, drawn):
    """Cut to the box, the cells hold each of its elements once, and are as many as counted."""
    shape, box = drawn
    step = tuple(data.draw(st.integers(1, 12)) for _ in shape)
    seen = np.zeros(shape, int)
    found = list(cells(box, step))
    for place, cell in found:
        assert tuple(span.start for span in cell) == tuple(
            c * n for c, n in zip(place, step, strict=True)
        )
        seen[slices_in(meet(cell, box), whole(shape))] += 1
    assert len(found) == count_cells(box, step)
    expected = np.zeros(shape, int)
    expected[slices_in(box, whole(shape))] = 1
    assert np.array_equal(seen, expected)


@given(st.data(), boxes(), st.sampled_from([1, 1000, 2**21, 2**27]))
def test_reads_tile_a_box_and_are_bounded(data, drawn, itemsize):
    """Reads hold each element once, fit in a shard, and cut chunks only where the box does."""
    shape, box = drawn
    chunks = tuple(data.draw(st.integers(1, 6)) for _ in shape)
    objects = tuple(c * data.draw(st.integers(1, 4)) for c in chunks)
    seen = np.zeros(shape, int)
    for region in plan_reads(box, objects, chunks, itemsize):
        seen[slices_in(region, whole(shape))] += 1
        least = max(SHARD_NBYTES, math.prod(chunks) * itemsize)
        assert math.prod(box_shape(region)) * itemsize <= least
        for span, outer, chunk in zip(region, box, chunks, strict=True):
            assert span.start in (outer.start, span.start // chunk * chunk)
            assert span.stop == outer.stop or span.stop % chunk == 0
    expected = np.zeros(shape, int)
    expected[slices_in(box, whole(shape))] = 1
    assert np.array_equal(seen, expected)


def test_small_objects_are_read_together():
    """A thousand objects of a mebibyte take sixteen reads, in the order of rows."""
    reads = list(plan_reads(whole((1000, 2**20)), (1, 2**20), (1, 2**20), 1))
    assert [r[0].start for r in reads] == list(range(0, 1000, 64))
