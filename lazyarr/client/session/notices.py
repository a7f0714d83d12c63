"""Notices that the pager sends about arrays, shown to the user as warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazyarr.client.warning import warn_user
from lazyarr.errors import PerformanceWarning

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["warn_of_reloads"]


def warn_of_reloads(notices: Sequence[dict[str, Any]]) -> None:
    """Warn of arrays whose units are loaded again and again."""
    for notice in notices:
        counted = (
            f"its {notice['units']} units of chunks were loaded {notice['units_loaded']} times, as "
            "the memory limit leaves no room to keep them until they are used again"
        )
        remedy = (
            "where NumPy or C code goes across chunks of plain memory (np.array(x, order='F'), "
            "pandas.DataFrame(x)) give it x.copy('F') or slices that fit"
        )
        if notice.get("is_shuffled"):
            remedy = (
                "pick rows in an order that loads each chunk once: "
                "lazyarr.sampling.ChunkShuffle(x), which as sampler=lazyarr.torch.ChunkShuffle(x) "
                "takes the place of shuffle=True"
            )
        warn_user(
            f"array {notice['array']!r} of {notice['url']}: {counted}; {remedy}, or raise the "
            "limit with lazyarr.configure(memory_limit=...)",
            PerformanceWarning,
        )
