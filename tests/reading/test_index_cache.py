"""The cache of shard indexes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from lazyarr.errors import StoreError
from lazyarr.reading.index_cache import IndexCache

SECONDS = 20


@dataclass
class Index:
    """As much of an index as the cache looks at."""

    nbytes: int = 936  # 1000 with what the cache adds for itself


class Fetcher:
    """Counts how often it is asked."""

    def __init__(self, index: Index | None) -> None:
        self.index = index
        self.n_calls = 0

    def __call__(self) -> Index | None:
        self.n_calls += 1
        return self.index


@pytest.mark.parametrize("index", [Index(), None], ids=["there", "missing"])
def test_index_is_fetched_once(index):
    """Also that there is none."""
    cache = IndexCache()
    fetcher = Fetcher(index)
    assert cache.get(("a",), fetcher) is cache.get(("a",), fetcher) is index
    assert fetcher.n_calls == 1
    assert cache.known(("a",)) is index


def test_least_recently_used_goes_first():
    """When there are more than fit."""
    cache = IndexCache(limit_nbytes=2500)
    fetchers = {name: Fetcher(Index()) for name in "abc"}
    for name in "abac":
        cache.get((name,), fetchers[name])
    assert repr(cache) == "<IndexCache: 2 indexes, 2000 bytes>"
    for name in "acb":
        cache.get((name,), fetchers[name])
    assert {name: fetcher.n_calls for name, fetcher in fetchers.items()} == {"a": 1, "b": 2, "c": 1}


def test_one_that_is_larger_than_the_limit_is_kept_all_the_same():
    """Every chunk of a shard would fetch it again otherwise."""
    cache = IndexCache(limit_nbytes=10)
    fetcher = Fetcher(Index())
    cache.get(("a",), fetcher)
    cache.get(("a",), fetcher)
    assert fetcher.n_calls == 1


def test_cleared_cache_fetches_again():
    """One of the indexes may have been what was wrong."""
    cache = IndexCache()
    fetcher = Fetcher(Index())
    cache.get(("a",), fetcher)
    cache.clear()
    assert cache.known(("a",)) is None
    assert repr(cache) == "<IndexCache: 0 indexes, 0 bytes>"
    cache.get(("a",), fetcher)
    assert fetcher.n_calls == 2


def test_failure_is_not_kept():
    """The next one who asks tries again."""
    cache = IndexCache()

    def fail() -> None:
        raise StoreError("dropped")

    with pytest.raises(StoreError):
        cache.get(("a",), fail)
    fetcher = Fetcher(Index())
    assert cache.get(("a",), fetcher) is fetcher.index


class Meeting:
    """Threads that ask for one index while the first of them fetches it."""

    def __init__(self, cache: IndexCache, end: Callable[[], Index | None]) -> None:
        self.outcomes: list[object] = []
        self.n_calls = 0
        self._cache = cache
        self._end = end
        self._let_go = threading.Event()
        self._fetching = threading.Event()
        threads = [threading.Thread(target=self._ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        assert self._fetching.wait(SECONDS)
        self._let_go.set()
        for thread in threads:
            thread.join(SECONDS)

    def _fetch(self) -> Index | None:
        self.n_calls += 1
        self._fetching.set()
        assert self._let_go.wait(SECONDS)
        return self._end()

    def _ask(self) -> None:
        try:
            self.outcomes.append(self._cache.get(("a",), self._fetch))
        except StoreError as error:
            self.outcomes.append(str(error))


def test_threads_that_ask_at_once_get_one_index():
    """All of them, from one fetch."""
    meeting = Meeting(IndexCache(), Index)
    assert meeting.n_calls == 1
    assert len(meeting.outcomes) == 8
    assert all(outcome is meeting.outcomes[0] for outcome in meeting.outcomes)


def test_other_indexes_are_not_waited_for():
    """A slow shard does not hold up the others."""
    cache = IndexCache()
    fetcher = Fetcher(Index())

    def fetch_while_another_is_fetched() -> Index:
        cache.get(("b",), fetcher)
        return Index()

    Meeting(cache, fetch_while_another_is_fetched)
    assert fetcher.n_calls == 1


def test_threads_that_wait_share_a_failure():
    """They do not wait for one time-out after the other."""
    cache = IndexCache()
    waited_for = []

    def fail() -> None:
        waited_for.append(cache._fetching["a",])
        raise StoreError("timed out")

    with pytest.raises(StoreError, match="timed out"):
        cache.get(("a",), fail)
    with pytest.raises(StoreError, match="timed out"):
        waited_for[0].result()
