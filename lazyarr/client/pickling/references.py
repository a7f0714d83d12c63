"""What is in a pickle in place of a view: how another process comes to the same elements."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from lazyarr.client.array_ref import reopening
from lazyarr.client.pickling.shared_reference import stored_rows
from lazyarr.errors import FormatError

if TYPE_CHECKING:
    import numpy as np

    from lazyarr.client.array_ref import ArrayRef
    from lazyarr.client.pickling.changes import Changes
    from lazyarr.client.pickling.shared_reference import SharedReference

__all__ = [
    "REFERENCE_VERSION",
    "is_named_here",
    "name_opening",
    "reduce_view",
    "require_version",
]

REFERENCE_VERSION = 6
"""Version of pickled references, increased whenever their meaning changes.

The process that unpickles a reference must have the version of the one that pickled it.
"""


def require_version(found: object) -> None:
    """Raise unless a reference was pickled by a lazyarr that means the same by it.

    Raises
    ------
    FormatError
        When it was not.
    """
    if found != REFERENCE_VERSION:
        found = found if isinstance(found, int) else 1  # the first one had no number
        raise FormatError(
            f"cannot open what was pickled by another version of lazyarr: its references are of "
            f"version {found}, expected {REFERENCE_VERSION}; pickle it again with this one"
        )


_named_here: set[str] = set()


def name_opening() -> str:
    """Return a name for an array that was opened here, which no other opening has anywhere."""
    name = uuid.uuid4().hex
    _named_here.add(name)
    return name


def is_named_here(opening: str) -> bool:
    """Return whether this process has given an opening its name."""
    return opening in _named_here


def reduce_view(
    node: ArrayRef,
    start: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    origin: SharedReference | None = None,
    changes: Changes = (),
    opening: str = "",
) -> tuple[Any, ...]:
    """Return how a view is pickled: of which stored array, and where in it; see `Reopening`.

    `opening` names what has been opened, where `origin` does not say it.
    """
    how = (node.mode, node.memory, node.byteorder, node.format)
    place = (node.url, node.storage_options, node.metadata.path, *how)
    rows = stored_rows(node.metadata)
    if origin is not None:
        opening = f"{origin.pager}:{origin.region}"
        _named_here.add(opening)
    return reopening().view, (
        REFERENCE_VERSION,
        place,
        start,
        dtype,
        shape,
        strides,
        rows,
        origin,
        changes,
        opening,
    )
