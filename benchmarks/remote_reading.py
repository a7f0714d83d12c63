"""One contestant's reading of a remote array: ``python -m benchmarks.remote_reading JSON``.

Prints a line of JSON: for each scenario seconds, and the checksum of what was read.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.images import Images
from benchmarks.places import ChunkPlace, chunk_places
from benchmarks.readers import checksum

__all__ = ["CONTESTANTS", "DECOMPRESS", "POOL", "SCENARIOS", "can_read"]

SCENARIOS = ("64 scattered chunks", "scan")
POOL = "limit: connection pool"
DECOMPRESS = "limit: decompress"
_N_SCATTERED = 64
_CONNECTIONS = 32
_PIECE_NBYTES = 4 << 20
_CREDENTIALS = {"key": "testing", "secret": "testing"}
_REGION = "us-east-1"


def _s3_options(job: dict[str, Any]) -> dict[str, Any]:
    client = {"region_name": _REGION}
    return {**_CREDENTIALS, "endpoint_url": job["endpoint"], "client_kwargs": client}


def _path(job: dict[str, Any]) -> str:
    """Return bucket and key of the array: the server knows the directory above the images."""
    path = Images.of_job(job).path("zarr")
    return str(path.relative_to(path.parent.parent))


def _url_and_options(job: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return what fsspec needs."""
    if job["protocol"] == "s3":
        return f"s3://{_path(job)}", _s3_options(job)
    return f"{job['endpoint']}/{_path(job)}", {}


class _Lazyarr:
    def __init__(self, job: dict[str, Any]) -> None:
        import lazyarr

        url, options = _url_and_options(job)
        self.array = lazyarr.open(url, storage_options=options or None)

    def begin(self) -> None:
        self.array[0]

    def take(self, rows: Sequence[int]) -> Any:
        return self.array[list(rows)]

    def scan(self) -> Any:
        self.array.prefetch()
        return np.asarray(self.array)


class _Zarr:
    def __init__(self, job: dict[str, Any]) -> None:
        import zarr

        self.array: Any = zarr.open_array(self._store(job), mode="r")

    def _store(self, job: dict[str, Any]) -> Any:
        from zarr.storage import FsspecStore

        url, options = _url_and_options(job)
        return FsspecStore.from_url(url, storage_options=options, read_only=True)

    def begin(self) -> None:
        self.array[0]

    def take(self, rows: Sequence[int]) -> Any:
        return self.array.oindex[np.array(rows)]

    def scan(self) -> Any:
        return self.array[:]


class _Zarrs(_Zarr):
    def __init__(self, job: dict[str, Any]) -> None:
        import zarr
        import zarrs  # noqa: F401 - registers the pipeline

        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
        # It makes another client of the store's configuration, and says so.
        warnings.filterwarnings("ignore", "Successfully reconstructed", RuntimeWarning)
        super().__init__(job)

    def _store(self, job: dict[str, Any]) -> Any:
        if job["protocol"] != "s3":
            return super()._store(job)
        from obstore.store import S3Store
        from zarr.storage import ObjectStore

        bucket, _, prefix = _path(job).partition("/")
        store = S3Store(
            bucket,
            prefix=prefix,
            endpoint=job["endpoint"],
            access_key_id=_CREDENTIALS["key"],
            secret_access_key=_CREDENTIALS["secret"],
            region=_REGION,
            client_options={"allow_http": True},
        )
        return ObjectStore(store, read_only=True)


class _TensorStore:
    def __init__(self, job: dict[str, Any]) -> None:
        import tensorstore

        kvstore: dict[str, Any] = {"driver": "http", "base_url": _url_and_options(job)[0] + "/"}
        if job["protocol"] == "s3":
            bucket, _, path = _path(job).partition("/")
            kvstore = {
                "driver": "s3",
                "bucket": bucket,
                "path": f"{path}/",
                "endpoint": job["endpoint"],
                "aws_region": _REGION,
                "aws_credentials": {"type": "anonymous"},
            }
        spec = {"driver": "zarr3", "kvstore": kvstore, "recheck_cached_data": "open"}
        self.array = tensorstore.open(spec, read=True).result()

    def begin(self) -> None:
        self.array[0].read().result()

    def take(self, rows: Sequence[int]) -> Any:
        return self.array[np.array(rows)].read().result()

    def scan(self) -> Any:
        return self.array.read().result()


class _Pool:
    """aiohttp on its own: the encoded bytes of the chunks, and nothing is made of them."""

    def __init__(self, job: dict[str, Any]) -> None:
        images = Images.of_job(job)
        self._base = f"{job['endpoint']}/{_path(job)}"
        self._chunk_rows = images.size.chunk_rows
        self._directory = images.path("zarr")
        self._places = chunk_places(self._directory)

    def begin(self) -> None:
        self.take([0])

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

        async def read(session: aiohttp.ClientSession, place: ChunkPlace) -> None:
            key = Path(place.path).relative_to(self._directory)
            given = f"bytes={place.offset}-{place.offset + place.nbytes - 1}"
            async with (
                free,
                session.get(f"{self._base}/{key}", headers={"Range": given}) as response,
            ):
                assert len(await response.read()) == place.nbytes

        async with aiohttp.ClientSession() as session:
            begin = time.perf_counter()
            await asyncio.gather(*(read(session, place) for place in places))
            return time.perf_counter() - begin


class _Decoder:
    """The same chunks, in memory already, decompressed on all processors."""

    def __init__(self, job: dict[str, Any]) -> None:
        images = Images.of_job(job)
        self._chunk_rows = images.size.chunk_rows
        places = chunk_places(images.path("zarr"), trailer_nbytes=4)
        self._chunks = []
        for place in places:
            with open(place.path, "rb") as file:
                file.seek(place.offset)
                self._chunks.append(file.read(place.nbytes))

    def begin(self) -> None:
        self.take([0])

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
    POOL: _Pool,
    DECOMPRESS: _Decoder,
    "lazyarr": _Lazyarr,
    "zarr-python": _Zarr,
    "zarrs": _Zarrs,
    "TensorStore": _TensorStore,
}
_NEEDS = {"zarr-python": ("zarr",), "zarrs": ("zarr", "zarrs"), "TensorStore": ("tensorstore",)}


def can_read(name: str, protocol: str) -> bool:
    """Return whether everything is installed that a contestant needs."""
    needs = _NEEDS.get(name, ("aiohttp",))
    if protocol == "s3":
        needs = (*needs, "obstore" if name == "zarrs" else "s3fs")
    return all(find_spec(package) for package in needs)


def main() -> None:
    """Measure what the driver says, after one row has been read: all is imported and connected."""
    job = json.loads(sys.argv[1])
    contestant = CONTESTANTS[job["contestant"]](job)
    size = Images.of_job(job).size
    n_rows, chunk_rows = size.n_images, size.chunk_rows
    contestant.begin()
    choose = random.Random(job["seed"])
    chunks = range(1, n_rows // chunk_rows)
    rows = [c * chunk_rows for c in sorted(choose.sample(chunks, min(_N_SCATTERED, len(chunks))))]
    readings = {}
    for scenario in job["scenarios"]:
        begin = time.perf_counter()
        found = contestant.take(rows) if scenario == SCENARIOS[0] else contestant.scan()
        seconds = time.perf_counter() - begin
        if isinstance(found, float):  # a limit, which has taken the time itself
            readings[scenario] = {"seconds": found, "checksum": None}
        else:
            readings[scenario] = {"seconds": seconds, "checksum": checksum(found) % 2**64}
    print(json.dumps(readings))


if __name__ == "__main__":
    main()
