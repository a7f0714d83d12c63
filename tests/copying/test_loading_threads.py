"""Helpers that load beside the reader's own thread."""

from __future__ import annotations

import threading

import pytest

from lazyarr.copying.loading_threads import LoadingThreads
from lazyarr.errors import ChunkError


@pytest.fixture(scope="module")
def threads():
    return LoadingThreads()


@pytest.mark.parametrize("n_threads", [1, 2, 7])
def test_each_item_is_done_once_before_it_returns(threads, n_threads):
    """On as many threads as there may be, however few items there are."""
    for n_items in (0, 1, 3, 500):
        done = []
        threads.run(iter(range(n_items)), done.append, n_threads=n_threads)
        assert sorted(done) == list(range(n_items))


def test_items_are_done_at_the_same_time(threads):
    """Three that wait for one another all go on."""
    barrier = threading.Barrier(3, timeout=20)
    threads.run(iter(range(3)), lambda _: barrier.wait(), n_threads=3)
    assert not barrier.broken


def test_the_first_chunk_error_is_raised_with_the_others_as_notes(threads):
    """By the order of items, whichever came first; all items are tried."""
    done = []

    def do(item):
        done.append(item)
        if item % 3 == 1:
            raise ChunkError(f"chunk {item}", chunk=(item,))

    with pytest.raises(ChunkError) as caught:
        threads.run(iter(range(9)), do, n_threads=4)
    assert caught.value.chunk == (1,)
    assert caught.value.__notes__ == ["also: chunk 4", "also: chunk 7"]
    assert sorted(done) == list(range(9))


@pytest.mark.parametrize("error", [ValueError, MemoryError, KeyboardInterrupt])
def test_another_error_ends_it(threads, error):
    """It is raised whichever thread it came up in, and the helpers go on with other work."""

    def do(item):
        if item == 5:
            raise error

    with pytest.raises(error):
        threads.run(iter(range(10**9)), do, n_threads=3)
    done = []
    threads.run(iter(range(100)), done.append, n_threads=3)
    assert len(done) == 100


def test_an_error_of_the_items_is_raised(threads):
    """Items that could not be planned are not taken for the end."""

    def items():
        yield from range(20)
        raise ZeroDivisionError

    for _ in range(20):
        with pytest.raises(ZeroDivisionError):
            threads.run(items(), lambda _: None, n_threads=3)
