"""Which URLs mean local files, and how they are shown without secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from lazyarr.store.base import METADATA_LIMIT_NBYTES

__all__ = [
    "absolute",
    "absolute_options",
    "has_record_size",
    "in_archive",
    "lives_in_this_process",
    "local_path",
    "means_references",
    "split_at_file",
    "split_references",
    "without_credentials",
]

_LOCAL = (None, "file", "local")
# Options of fsspec's that name files: of zip and reference file systems, and of caches.
_PATHS = ("fo", "cache_storage")
_REFERENCES = (".json", ".parq", ".parquet")
_IN_REFERENCES = re.compile(r"(.*?\.(?:json|parq|parquet))/([^?]+)\Z", re.DOTALL | re.IGNORECASE)


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


def in_archive(url: str | os.PathLike[str], *, by_name: bool = True) -> str | None:
    """Return the URL of what is in a zip archive, by the URL of the archive; None for others.

    The URL may go on in the archive.

    Parameters
    ----------
    url : str or os.PathLike
        What the user has given.
    by_name : bool
        Whether a local archive's name ends with ``.zip``; else any local file is taken for one.

    Examples
    --------
    >>> in_archive("s3://bucket/train.zarr.zip")
    'zip://::s3://bucket/train.zarr.zip'
    >>> in_archive("s3://bucket/train.zarr.zip/group/x")
    'zip://group/x::s3://bucket/train.zarr.zip'
    >>> in_archive("s3://bucket/train.zarr") is None
    True
    """
    path = local_path(url)
    if path is not None:
        # A directory is a store, whatever it is called.
        file, inside = split_at_file(path)
        is_archive = (file.lower().endswith(".zip") or not by_name) and os.path.isfile(file)
        return f"zip://{inside}::file://{file}" if is_archive else None
    text = os.fsdecode(url)
    if text.startswith("zip:"):
        return None
    if text.partition("?")[0].lower().endswith(".zip"):
        return f"zip://::{text}"
    head, _, rest = text.rpartition("://")
    names = rest.split("/")
    # What comes first is a server or a bucket, but for memory.
    for k in range(len(names) - 1, not head.endswith("memory"), -1):
        if names[k - 1].lower().endswith(".zip"):
            inside = "/".join(names[k:]).strip("/")
            return f"zip://{inside}::{head}://{'/'.join(names[:k])}"
    return None


def split_at_file(path: str) -> tuple[str, str]:
    """Return the file in which a local path goes on, absolute, and the rest of the path.

    The rest is "" where no part of the path before it is a file.
    """
    place, inside = os.path.abspath(path), ""
    while not os.path.exists(place) and place != os.path.dirname(place):
        place, name = os.path.split(place)
        inside = f"{name}/{inside}" if inside else name
    return (place, inside) if os.path.isfile(place) else (os.path.abspath(path), "")


def means_references(url: str | os.PathLike[str]) -> bool:
    """Return whether a URL means references of kerchunk's; of a local one what is there counts.

    Examples
    --------
    >>> means_references("s3://bucket/refs.json"), means_references("s3://bucket/train.zarr")
    (True, False)
    """
    path = local_path(url)
    if path is None:
        text = os.fsdecode(url).partition("?")[0]
        return text.rstrip("/").lower().endswith(_REFERENCES)
    if os.path.isdir(path):
        # A directory of references in Parquet files has no documents but this one.
        if any(os.path.lexists(os.path.join(path, name)) for name in (".zgroup", "zarr.json")):
            return False
        document = os.path.join(path, ".zmetadata")
        if not os.path.isfile(document):  # to open a FIFO is to wait for a writer
            return False
        try:
            with open(document, "rb") as file:
                return has_record_size(file.read(METADATA_LIMIT_NBYTES))
        except OSError:
            return False
    return path.lower().endswith(".json") and os.path.isfile(path)


def split_references(url: str | os.PathLike[str]) -> tuple[str, str] | None:
    """Return the URL of references and the node in them, where a URL goes on in references.

    Examples
    --------
    >>> split_references("s3://bucket/refs.json/group/x")
    ('s3://bucket/refs.json', 'group/x')
    >>> split_references("s3://bucket/refs.json") is None
    True
    """
    path = local_path(url)
    found = _IN_REFERENCES.match(os.fsdecode(url) if path is None else path)
    if found is None or not means_references(found[1]):
        return None
    node = found[2].strip("/")
    return (found[1], node) if node else None


def has_record_size(zmetadata: bytes | None) -> bool:
    """Return whether a ``.zmetadata`` is that of references in Parquet files."""
    return zmetadata is not None and b'"record_size"' in zmetadata


def lives_in_this_process(url: str) -> bool:
    """Return whether another process that opens this URL would find something else."""
    return any(part.startswith("memory:") or part == "memory" for part in url.split("::"))
