"""xarray's engine ``"lazyarr"``: the entry point ``xarray.backends``."""

from __future__ import annotations

from typing import Any

from lazyarr.dataset import Dataset
from lazyarr.dataset import open as open_node
from lazyarr.integrations.xarray import GroupBackend

__all__ = ["LazyarrBackend"]


class LazyarrBackend(GroupBackend):
    """xarray's engine ``"lazyarr"``, for all that `lazyarr.open` opens as a group.

    Opening reads metadata, and the coordinates that xarray makes indexes of.  All other variables
    are read when they are used, into memory that lazyarr keeps up to its memory limit.

    Notes
    -----
    It is used when it is asked for by name: of the engines that could open a ``.zarr``, xarray
    goes on to choose its own.

    Examples
    --------
    >>> import lazyarr, numpy, tempfile, xarray
    >>> directory = tempfile.TemporaryDirectory()
    >>> ds = xarray.Dataset({"t": ("time", numpy.arange(4.0))}, {"time": [1, 2, 3, 4]})
    >>> lazyarr.save(f"{directory.name}/d.zarr", ds)
    >>> float(xarray.open_dataset(f"{directory.name}/d.zarr", engine=LazyarrBackend)["t"].mean())
    1.5
    >>> directory.cleanup()
    """

    description = "Open arrays that fill on first touch, by lazyarr"
    url = "https://github.com/lazyarr/lazyarr#readme"

    def open_source(self, source: Any, path: str, mode: str, **options: Any) -> Any:
        """Return the node at a path of a store; `options` are those of `lazyarr.open`."""
        if not path or options["consolidated"] is False:
            return open_node(source, mode, path=path or None, **options)
        # Consolidated metadata is at the root.
        root = open_node(source, mode, **options)
        return root[path] if isinstance(root, Dataset) else root
