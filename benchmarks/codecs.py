"""What each compressor makes of which data, and how fast."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.report import Section, table
from benchmarks.running import Run, tell
from benchmarks.samples import KINDS, Array, make_rows

__all__ = ["CHUNK_NBYTES", "CodecPlan", "Speed", "make_chunks", "measure", "measure_codecs"]

CHUNK_NBYTES = 512 << 10
_SIDE = 512
_LEGEND = """\
Chunks of 512 KiB are decoded as the pager decodes them, checksum and all, from and to memory that
was used just before, as after a read from the page cache.  *Size* is what is stored, where the data
has 1; the rest is GB of data a second.  Contestants take turns; the fastest of many short runs
counts, for whatever else the machine does only adds to it.  *auto* is what `compressor="auto"`
picks.  blosc2, in its own format and with as many threads of its own, stands beside them with the
settings that lazyarr uses for blosc.
"""

_Decode = Callable[[memoryview, memoryview, int], object]
"""Decodes some bytes into others, on so many threads where it has its own."""


@dataclass(frozen=True, slots=True)
class CodecPlan:
    """How much is measured: chunks of each kind of data, numbers of threads, and how often."""

    n_chunks: int
    threads: tuple[int, ...]
    repeats: int


_FULL = CodecPlan(16, (1, 2), repeats=25)
_QUICK = CodecPlan(2, (1, 2), repeats=1)


class Speed(NamedTuple):
    """One compressor on one kind of data.

    Attributes
    ----------
    data, codec : str
        Which.
    ratio : float
        Stored size, where the data has 1.
    encode : float
        GB of data a second, one thread.
    decode : tuple of float
        GB of data a second, by number of threads.
    is_picked : bool
        Whether ``compressor="auto"`` picks it.
    """

    data: str
    codec: str
    ratio: float
    encode: float
    decode: tuple[float, ...]
    is_picked: bool


def make_chunks(kind: str, n_chunks: int) -> Array:
    """Return chunks of a kind of data, each a row, the same every time."""
    width = CHUNK_NBYTES // _SIDE
    rows = make_rows(kind, n_chunks, _SIDE, width // KINDS[kind].itemsize, seed=0)
    return rows.reshape(n_chunks, -1)


class _Contestant(NamedTuple):
    name: str
    encoded: list[bytes]
    encode_seconds: float
    decode: _Decode
    has_threads: bool = False

    @property
    def nbytes(self) -> int:
        return sum(map(len, self.encoded))


def _encode_all(encode: Callable[[Any], bytes], raw: Sequence[Any]) -> tuple[list[bytes], float]:
    """Return all chunks encoded, and how long that takes: the fastest of three for each."""
    encoded, seconds = [], 0.0
    for data in raw:
        taken = []
        for _ in range(3):
            begin = time.perf_counter()
            stored = encode(data)
            taken.append(time.perf_counter() - begin)
        encoded.append(stored)
        seconds += min(taken)
    return encoded, seconds


def _lazyarr(name: str, chunks: Array) -> _Contestant:
    from lazyarr.formats.zarr import array_document, data_type_from_numpy, parse_node

    document = array_document(
        shape=chunks.shape,
        dtype=data_type_from_numpy(chunks.dtype),
        chunks=(1, chunks.shape[1]),
        compressor=name,
    )
    layout = parse_node(document, path="").layout()
    raw = [chunk.view("u1").data for chunk in chunks]
    layout.encode(raw[0])  # what is imported does not count
    encoded, seconds = _encode_all(layout.encode, raw)
    return _Contestant(name, encoded, seconds, lambda data, out, _: layout.decode(data, out))


def _blosc2(chunks: Array) -> _Contestant:
    import blosc2

    single = chunks.itemsize == 1
    options = {
        "codec": blosc2.Codec.ZSTD,
        "clevel": 1,
        "filters": [blosc2.Filter.BITSHUFFLE if single else blosc2.Filter.SHUFFLE],
        "typesize": chunks.itemsize,
        "nthreads": 1,
    }
    raw = [chunk.tobytes() for chunk in chunks]
    encoded, seconds = _encode_all(lambda data: blosc2.compress2(data, **options), raw)

    def decode(data: memoryview, out: memoryview, n_threads: int) -> None:
        blosc2.decompress2(data, dst=out, nthreads=n_threads)

    return _Contestant("blosc2", encoded, seconds, decode, has_threads=True)


def _decode_all(contestant: _Contestant, n_threads: int) -> float:
    """Return how long so many threads take to decode everything, each its share."""
    n_workers = 1 if contestant.has_threads else n_threads
    ready = threading.Barrier(n_workers)

    def work(worker: int) -> float:
        scratch = memoryview(bytearray(max(map(len, contestant.encoded))))
        out = memoryview(bytearray(CHUNK_NBYTES))
        contestant.decode(memoryview(contestant.encoded[0]), out, n_threads)
        ready.wait()
        seconds = 0.0
        for encoded in contestant.encoded[worker::n_workers]:
            data = scratch[: len(encoded)]
            data[:] = encoded
            begin = time.perf_counter()
            contestant.decode(data, out, n_threads)
            seconds += time.perf_counter() - begin
        return seconds

    with ThreadPoolExecutor(n_workers) as pool:
        return max(pool.map(work, range(n_workers)))


def measure_codecs(plan: CodecPlan) -> Iterator[Speed]:
    """Yield figures for every kind of data and every compressor."""
    from lazyarr.writer.choosing import choose_compressor
    from lazyarr.writer.source import as_source

    for data in KINDS:
        chunks = make_chunks(data, plan.n_chunks)
        contestants = [_lazyarr(name, chunks) for name in ("zstd", "blosc", "none")]
        if find_spec("blosc2"):
            contestants.append(_blosc2(chunks))
        seconds: dict[tuple[str, int], float] = {}
        for _ in range(plan.repeats):
            for n in plan.threads:
                for contestant in contestants:
                    key = contestant.name, n
                    seconds[key] = min(_decode_all(contestant, n), seconds.get(key, math.inf))
        shape = (1, chunks.shape[1])
        picked = choose_compressor(as_source(chunks), shape, chunks.dtype, level=None)
        for contestant in contestants:
            name = contestant.name
            yield Speed(
                data,
                name,
                contestant.nbytes / chunks.nbytes,
                chunks.nbytes / contestant.encode_seconds / 1e9,
                tuple(chunks.nbytes / seconds[name, n] / 1e9 for n in plan.threads),
                name == picked,
            )


def measure(data: Path, run: Run) -> Section:  # noqa: ARG001 - it needs no data
    """Measure all compressors on all kinds of data."""
    plan = run.plan(_FULL, _QUICK)
    found = []
    for speed in measure_codecs(plan):
        tell(*speed)
        found.append(speed)
    rows = [
        (
            speed.data,
            f"**{speed.codec}** (auto)" if speed.is_picked else speed.codec,
            f"{speed.ratio:.3f}",
            *(f"{value:.2f}" for value in (speed.encode, *speed.decode)),
        )
        for speed in found
    ]
    threads = [f"decode, {n} thread{'s' * (n > 1)}" for n in plan.threads]
    lines = table(("data", "compressor", "size", "encode, 1 thread", *threads), rows)
    return Section("Compressors", [speed._asdict() for speed in found], [_LEGEND, *lines])
