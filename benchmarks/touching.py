"""One contestant of the fault benchmark, in a process of its own.

Run by `benchmarks.faults` as ``python -m benchmarks.touching JSON``; takes commands
as lines of JSON: the elements to touch, one after the other.  After each command
everything that was brought in is taken out again, outside of the measured time.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from benchmarks.places import ChunkPlace, chunk_places
from lazyarr.testing import serve_commands

__all__ = ["CONTESTANTS", "CRC32C_NBYTES", "Touched"]

CRC32C_NBYTES = 4


class Touched(NamedTuple):
    """What a command gives: the time of each touch, and the sum of the elements."""

    nanoseconds: list[int]
    checksum: int


class _Contestant(Protocol):
    def touch(self, elements: Sequence[int]) -> Touched: ...

    def evict(self) -> None: ...


class _Setup(NamedTuple):
    """What the driver says: which contestant, which store."""

    contestant: str
    store: str
    unit_nbytes: int
    codec: str
    library: str | None

    @property
    def is_compressed(self) -> bool:
        return self.codec != "none"

    def places(self) -> list[ChunkPlace]:
        trailer_nbytes = CRC32C_NBYTES if "crc32c" in self.codec else 0
        return chunk_places(Path(self.store), trailer_nbytes=trailer_nbytes)


def _touch(array: np.ndarray[Any, Any], elements: Sequence[int]) -> Touched:
    """Read elements of an array, each from a page that is not there."""
    clock = time.perf_counter_ns
    nanoseconds = []
    checksum = 0
    for element in elements:
        begin = clock()
        value = array[element]
        nanoseconds.append(clock() - begin)
        checksum += int(value)
    return Touched(nanoseconds, checksum)


class _Lazyarr:
    """The pager: a touch of the plain array over lazyarr's memory."""

    def __init__(self, setup: _Setup) -> None:
        import lazyarr

        self._lazy: Any = lazyarr.open(setup.store)
        self._array = np.asarray(self._lazy)

    def touch(self, elements: Sequence[int]) -> Touched:
        return _touch(self._array, elements)

    def evict(self) -> None:
        self._lazy.evict()


class _Handler:
    """The handler in C: the same touch of the same kind of memory."""

    def __init__(self, setup: _Setup) -> None:
        from benchmarks.handler import Handler

        assert setup.library is not None
        self._handler = Handler(
            Path(setup.library),
            setup.places(),
            setup.unit_nbytes,
            compressed=setup.is_compressed,
        )

    def touch(self, elements: Sequence[int]) -> Touched:
        return _touch(self._handler.array, elements)

    def evict(self) -> None:
        self._handler.evict()


class _Sum:
    """``pread`` + decompress + copy in one thread of Python, without any fault.

    Copied to where the unit belongs in memory that is already there, so that
    this counts no page that must be found and no page table that must be written.
    """

    def __init__(self, setup: _Setup) -> None:
        from zstandard import ZstdDecompressor

        self._places = setup.places()
        self._unit_nbytes = setup.unit_nbytes
        self._file = os.open(self._places[0].path, os.O_RDONLY)
        self._encoded = memoryview(bytearray(max(place.nbytes for place in self._places)))
        self._decoded = memoryview(bytearray(setup.unit_nbytes))
        self._decompressor = ZstdDecompressor() if setup.is_compressed else None
        self._values = np.frombuffer(self._decoded, np.uint16)
        self._make_target()

    def _make_target(self) -> None:
        self._target = memoryview(bytearray(self._unit_nbytes * len(self._places)))
        self._target[:] = b"\1" * len(self._target)

    def touch(self, elements: Sequence[int]) -> Touched:
        clock = time.perf_counter_ns
        per_unit = self._unit_nbytes // self._values.itemsize
        nanoseconds = []
        checksum = 0
        for element in elements:
            begin = clock()
            unit, item = divmod(element, per_unit)
            self._load(self._places[unit])
            self._copy(unit * self._unit_nbytes)
            value = self._values[item]
            nanoseconds.append(clock() - begin)
            checksum += int(value)
        return Touched(nanoseconds, checksum)

    def _load(self, place: ChunkPlace) -> None:
        into = self._decoded if self._decompressor is None else self._encoded[: place.nbytes]
        assert os.preadv(self._file, [into], place.offset) == place.nbytes
        if self._decompressor is not None:
            with self._decompressor.stream_reader(into) as reader:
                assert reader.readinto(self._decoded) == self._unit_nbytes

    def _copy(self, offset: int) -> None:
        self._target[offset : offset + self._unit_nbytes] = self._decoded

    def evict(self) -> None:
        pass


class _SumIntoHoles(_Sum):
    """The same, copied into a memory object that must find its pages first, as an install must."""

    def _make_target(self) -> None:
        self._memfd = os.memfd_create("benchmark")

    def _copy(self, offset: int) -> None:
        assert os.pwrite(self._memfd, self._decoded, offset) == self._unit_nbytes

    def evict(self) -> None:
        os.ftruncate(self._memfd, 0)


CONTESTANTS: dict[str, type[_Lazyarr | _Handler | _Sum]] = {
    "lazyarr": _Lazyarr,
    "C handler": _Handler,
    "sum": _Sum,
    "sum, new pages": _SumIntoHoles,
}


def main() -> None:
    """Serve the driver."""
    setup = _Setup(**json.loads(sys.argv[1]))
    contestant: _Contestant = CONTESTANTS[setup.contestant](setup)
    gc.disable()

    def answer(command: dict[str, Any]) -> Any:
        touched = contestant.touch(command["elements"])
        contestant.evict()
        return touched._asdict()

    serve_commands("ready", answer)


if __name__ == "__main__":
    main()
