"""How long the pager's steps take."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

__all__ = ["Measurements"]

_PERCENTILES = (50, 90, 99)


class Measurements:
    """Counts, and times by step in powers of two of a microsecond.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buckets: dict[str, Counter[int]] = {}
        self._totals: Counter[str] = Counter()
        self.counters: Counter[str] = Counter(bytes_fetched=0, retries=0)

    def add(self, step: str, seconds: float) -> None:
        """Take down how long a step took."""
        bucket = max(0, int(seconds * 1e6)).bit_length()
        with self._lock:
            self._buckets.setdefault(step, Counter())[bucket] += 1
            self._totals[step] += seconds  # type: ignore[assignment]

    def count(self, name: str, number: int) -> None:
        """Add to a counter."""
        with self._lock:
            self.counters[name] += number

    def document(self) -> dict[str, Any]:
        """Return, for each step, count, total and percentiles in seconds (upper bounds)."""
        with self._lock:
            return {
                step: {
                    "count": buckets.total(),
                    "total_seconds": self._totals[step],
                    **{f"p{p}_seconds": _percentile(buckets, p) for p in _PERCENTILES},
                }
                for step, buckets in self._buckets.items()
            }


def _percentile(buckets: Counter[int], percent: int) -> float:
    """Return the upper bound of the bucket in which a percentile falls, in seconds."""
    rank = buckets.total() * percent / 100
    for bucket in sorted(buckets):
        rank -= buckets[bucket]
        if rank <= 0:
            return float(1 << bucket) / 1e6
    return 0.0
