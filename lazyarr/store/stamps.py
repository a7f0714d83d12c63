"""Whether the files that were read are certainly still what they were."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING

from lazyarr.kernel import Stamp, renew_in_child, stamp_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from lazyarr.store.base import Store

__all__ = ["Look", "Stamps", "is_unchanged"]

_MAX_KEYS = 4096
_PATIENCE_SECONDS = 10.0
# What the kernel takes the time of a change from (linux/time.h; current_time() in fs/inode.c).
_CLOCK_REALTIME_COARSE = 5
# Times in whole milliseconds are those of a file system that keeps them in steps, of up to
# two seconds (FAT); the others keep nanoseconds.
_STEP_NS, _LONGEST_STEP_NS = 10**6, 2 * 10**9


def is_unchanged(store: Store) -> bool:
    """Return whether every object that was read of a store is certainly what it was.

    False also for a store that cannot tell.

    Raises
    ------
    OSError
        When it cannot be asked.
    """
    ask: Callable[[], bool] | None = getattr(store, "is_unchanged", None)
    return ask is not None and ask()


class Stamps:
    """What files were like when they were opened, for telling later that none has changed.

    It is a proof, not a guess:

    - A file's stamp is taken before it is read, so that a change during the read shows.
    - A stamp counts only if the clock has gone on since the file's last change: the next one
      could bear the same time otherwise, and would not show.
    - Two different stamps of one key mean that bytes of both may be in use: that never
      becomes right again.  Nor is there a proof for more keys than are kept.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._start_anew()
        _all.add(self)
        self._seen: dict[str, Stamp | None] = {}
        self._is_lost = False

    def _start_anew(self) -> None:
        """Forget who looks and who asks: in a forked child nobody does, whoever held the lock."""
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._under_way: set[Look] = set()
        self._n_asking = 0

    def __repr__(self) -> str:
        return f"<Stamps: {len(self._seen)} keys{', lost' if self._is_lost else ''}>"

    def looking(self) -> Look:
        """Return a context in which a file is opened and noted.

        Whoever asks meanwhile whether all is as it was waits for its end:

        1. a thread opens a file, and has not noted it yet
        2. the file is replaced
        3. somebody asks, hears of no change, and goes on with what the thread will have read
        """
        return Look(self)

    def begin(self, look: Look) -> None:
        """Take down that a file is about to be opened."""
        with self._lock:
            self._under_way.add(look)

    def end(self, look: Look) -> None:
        """Take down that it was noted, or could not be opened."""
        with self._lock:
            self._under_way.discard(look)
            if self._n_asking:
                self._ended.notify_all()

    def note(self, key: str, status: os.stat_result | None, since_ns: int) -> None:
        """Take down what a file is like; None when there is none."""
        stamp = None if status is None else stamp_of(status)
        with self._lock:
            if self._is_lost:
                return
            is_proof = stamp is None or _is_settled(stamp, since_ns)
            is_same = self._seen.setdefault(key, stamp) == stamp
            if not is_proof or not is_same or len(self._seen) > _MAX_KEYS:
                self._is_lost = True
                self._seen.clear()

    def are_current(self, look: Callable[[str], Stamp | None]) -> bool:
        """Return whether every file that was noted is certainly unchanged.

        Parameters
        ----------
        look : callable
            Returns the stamp that a key has now, None when there is no such file.

        Raises
        ------
        OSError
            When `look` does.
        """
        with self._lock:
            begun = set(self._under_way)
            self._n_asking += 1
            is_settled = self._ended.wait_for(
                lambda: begun.isdisjoint(self._under_way), _PATIENCE_SECONDS
            )
            self._n_asking -= 1
            if self._is_lost or not is_settled:
                return False
            seen = dict(self._seen)
        return all(look(key) == stamp for key, stamp in seen.items())


class Look:
    """One file that is opened and noted; see `Stamps.looking`."""

    __slots__ = ("_since_ns", "_stamps")

    def __init__(self, stamps: Stamps) -> None:
        self._stamps = stamps
        self._since_ns = 0

    def __enter__(self) -> Look:
        """Begin, before the file is opened."""
        self._stamps.begin(self)
        self._since_ns = _clock_ns()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stamps.end(self)

    def note(self, key: str, status: os.stat_result | None) -> None:
        """Take down what the file is like; None when there is none."""
        self._stamps.note(key, status, self._since_ns)


def _is_settled(stamp: Stamp, since_ns: int) -> bool:
    """Return whether any change after `since_ns` must give the file another stamp."""
    is_stepped = stamp.changed_ns % _STEP_NS == 0
    return stamp.changed_ns + (_LONGEST_STEP_NS if is_stepped else 0) < since_ns


def _clock_ns() -> int:
    """Return the time of a change that would be made now; 0 where that is not known."""
    if sys.platform != "linux":
        return 0
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)


_all: weakref.WeakSet[Stamps] = weakref.WeakSet()


def _start_all_anew() -> None:
    for stamps in list(_all):
        stamps._start_anew()  # noqa: SLF001 - the module's own class


renew_in_child(_start_all_anew)
