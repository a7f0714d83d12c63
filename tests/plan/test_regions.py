"""Which region an address belongs to."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lazyarr.layout.geometry import Geometry
from lazyarr.plan.regions import AddressTable

PAGE_NBYTES = 16


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 60), st.booleans()), max_size=8),
    st.lists(st.integers(-20, 2000), max_size=30),
)
@settings(max_examples=150)
def test_address_is_found_in_the_region_that_covers_it(regions, addresses):
    """Page by page, also behind the end of the array; not in regions that were taken out."""
    table = AddressTable()
    pages: dict[int, tuple[int, int]] = {}
    end = 0
    for region, (gap, nbytes, stays) in enumerate(regions):
        start = (end + gap) * PAGE_NBYTES
        geometry = Geometry((nbytes,), (1,), 1, PAGE_NBYTES)
        end = start // PAGE_NBYTES + geometry.n_pages
        table.add(start, region, geometry)
        if stays:
            for page in range(geometry.n_pages):
                pages[start // PAGE_NBYTES + page] = (region, page)
        else:
            table.remove(start)
    for address in (*addresses, *(page * PAGE_NBYTES for page in pages)):
        assert table.find(address) == pages.get(address // PAGE_NBYTES)


def test_removing_what_is_not_there_changes_nothing():
    """An address inside of a region is not the region's."""
    table = AddressTable()
    table.add(PAGE_NBYTES, 7, Geometry((32,), (1,), 1, PAGE_NBYTES))
    table.remove(2 * PAGE_NBYTES)
    table.remove(0)
    assert table.find(2 * PAGE_NBYTES) == (7, 1)
    assert repr(table) == "<AddressTable: 1 regions>"
