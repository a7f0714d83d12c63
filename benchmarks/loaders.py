"""Loaders of shuffled samples, in a process of their own: lazyarr's, and those of its peers.

``python -m benchmarks.loaders JOB`` reads two epochs, or resumes one, and prints what that took.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.images import Images
from benchmarks.readers import READERS
from benchmarks.remote_reading import CONTESTANTS as REMOTE
from benchmarks.samples import LEVEL

__all__ = [
    "COMPRESSED",
    "CONTESTANTS",
    "LIMITED",
    "READ_REMOTELY",
    "SHUFFLED",
    "SHUFFLED_MEMMAP",
    "WINDOW",
    "ZEROS",
    "Contestant",
]

SHUFFLED, SHUFFLED_MEMMAP = "lazyarr, ChunkShuffle", "numpy.memmap, ChunkShuffle"
LIMITED = f"{SHUFFLED}, a third of the memory"
ZEROS = "zeros"
"""Batches of zeros, which nobody reads: what Python, torch and batches take by themselves."""

WINDOW = 64
"""How many chunks are shuffled together by those who are told."""

_WINDOWS = {
    "zarr-python, windows": ("zarr", "zarr-python"),
    "zarrs, windows": ("zarrs", "zarrs"),
    "TensorStore, windows": ("tensorstore", "TensorStore"),
    "h5py, windows": ("h5py", "h5py, gzip, 4 GiB cache"),
}
_PARQUET, _LITDATA = "HF datasets, Parquet", "LitData"
COMPRESSED = (*_WINDOWS, _PARQUET, _LITDATA)
"""Contestants that read compressed samples, but for lazyarr."""


class _Job(NamedTuple):
    images: Images
    batch: int
    workers: int
    limit_nbytes: int
    endpoint: str
    is_watched: bool

    def url(self) -> str:
        """Return where the compressed array is, on a server if there is one."""
        path = self.images.path("zarr")
        return (
            f"{self.endpoint}/{path.relative_to(path.parents[1])}" if self.endpoint else str(path)
        )

    def take(self, library: str) -> Callable[[list[slice]], list[Any]]:
        """Return what reads some ranges of rows, all of them at once where each takes a trip."""
        if not self.endpoint:
            reader = READERS[library](self.images)
            return lambda ranges: [reader.rows(rows.start, rows.stop) for rows in ranges]
        given = {**self.images.job(), "protocol": "http", "endpoint": self.endpoint}
        remote = REMOTE[library](given)
        return lambda ranges: [remote.take([k for r in ranges for k in range(r.start, r.stop)])]


Loaders = Iterator[Any]


def _batches(data: Any, job: _Job, **options: Any) -> Any:
    from torch.utils.data import DataLoader

    return DataLoader(
        data,
        batch_size=job.batch,
        num_workers=job.workers,
        persistent_workers=job.workers > 0,
        **options,
    )


def _lazyarr(job: _Job, *, is_limited: bool = False, is_plain: bool = False) -> Loaders:
    """Give the loader of each epoch."""
    import lazyarr
    import lazyarr.torch

    if is_limited:
        lazyarr.configure(memory_limit=job.limit_nbytes)
    array = lazyarr.open(job.url())
    data: Any = lazyarr.torch.Dataset(array)
    if job.is_watched:
        data = _Watched(data, array)
    if is_plain:
        yield from itertools.repeat(_batches(data, job, shuffle=True))
    order = lazyarr.torch.ChunkShuffle(array)
    loader = _batches(data, job, sampler=order)
    for epoch in range(1 << 30):
        order.set_epoch(epoch)
        yield loader


class _Watched:
    """Counts the batches of which a chunk was not in memory when they were picked."""

    def __init__(self, data: Any, array: Any) -> None:
        self._data, self._array = data, array
        self._n_waited = multiprocessing.Value("q", 0)  # of all workers
        # A unit of this array is a chunk.
        assert array.residency().total_units == -(-len(array) // array.chunks[0])

    @property
    def n_waited(self) -> int:
        """How many there were."""
        n_waited: int = self._n_waited.value
        return n_waited

    def __len__(self) -> int:
        return len(self._data)

    def __getitems__(self, rows: Sequence[int]) -> Any:
        there = self._array.residency().map
        if not there[np.asarray(rows) // self._array.chunks[0]].all():
            with self._n_waited:
                self._n_waited.value += 1
        return self._data.__getitems__(rows)


class _Zeros:
    def __init__(self, images: Images) -> None:
        self._size = images.size

    def __len__(self) -> int:
        return self._size.n_images

    def __getitems__(self, rows: Sequence[int]) -> Any:
        return list(np.zeros((len(rows), *self._size.shape[1:]), self._size.dtype))


def _zeros(job: _Job) -> Loaders:
    yield from itertools.repeat(_batches(_Zeros(job.images), job, shuffle=True))


class _Rows:
    """A map-style data set of what NumPy maps."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._array = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, row: int) -> Any:
        return np.array(self._array[row])


