"""Opening what a URL means as references."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lazyarr.errors import NodeNotFoundError
from lazyarr.store.base import METADATA_LIMIT_NBYTES
from lazyarr.store.opening import open_store
from lazyarr.store.references.document import parse_references
from lazyarr.store.references.entries import Target
from lazyarr.store.references.packed_table import pack_table
from lazyarr.store.references.reference_store import ReferenceStore
from lazyarr.store.references.targets import TargetRules, Targets, scheme_of
from lazyarr.store.retry import RetryingStore
from lazyarr.store.urls import (
    local_path,
    means_references,
    split_references,
    without_credentials,
)

if TYPE_CHECKING:
    from lazyarr.store.base import Store
    from lazyarr.store.retry import RetryPolicy

__all__ = ["open_reference_store"]

# Parquet files are not read to know what they lead to.
_ANY = ("any",)
# Words of fsspec's ReferenceFileSystem that say how it works, and not what it reads.
_IGNORED = ("simple_templates", "max_gap", "max_block", "cache_size", "lazy", "asynchronous")


def open_reference_store(
    url: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None,
    policy: RetryPolicy,
    *,
    timeout_seconds: float,
) -> ReferenceStore:
    """Return the store that references are, which are read.

    Parameters
    ----------
    url : str or os.PathLike
        A JSON document, or a directory of Parquet files; it may go on with a node in them.
    storage_options : mapping, optional
        In the words of fsspec's ReferenceFileSystem: `target_options` and `target_protocol` are
        for the references, `remote_options` and `remote_protocol` for what they lead to.
        All else is for the references, too.
    policy : RetryPolicy
        How often reading the references is tried.
    timeout_seconds : float
        How long one attempt on a remote store may take.

    Raises
    ------
    NodeNotFoundError
        There are none.
    FormatError
        It is something else.
    StoreError
        They cannot be read.
    """
    words = _Words(storage_options or {})
    inside = None if means_references(url) else split_references(url)
    url, root = (url, "") if inside is None else inside
    text = _absolute(url, words.target_protocol)
    shown = without_credentials(text)
    parent, name = _parent(text)
    rules = TargetRules(
        base=parent.rpartition("::")[2],
        base_options=words.options,
        protocol=words.remote_protocol,
        options=words.remote_options,
        options_by_protocol=words.by_protocol,
    )
    targets = Targets(rules, timeout_seconds=timeout_seconds)
    if not name:
        from lazyarr.store.references.parquet_table import open_table

        directory = open_store(text, words.options, timeout_seconds=timeout_seconds)
        try:
            table = open_table(RetryingStore(directory, policy), shown)
        except BaseException:
            directory.close()
            raise
        return ReferenceStore(table, targets, text, _ANY, root=root)
    store = _open(parent, words.options, timeout_seconds)
    try:
        document = RetryingStore(store, policy).read(name, limit_nbytes=METADATA_LIMIT_NBYTES)
    finally:
        store.close()
    if document is None:
        message = f"cannot open {shown}: there is no such file; check the path"
        raise NodeNotFoundError(message, url=shown, path="")
    references = parse_references(document, shown, overrides=words.template_overrides)
    schemes = {scheme_of(each.url) for each in references.values() if isinstance(each, Target)}
    protocols = {rules.protocol_of(scheme) for scheme in schemes}
    return ReferenceStore(pack_table(references, shown), targets, text, protocols, root=root)


class _Words:
    """Storage options, in the words of fsspec's ReferenceFileSystem."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        words = {name: value for name, value in options.items() if name not in _IGNORED}
        self.target_protocol: str | None = words.pop("target_protocol", None)
        self.remote_protocol: str | None = words.pop("remote_protocol", None)
        self.remote_options = _mapping(words.pop("remote_options", None), "remote_options")
        self.template_overrides = _mapping(
            words.pop("template_overrides", None), "template_overrides"
        )
        by_protocol = _mapping(words.pop("fs", None), "fs") or {}
        self.by_protocol = {
            str(name): _mapping(value, f"fs[{name!r}]") or {} for name, value in by_protocol.items()
        }
        target_options = _mapping(words.pop("target_options", None), "target_options")
        self.options = {**words, **(target_options or {})}


def _mapping(value: object, name: str) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"storage option {name!r} is a {type(value).__name__}; give a mapping")
    return dict(value)


def _absolute(url: str | os.PathLike[str], protocol: str | None) -> str:
    """Return the URL of references, with a protocol."""
    text = os.fsdecode(url)
    if protocol not in (None, "file", "local") and "://" not in text:
        return f"{protocol}://{text.strip('/')}"
    path = local_path(url)
    return text if path is None else f"file://{os.path.abspath(path)}"


def _parent(url: str) -> tuple[str, str]:
    """Return the URL of the directory that has a document, and its name; "" for a directory.

    Of a directory of Parquet files it is that which has the directory.
    """
    path, mark, query = url.partition("?")
    path = path.rstrip("/")
    name = path.rpartition("/")[2]
    parent = path[: len(path) - len(name)]
    parent = parent.rstrip("/") if parent.rstrip("/")[-1:] != ":" else parent
    local = local_path(url)
    is_directory = not name.lower().endswith(".json") if local is None else os.path.isdir(local)
    return parent, "" if is_directory else name + mark + query


def _open(parent: str, options: Mapping[str, Any], timeout_seconds: float) -> Store:
    if parent.startswith(("http://", "https://")):
        # By the URL as it is: it may be signed.
        from lazyarr.store.remote import UrlStore

        return UrlStore(parent, options, timeout_seconds=timeout_seconds)
    return open_store(parent, options, timeout_seconds=timeout_seconds)
