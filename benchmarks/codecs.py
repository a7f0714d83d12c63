"""``python -m benchmarks.codecs``: what each compressor makes of which data, and how fast.

Chunks of 512 KiB are decoded as the pager decodes them, checksum and all, from and to memory
that was used just before, as after a read from the page cache.  Contestants take turns; the
fastest of many short runs counts, for whatever else the machine does only adds to it.  ``auto``
in the table is what ``compressor="auto"`` picks.  blosc2, in its own format and with as many
threads of its own, stands beside them with the settings that lazyarr uses for blosc.
"""

from __future__ import annotations

import argparse
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from benchmarks.images import make_images
from lazyarr.format import array_document, data_type_from_numpy, parse_node
from lazyarr.writer.choosing import choose_compressor
from lazyarr.writer.source import as_source

__all__ = ["Speed", "make_data", "measure_codecs", "render_codecs"]

_CHUNK_NBYTES = 512 * 1024
_Array = np.ndarray[Any, Any]
_Decode = Callable[[memoryview, memoryview, int], object]
"""Decodes some bytes into others, on so many threads where it has its own."""


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


def make_data(n_chunks: int) -> Iterator[tuple[str, _Array]]:
    """Yield a name and that many chunks of each kind of data, the same every time."""
    rng = np.random.default_rng(0)
    side = 512
    y, x = np.mgrid[:side, :side].astype("f4")

    def chunked(array: _Array) -> _Array:
        flat = array.reshape(-1)
        length = _CHUNK_NBYTES // flat.itemsize
        return np.ascontiguousarray(flat[: n_chunks * length].reshape(n_chunks, length))

    n_images = 2 * n_chunks
    smooth = np.stack([np.sin(x / (30 + i)) * np.cos(y / (40 - i % 20)) for i in range(n_images)])
    noise = rng.standard_normal(smooth.shape, "f4")
    yield "uint8 images", chunked(np.clip(128 + 60 * smooth + 3 * noise, 0, 255).astype("u1"))
    yield "uint16 images", chunked(make_images(n_chunks, side, side, seed=1))
    yield "float32 fields", chunked(280 + 20 * smooth + 0.01 * noise)
    sparse = np.where(rng.random(smooth.shape) < 0.01, noise, np.float32(0))
    yield "float32, 1 % not zero", chunked(sparse)
    yield "int64 that grow", chunked(np.cumsum(rng.integers(0, 5, n_images * side * side // 4)))
    yield "float64 noise", chunked(rng.standard_normal((n_images, side * side // 4)))
    yield "random bytes", chunked(rng.integers(0, 256, smooth.shape, "u1"))


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


def _lazyarr(name: str, chunks: _Array) -> _Contestant:
    document = array_document(
        shape=chunks.shape,
        dtype=data_type_from_numpy(chunks.dtype),
        chunks=(1, chunks.shape[1]),
        compressor=name,
    )
    layout = parse_node(document, path="").layout()  # type: ignore[union-attr]
    raw = [chunk.view("u1").data for chunk in chunks]
    layout.encode(raw[0])  # what is imported does not count
    encoded, seconds = _encode_all(layout.encode, raw)
    return _Contestant(name, encoded, seconds, lambda data, out, _: layout.decode(data, out))


def _blosc2(chunks: _Array) -> _Contestant:
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
        out = memoryview(bytearray(_CHUNK_NBYTES))
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


def measure_codecs(
    *, n_chunks: int, repeats: int, threads: Sequence[int] = (1, 2)
) -> Iterator[Speed]:
    """Yield figures for every kind of data and every compressor."""
    for data, chunks in make_data(n_chunks):
        contestants = [_lazyarr(name, chunks) for name in ("zstd", "blosc", "none")]
        if find_spec("blosc2"):
            contestants.append(_blosc2(chunks))
        seconds: dict[tuple[str, int], float] = {}
        for _ in range(repeats):
            for n in threads:
                for contestant in contestants:
                    key = contestant.name, n
                    seconds[key] = min(_decode_all(contestant, n), seconds.get(key, math.inf))
        picked = choose_compressor(
            as_source(chunks), (1, chunks.shape[1]), chunks.dtype, level=None
        )
        for contestant in contestants:
            name = contestant.name
            yield Speed(
                data,
                name,
                contestant.nbytes / chunks.nbytes,
                chunks.nbytes / contestant.encode_seconds / 1e9,
                tuple(chunks.nbytes / seconds[name, n] / 1e9 for n in threads),
                name == picked,
            )


def render_codecs(speeds: Sequence[Speed], threads: Sequence[int] = (1, 2)) -> str:
    """Return the figures as a Markdown table."""
    counts = " | ".join(f"decode, {n} thread{'s' * (n > 1)}" for n in threads)
    lines = [
        f"| data | compressor | size | encode, 1 thread | {counts} |",
        "|---|---|---|---|" + "---|" * len(threads),
    ]
    for speed in speeds:
        decode = " | ".join(f"{value:.2f}" for value in speed.decode)
        name = f"**{speed.codec}** (auto)" if speed.is_picked else speed.codec
        lines.append(
            f"| {speed.data} | {name} | {speed.ratio:.3f} | {speed.encode:.2f} | {decode} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codecs", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works")
    parser.add_argument("--repeats", type=int, default=25, help="how often each is measured")
    options = parser.parse_args()
    n_chunks = 2 if options.quick else 16
    speeds = measure_codecs(n_chunks=n_chunks, repeats=options.repeats)
    print(f"{n_chunks} chunks of 512 KiB; GB/s of data; the fastest of {options.repeats}\n")
    print(render_codecs(list(speeds)))


if __name__ == "__main__":
    main()
