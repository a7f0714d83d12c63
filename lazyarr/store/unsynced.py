"""Directories whose names have changed and are not yet forced to the disk."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

from lazyarr.kernel import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Unsynced"]


class Unsynced:
    """The directories of one store that `force` is still to be called for.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._paths: set[str] = set()
        self._start_anew()
        _all.add(self)

    def _start_anew(self) -> None:
        """Let go of locks: in a forked child nobody holds them."""
        self._lock = threading.Lock()
        self._forcing = threading.Lock()

    def __repr__(self) -> str:
        return f"<Unsynced: {len(self._paths)} directories>"

    def add(self, path: str) -> None:
        """Take down that names in a directory have changed."""
        with self._lock:
            self._paths.add(path)

    def force(self, force: Callable[[str], None]) -> None:
        """Have all directories forced that were added before; those that fail stay.

        Another thread that is forcing some of them now is waited for.
        """
        with self._forcing:
            with self._lock:
                paths, self._paths = self._paths, set()
            try:
                for path in sorted(paths):
                    force(path)
            except BaseException:
                with self._lock:
                    self._paths |= paths
                raise


_all: weakref.WeakSet[Unsynced] = weakref.WeakSet()


def _start_all_anew() -> None:
    for unsynced in list(_all):
        unsynced._start_anew()  # noqa: SLF001 - the module's own class


renew_in_child(_start_all_anew)