@dataclass(frozen=True)
class _Shape:
    """What a sampler needs to know of an array."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: Any


def _memmap(job: _Job, *, is_plain: bool = False) -> Loaders:
    import lazyarr.torch

    data = _Rows(job.images.path("npy"))
    if is_plain:
        yield from itertools.repeat(_batches(data, job, shuffle=True))
    # The same order as lazyarr's, of memory that was never compressed.  Of an array of lazyarr's
    # the sampler would have the chunks loaded, which nobody reads here.
    stored = lazyarr.open(job.images.path("zarr"))
    order = lazyarr.torch.ChunkShuffle(_Shape(stored.shape, stored.chunks, stored.dtype))
    loader = _batches(data, job, sampler=order)
    for epoch in range(1 << 30):
        order.set_epoch(epoch)
        yield loader


def _windows(job: _Job, library: str) -> Loaders:
    from torch.utils.data import IterableDataset, get_worker_info

    size = job.images.size

    class Windows(IterableDataset[Any]):
        epoch = 0

        def __iter__(self) -> Iterator[Any]:
            worker = get_worker_info()
            take = job.take(library)  # after the fork, which not all survive
            rng = np.random.default_rng(self.epoch)
            self.epoch += 1  # in a worker that stays
            chunks = rng.permutation(-(-size.n_images // size.chunk_rows)) * size.chunk_rows
            nth, n = (worker.id, worker.num_workers) if worker else (0, 1)
            for start in range(nth * WINDOW, len(chunks), n * WINDOW):
                firsts = sorted(chunks[start : start + WINDOW].tolist())
                ends = [min(first + size.chunk_rows, size.n_images) for first in firsts]
                rows = np.concatenate(take(list(map(slice, firsts, ends))))
                for row in rng.permutation(len(rows)):
                    yield rows[row]

    data = Windows()
    # Libraries with threads of their own do not survive a fork.
    options: dict[str, Any] = {"multiprocessing_context": "fork"} if job.workers else {}
    yield from itertools.repeat(_batches(data, job, **options))


def _webdataset(job: _Job) -> Loaders:
    import webdataset

    size = job.images.size
    shards = sorted(map(str, _form(job.images, "webdataset").glob("*.tar")))
    data = (
        webdataset.WebDataset(shards, shardshuffle=len(shards), seed=0)
        .shuffle(WINDOW * size.chunk_rows)
        .map(lambda sample: np.frombuffer(sample["bin"], size.dtype).reshape(size.shape[1:]))
        .map(np.copy)
    )
    yield from itertools.repeat(_batches(data, job))


def _write_webdataset(directory: Path, images: Images) -> None:
    import webdataset

    rows = np.load(images.path("npy"), mmap_mode="r")
    for block in images.size.blocks():
        with webdataset.TarWriter(str(directory / f"{block.start:09}.tar")) as tar:
            for row in range(block.start, block.stop):
                tar.write({"__key__": f"{row:09}", "bin": rows[row].tobytes()})


def _arrow(job: _Job) -> Loaders:
    import datasets
    import torch

    data = datasets.load_from_disk(str(_form(job.images, "arrow")))
    # By default all integers would become such of eight bytes.
    data = data.with_format("torch", dtype=getattr(torch, str(job.images.size.dtype)))
    yield from itertools.repeat(_batches(data, job, shuffle=True))


def _write_arrow(directory: Path, images: Images) -> None:
    import datasets

    size, rows = images.size, np.load(images.path("npy"), mmap_mode="r")
    data = datasets.Dataset.from_generator(
        lambda: ({"x": row} for row in rows),
        features=datasets.Features({"x": datasets.Array2D(size.shape[1:], str(size.dtype))}),
        cache_dir=str(directory / "cache"),
    )
    data.save_to_disk(str(directory))
    shutil.rmtree(directory / "cache")


def _parquet(job: _Job) -> Loaders:
    import datasets

    size = job.images.size

    def decode(sample: dict[str, Any]) -> dict[str, Any]:
        return {"x": np.frombuffer(sample["x"], size.dtype).reshape(size.shape[1:]).copy()}

    files = sorted(map(str, _form(job.images, "parquet").glob("*.parquet")))
    data = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    data = data.shuffle(seed=0, buffer_size=WINDOW * size.chunk_rows).map(decode)
    loader = _batches(data, job)
    for epoch in range(1 << 30):
        data.set_epoch(epoch)
        yield loader


def _write_parquet(directory: Path, images: Images) -> None:
    """Write a file for each shard, with a row group for each chunk."""
    import pyarrow
    import pyarrow.parquet

    rows = np.load(images.path("npy"), mmap_mode="r")
    for block in images.size.blocks():
        pyarrow.parquet.write_table(
            # As bytes: integers in lists become Python's, or tensors of eight bytes each.
            pyarrow.table({"x": [row.tobytes() for row in rows[block]]}),
            directory / f"{block.start:09}.parquet",
            row_group_size=images.size.chunk_rows,
            compression="zstd",
            compression_level=LEVEL,
        )


def _litdata(job: _Job) -> Loaders:
    import litdata

    data = litdata.StreamingDataset(str(_form(job.images, "litdata")), shuffle=True)
    loader = litdata.StreamingDataLoader(
        data,
        batch_size=job.batch,
        num_workers=job.workers,
        persistent_workers=job.workers > 0,
    )
    yield from itertools.repeat(loader)


def _write_litdata(directory: Path, images: Images) -> None:
    import litdata

    litdata.optimize(
        partial(_named, np.load(images.path("npy"), mmap_mode="r")),
        list(range(images.size.n_images)),
        str(directory),
        chunk_size=WINDOW * images.size.chunk_rows,
        compression=f"zstd:{LEVEL}",
        num_workers=1,
        verbose=False,
    )


def _named(rows: Any, row: int) -> Any:
    # An array that is no part of a dict is stored uncompressed, and refused when it is read
    # (LitData 0.2.76).
    return {"x": np.array(rows[row])}


def _form(images: Images, name: str) -> Path:
    """Return where a form is that is for training alone."""
    return images.directory / name


class Contestant(NamedTuple):
    """Who takes part.

    Attributes
    ----------
    needs : str
        The package that must be installed.
    loaders : callable
        Gives the loader of each epoch.
    form : str
        The directory with the samples as only this contestant reads them, if there is one.
    write : callable or None
        Writes it.
    """

    needs: str
    loaders: Callable[[_Job], Loaders]
    form: str = ""
    write: Callable[[Path, Images], None] | None = None


CONTESTANTS = {
    SHUFFLED: Contestant("lazyarr", _lazyarr),
    LIMITED: Contestant("lazyarr", partial(_lazyarr, is_limited=True)),
    "lazyarr, shuffle=True": Contestant("lazyarr", partial(_lazyarr, is_plain=True)),
    "lazyarr, shuffle=True, a third of the memory": Contestant(
        "lazyarr", partial(_lazyarr, is_limited=True, is_plain=True)
    ),
    SHUFFLED_MEMMAP: Contestant("numpy", _memmap),
    "numpy.memmap, shuffle=True": Contestant("numpy", partial(_memmap, is_plain=True)),
    **{
        name: Contestant(needs, partial(_windows, library=library))
        for name, (needs, library) in _WINDOWS.items()
    },
    "WebDataset": Contestant("webdataset", _webdataset, "webdataset", _write_webdataset),
    "HF datasets, Arrow, shuffle=True": Contestant("datasets", _arrow, "arrow", _write_arrow),
    _PARQUET: Contestant("datasets", _parquet, "parquet", _write_parquet),
    _LITDATA: Contestant("litdata", _litdata, "litdata", _write_litdata),
    ZEROS: Contestant("torch", _zeros),
}
"""By name."""

READ_REMOTELY = (SHUFFLED, "zarr-python, windows", "zarrs, windows", "TensorStore, windows")
"""Those who read from a server as well."""


def _read(loader: Any, cut_seconds: float) -> dict[str, Any]:
    """Read an epoch; return how many samples, how long, when the first batch came, a checksum."""
    n_waited = getattr(loader.dataset, "n_waited", 0)
    begin = time.perf_counter()
    n_samples = n_batches = checksum = 0
    first = cut = None
    for batch in loader:
        if first is None:
            first = time.perf_counter() - begin
        rows = batch["x"] if isinstance(batch, dict) else batch
        n_samples += len(rows)
        n_batches += 1
        checksum += int(rows.numpy().reshape(-1).view(np.uint64).sum())
        if time.perf_counter() - begin > cut_seconds:
            cut = True
            break
    seconds = time.perf_counter() - begin
    return {
        "rate": n_samples / seconds,
        "first": first,
        "waited": (getattr(loader.dataset, "n_waited", 0) - n_waited) / n_batches,
        "checksum": None if cut else checksum % 2**64,
    }


def _resume(job: _Job) -> float:
    """Return how long the first batch of what is left of an epoch takes, and see that it is so."""
    import lazyarr
    import lazyarr.torch

    array = lazyarr.open(job.images.path("zarr"))
    whole = list(lazyarr.torch.ChunkShuffle(array, epoch=1))
    n_given = len(whole) // 2 // job.batch * job.batch
    order = lazyarr.torch.ChunkShuffle(array, epoch=1)
    state = order.state_dict(n_given=n_given)
    order = lazyarr.torch.ChunkShuffle(array)
    begin = time.perf_counter()
    order.load_state_dict(state)
    batch = next(iter(_batches(lazyarr.torch.Dataset(array), job, sampler=order)))
    seconds = time.perf_counter() - begin
    expected = np.load(job.images.path("npy"), mmap_mode="r")[whole[n_given : n_given + job.batch]]
    assert np.array_equal(batch.numpy(), expected), "the epoch did not go on where it was"
    return seconds


def _prepare(contestant: Contestant, images: Images) -> None:
    """Write the samples as only one contestant reads them; what was broken off is made again."""
    directory = _form(images, contestant.form)
    part = directory.with_name(f"part-{directory.name}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    assert contestant.write is not None
    contestant.write(part, images)
    part.rename(directory)


def main() -> None:
    """Read two epochs, resume one, or write the samples, and print what that took."""
    import torch

    torch.set_num_threads(1)
    given = json.loads(sys.argv[1])
    what, contestant = given.pop("what"), CONTESTANTS[given.pop("contestant")]
    cut_seconds, images = given.pop("cut_seconds"), Images.of_job(given.pop("images"))
    job = _Job(images, **given)
    if what == "prepare":
        _prepare(contestant, images)
        print("null")
    elif what == "resume":
        print(json.dumps(_resume(job)))
    else:
        loaders = contestant.loaders(job)
        print(json.dumps([_read(next(loaders), cut_seconds) for _ in range(2)]))


if __name__ == "__main__":
    main()
