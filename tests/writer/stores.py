"""Helpers of the writer's tests: what a store holds, read without the code under test."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
import zarr

from lazyarr.errors import StoreError
from lazyarr.store import open_store
from tests.formats.zarr.conftest import read_array, same

__all__ = [
    "READERS",
    "DyingStore",
    "download",
    "new_url",
    "partials",
    "read_array",
    "read_tree",
    "same",
]

_numbers = itertools.count()


def new_url() -> str:
    """Return a place in memory that nothing else uses."""
    return f"memory://writer-{next(_numbers)}"


def download(url: str, directory: Path, options: dict[str, Any] | None = None) -> Path:
    """Copy all objects of a store to a local directory."""
    store = open_store(url, options)
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        for name in store.list_names(prefix):
            key = f"{prefix}/{name}" if prefix else name
            data = store.read(key)
            if data is None:
                waiting.append(key)
                continue
            path = directory / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return directory


def partials(directory: Path) -> list[str]:
    """Return the names of what unfinished writers left in a directory."""
    return sorted(path.name for path in directory.iterdir() if ".partial-" in path.name)


def read_tree(root: Path) -> dict[str, np.ndarray]:
    """Return every array of a store, by its path; they are looked for, not looked up."""
    found = {}
    for document in sorted(root.rglob("zarr.json")):
        if json.loads(document.read_bytes())["node_type"] == "array":
            path = document.parent.relative_to(root).as_posix()
            found["" if path == "." else path] = read_array(document.parent)
    return found


def _read_zarr(path: Path) -> np.ndarray:
    return np.asarray(zarr.open_array(path, mode="r")[...])


def _read_zarrs(path: Path) -> np.ndarray:
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        return np.asarray(zarr.open_array(path, mode="r")[...])


def _read_tensorstore(path: Path) -> np.ndarray:
    spec = {"driver": "zarr3", "kvstore": f"file://{path}/"}
    return np.asarray(tensorstore.open(spec).result().read().result())


READERS = {
    "lazyarr.formats.zarr": read_array,
    "zarr": _read_zarr,
    "zarrs": _read_zarrs,
    "tensorstore": _read_tensorstore,
}


class DyingStore:
    """A store whose writer dies: some changes are made, and from then on nothing happens.

    Parameters
    ----------
    inner : WritableStore
        Where the changes go.
    n_changes : int
        How many are made.
    """

    def __init__(self, inner: Any, n_changes: int) -> None:
        self._inner = inner
        self.n_changes = n_changes
        self.url = inner.url

    def __getattr__(self, name: str) -> Any:
        """Pass everything on until the end."""
        method = getattr(self._inner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if name in ("write", "delete", "delete_prefix"):
                self.n_changes -= 1
            if self.n_changes < 0 and name != "close":
                raise StoreError("dead", url=self.url, key=None, transient=False)
            return method(*arguments, **options)

        return call
