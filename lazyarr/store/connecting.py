"""How fsspec's file systems connect to servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazyarr.errors import StoreError
from lazyarr.store.urls import without_credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["connect", "open_session"]

_MANY = 1 << 16


def connect(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """Return a file system, and where in it a URL is.

    Raises
    ------
    StoreError
        When no key can be put behind the URL.
    Exception
        Whatever fsspec and the file system raise.
    """
    from fsspec.core import url_to_fs

    fs, root = url_to_fs(url, **{**options, **_own_options(url, options)})
    root = str(root).rstrip("/")
    if "?" in root and root.startswith("http"):
        shown = without_credentials(url)
        message = (
            f"cannot open {shown}: keys cannot be put after the query of a URL; "
            f'give it as storage_options={{"params": {{...}}}}'
        )
        raise StoreError(message, url=shown, key=None, transient=False)
    return fs, root


def _own_options(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options that are lazyarr's own where the user has not set them.

    As many connections as it is asked to use.  aiohttp has 100 unless told otherwise, botocore 10:
    requests beyond that would wait there, in the order of their coming, where nothing is urgent.

    And one attempt by botocore, for failed calls are tried again here (`RetryingStore`): it would
    try five times itself, and wait for ten seconds or more meanwhile.
    """
    if url.startswith(("http://", "https://")):
        return {"get_client": options.get("get_client", open_session)}
    protocol = url.rpartition("::")[2].partition("://")[0]
    if protocol not in ("s3", "s3a"):
        return {}
    # In a chain each protocol has options of its own.
    is_chained = "::" in url
    given = (options.get(protocol) or {}) if is_chained else options
    config = {
        "max_pool_connections": _MANY,
        "retries": {"total_max_attempts": 1},
        **(given.get("config_kwargs") or {}),
    }
    own = {"config_kwargs": config}
    return {protocol: {**given, **own}} if is_chained else own


async def open_session(**options: Any) -> Any:
    """Return an aiohttp session as fsspec wants it, without a limit to its connections."""
    import aiohttp

    if "connector" not in options:
        options["connector"] = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(**options)
