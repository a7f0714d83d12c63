"""The C handler, compiled on the spot and called through ctypes."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.places import ChunkPlace

__all__ = ["Handler", "can_decompress", "compile_handler"]

_SOURCE = Path(__file__).with_name("handler.c")
_BASE = ["cc", "-O2", "-shared", "-fPIC", "-pthread"]


def compile_handler(directory: Path) -> Path | None:
    """Return the shared library of the handler, made now; None where there is no compiler.

    With libzstd where its header is there, else for uncompressed chunks only.
    """
    if shutil.which("cc") is None:
        return None
    library = directory / "handler.so"
    with_zstd = [*_BASE, "-DWITH_ZSTD", "-o", str(library), str(_SOURCE), "-lzstd"]
    if subprocess.run(with_zstd, stderr=subprocess.DEVNULL, check=False).returncode:
        subprocess.run([*_BASE, "-o", str(library), str(_SOURCE)], check=True)
    return library


def can_decompress(library: Path) -> bool:
    """Return whether a compiled handler takes zstd chunks."""
    return bool(ctypes.CDLL(str(library)).handler_can_decompress())


class Handler:
    """An array of uint16 whose faults the C handler serves, until the process ends.

    Parameters
    ----------
    library : Path
        From `compile_handler`.
    places : sequence of ChunkPlace
        Where the chunk of each unit lies, all in one file.
    unit_nbytes : int
        Bytes of a unit: whole pages.
    compressed : bool
        Whether the chunks are zstd frames.
    """

    def __init__(
        self, library: Path, places: Sequence[ChunkPlace], unit_nbytes: int, *, compressed: bool
    ) -> None:
        functions = ctypes.CDLL(str(library))
        functions.handler_open.restype = functions.handler_address.restype = ctypes.c_void_p
        numbers = ctypes.c_uint64 * len(places)
        self._functions = functions
        self._handler = ctypes.c_void_p(
            functions.handler_open(
                places[0].path.encode(),
                ctypes.c_uint64(unit_nbytes),
                ctypes.c_uint64(len(places)),
                numbers(*(place.offset for place in places)),
                numbers(*(place.nbytes for place in places)),
                ctypes.c_int(compressed),
            )
        )
        address = functions.handler_address(self._handler)
        memory = (ctypes.c_uint16 * (unit_nbytes * len(places) // 2)).from_address(address)
        self.array: np.ndarray[Any, Any] = np.ctypeslib.as_array(memory)

    def evict(self) -> None:
        """Take every page out again."""
        self._functions.handler_evict(self._handler)
