"""Which URLs mean local files, and how they are shown without secrets."""

from __future__ import annotations

import os
import re

__all__ = ["lives_in_this_process", "local_path", "without_credentials"]


def local_path(url: str | os.PathLike[str]) -> str | None:
    """Return the path that a URL means; None when fsspec is needed for it.

    Examples
    --------
    >>> local_path("file:///data/train.zarr")
    '/data/train.zarr'
    >>> local_path("s3://bucket/train.zarr") is None
    True
    """
    if not isinstance(url, str):
        return os.fsdecode(url)
    if "::" in url:
        return None
    for scheme in ("file://", "local://"):
        if url.startswith(scheme):
            return url[len(scheme) :]
    return None if "://" in url else os.path.expanduser(url)


def without_credentials(text: str) -> str:
    """Return a URL, or a message with URLs in it, without user, password and query.

    Examples
    --------
    >>> without_credentials("simplecache::https://me:secret@host/x.zarr?signature=abc")
    'simplecache::https://host/x.zarr'
    """
    anonymous = re.sub(r"://[^/\s]*@", "://", text)
    return re.sub(r"\?[^\s'\"<>:]*", "", anonymous)


def lives_in_this_process(url: str) -> bool:
    """Return whether another process that opens this URL would find something else."""
    return any(part.startswith("memory:") or part == "memory" for part in url.split("::"))
