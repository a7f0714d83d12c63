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
        warn_user(
            f"array {notice['array']!r} of {notice['url']}: its {notice['units']} units of "
            f"chunks were loaded {notice['units_loaded']} times, as the memory limit leaves no "
            "room to keep them until they are used again; where NumPy or C code goes across "
            "chunks of plain memory (np.array(x, order='F'), pandas.DataFrame(x)) give it "
            "x.copy('F') or slices that fit, or raise the limit with "
            "lazyarr.configure(memory_limit=...)",
            PerformanceWarning,
        )
