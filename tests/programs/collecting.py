"""Programs of tests/test_collecting.py."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import fsspec.asyn
import h5py

import lazyarr

_N_NODES = 2000


def objects_of_h5py_are_freed_by_the_thread_that_brings_bytes(path: str, url: str) -> None:
    """Open a file by its URL while fsspec's loop leaves cyclic garbage with h5py's objects."""
    file = h5py.File(path)
    nodes = [file["x"] for _ in range(_N_NODES)]

    async def leave_garbage() -> None:
        while nodes:
            for node in (nodes.pop(), nodes.pop()):
                ring: list[Any] = [node]
                ring.append(ring)
            del node, ring
            _ = [[] for _ in range(300)]
            await asyncio.sleep(0)

    gc.set_threshold(100)
    asyncio.run_coroutine_threadsafe(leave_garbage(), fsspec.asyn.get_loop())
    n_opened = 0
    while nodes or not n_opened:
        with lazyarr.open(url) as ds:
            n_opened += ds["x"].shape == (1000,)
    print(n_opened > 0, gc.isenabled())
