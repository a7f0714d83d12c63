"""What was read of tables lately, within one bound for all tables of a process.

A dataset may have a thousand arrays, each with a table of its own in the pager.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from lazyarr.kernel import renew_in_child

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["KEPT", "Kept"]


class Kept:
    """Values by key, the least recently used of which go when they take too much memory.

    Safe to use from several threads.  A forked child begins with none.

    Parameters
    ----------
    limit_nbytes : int
        How much memory all values may take; the newest one is kept in any case.
    """

    def __init__(self, limit_nbytes: int) -> None:
        self.limit_nbytes = limit_nbytes
        self._start_anew()
        renew_in_child(self._start_anew)

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._nbytes = 0

    def __repr__(self) -> str:
        return f"<Kept: {len(self._values)} values, {self._nbytes} bytes>"

    def get(self, key: Hashable) -> Any:
        """Return a value; None when it is not kept."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                return None
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: object, nbytes: int) -> None:
        """Keep a value that takes so much memory."""
        with self._lock:
            self._nbytes += nbytes - self._values.pop(key, (None, 0))[1]
            self._values[key] = (value, nbytes)
            while self._nbytes > self.limit_nbytes and len(self._values) > 1:
                self._nbytes -= self._values.popitem(last=False)[1][1]


KEPT = Kept(64 << 20)
"""Of all tables of this process: sixty Parquet files of ten thousand references, for example."""
