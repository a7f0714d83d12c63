"""What other threads are importing when a process forks."""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress

__all__ = ["finish_imports"]

# Ours, and the codecs that the first chunk may need.  A program's own modules are left
# alone: their import may wait for a lock of the thread that forks.
_PACKAGES = ("lazyarr", "google_crc32c", "numcodecs", "zstandard")


def finish_imports() -> None:
    """Wait until no other thread is importing what reading needs; called before a fork.

    Modules are imported when something first needs them, so by any thread.  The one that is
    locked for an import at the fork stays locked in the child, which has not the thread that
    would unlock it, and waits for ever when it needs the module too (seen on 3.12.1).  Not
    for modules of others: while one is imported it may wait for the thread that forks.
    """
    while names := [name for name in tuple(sys.modules) if _is_being_imported(name)]:
        before = len(names)
        for name in names:
            with suppress(ImportError):
                # To import what another thread is importing is to wait for it, by the lock
                # of that module.
                importlib.import_module(name)
        # Those that this thread itself is importing stay.
        if sum(map(_is_being_imported, names)) == before:
            return


def _is_being_imported(name: str) -> bool:
    if name.partition(".")[0] not in _PACKAGES:
        return False
    return getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False)
