"""Compressed, chunked datasets, local or remote, as real NumPy arrays that fill on first touch.

Importing the package costs next to nothing; what a name needs is imported when
the name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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

_HOMES = {
    "open": "lazyarr.dataset",
    "Dataset": "lazyarr.dataset",
    "LazyArray": "lazyarr.client.lazyarray",
    "CopyArray": "lazyarr.copying.array",
    "Residency": "lazyarr.client.residency",
    "prefetch": "lazyarr.memory",
    "evict": "lazyarr.memory",
    "residency": "lazyarr.memory",
    "configure": "lazyarr.memory",
    "config": "lazyarr.memory",
    "stats": "lazyarr.memory",
    "verify": "lazyarr.verification",
    "Report": "lazyarr.verification",
    "doctor": "lazyarr.memory",
    "save": "lazyarr.writer",
    "create": "lazyarr.writer",
    "Writer": "lazyarr.writer",
    "ArrayWriter": "lazyarr.writer",
}


def __getattr__(name: str) -> Any:
    """Import what a public name needs when it is first used (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'lazyarr' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
