"""From what the pager says went wrong to the exception that is raised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazyarr.errors import ChunkError, LazyarrError, PagerError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["do_each", "raise_first", "raise_together"]

_MAX_NOTES = 8

# What a failure may say that it is; a chunk that cannot be had says nothing.
_CLASSES: dict[str, type[LazyarrError]] = {
    each.__name__: each for each in (ChunkError, StoreError, PagerError)
}


def raise_first(failures: list[dict[str, Any]]) -> None:
    """Raise the first failure of a request; the others become its notes."""
    raise_together([_error_of(failure) for failure in failures])


def _error_of(failure: dict[str, Any]) -> LazyarrError:
    fields = _tuples(failure)
    message, kind = fields.pop("message"), fields.pop("error", "ChunkError")
    return _CLASSES.get(kind, StoreError)(message, **fields)


def raise_together(errors: Sequence[LazyarrError]) -> None:
    """Raise the first of some errors, if there are any; the others become its notes."""
    if not errors:
        return
    # A request for many chunks may fail in all of them, as when a server is away.  One
    # exception with a few notes can be read; a group of thousands cannot.
    notes: list[str] = []
    for other in errors[1:_MAX_NOTES]:
        if other is errors[0]:
            continue
        notes += [f"also: {other}", *getattr(other, "__notes__", ())]
    if len(errors) > _MAX_NOTES:
        notes.append(f"and {len(errors) - _MAX_NOTES} more")
    # Each once: units may fail by one error, and one that was raised before has notes of its own.
    for note in dict.fromkeys(notes):
        if note not in getattr(errors[0], "__notes__", ()):
            errors[0].add_note(note)
    try:
        raise errors[0]
    finally:
        # An error that its own traceback refers to would keep the array, and its memory,
        # until the next garbage collection.
        del errors


def do_each(*acts: Callable[[], Any]) -> list[Any]:
    """Call some functions one after the other, also after one that fails, and return their results.

    Raises
    ------
    LazyarrError
        The first that one of them raises, when all have been called; see `raise_together`.
    """
    results: list[Any] = []
    errors: list[LazyarrError] = []
    for act in acts:
        try:
            results.append(act())
        except LazyarrError as error:
            errors.append(error)
    raise_together(errors)
    return results


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields with the tuples that JSON has made lists."""
    return {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
