"""Sessions of icechunk's, from URLs and storage options.

Options are those that fsspec takes for the same URL, translated, or those of icechunk's own
function for that kind of storage, ``icechunk.s3_storage`` and so on.
"""

from __future__ import annotations

import base64
import io
import os
import pickle
import threading
from typing import TYPE_CHECKING, Any

from lazyarr.errors import NodeNotFoundError, StoreError
from lazyarr.shortage import is_shortage
from lazyarr.store.repositories import AUTHORIZED, SESSION, VERSIONS
from lazyarr.store.urls import local_path, without_credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["begin_session", "icechunk_library", "secrets_of", "storage_of"]

# Options of fsspec's that have no meaning to icechunk: of its caches, buffers and threads.
_IGNORED = frozenset(
    {
        *("asynchronous", "skip_instance_cache", "use_listings_cache", "listings_expiry_time"),
        *("max_paths", "default_block_size", "default_fill_cache", "default_cache_type"),
        *("cache_regions", "config_kwargs", "max_concurrency", "use_ssl", "denied_is_missing"),
        *("auto_mkdir", "version_aware", "block_size", "project", "consistency", "get_client"),
    }
)
_RENAMED = {
    "s3": {
        "key": "access_key_id",
        "secret": "secret_access_key",
        "token": "session_token",
        "aws_access_key_id": "access_key_id",
        "aws_secret_access_key": "secret_access_key",
        "aws_session_token": "session_token",
        "region_name": "region",
        "anon": "anonymous",
    },
    "gs": {"anon": "anonymous"},
    "az": {
        "account_name": "account",
        "account_key": "access_key",
        "credential": "access_key",
        "anon": "anonymous",
    },
}
_KINDS = {"s3a": "s3", "gcs": "gs", "abfs": "az", "abfss": "az", "https": "http"}
# icechunk takes no notice of others.  Of the crate object_store 0.12, `ClientConfigKey`.
_OF_HTTP = frozenset(
    {
        *("allow_http", "allow_invalid_certificates", "connect_timeout", "default_content_type"),
        *("http1_only", "http2_only", "http2_keep_alive_interval", "http2_keep_alive_timeout"),
        *("http2_keep_alive_while_idle", "http2_max_frame_size", "pool_idle_timeout"),
        *("pool_max_idle_per_host", "proxy_url", "proxy_ca_certificate", "proxy_excludes"),
        *("randomize_addresses", "read_timeout", "timeout", "user_agent"),
    }
)
_SECRETS = (
    "session",
    "key",
    "secret",
    "token",
    "password",
    "credential",
    "authorization",
    "cookie",
)
_logs = threading.Lock()


def icechunk_library() -> Any:
    """Return the package icechunk.

    Raises
    ------
    StoreError
        When it is not installed.
    """
    # Here: it takes a third of a second, and most processes open other stores.
    try:
        import icechunk
    except ImportError as error:
        if is_shortage(error):
            raise
        raise StoreError(
            "icechunk, through which its repositories are read, is not installed; "
            "pip install 'lazyarr[icechunk]'",
            url="",
            key=None,
            transient=False,
        ) from error
    return icechunk


async def begin_session(url: str, options: Mapping[str, Any]) -> Any:
    """Return a read-only session of the repository at a URL, of the version that options name.

    Parameters
    ----------
    url : str
        A path, or a URL of a kind of storage that icechunk has.
    options : mapping
        As the user gave them.

    Raises
    ------
    StoreError
        When there is no such kind of storage, or an option is not right.
    Exception
        Whatever icechunk raises.
    """
    icechunk = icechunk_library()
    if SESSION in options:
        return _Sessions(io.BytesIO(base64.b64decode(options[SESSION]))).load()
    named = {name: options[name] for name in VERSIONS if options.get(name) is not None}
    if len(named) > 1:
        found = " and ".join(repr(name) for name in named)
        raise _refusal(url, f"the storage options {found} exclude each other; give one")
    storage = storage_of(
        url, {k: v for k, v in options.items() if k not in (*VERSIONS, AUTHORIZED)}
    )
    repository = await icechunk.Repository.open_async(
        storage,
        # Merged with what the repository has.  Attempts are counted by whoever asks.
        config=icechunk.RepositoryConfig(
            storage=icechunk.StorageSettings(
                retries=icechunk.StorageRetriesSettings(max_tries=1),
            )
        ),
        authorize_virtual_chunk_access=_containers(url, options.get(AUTHORIZED)),
    )
    version = {_ARGUMENTS[name]: value for name, value in named.items()} or {"branch": "main"}
    return await repository.readonly_session_async(**version)


