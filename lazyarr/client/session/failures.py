"""From what the pager says went wrong to the exception that is raised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazyarr.errors import ChunkError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["raise_first", "raise_together"]

_MAX_NOTES = 8


def raise_first(failures: list[dict[str, Any]]) -> None:
    """Raise the first failure of a request; the others become its notes."""
    raise_together([ChunkError(failure.pop("message"), **_tuples(failure)) for failure in failures])


def raise_together(errors: Sequence[ChunkError]) -> None:
    """Raise the first of some errors, if there are any; the others become its notes."""
    if not errors:
        return
    # A request for many chunks may fail in all of them, as when a server is away.  One
    # exception with a few notes can be read; a group of thousands cannot.
    for other in errors[1:_MAX_NOTES]:
        errors[0].add_note(f"also: {other}")
    if len(errors) > _MAX_NOTES:
        errors[0].add_note(f"and {len(errors) - _MAX_NOTES} more")
    try:
        raise errors[0]
    finally:
        # An error that its own traceback refers to would keep the array, and its memory,
        # until the next garbage collection.
        del errors


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields with the tuples that JSON has made lists."""
    return {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
