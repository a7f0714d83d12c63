"""What a stopped writer was writing, so that another one can go on where it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from lazyarr.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Plan", "is_continued", "wanted_by"]


class Plan(NamedTuple):
    """What a writer is going to write, from its first object to its last.

    Attributes
    ----------
    source : str
        What differs from this when the elements may be others.
    documents : str
        What differs from this when the documents of the store are others.
    """

    source: str
    documents: str

    def encode(self) -> bytes:
        """Return the plan as it is kept beside the objects."""
        return json.dumps(self._asdict()).encode()


def is_continued(found: bytes | None, plan: Plan | None, url: str, *, restart: bool) -> bool:
    """Return whether what a stopped writer has left is gone on with; else it is taken away.

    Parameters
    ----------
    found : bytes or None
        The plan that the stopped writer kept; None where it kept none.
    plan : Plan or None
        That of the writer which begins; None for one that cannot go on with anything.
    url : str
        The store, for the message.
    restart : bool
        Whether everything is to be written anew.

    Raises
    ------
    StoreError
        The two plans differ, and nothing was said of writing anew.
    """
    if not found or plan is None or restart:
        return False
    if found == plan.encode():
        return True
    try:
        differs = json.loads(found)["documents"] != plan.documents
    except (ValueError, LookupError, TypeError):
        return False  # nothing that a writer has kept
    why = (
        "it was to write other arrays or with other options"
        if differs
        else "its source has changed"
    )
    raise StoreError(
        f"cannot write {url}: a writer was stopped half-way there, and this one cannot go on, "
        f"since {why}; give what it was given, or pass restart=True to begin anew",
        url=url,
        key=None,
        transient=False,
    )


def wanted_by(plan: Plan | None, url: str, *, restart: bool) -> Callable[[bytes], bool] | None:
    """Return what `is_continued` says of the plan that a dead writer kept.

    None for a writer that goes on with nothing.
    """
    if plan is None or restart:
        return None
    return lambda found: is_continued(found, plan, url, restart=restart)
