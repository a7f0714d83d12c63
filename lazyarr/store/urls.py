"""Which URLs mean local files, and how they are shown without secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

__all__ = [
    "absolute",
    "absolute_options",
    "in_archive",
    "lives_in_this_process",
    "local_path",
    "without_credentials",
]

_LOCAL = (None, "file", "local")
# Options of fsspec's that name files: of zip and reference file systems, and of caches.
_PATHS = ("fo", "cache_storage")


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
        # A chain of file systems, unless there is a file or directory of that name.
        path = os.path.expanduser(url)
        return path if "://" not in url and os.path.exists(path) else None
    for scheme in ("file://", "local://"):
        if url.startswith(scheme):
            return url[len(scheme) :]
    return None if "://" in url else os.path.expanduser(url)


def absolute(url: str) -> str:
    """Return a chained URL whose last link, where it is a local path, is an absolute one.

    Another process has another working directory, and would take it for something else.

    Examples
    --------
    >>> absolute("simplecache::s3://bucket/train.zarr")
    'simplecache::s3://bucket/train.zarr'
    >>> absolute("zip://labels::/data/../train.zip")
    'zip://labels::file:///train.zip'
    """
    *links, last = url.split("::")
    # One word alone is a protocol (fsspec.core, _un_chain).
    path = local_path(last) if "://" in last or re.search("[^a-z]", last) else None
    if not links or not path:
        return url
    return "::".join((*links, "file://" + os.path.abspath(path)))


def absolute_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of fsspec's in which local paths are absolute, as in `absolute`.

    Examples
    --------
    >>> absolute_options({"zip": {"fo": "/data/../train.zip"}, "anon": True})
    {'zip': {'fo': '/train.zip'}, 'anon': True}
    """
    changed = dict(options)
    is_local = options.get("target_protocol") in _LOCAL
    for name, value in options.items():
        if isinstance(value, Mapping):
            changed[name] = absolute_options(value)
        elif name in _PATHS and (is_local or name != "fo"):
            changed[name] = _absolute_path(value)
    return changed


def _absolute_path(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_absolute_path(item) for item in value]
    if isinstance(value, os.PathLike):
        value = os.fsdecode(value)
    if not isinstance(value, str) or value == "TMP":  # fsspec's word for a new directory
        return value
    if "::" in value:
        return absolute(value)
    path = local_path(value)
    return value if path is None else os.path.abspath(path)


def without_credentials(text: str) -> str:
    """Return a URL, or a message with URLs in it, without user, password and query.

    Examples
    --------
    >>> without_credentials("simplecache::https://me:secret@host/x.zarr?signature=abc")
    'simplecache::https://host/x.zarr'
    """
    anonymous = re.sub(r"://[^/\s]*@", "://", text)
    return re.sub(r"\?[^\s'\"<>:]*", "", anonymous)


def in_archive(url: str | os.PathLike[str]) -> str | None:
    """Return the URL of what is in a zip archive, by the URL of the archive; None for others.

    Examples
    --------
    >>> in_archive("s3://bucket/train.zarr.zip")
    'zip://::s3://bucket/train.zarr.zip'
    >>> in_archive("s3://bucket/train.zarr") is None
    True
    """
    path = local_path(url)
    if path is not None:
        # A directory is a store, whatever it is called.
        is_archive = path.lower().endswith(".zip") and os.path.isfile(path)
        return f"zip://::file://{os.path.abspath(path)}" if is_archive else None
    text = os.fsdecode(url)
    is_archive = text.partition("?")[0].lower().endswith(".zip")
    return f"zip://::{text}" if is_archive and not text.startswith("zip:") else None


def lives_in_this_process(url: str) -> bool:
    """Return whether another process that opens this URL would find something else."""
    return any(part.startswith("memory:") or part == "memory" for part in url.split("::"))
