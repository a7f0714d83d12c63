"""Warnings that are shown with the line of the user's program that called lazyarr."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["warn_user"]


def warn_user(message: str, category: type[Warning]) -> None:
    """Warn with the file and line of the first caller outside lazyarr."""
    # `stacklevel` counts frames from this function, which is 1.
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as the warnings module does
    depth = 2
    while frame is not None and frame.f_globals.get("__name__", "").startswith("lazyarr."):
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, category, stacklevel=depth)
