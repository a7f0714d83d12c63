"""Messages of the pager on the user's stderr."""

from __future__ import annotations

import os

__all__ = ["report"]


def report(message: str) -> None:
    """Write a message to stderr in one call, so that it is not mixed with the client's."""
    try:
        os.write(2, f"lazyarr: {message}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        # The user has closed stderr, or its pipe has no reader.  There is no better place,
        # and a message is no reason to end.
        return
