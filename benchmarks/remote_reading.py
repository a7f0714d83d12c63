"""One contestant's reading of a remote array: ``python -m benchmarks.remote_reading JSON``.

Prints a line of JSON: for each scenario seconds, and the checksum of what was read.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.places import ChunkPlace, chunk_places
from benchmarks.readers import checksum

__all__ = ["CONTESTANTS", "LIMIT", "SCENARIOS"]

SCENARIOS = ("64 scattered chunks", "scan")
LIMIT = "limit: connection pool"
_N_SCATTERED = 64
_CONNECTIONS = 32
_PIECE_NBYTES = 4 << 20
_CREDENTIALS = {"key": "testing", "secret": "testing"}

Array = np.ndarray[Any, Any]


def _s3_options(job: dict[str, Any]) -> dict[str, Any]:
    client = {"region_name": "us-east-1"}
    return {**_CREDENTIALS, "endpoint_url": job["endpoint"], "client_kwargs": client}


def _url_and_options(job: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return what fsspec needs; the bucket is the directory that is served."""
    if job["kind"] == "s3":
        return f"s3://{job['path']}", _s3_options(job)
    return f"{job['endpoint']}/{job['path']}", {}


class _Lazyarr:
    def __init__(self, job: dict[str, Any]) -> None:
        import lazyarr

        url, options = _url_and_options(job)
        self.array = lazyarr.open(url, storage_options=options or None)

    def take(self, rows: Sequence[int]) -> Any:
        return self.array[list(rows)]

    def scan(self) -> Any:
        self.array.prefetch()
        return np.asarray(self.array)


class _Zarr:
    def __init__(self, job: dict[str, Any]) -> None:
        import zarr
        from zarr.storage import FsspecStore

        url, options = _url_and_options(job)
        store = FsspecStore.from_url(url, storage_options={**options}, read_only=True)
        self.array: Any = zarr.open_array(store, mode="r")

    def take(self, rows: Sequence[int]) -> Any:
        return self.array.oindex[np.array(rows)]

    def scan(self) -> Any:
        return self.array[:]


class _TensorStore:
    def __init__(self, job: dict[str, Any]) -> None:
        import tensorstore

        kvstore: dict[str, Any] = {"driver": "http", "base_url": _url_and_options(job)[0] + "/"}
        if job["kind"] == "s3":
            bucket, _, path = job["path"].partition("/")
            kvstore = {
                "driver": "s3",
                "bucket": bucket,
                "path": f"{path}/",
                "endpoint": job["endpoint"],
                "aws_region": "us-east-1",
                "aws_credentials": {"type": "anonymous"},
            }
        spec = {"driver": "zarr3", "kvstore": kvstore, "recheck_cached_data": "open"}
        self.array = tensorstore.open(spec, read=True).result()

    def take(self, rows: Sequence[int]) -> Any:
        return self.array[np.array(rows)].read().result()

    def scan(self) -> Any:
        return self.array.read().result()


class _Pool:
    """aiohttp on its own: the encoded bytes of the chunks, and nothing is made of them."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        self._shape: tuple[int, ...] = tuple(job["shape"])
        self._chunk_rows: int = job["chunk_rows"]
        self._directory = Path(job["directory"])
        self._places = chunk_places(self._directory)

    def take(self, rows: Sequence[int]) -> Any:
        places = [self._places[row // self._chunk_rows] for row in rows]
        return asyncio.run(self._read(places))

    def scan(self) -> Any:
        places = []
        for path in sorted({place.path for place in self._places}):
            size = Path(path).stat().st_size
            for start in range(0, size, _PIECE_NBYTES):
                places.append(ChunkPlace(path, start, min(_PIECE_NBYTES, size - start)))
        return asyncio.run(self._read(places))

    async def _read(self, places: Sequence[ChunkPlace]) -> float:
        import aiohttp

        free = asyncio.Semaphore(_CONNECTIONS)
        base = f"{self._job['endpoint']}/{self._job['path']}"

        async def read(session: aiohttp.ClientSession, place: ChunkPlace) -> None:
            key = Path(place.path).relative_to(self._directory)
            given = f"bytes={place.offset}-{place.offset + place.nbytes - 1}"
            async with free, session.get(f"{base}/{key}", headers={"Range": given}) as response:
                assert len(await response.read()) == place.nbytes

        async with aiohttp.ClientSession() as session:
            begin = time.perf_counter()
            await asyncio.gather(*(read(session, place) for place in places))
            return time.perf_counter() - begin


class _Decoder:
    """The same chunks, in memory already, decompressed on all processors."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._chunk_rows: int = job["chunk_rows"]
        places = chunk_places(Path(job["directory"]), trailer_nbytes=4)
        self._chunks = []
        for place in places:
            with open(place.path, "rb") as file:
                file.seek(place.offset)
                self._chunks.append(file.read(place.nbytes))

    def take(self, rows: Sequence[int]) -> Any:
        return self._decode([self._chunks[row // self._chunk_rows] for row in rows])

    def scan(self) -> Any:
        return self._decode(self._chunks)

    def _decode(self, chunks: Sequence[bytes]) -> float:
        import zstandard

        def decode(chunk: bytes) -> None:
            zstandard.ZstdDecompressor().decompress(chunk)

        with ThreadPoolExecutor() as pool:
            begin = time.perf_counter()
            for _ in pool.map(decode, chunks):
                pass
            return time.perf_counter() - begin


CONTESTANTS: dict[str, Any] = {
    LIMIT: _Pool,
    "limit: decompress": _Decoder,
    "lazyarr": _Lazyarr,
    "zarr-python": _Zarr,
    "TensorStore": _TensorStore,
}


def main() -> None:
    """Measure what the driver says, after one row has been read: all is imported and connected."""
    job = json.loads(sys.argv[1])
    contestant = CONTESTANTS[job["contestant"]](job)
    n_rows, chunk_rows = job["shape"][0], job["chunk_rows"]
    contestant.take([0])
    choose = random.Random(job["seed"])
    chunks = range(1, n_rows // chunk_rows)
    rows = [c * chunk_rows for c in sorted(choose.sample(chunks, min(_N_SCATTERED, len(chunks))))]
    begin = time.perf_counter()
    found = contestant.take(rows) if job["scenario"] == SCENARIOS[0] else contestant.scan()
    seconds = time.perf_counter() - begin
    if isinstance(found, float):
        print(json.dumps({"seconds": found, "checksum": None}))
    else:
        print(json.dumps({"seconds": seconds, "checksum": checksum(found) % 2**64}))


if __name__ == "__main__":
    main()
