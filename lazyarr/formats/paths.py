"""Paths of nodes in a store."""

from __future__ import annotations

__all__ = ["join_path"]


def join_path(*parts: str) -> str:
    """Return one path from several, without empty parts.

    Raises
    ------
    TypeError
        When a part is no str.

    Examples
    --------
    >>> join_path("", "a/", "b")
    'a/b'
    """
    for part in parts:
        if not isinstance(part, str):
            raise TypeError(f"{part!r:.80} names no array or group; give a str")
    return "/".join(name for part in parts for name in part.split("/") if name)