class _Sessions(pickle.Unpickler):
    """Unpickles sessions of icechunk's, and nothing else, which could run anything."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) != ("icechunk.session", "Session"):
            raise pickle.UnpicklingError(f"there is a {module}.{name} in a session of icechunk's")
        return super().find_class(module, name)


_ARGUMENTS = {"branch": "branch", "tag": "tag", "snapshot": "snapshot_id"}


def secrets_of(options: Mapping[str, Any]) -> set[str]:
    """Return the texts in options that no message may have.

    Examples
    --------
    >>> sorted(secrets_of({"key": "AKIA", "anon": False, "headers": {"Cookie": "c=1"}}))
    ['AKIA', 'c=1']
    """
    found: set[str] = set()
    for name, value in options.items():
        if hasattr(value, "items"):
            found |= secrets_of(value)
        elif isinstance(value, str) and any(word in name.lower() for word in _SECRETS):
            found.add(value)
    return found - {""}


def storage_of(url: str, options: Mapping[str, Any]) -> Any:
    """Return icechunk's storage for a URL, by options that name no version.

    Raises
    ------
    StoreError
        When there is no such kind of storage, no such directory, or an option is not right.
    """
    icechunk = icechunk_library()

    path = local_path(url)
    if path is not None:
        unknown = sorted(name for name, value in options.items() if _has_meaning(name, value))
        if unknown:
            names = ", ".join(map(repr, unknown))
            there_are = ", ".join(map(repr, (*VERSIONS, AUTHORIZED)))
            found = f"a local one has no storage option {names}"
            raise _refusal(url, f"{found}; there are {there_are}")
        return _local_storage(os.path.abspath(path))
    scheme, _, rest = url.partition("://")
    kind = _KINDS.get(scheme, scheme)
    given = _translated(kind, dict(options))
    bucket, _, prefix = rest.partition("/")
    place = {"bucket": bucket, "prefix": prefix.strip("/")}
    try:
        if kind == "s3":
            return icechunk.s3_storage(**place, **_of_s3(given))
        if kind == "gs":
            return icechunk.gcs_storage(**place, **_of_gcs(given))
        if kind == "az":
            return icechunk.azure_storage(container=bucket, prefix=place["prefix"], **given)
        if kind == "http":
            return _http_storage(url, given)
    except (TypeError, ValueError) as error:
        # Not its words: they may have the value of an option, and that a key.
        names = ", ".join(sorted(given)) or "none"
        found = f"icechunk does not take these storage options together: {names}"
        raise _refusal(url, f"{found}; see icechunk's documentation of its storage") from error
    raise _refusal(url, "icechunk reads local directories, s3, gs, az, http and https; use these")


def _local_storage(path: str) -> Any:
    """Return the storage of a local directory."""
    icechunk = icechunk_library()

    # icechunk makes the directory if there is none.
    if not os.path.isdir(path):
        message = f"cannot open file://{path}: there is no such directory; check the path"
        raise NodeNotFoundError(message, url=f"file://{path}", path="")
    with _logs:
        # It warns those who write, on stdout in some versions.
        icechunk.set_logs_filter("error")
        try:
            return icechunk.local_filesystem_storage(path)
        finally:
            icechunk.set_logs_filter(None)


def _http_storage(url: str, given: dict[str, Any]) -> Any:
    icechunk = icechunk_library()

    if not hasattr(icechunk, "http_storage"):
        found = f"icechunk {icechunk.__version__} cannot read a repository over HTTP"
        raise _refusal(url, f"{found}; install icechunk 2, which needs Python 3.12")
    client = given.pop("client_kwargs", None) or {}
    headers = {**(client.get("headers") or {}), **(given.pop("headers", None) or {})}
    unknown = sorted({*given} - _OF_HTTP)
    if unknown:
        names = ", ".join(map(repr, unknown))
        there_are = ", ".join(map(repr, (*VERSIONS, AUTHORIZED, "headers", *sorted(_OF_HTTP))))
        raise _refusal(url, f"over HTTP there is no storage option {names}; there are {there_are}")
    options = {"allow_http": "true"} if url.startswith("http://") else {}
    return icechunk.http_storage(url, opts={**options, **given}, headers=headers or None)


def _translated(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return options by icechunk's names."""
    client = (options.pop("client_kwargs", None) or {}) if kind == "s3" else {}
    names = _RENAMED.get(kind, {})
    return {
        names.get(name, name): value
        for name, value in {**client, **options}.items()
        if _has_meaning(name, value)
    }


def _has_meaning(name: str, value: Any) -> bool:
    return name not in _IGNORED and value is not None


def _of_s3(given: dict[str, Any]) -> dict[str, Any]:
    endpoint = given.get("endpoint_url")
    if endpoint is None:
        return given
    # As s3fs does: servers other than Amazon's rarely have a name for each bucket.
    own = {"allow_http": str(endpoint).startswith("http://"), "force_path_style": True}
    return {"region": "us-east-1", **own, **given}


def _of_gcs(given: dict[str, Any]) -> dict[str, Any]:
    account = given.pop("token", None)  # gcsfs's word for everything of that kind
    if account == "anon":
        return {"anonymous": True, **given}
    if isinstance(account, str) and account.endswith(".json"):
        return {"service_account_file": account, **given}
    return given if account in (None, "google_default") else {"bearer_token": account, **given}


def _containers(url: str, authorized: Any) -> Any:
    """Return what icechunk needs to read the chunks in other places, by the place's URL."""
    icechunk = icechunk_library()

    if authorized is None:
        return None
    places = authorized if hasattr(authorized, "items") else dict.fromkeys(authorized)
    found: dict[str, Any] = {}
    for prefix, options in places.items():
        scheme = str(prefix).partition("://")[0]
        kind = _KINDS.get(scheme, scheme)
        given = _translated(kind, dict(options or {}))
        try:
            if kind == "s3":
                found[prefix] = icechunk.s3_credentials(**given)
            elif kind == "gs":
                found[prefix] = icechunk.gcs_credentials(**_of_gcs(given))
            elif kind == "az":
                found[prefix] = icechunk.azure_credentials(**given)
            else:
                # Older versions have no word for that nothing is needed.
                name = "HttpAccess" if kind == "http" else "LocalFileSystemAccess"
                found[prefix] = getattr(icechunk.credentials, name, None)
        except (TypeError, ValueError) as error:
            names = ", ".join(sorted(given)) or "none"
            what = f"icechunk does not take these credentials for {prefix!r} together: {names}"
            raise _refusal(url, f"{what}; see icechunk's documentation") from error
    return icechunk.containers_credentials(found)


def _refusal(url: str, found: str) -> StoreError:
    shown = without_credentials(url)
    message = f"cannot open the icechunk repository {shown}: {found}"
    return StoreError(message, url=shown, key=None, transient=False)
