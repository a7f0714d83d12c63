"""What is said to be in memory, against a map looked at unit by unit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.client.arrays.indexing import absent_units, clean_units
from lazyarr.client.arrays.residency import residency_of
from lazyarr.client.session.residency_map import dirty_units
from lazyarr.kernel import PAGE_NBYTES, create_memfd, map_shared, memory_view, unmap
from lazyarr.layout.geometry import Geometry
from lazyarr.plan.selection import merge_spans
from lazyarr.units import Span


@dataclass
class Held:
    """An array's arithmetic and its residency map."""

    geometry: Geometry
    residency: memoryview
    address: int = 0
    owner: Any = None


SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=4)


@given(
    st.sampled_from([((100,), (7,)), ((9, 13), (1, 5)), ((64, 3), (16, 3)), ((5,), (9,))]),
    st.binary(min_size=60, max_size=60),
    SPANS,
)
def test_residency_is_that_of_each_unit(shapes, bits, starts):
    """Bytes, units, runs and map, of some units in order."""
    geometry = Geometry(*shapes, itemsize=3, page_nbytes=16)
    states = np.array([(0, 1, 3)[bit % 3] for bit in bits][: geometry.n_units], np.uint8)
    resident, dirty = states & 1, states & 2
    whole = Span(0, geometry.n_units)
    spans = merge_spans(Span(start, start + size) & whole for start, size in starts)
    found = residency_of(Held(geometry, states.data), spans)
    units = [unit for span in spans for unit in range(*span)]
    here = [unit for unit in units if resident[unit]]
    assert found.map.tolist() == [bool(resident[unit]) for unit in units]
    assert (found.resident_units, found.total_units) == (len(here), len(units))
    written = [unit for unit in units if dirty[unit]]
    assert found.dirty_units == len(written)
    assert found.dirty_nbytes == sum(geometry.unit_bytes(unit).size for unit in written)
    assert found.resident_nbytes == sum(geometry.unit_bytes(unit).size for unit in here)
    assert found.total_nbytes == sum(geometry.unit_bytes(unit).size for unit in units)
    assert (found.runs[:, 1] > found.runs[:, 0]).all()
    for start in range(len(units)):
        assert found.count(start, start + 5) == found.map[start : start + 5].sum()


@pytest.mark.parametrize("n_units", [1 << 33, (1 << 21) + 5])
def test_the_map_of_a_sparse_array_is_looked_at_where_it_is_written(n_units):
    """Of eight thousand million units none but a few has memory, before and after."""
    geometry = Geometry((n_units * PAGE_NBYTES,), (PAGE_NBYTES,), 1, PAGE_NBYTES)
    assert geometry.n_units == n_units
    nbytes = -(-n_units // PAGE_NBYTES) * PAGE_NBYTES
    memfd = create_memfd("map", nbytes=nbytes)
    address = map_shared(memfd, 0, nbytes, writable=True)
    view = memory_view(address, n_units, writable=True)
    wanted = [0, 1, 4095, 4096, 8191, (1 << 20) + 17, n_units - 2, n_units - 1]
    for unit in wanted:
        view[unit] = 1
    held = Held(geometry, view)
    found = residency_of(held, [Span(0, n_units)])
    assert found.resident_units == len(wanted)
    assert [unit for run in found.runs.tolist() for unit in range(*run)] == wanted
    assert list(dirty_units(view, Span(0, n_units))) == []
    view[8191] = 3
    assert list(dirty_units(view, Span(5, n_units))) == [8191]
    part = residency_of(held, [Span(1, 1 << 21)])
    assert [unit + 1 for run in part.runs.tolist() for unit in range(*run)] == wanted[1:6]
    assert os.fstat(memfd).st_blocks * 512 <= len(wanted) * PAGE_NBYTES
    view.release()
    unmap(address, nbytes)
    os.close(memfd)


@given(st.binary(max_size=40), SPANS)
def test_what_is_not_resident_or_not_dirty_is_found(bits, starts):
    """Runs of units that a request has to bring, or has to make writable."""
    states = bytes((0, 1, 3)[bit % 3] for bit in bits)
    spans = [Span(start, start + size) & Span(0, len(states)) for start, size in starts]
    held = Held(Geometry((1,), (1,), 1, 1), memoryview(states))
    wanted = [unit for span in spans for unit in range(*span)]
    for find, there in ((absent_units, (1, 3)), (clean_units, (3,))):
        found = [unit for span in find(held, spans) for unit in range(*span)]
        assert found == [unit for unit in wanted if states[unit] not in there]
