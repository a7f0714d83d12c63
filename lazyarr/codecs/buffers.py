"""Bytes as they come from a store and go into memory."""

from __future__ import annotations

from typing import TypeAlias

__all__ = ["Buffer", "as_view"]

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Contiguous bytes; a memoryview may be over anything, mapped memory included."""


def as_view(data: Buffer) -> memoryview:
    """Return contiguous bytes as a memoryview whose length is in bytes, without a copy.

    Raises
    ------
    TypeError
        The memory is not contiguous.

    Examples
    --------
    >>> len(as_view(b"abcd"))
    4
    """
    view = memoryview(data)
    if view.format != "B" or view.ndim != 1:
        view = view.cast("B")
    return view
