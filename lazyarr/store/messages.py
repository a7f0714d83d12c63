"""What is said when a store could not do what was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazyarr.errors import StoreError
from lazyarr.store.base import NoObjectError, RefusedError
from lazyarr.store.failure import REMEDIES, Fault, decode_failure
from lazyarr.store.urls import without_credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lazyarr.store.base import Answer

__all__ = ["check_plain", "failed", "read_only", "wrong_length"]


_KINDS = {
    Fault.DIRECTORY: NoObjectError,
    Fault.PAGE: NoObjectError,
    Fault.DENIED: RefusedError,
}
_EXTRAS = {"https": "http", "http": "http", "s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}


def read_only(url: str, action: str, key: str) -> StoreError:
    """Return the error for a change of a store that is there to be read."""
    message = f"cannot {action} {key!r} in {url}: the store was opened for reading"
    return StoreError(message, url=url, key=key, transient=False)


def failed(
    url: str,
    action: str,
    key: str | None,
    error: Exception,
    *,
    timeout_seconds: float | None = None,
    is_reached: bool = True,
) -> StoreError:
    """Return the error for what a file system raised.

    Parameters
    ----------
    url, action, key : str
        Where, what was to be done, and with what object.
    error : Exception
        As it came from fsspec.
    timeout_seconds : float, optional
        How long it was waited for an answer.
    is_reached : bool
        Whether the server has answered before: then one that takes no connections may be
        starting anew, and the error is transient.
    """
    fault, found = decode_failure(error)
    if isinstance(error, TimeoutError) and not str(error) and timeout_seconds is not None:
        found += f": no answer in {timeout_seconds:g} s"
    remedy = REMEDIES.get(fault, REMEDIES[Fault.PERMANENT])
    if isinstance(error, ImportError):
        found, remedy = f"a package is missing: {error}", _how_to_install(url)
    elif type(error).__name__ == "BadZipFile":
        remedy = "the archive is damaged, or none"
    elif "block_size=0" in found:  # fsspec's advice to those who open files
        found = "the server gives no parts of objects, by which what is in a file is read"
        remedy = "download it, or use a server that takes the header Range"
    what = url if key is None else f"{key!r} in {url}"
    message = f"cannot {action} {what}: {without_credentials(found)}; {remedy}"
    kind = _KINDS.get(fault, StoreError)
    transient = fault is Fault.TRANSIENT or (fault is Fault.UNREACHABLE and is_reached)
    return kind(message, url=url, key=key, transient=transient)


def _how_to_install(url: str) -> str:
    protocols = (link.partition("://")[0] for link in url.split("::"))
    extras = sorted({_EXTRAS[protocol] for protocol in protocols if protocol in _EXTRAS})
    if extras:
        return f"run pip install 'lazyarr[{','.join(extras)}]'"
    return "run pip install with the name of that package"


def wrong_length(url: str, key: str, start: int, stop: int, answer: Answer) -> StoreError:
    """Return the error for an answer that is not as long as the range that was asked for."""
    n_read = len(answer.data)
    total = answer.total_nbytes
    message = f"cannot read bytes [{start}, {stop}) of {key!r} in {url}: "
    is_short = n_read < stop - start
    if is_short and total is not None and total < stop:
        message += f"the object has {total} bytes; {REMEDIES[Fault.RANGE]}"
        return StoreError(message, url=url, key=key, transient=False)
    remedy = REMEDIES[Fault.TRANSIENT] if is_short else "the store does not support ranges"
    message += f"it gave {n_read} bytes; {remedy}"
    return StoreError(message, url=url, key=key, transient=is_short)


def check_plain(options: Mapping[str, Any], url: str) -> None:
    """Refuse options that cannot be handed to another process.

    Raises
    ------
    StoreError
        It names the first one.
    """
    for name, value in options.items():
        if not _is_plain(value):
            message = (
                f"cannot hand {url} to another process: storage option {name!r} is a "
                f"{type(value).__name__}; give strings, numbers, lists and dicts"
            )
            raise StoreError(message, url=url, key=None, transient=False)


def _is_plain(value: object) -> bool:
    # Exact types: aiohttp.BasicAuth is a tuple and would arrive as a list.
    if type(value) is dict:
        return all(type(k) is str and _is_plain(v) for k, v in value.items())
    if type(value) in (list, tuple):
        return all(_is_plain(v) for v in value)  # type: ignore[attr-defined]
    return value is None or type(value) in (str, int, float, bool)
