"""Compressed, chunked datasets, local or remote, as real NumPy arrays that fill on first touch.

Importing the package costs next to nothing; what a name needs is imported when
the name is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lazyarr._version import __version__
from lazyarr.errors import (
    ChunkError,
    EngineWarning,
    FormatError,
    KernelError,
    KernelUnsupportedError,
    LazyarrError,
    NodeNotFoundError,
    PagerError,
    StoreError,
)
from lazyarr.parts import import_on_use

if TYPE_CHECKING:
    from lazyarr.client.lazyarray import LazyArray
    from lazyarr.client.residency import Residency
    from lazyarr.copying.array import CopyArray
    from lazyarr.dataset import Dataset, open
    from lazyarr.memory import config, configure, doctor, evict, prefetch, residency, stats
    from lazyarr.verification import Report, verify
    from lazyarr.writer import ArrayWriter, Writer, create, save

__all__ = [
    "open",
    "Dataset",
    "LazyArray",
    "CopyArray",
    "prefetch",
    "evict",
    "residency",
    "Residency",
    "configure",
    "config",
    "stats",
    "verify",
    "Report",
    "doctor",
    "save",
    "create",
    "Writer",
    "ArrayWriter",
    "LazyarrError",
    "StoreError",
    "NodeNotFoundError",
    "FormatError",
    "ChunkError",
    "KernelError",
    "KernelUnsupportedError",
    "PagerError",
    "EngineWarning",
    "__version__",
]

__getattr__ = import_on_use(
    globals(),
    {
        "client.lazyarray": "LazyArray",
        "client.residency": "Residency",
        "copying.array": "CopyArray",
        "dataset": "Dataset open",
        "memory": "config configure doctor evict prefetch residency stats",
        "verification": "Report verify",
        "writer": "ArrayWriter Writer create save",
    },
)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
