"""Units that are kept, and threads that want the same one."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import lazyarr
from lazyarr.copying.cache import UnitCache
from lazyarr.units import Span


def unit(value, nbytes=100):
    return np.full(nbytes, value, np.uint8)


@pytest.fixture
def cache():
    with lazyarr.configure(memory_limit=350):
        yield UnitCache()


def test_the_least_recently_used_goes_first(cache):
    """Over several arrays; the maps of what is there follow."""
    one, two = cache.add_shelf(5), cache.add_shelf(5)
    for shelf, number in [(one, 0), (two, 0), (one, 1)]:
        cache.get(shelf, number, lambda: unit(1))
    cache.get(one, 0, pytest.fail)
    cache.get(two, 4, lambda: unit(1))
    assert (bytes(one.residency), bytes(two.residency)) == (b"\1\1\0\0\0", b"\0\0\0\0\1")
    assert (cache.resident_nbytes, one.nbytes, two.nbytes) == (300, 200, 100)
    assert cache.counters["evictions"] == 1


def test_what_is_not_to_be_kept_is_not(cache):
    """Nor is what is larger than the limit has become."""
    shelf = cache.add_shelf(2)
    assert cache.get(shelf, 0, lambda: unit(7), is_kept=False)[0] == 7
    assert cache.get(shelf, 1, lambda: unit(7, 351))[0] == 7
    assert (bytes(shelf.residency), cache.resident_nbytes) == (b"\0\0", 0)


def test_a_unit_can_not_be_changed_by_accident(cache):
    """What is kept is read-only, and what a user owns is a copy of it."""
    shelf = cache.add_shelf(1)
    kept = cache.get(shelf, 0, lambda: unit(7))
    assert not kept.flags.writeable
    own = cache.own(shelf, 0, pytest.fail)
    own[:] = 9
    assert (kept[0], cache.get(shelf, 0, pytest.fail)[0]) == (7, 9)
    cache.evict(shelf, Span(0, 1))
    cache.trim(0)
    assert (cache.get(shelf, 0, pytest.fail)[0], bytes(shelf.residency)) == (9, b"\1")
    assert cache.resident_nbytes == 0


class Gate:
    """A load that is held until it is told how to end."""

    def __init__(self, ending):
        self.begun, self.opened, self.ending = threading.Event(), threading.Event(), ending

    def __call__(self):
        self.begun.set()
        assert self.opened.wait(20)
        if isinstance(self.ending, BaseException):
            raise self.ending
        return unit(self.ending)


def test_an_error_reaches_all_who_wait_and_is_not_kept(cache):
    """The next one loads again."""
    shelf, gate = cache.add_shelf(1), Gate(ValueError("no"))
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(cache.get, shelf, 0, gate)
        assert gate.begun.wait(20)
        others = [threads.submit(cache.get, shelf, 0, gate) for _ in range(3)]
        gate.opened.set()
        for future in (first, *others):
            with pytest.raises(ValueError, match="no"):
                future.result(20)
    assert cache.get(shelf, 0, lambda: unit(3))[0] == 3


def test_after_an_interrupt_another_thread_loads(cache):
    """Who waits for a load that was interrupted is not interrupted."""
    shelf, gate = cache.add_shelf(1), Gate(KeyboardInterrupt())
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(cache.get, shelf, 0, gate)
        assert gate.begun.wait(20)
        second = threads.submit(cache.get, shelf, 0, lambda: unit(5))
        gate.opened.set()
        assert isinstance(first.exception(20), KeyboardInterrupt)
        assert second.result(20)[0] == 5


def test_what_is_evicted_on_its_way_is_not_kept(cache):
    """It was read before the eviction, and who asks after that must get what is there then."""
    shelf, gate = cache.add_shelf(1), Gate(1)
    with ThreadPoolExecutor(1) as threads:
        early = threads.submit(cache.get, shelf, 0, gate)
        assert gate.begun.wait(20)
        cache.evict(shelf, Span(0, 1))
        assert cache.get(shelf, 0, lambda: unit(2))[0] == 2
        gate.opened.set()
        assert early.result(20)[0] == 1
    assert cache.get(shelf, 0, pytest.fail)[0] == 2


def test_the_cache_keeps_no_array_alive(cache):
    """What an array held is gone with it."""
    shelf = cache.add_shelf(3)
    cache.get(shelf, 0, lambda: unit(1))
    del shelf
    gc.collect()
    assert (cache.resident_nbytes, cache.n_shelves) == (0, 0)


def test_a_dirty_unit_stays_and_counts(cache):
    """Until it is written back; then it is kept like any other."""
    shelf = cache.add_shelf(4)
    changed = cache.begin_change(shelf, 0, lambda: unit(1))
    changed.data[:] = 2
    cache.end_change(changed)
    assert cache.replace(shelf, 1, unit(3))
    assert not cache.replace(shelf, 1, unit(9))
    for number in (2, 3):
        cache.get(shelf, number, lambda: unit(5))
    assert bytes(shelf.residency) == b"\3\3\0\1"
    assert (cache.resident_nbytes, cache.dirty_nbytes, cache.n_dirty) == (300, 200, 2)
    cache.evict(shelf, Span(0, 4))
    assert bytes(shelf.residency) == b"\3\3\0\0"
    assert [cache.copy_dirty(shelf, number)[0] for number in (0, 1)] == [2, 3]
    cache.end_writing_back(shelf, [0, 1])
    assert (bytes(shelf.residency), cache.dirty_nbytes) == (b"\1\1\0\0", 0)
    assert not cache.get(shelf, 0, pytest.fail).flags.writeable
    cache.trim(0)
    assert cache.resident_nbytes == 0


def test_a_unit_that_is_changed_after_it_was_copied_stays_dirty(cache):
    """Also one that somebody is still changing."""
    shelf = cache.add_shelf(2)
    for number in (0, 1):
        changed = cache.begin_change(shelf, number, lambda: unit(1))
        cache.copy_dirty(shelf, number)
        if number:
            cache.end_change(changed)
    cache.end_writing_back(shelf, [0, 1])
    assert sorted(shelf.dirty) == [0, 1]
    cache.copy_dirty(shelf, 1)
    cache.end_writing_back(shelf, [0, 1])
    assert sorted(shelf.dirty) == [0]


def test_what_was_loaded_before_a_unit_was_replaced_is_not_changed(cache):
    """Nor kept: what replaced it may have been written back and gone in the meantime."""
    shelf, gate, loads = cache.add_shelf(1), Gate(1), []

    def load():
        loads.append(len(loads))
        return gate() if len(loads) == 1 else unit(7)

    with ThreadPoolExecutor(1) as threads:
        late = threads.submit(cache.begin_change, shelf, 0, load)
        assert gate.begun.wait(20)
        assert cache.replace(shelf, 0, unit(7))
        cache.copy_dirty(shelf, 0)
        cache.end_writing_back(shelf, [0])
        cache.evict(shelf, Span(0, 1))
        gate.opened.set()
        assert late.result(20).data[0] == 7
    assert loads == [0, 1]
