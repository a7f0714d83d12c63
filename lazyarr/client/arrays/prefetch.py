"""Loads many units at once, with a progress bar."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from lazyarr import settings
from lazyarr.client.arrays.indexing import absent_units
from lazyarr.errors import LazyarrError
from lazyarr.kernel import may_start_threads
from lazyarr.units import Span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lazyarr.client.arrays.indexing import Holder

__all__ = ["announce_units", "prefetch_units"]

_N_STEPS = 100


def prefetch_units(region: Holder, units: Sequence[Span], *, wait: bool, progress: bool) -> None:
    """Load units; see `LazyArray.prefetch`."""
    # Refused, because the first units would be evicted before the last are loaded.
    nbytes = sum(span.size for span in units) * region.geometry.unit_nbytes
    limit_nbytes = settings.current().memory_limit
    if nbytes > limit_nbytes:
        raise ValueError(
            f"cannot prefetch {nbytes} bytes: the memory limit is {limit_nbytes} bytes; prefetch "
            "a part, or raise it with lazyarr.configure(memory_limit=...)"
        )
    absent = absent_units(region, units)
    if not wait and not may_start_threads():
        announce_units(region, absent)
    elif not wait:
        thread = threading.Thread(
            target=_request_quietly, args=(region, absent), name="lazyarr-prefetch", daemon=True
        )
        # A thread cannot be started when the interpreter ends.  The units are then loaded when
        # they are touched.
        with suppress(RuntimeError):
            thread.start()
    elif progress:
        _request_in_steps(region, absent)
    elif absent:
        region.owner.request(region, absent)


def announce_units(region: Holder, units: Sequence[Span]) -> None:
    """Request units, in this order, without waiting, and without learning what cannot be had."""
    # The pager goes on with a request whose client has hung up.
    with suppress(LazyarrError):
        asked = region.owner.begin_request(region, units)
        if asked is not None:
            asked.cancel()


def _request_quietly(region: Holder, units: Sequence[Span]) -> None:
    """Load units; what cannot be had is reported when it is touched."""
    with suppress(LazyarrError):
        region.owner.request(region, units)


def _request_in_steps(region: Holder, units: Sequence[Span]) -> None:
    """Load units by a hundred requests, with a progress bar that moves after each."""
    # Imported here: few programs show a bar.
    from tqdm.auto import tqdm

    total = sum(span.size for span in units)
    step = max(1, total // _N_STEPS)
    with tqdm(total=total, unit="unit", desc="prefetch") as bar:
        for span in units:
            for start in range(span.start, span.stop, step):
                part = Span(start, min(start + step, span.stop))
                region.owner.request(region, [part])
                bar.update(part.size)
