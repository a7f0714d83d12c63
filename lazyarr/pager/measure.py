"""Counts of the pager, and how long its steps take."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

__all__ = ["Measurements"]

_PERCENTILES = (50, 90, 99)
_N_BUCKETS = 40  # up to half a million seconds


class Measurements:
    """Counters, and a histogram of times for each step, in powers of two of a microsecond.

    Safe to use from several threads.  The steps are:

    =========  ===================================================================================
    step       of one unit
    =========  ===================================================================================
    "fetch"    from the request for a unit of a remote store until all its chunks are there
    "load"     read, unless it was fetched, and decoded, by a thread of the worker or a decoder
    "install"  its pages installed, behind "load"
    "quick"    all that a small unit takes whose fault was served at once, under the lock
    =========  ===================================================================================
    """

    def __init__(self) -> None:
        # A lock of its own, which is held for less than a microsecond.  The worker's lock is
        # what faults wait for.
        self._lock = threading.Lock()
        # Buckets, not times: memory does not grow with the number of faults.  The cost is that
        # a percentile is known to a factor of two.
        self._buckets: dict[str, list[int]] = {}
        self._totals: dict[str, float] = {}
        self.counters: Counter[str] = Counter(bytes_fetched=0, retries=0, units_by_decoders=0)

    def add(self, step: str, seconds: float) -> None:
        """Take down how long a step took."""
        with self._lock:
            self._add(step, seconds)

    def add_load(self, load_seconds: float, install_seconds: float) -> None:
        """Take down the two steps of a unit that a thread of the worker has loaded."""
        # One call and one lock for both, because each fault comes here.
        with self._lock:
            self._add("load", load_seconds)
            self._add("install", install_seconds)

    def add_decoded(self, load_seconds: float, install_seconds: float, nbytes: int) -> None:
        """Take down the two steps of a unit that a decoder has loaded, and what it has read."""
        with self._lock:
            self._add("load", load_seconds)
            self._add("install", install_seconds)
            self.counters["units_by_decoders"] += 1
            self.counters["bytes_fetched"] += nbytes

    def _add(self, step: str, seconds: float) -> None:
        buckets = self._buckets.get(step)
        if buckets is None:
            buckets = self._buckets[step] = [0] * _N_BUCKETS
        buckets[min(int(seconds * 1e6).bit_length(), _N_BUCKETS - 1)] += 1
        self._totals[step] = self._totals.get(step, 0.0) + seconds

    def count(self, name: str, number: int) -> None:
        """Add to a counter."""
        with self._lock:
            self.counters[name] += number

    def document(self) -> dict[str, Any]:
        """Return, for each step, count, total and percentiles in seconds (upper bounds)."""
        with self._lock:
            return {
                step: {
                    "count": sum(buckets),
                    "total_seconds": self._totals[step],
                    **{f"p{p}_seconds": _percentile(buckets, p) for p in _PERCENTILES},
                }
                for step, buckets in self._buckets.items()
            }


def _percentile(buckets: list[int], percent: int) -> float:
    """Return the upper bound of the bucket in which a percentile falls, in seconds."""
    rank = sum(buckets) * percent / 100
    for bucket, count in enumerate(buckets):
        rank -= count
        if rank <= 0:
            return float(1 << bucket) / 1e6
    return 0.0
