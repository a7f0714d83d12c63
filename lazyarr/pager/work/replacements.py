"""Which shards are being replaced, and which loads read from them: never both at once.

1. A load reads the index of a shard.  2. The shard is written anew, with another index.  3. The
load reads a chunk where the old index says.  It gets bytes of another chunk, and where nothing
checks them nobody notices.

So a shard is replaced when the loads that read from it have ended, and those that come meanwhile
wait.  An object that is one chunk needs none of this: while its unit is written back it is in
memory, and is not loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeAlias

__all__ = ["Replacements"]

Object: TypeAlias = tuple[int, str]
"""A region, and the key of an object of its array."""


class Replacements:
    """Shards that are being replaced, and the loads that read or are to read from shards.

    All methods are called with the core's lock held.
    """

    def __init__(self) -> None:
        self._keys: dict[tuple[int, int], tuple[str, ...]] = {}
        self._n_readers: Counter[Object] = Counter()
        # Of each shard that is being replaced, how often, and the loads that wait for the last end.
        # Two batches may each have chunks of one shard; who puts them takes turns.
        self._n_replaced: Counter[Object] = Counter()
        self._waiting: dict[Object, list[Callable[[], None]]] = {}
        # Replacements that wait for loads to end: of which shards, and what begins then.
        self._to_begin: list[tuple[set[Object], Callable[[], None]]] = []

    def __repr__(self) -> str:
        return f"<Replacements: {len(self._waiting)} shards, {len(self._keys)} loads>"

    def are_under_way(self, region: int, keys: Iterable[str]) -> bool:
        """Return whether any of these shards is being replaced."""
        return any((region, key) in self._waiting for key in keys)

    def begin_load(
        self, region: int, unit: int, keys: tuple[str, ...], again: Callable[[], None]
    ) -> bool:
        """Take down that a load reads from shards; return False when it must wait.

        Then `again` is called when it may be tried again.
        """
        for key in keys:
            if (region, key) in self._waiting:
                self._waiting[region, key].append(again)
                return False
        if keys:
            self._keys[region, unit] = keys
            self._n_readers.update((region, key) for key in keys)
        return True

    def end_load(self, region: int, unit: int) -> None:
        """Take down that a load has ended; begin the replacements that have waited for it."""
        for key in self._keys.pop((region, unit), ()):
            self._n_readers[region, key] -= 1
            if self._n_readers[region, key]:
                continue
            del self._n_readers[region, key]
            for objects, _ in self._to_begin:
                objects.discard((region, key))
        ready = [begin for objects, begin in self._to_begin if not objects]
        if ready:
            self._to_begin = [found for found in self._to_begin if found[0]]
        for begin in ready:
            begin()

    def begin(self, region: int, keys: Iterable[str], begin: Callable[[], None]) -> None:
        """Let no load read from shards any more; call `begin` when none does."""
        objects = {(region, key) for key in keys}
        self._n_replaced.update(objects)
        for each in objects:
            self._waiting.setdefault(each, [])
        busy = {each for each in objects if self._n_readers[each]}
        if busy:
            self._to_begin.append((busy, begin))
        else:
            begin()

    def end(self, region: int, keys: Iterable[str]) -> None:
        """Take down that shards have been replaced; let the loads go on that have waited."""
        waiting: list[Callable[[], None]] = []
        for key in keys:
            self._n_replaced[region, key] -= 1
            if not self._n_replaced[region, key]:
                del self._n_replaced[region, key]
                waiting += self._waiting.pop((region, key))
        for again in waiting:
            again()
