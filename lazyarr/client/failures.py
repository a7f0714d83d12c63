"""From what the pager says went wrong to the exception that is raised."""

from __future__ import annotations

from typing import Any

from lazyarr.errors import ChunkError

__all__ = ["raise_first"]

_MAX_NOTES = 8


def raise_first(failures: list[dict[str, Any]]) -> None:
    """Raise the first failure of a request; the others become its notes."""
    if not failures:
        return
    errors = [ChunkError(failure.pop("message"), **_tuples(failure)) for failure in failures]
    for other in errors[1:_MAX_NOTES]:
        errors[0].add_note(f"also: {other}")
    if len(errors) > _MAX_NOTES:
        errors[0].add_note(f"and {len(errors) - _MAX_NOTES} more")
    raise errors[0]


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields with the tuples that JSON has made lists."""
    return {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
