"""Compressed, chunked datasets, local or remote, as real NumPy arrays that fill on first touch.

`open` reads metadata only, and gives a `Dataset` (a mapping of names to arrays and groups) or an
array.  An array is a `LazyArray`: a real `numpy.ndarray` whose memory fills when it is touched.

>>> import lazyarr, numpy, tempfile
>>> directory = tempfile.TemporaryDirectory()
>>> lazyarr.save(f"{directory.name}/x.zarr", {"numbers": numpy.arange(12).reshape(4, 3)})
>>> x = lazyarr.open(f"{directory.name}/x.zarr")["numbers"]
>>> x[1].tolist()           # picking reads: its chunk is fetched, checked, decompressed
[3, 4, 5]
>>> lazy = x[::2, :2]       # slicing is free: another LazyArray
>>> int(lazy.sum())         # operations read what they need, in one request
14
>>> plain = numpy.asarray(x)   # the plain array on the same memory, for C, numba, torch
>>> directory.cleanup()

``help(lazyarr.open)``, and so on, says more of each of these:

Reading
    open                    Open a Zarr store, or a file of arrays; nothing is read but metadata.
    Dataset                 A group of a store: a mapping of names to arrays and groups.
    LazyArray               An array whose memory fills when it is touched.
    CopyArray               An array that copies what is asked of it, without userfaultfd.
    verify, Report          Read and check every stored chunk, and say what was found.

Memory
    prefetch                Have an array, or a part of it, brought into memory.
    evict                   Have it taken out of memory again.
    residency, Residency    How much of it is in memory.
    stats                   What the pager has counted and timed.
    record                  Note in which order chunks are touched first, for `Dataset.replay`
                            and `LazyArray.replay`, which load them ahead in a later run.

Settings
    configure, config       Set, and return, limits and the rest; each is also LAZYARR_... in the
                            environment.
    doctor                  What this kernel lets this user do.
    shutdown                Let go of the pager, and end lazyarr's threads.
    freeze_support          For programs that PyInstaller and others have frozen.

Writing
    flush, FlushReport      Have what was written to an array of mode "r+" be in the store.
    rescue                  The same when the process that fills pages is gone.
    save                    Write arrays to a new store: Zarr v3, sharded, compressed, checked.
    create                  Write a new store piece by piece.
    Writer, ArrayWriter     What `create` gives, and an array of it.

Errors, all of them `LazyarrError`
    StoreError              A store cannot be reached, listed or written.
    NodeNotFoundError       There is no such array or group; also a KeyError.
    FormatError             A document or chunk is not what its format allows, or cannot be mapped.
    ChunkError              A chunk cannot be had, or is damaged: names array, chunk and object.
    KernelError             The kernel refuses a call.
    KernelUnsupportedError  userfaultfd cannot be used here; says what to do.
    PagerError              The process that fills pages is gone, or cannot be started.

What it warns of
    EngineWarning           Arrays are not memory here: each read makes a copy.
    PerformanceWarning      The chunks of an array are loaded again and again, for want of room.
    StoreWarning            Something in a store is odd.
"""

from __future__ import annotations

import sys
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
    PerformanceWarning,
    StoreError,
    StoreWarning,
)
from lazyarr.parts import import_on_use

if TYPE_CHECKING:
    from lazyarr.client.arrays.lazyarray import LazyArray
    from lazyarr.client.arrays.residency import Residency
    from lazyarr.copying.array import CopyArray
    from lazyarr.dataset import Dataset, open
    from lazyarr.flush_report import FlushReport
    from lazyarr.freezing import freeze_support
    from lazyarr.memory import (
        config,
        configure,
        doctor,
        evict,
        flush,
        prefetch,
        rescue,
        residency,
        shutdown,
        stats,
    )
    from lazyarr.traces import record
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
    "record",
    "flush",
    "FlushReport",
    "rescue",
    "shutdown",
    "verify",
    "Report",
    "doctor",
    "freeze_support",
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
    "PerformanceWarning",
    "StoreWarning",
    "__version__",
]

# Importing the package costs next to nothing: what a name needs is imported when it is first used.
__getattr__ = import_on_use(
    globals(),
    {
        "client.arrays.lazyarray": "LazyArray",
        "client.arrays.residency": "Residency",
        "copying.array": "CopyArray",
        "dataset": "Dataset open",
        "flush_report": "FlushReport",
        "freezing": "freeze_support",
        "memory": "config configure doctor evict flush prefetch rescue residency shutdown stats",
        "traces": "record",
        "verification": "Report verify",
        "writer": "ArrayWriter Writer create save",
    },
)


def __dir__() -> list[str]:
    """Return the public names; none where `help` looks for something to print."""
    return [] if _is_for_help() else sorted(__all__)


def _is_for_help() -> bool:
    """Return whether the code that wants to know the names is pydoc's.

    pydoc prints every class and function that ``dir`` names, with all that classes inherit: 4,000
    lines, most of them of NumPy's ndarray and of exceptions.  A shorter ``__all__`` would take
    names away from everybody.  So pydoc finds none, and prints what the docstring says of each.
    """
    frame = sys._getframe(2)  # noqa: SLF001 - of the code that calls `dir`
    # pydoc calls `inspect.getmembers`, which calls `dir`.
    while frame.f_back is not None and frame.f_globals.get("__name__") == "inspect":
        frame = frame.f_back
    return frame.f_globals.get("__name__") == "pydoc"
