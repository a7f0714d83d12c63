"""The files that references lead to: which store has one, and whether it may be read."""

from __future__ import annotations

import os
import posixpath
import re
from typing import TYPE_CHECKING, Any

from lazyarr.errors import StoreError
from lazyarr.store.base import StoreReference
from lazyarr.store.files import HAS_DIRECTORY_DESCRIPTORS
from lazyarr.store.local import LocalStore
from lazyarr.store.messages import check_plain
from lazyarr.store.urls import without_credentials
from lazyarr.values import FieldTuple, Value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lazyarr.store.base import Store

__all__ = ["Place", "TargetRules", "Targets", "scheme_of", "split_url"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_LOCAL = "file://"
_LOCAL_SCHEMES = ("file", "local")
_MEMORY = "memory://"
_FAMILIES = {"https": "http", "s3a": "s3", "gcs": "gs", "abfss": "abfs", "az": "abfs"}
_MAX_STORES = 256
"""Stores of targets that are kept: a document that names a million hosts must not open them all."""


class Place(FieldTuple):
    """Where a target is: the URL of a store that has it, and the target's key there.

    One store for all files of a host, a bucket, or this machine.
    """

    store: str
    key: str


def split_url(url: str) -> Place:
    """Return which store has what a URL means.

    Examples
    --------
    >>> split_url("s3://bucket/a/b.nc"), split_url("/data/../b.nc")
    (Place(store='s3://bucket', key='a/b.nc'), Place(store='file://', key='b.nc'))
    """
    found = _SCHEME.match(url)
    if found is None or found.group(1).lower() in _LOCAL_SCHEMES:
        path = url[found.end() :] if found else url
        return Place(_LOCAL, os.path.abspath(path).lstrip("/"))
    scheme = found.group(1).lower()
    rest = url[found.end() :]
    if scheme == "memory":
        return Place(_MEMORY, rest.lstrip("/"))
    host, _, key = rest.partition("/")
    return Place(f"{scheme}://{host}", key)


def scheme_of(url: str) -> str:
    """Return the protocol that a URL names; of a path without one, "/" or "" as it begins."""
    found = _SCHEME.match(url)
    return found.group(1).lower() if found else url[:1] if url.startswith("/") else ""


class TargetRules(Value):
    """What a user has said of the files that references lead to, and where these come from.

    Attributes
    ----------
    base : str
        The URL of the directory that has the references, to which relative paths are relative.
    base_options : dict
        The options with which that was opened.
    protocol : str or None
        Of targets that are named without one.
    options : dict or None
        Options of targets, whatever their protocol.
    options_by_protocol : dict
        Options of targets by protocol.
    """

    base: str
    base_options: Any
    protocol: str | None
    options: Any
    options_by_protocol: Any

    def resolve(self, url: str) -> Place:
        """Return where a target is.

        Raises
        ------
        StoreError
            When it may not be read, or names no file.
        """
        if "::" in url and "://" in url:
            raise _refused(url, "it is a chained URL, of which lazyarr reads none here; write the "
                           "references anew with URLs of files")  # fmt: skip
        is_named = _SCHEME.match(url) is not None
        if not is_named and self.protocol not in (None, *_LOCAL_SCHEMES):
            url, is_named = f"{self.protocol}://{url.lstrip('/')}", True
        if not is_named and not url.startswith("/"):
            url = self._join(url)
        place = split_url(url)
        if place.store == _LOCAL and not self._may_be_local:
            raise _refused(url, f"it is a file of this machine, and the references come from "
                           f"{without_credentials(self.base)}; if you trust them, give "
                           "storage_options={'remote_protocol': 'file'}")  # fmt: skip
        if not place.key:
            raise _refused(url, "it names no file; the references are damaged")
        return place

    def protocol_of(self, scheme: str) -> str:
        """Return the protocol of targets, by what `scheme_of` says of them."""
        if scheme not in ("", "/"):
            return scheme
        if self.protocol not in (None, *_LOCAL_SCHEMES):
            return str(self.protocol)
        return "file" if scheme == "/" else scheme_of(self.base)

    def options_of(self, store: str) -> dict[str, Any]:
        """Return the options with which the store of a target is opened.

        Without any for its protocol, those of the references are taken for what lies in the
        same bucket or on the same host: nobody else is shown their credentials.
        """
        family = _family(store)
        for protocol, options in self.options_by_protocol.items():
            if _family(protocol) == family:
                return dict(options)
        if self.options is not None and self.protocol in (None, *_LOCAL_SCHEMES):
            return dict(self.options)
        if self.options is not None and _family(str(self.protocol)) == family:
            return dict(self.options)
        return dict(self.base_options) if split_url(self.base + "/x").store == store else {}

    @property
    def _may_be_local(self) -> bool:
        has_local = scheme_of(self.base) in (*_LOCAL_SCHEMES, "memory")
        return has_local or self.protocol in _LOCAL_SCHEMES

    def _join(self, path: str) -> str:
        found = _SCHEME.match(self.base)
        start, below = (found.group(0), self.base[found.end() :]) if found else ("", self.base)
        host, slash, directory = below.partition("/")
        if start and start not in (_LOCAL, "local://", _MEMORY):
            joined = posixpath.normpath(posixpath.join("/", directory, path))
            return f"{start}{host}{joined}"
        return f"{start}{posixpath.join(host + slash + directory, path)}"


class Targets:
    """The stores of the files that references lead to, opened when they are needed.

    Safe to use from several threads.  Survives fork, as the stores do.

    Parameters
    ----------
    rules : TargetRules
        Which they are.
    timeout_seconds : float
        How long one attempt on a remote store may take.
    memory : Store, optional
        What lies at ``memory://``, where that is another process's.
    is_elsewhere : bool
        Whether ``memory://`` means the memory of another process.
    """

    def __init__(
        self,
        rules: TargetRules,
        *,
        timeout_seconds: float,
        memory: Store | None = None,
        is_elsewhere: bool = False,
    ) -> None:
        self.rules = rules
        self._timeout_seconds = timeout_seconds
        self._is_elsewhere = is_elsewhere
        self._stores: dict[str, Store] = {} if memory is None else {_MEMORY: memory}

    def __repr__(self) -> str:
        return f"<Targets: {len(self._stores)} stores>"

    def find(self, url: str) -> tuple[Store, str]:
        """Return the store that has a target, and the target's key there."""
        found = self.find_open(url)
        if found is not None:
            return found
        place = self.rules.resolve(url)
        if len(self._stores) >= _MAX_STORES:
            # Not closed: another thread may read from one.
            kept = {url: self._stores[url] for url in (_LOCAL, _MEMORY) if url in self._stores}
            self._stores = kept
        # Of two threads that come at once the second gets the first one's.
        return self._stores.setdefault(place.store, self._open(place.store)), place.key

    def find_open(self, url: str) -> tuple[Store, str] | None:
        """Return what `find` does if the store is open; to open one takes its time."""
        place = self.rules.resolve(url)
        store = self._stores.get(place.store)
        return None if store is None else (store, place.key)

    def is_unchanged(self) -> bool:
        """Return whether all that was read of targets is certainly as it was."""
        stores = list(self._stores.values())
        return all(isinstance(each, LocalStore) and each.is_unchanged() for each in stores)

    def describe(self) -> dict[str, Any]:
        """Return the rules as JSON can hold them.

        Raises
        ------
        StoreError
            When an option is no plain value.
        """
        rules = self.rules._asdict()
        for options in (
            rules["base_options"],
            rules["options"] or {},
            rules["options_by_protocol"],
        ):
            check_plain(options, without_credentials(self.rules.base))
        return rules

    def pack_memory(self, urls: Iterable[str]) -> StoreReference | None:
        """Return copies of those targets that lie in this process's memory; None without any."""
        in_memory = {url for url in urls if self.rules.protocol_of(scheme_of(url)) == "memory"}
        if not in_memory:
            return None
        from lazyarr.store.packed import pack_store

        found = [self.find(url) for url in in_memory]
        packed = pack_store(_Some(found[0][0], {key for _, key in found}), "")
        try:
            return packed.reference()
        finally:
            packed.close()

    def rest(self) -> None:
        """Let go of descriptors."""
        for store in list(self._stores.values()):
            store.rest()

    def close(self) -> None:
        """Let go of all stores."""
        for store in list(self._stores.values()):
            store.close()

    def _open(self, store: str) -> Store:
        if store == _LOCAL and HAS_DIRECTORY_DESCRIPTORS:
            # With its identity all tables have one descriptor of the root in common.
            status = os.stat("/")
            return LocalStore("/", identity=(status.st_dev, status.st_ino))
        if store == _MEMORY and self._is_elsewhere:
            raise _refused(store, "it lies in the memory of another process; put it into a file")
        # Imported here: local targets do without fsspec.
        from lazyarr.store.remote import UrlStore

        options = {} if store == _LOCAL else self.rules.options_of(store)
        return UrlStore(store, options, timeout_seconds=self._timeout_seconds)


class _Some:
    """Some objects of a store, as `pack_store` takes them."""

    def __init__(self, store: Store, keys: Iterable[str]) -> None:
        self._store = store
        self._keys = tuple(sorted(keys))
        self.url = store.url

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def list_keys(self, prefix: str) -> tuple[str, ...]:  # noqa: ARG002 - all of them
        return self._keys


def _family(url: str) -> str:
    protocol = url.partition("://")[0].lower()
    return _FAMILIES.get(protocol, protocol)


def _refused(url: str, why: str) -> StoreError:
    shown = without_credentials(url)
    message = f"cannot read the target {shown[:1000]}: {why}"
    return StoreError(message, url=shown, key=None, transient=False)
