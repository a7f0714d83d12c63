"""Which regions are mapped here, which are on their way out, and what finds them."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from lazyarr.client.session.region import Memory, Region
from lazyarr.client.session.region_table import RegionTable
from lazyarr.kernel import PAGE_NBYTES
from lazyarr.memory_kind import MemoryKind

ARRAY = {"url": "u", "path": "a", "layout": "int8"}


def region_at(
    address: int = 1 << 40,
    *,
    number: int = 7,
    kind: MemoryKind = MemoryKind.SHARED,
    array: dict[str, str] = ARRAY,
) -> Region:
    """Return a region of two pages that nobody has mapped."""
    return Region(
        owner=SimpleNamespace(let_go=lambda region: None),
        number=number,
        geometry=SimpleNamespace(n_pages=2, page_nbytes=PAGE_NBYTES),
        kind=kind,
        memfd=-1,
        offset=-1,
        map_memfd=-1,
        map_offset=0,
        array=array,
        descriptors=(),
        address=address,
    )


def table_of(*regions: Region) -> RegionTable:
    """Return a table with regions in it."""
    table = RegionTable()
    for region in regions:
        table.enter(region)
    return table


def test_memory_on_a_region_is_one_user_more():
    """A region that was opened again outlives its first array."""
    region = region_at()
    table = table_of(region)
    memories = [table.memory_of(7) for _ in range(2)]
    assert all(isinstance(memory, Memory) and memory.region is region for memory in memories)
    assert region.n_users == 2
    assert table.memory_of(8) is None


def test_a_region_that_leaves_is_waited_for():
    """To the pager who leaves and who comes back are one."""
    region = region_at()
    table = table_of(region)
    left = table.begin_leaving(region)
    assert (len(table), list(table)) == (0, [])
    assert table.memory_of(7) is left
    assert isinstance(left, threading.Event)
    assert not left.is_set()
    table.end_leaving(region)
    assert left.is_set()
    assert table.memory_of(7) is None


def test_a_region_leaves_once():
    """Whoever comes second has nothing to do."""
    region = region_at()
    table = table_of(region)
    assert table.begin_leaving(region) is not None
    assert table.begin_leaving(region) is None
    assert table.begin_leaving(region_at(number=8)) is None


def test_a_region_can_come_back_after_it_has_left():
    """Under the number that it had."""
    region = region_at()
    table = table_of(region)
    table.begin_leaving(region)
    table.end_leaving(region)
    table.enter(region)
    assert table.memory_of(7).region is region
    assert table.has_region_of(ARRAY)


@pytest.mark.parametrize("kind", MemoryKind)
def test_only_shared_memory_is_there_for_others(kind):
    """A private page may have been written to."""
    table = table_of(region_at(kind=kind))
    assert table.has_region_of(dict(ARRAY)) is kind.is_shared


@pytest.mark.parametrize("other", [{"url": "v"}, {"path": "b"}, {"layout": "int16"}])
def test_another_array_is_not_taken_for_it(other):
    """Nor the same one after it was written anew."""
    table = table_of(region_at())
    assert not table.has_region_of(ARRAY | other)


def test_an_array_is_there_until_the_last_of_its_regions_leaves():
    """In whatever order they go."""
    regions = [region_at(number=number) for number in range(3)]
    table = table_of(*regions)
    for n_left, region in enumerate((regions[1], regions[0], regions[2]), start=1):
        assert table.has_region_of(ARRAY)
        table.begin_leaving(region)
        assert len(table) == 3 - n_left
    assert not table.has_region_of(ARRAY)


def test_an_address_finds_the_region_that_it_lies_in():
    """From the first byte to the last, and not one that has left."""
    start = 1 << 40
    stop = start + 2 * PAGE_NBYTES
    regions = [region_at(start, number=1), region_at(stop, number=2)]
    table = table_of(*regions)
    found = [table.find(address) for address in (start, stop - 1, stop)]
    assert found == [regions[0], regions[0], regions[1]]
    assert table.find(start - 1) is None
    assert table.find(stop + 2 * PAGE_NBYTES) is None
    table.begin_leaving(regions[0])
    assert table.find(start) is None


def test_regions_may_come_and_go_while_they_are_looked_through():
    """A signal handler opens and closes arrays at any moment."""
    table = table_of(*(region_at(number=number) for number in range(3)))
    seen = []
    for region in table:
        seen.append(region.number)
        table.begin_leaving(region)
    assert seen == [0, 1, 2]
    assert list(table) == []
