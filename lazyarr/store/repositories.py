"""Which places are icechunk repositories: by an option that says so, or by what lies there."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from lazyarr.errors import StoreError
from lazyarr.store.urls import local_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazyarr.store.base import Store

__all__ = [
    "AUTHORIZED",
    "SESSION",
    "VERSIONS",
    "is_repository",
    "means_repository",
    "place_of_session",
]

VERSIONS = ("branch", "tag", "snapshot")
"""Storage options that name a version of a repository, by icechunk's words."""

AUTHORIZED = "authorize_virtual_chunk_access"
"""A storage option: from which places chunks may be read that lie outside of the repository.

Named as in icechunk.  There are keys and tokens in it.
"""

SESSION = "icechunk_session"
"""A storage option: a session of icechunk's as text, in place of what would open one.

There may be keys and tokens in it.
"""

_SCHEMES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "http", "https")
# The first bytes of icechunk's files (icechunk specification, "File Layout").
_MAGIC = "ICE🧊CHUNK".encode()
_REFERENCE_NBYTES = 1 << 12


def means_repository(url: str | os.PathLike[str], options: Mapping[str, Any]) -> bool:
    """Return whether options say that there is a repository at a URL, so that nobody need look.

    Examples
    --------
    >>> means_repository("s3://bucket/repo", {"branch": "main"})
    True
    >>> means_repository("s3://bucket/repo", {"anon": True})
    False
    """
    if SESSION in options:
        return True
    if not any(name in options for name in (*VERSIONS, AUTHORIZED)):
        return False
    if local_path(url) is not None:
        return True
    scheme, separator, _ = str(url).partition("://")
    return bool(separator) and "::" not in str(url) and scheme in _SCHEMES


def place_of_session(
    url: Any, options: Mapping[str, Any] | None
) -> tuple[str | os.PathLike[str], Mapping[str, Any] | None]:
    """Return a URL and storage options, also where a session of icechunk's, or its store, is given.

    Raises
    ------
    TypeError
        When it is neither a path, nor a URL, nor a session.
    ValueError
        When the session may have changes that nobody else can see.
    """
    if not type(url).__module__.startswith("icechunk."):
        is_place = isinstance(url, str | bytes | os.PathLike)
        if is_place:
            return url, options
        raise TypeError(f"expected a path or a URL, found {_describe(url)}")
    import base64
    import pickle

    session = getattr(url, "session", url)
    if not hasattr(session, "snapshot_id"):
        raise TypeError(
            f"expected a path, a URL, or a session of icechunk's, found a {type(url).__name__}; "
            "give repository.readonly_session(...)"
        )
    if not session.read_only:
        raise ValueError(
            "the session of icechunk's can be written to, and what it has not committed cannot be "
            "read elsewhere; give repository.readonly_session(...)"
        )
    text = base64.b64encode(pickle.dumps(session)).decode()
    return f"icechunk://{session.snapshot_id}", {**(options or {}), SESSION: text}


def _describe(given: Any) -> str:
    """Return what was given in place of a path, and what to do."""
    if given is None:
        return "None; give where the store or the file is"
    module = type(given).__module__.partition(".")[0]
    kind = f"{'' if module == 'builtins' else f'{module}.'}{type(given).__name__}"
    if hasattr(given, "__array_interface__"):
        return f"{kind}; use it as it is, for it is an array already"
    return f"{kind}; give the path or the URL that it was opened by"


def is_repository(store: Store) -> bool:
    """Return whether a store's root is that of an icechunk repository; asks for two objects.

    Version 2 has an object ``repo`` there, version 1 one for each branch, of which there is
    always one that is called ``main``.
    """
    try:
        start = store.read_range("repo", 0, len(_MAGIC))
        if start is not None and bytes(start) == _MAGIC:
            return True
        reference = store.read("refs/branch.main/ref.json", limit_nbytes=_REFERENCE_NBYTES)
    except StoreError as error:
        if error.transient:
            raise
        return False  # something else has this name, or the store refuses what does not exist
    try:
        return reference is not None and "snapshot" in json.loads(reference)
    except (ValueError, TypeError, RecursionError):
        return False
