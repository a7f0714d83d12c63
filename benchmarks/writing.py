"""Arrays in mode ``"r+"``: single writes, rows that are updated here and there, and a fill."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.report import Section, seconds_and_ratio, table
from benchmarks.running import Run, in_turn, run_job, tell
from benchmarks.samples import LEVEL, Array, make_rows

__all__ = [
    "MEMMAP",
    "SINGLE",
    "Fill",
    "Touch",
    "Update",
    "WritingPlan",
    "measure",
    "measure_writing",
]

LAZY = "lazyarr"
MEMMAP = "numpy.memmap, uncompressed"
_ROW_ITEMS = 1024
_CHUNK_ROWS = 128
_PAGE_NBYTES = 4096
SINGLE, _AT_ONCE = "row by row", "in one call"
_TOUCH_LEGEND = """\
One element of each page is assigned to, in order, through a plain array: nanoseconds a page.
*Not loaded* has lazyarr read and decompress the units first.  *After a flush* all is in memory and
protected, and the first write to a unit is a fault.  *Written before* is memory for both: the
median of seven times after the first.
"""
_UPDATE_LEGEND = """\
Rows of 4 KiB here and there get new values, and everything is flushed or closed: seconds, and in
brackets how many times lazyarr's.  Chunks of 512 KiB, zstd 3 (h5py: gzip 4), each an object of its
own or 16 in a shard.  The array is open, and nothing of it is loaded.  *Row by row* is
``x[i] = row`` for each in random order, *in one call* ``x[rows] = values`` or what the library has
for that, with the rows in order.  TensorStore gets all rows before it is waited for.  lazyarr alone
waits until the data is on the disk (fsync).
"""
_FILL_LEGEND = """\
An empty array is written in order, 8 MiB at a time, and closed, with a memory limit of an eighth of
its size; beside `lazyarr.save` of the same rows.  Both wait for the disk.  A ratio is that of a
pair of neighbours in one run (save / fill).
"""


@dataclass(frozen=True, slots=True)
class WritingPlan:
    """How much is measured: sizes in bytes, rows that are updated, and how often."""

    touched_nbytes: int
    n_rows: int
    n_updates: int
    n_sharded_updates: int
    filled_nbytes: int
    repeats: int


_FULL = WritingPlan(128 << 20, 40_960, 10_000, 500, 1 << 30, repeats=3)
_QUICK = WritingPlan(4 << 20, 512, 20, 5, 8 << 20, repeats=1)


class Touch(NamedTuple):
    """Nanoseconds that a write to a page takes, for three states of the page."""

    contestant: str
    not_loaded: float
    after_flush: float
    written_before: float


class Update(NamedTuple):
    """Seconds for scattered updates and a flush."""

    contestant: str
    layout: str
    way: str
    n_updates: int
    seconds: float
    checksum: int


class Fill(NamedTuple):
    """Seconds for a fill and for `save`, and the median ratio of the pairs."""

    contestant: str
    seconds: float
    save_seconds: float
    ratio: float


def _values(n_rows: int) -> Array:
    """Return rows of a field, as many as a multiple of 64."""
    fields = make_rows("float32 fields", n_rows // 64, 64, _ROW_ITEMS, seed=1)
    return fields.reshape(n_rows, _ROW_ITEMS)


# --- single writes ----------------------------------------------------------------


def _touch(job: dict[str, Any]) -> dict[str, float]:
    """Write to every page of memory in three states."""
    nbytes, directory = job["touched_nbytes"], Path(job["directory"])
    shape = (nbytes // (4 * _ROW_ITEMS), _ROW_ITEMS)
    values = _values(shape[0])
    x: Any
    if job["contestant"] == MEMMAP:
        x = np.memmap(directory / "touched.bin", "f4", "w+", shape=shape)
        x[...] = values
        x.flush()
        del x
        x = np.memmap(directory / "touched.bin", "f4", "r+", shape=shape)
    else:
        import lazyarr

        url = directory / "touched.zarr"
        lazyarr.save(url, values, chunks=(_CHUNK_ROWS, _ROW_ITEMS), overwrite=True)
        x = lazyarr.open(url, "r+")
        x[0, 0] = 1  # what a process does once
    plain = np.asarray(x).reshape(-1)
    n_pages = nbytes // _PAGE_NBYTES

    def touch() -> float:
        begin = time.perf_counter()
        plain[:: _PAGE_NBYTES // 4] = 1
        return (time.perf_counter() - begin) / n_pages * 1e9

    not_loaded = touch()
    # The first of these finds cold what came last, of any memory that was filled just before.
    written = statistics.median(touch() for _ in range(7))
    x.flush()
    return {"not_loaded": not_loaded, "after_flush": touch(), "written_before": written}


# --- scattered updates --------------------------------------------------------------


def _open_lazyarr(path: Path) -> tuple[Any, Callable[[], object]]:
    import lazyarr

    x = lazyarr.open(path, "r+")
    return x, x.flush


def _open_zarr(path: Path) -> tuple[Any, Callable[[], object]]:
    import zarr

    return zarr.open_array(path, mode="r+"), lambda: None


def _open_tensorstore(path: Path) -> tuple[Any, Callable[[], object]]:
    import tensorstore

    kvstore = {"driver": "file", "path": f"{path}/"}
    array = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, open=True).result()
    futures: list[Any] = []

    class Rows:
        """Begins writes, which `flush` waits for."""

        def __setitem__(self, key: Any, values: Array) -> None:
            futures.append(array[key].write(values))

    return Rows(), lambda: [future.result() for future in futures]


def _open_h5py(path: Path) -> tuple[Any, Callable[[], object]]:
    import h5py

    file = h5py.File(path.with_suffix(".h5"), "r+")
    return file["x"], file.close


_OPEN = {
    LAZY: ("lazyarr", _open_lazyarr),
    "zarr-python": ("zarr", _open_zarr),
    "TensorStore": ("tensorstore", _open_tensorstore),
    "h5py": ("h5py", _open_h5py),
}
_WITHOUT_SHARDS = {SINGLE: ("h5py",), _AT_ONCE: ("h5py", "zarr-python")}


def _prepare(path: Path, layout: str, contestant: str, n_rows: int) -> None:
    """Write an array that is updated."""
    values = _values(n_rows)
    chunks = (_CHUNK_ROWS, _ROW_ITEMS)
    if contestant == "h5py":
        import h5py

        with h5py.File(path.with_suffix(".h5"), "w") as file:
            options = {"compression": "gzip", "compression_opts": 4}
            file.create_dataset("x", data=values, chunks=chunks, **options)
        return
    import lazyarr

    shards = None if layout == "chunks" else (16 * _CHUNK_ROWS, _ROW_ITEMS)
    lazyarr.save(path, values, chunks=chunks, shards=shards, level=LEVEL, overwrite=True)


def _checksum(path: Path, contestant: str) -> int:
    """Return a sum of all bits that the contestant has left."""
    import h5py
    import zarr

    if contestant == "h5py":
        with h5py.File(path.with_suffix(".h5")) as file:
            values = file["x"][...]
    else:
        values = zarr.open_array(path, mode="r")[...]
    # A sum of bits alone would not see rows that have changed places.
    places = np.arange(1, values.size + 1, dtype="u8").reshape(values.shape)
    return int((values.view("u4") * places).sum())


def _update(job: dict[str, Any]) -> dict[str, Any]:
    """Give rows new values, in random order, and flush."""
    contestant, path = job["contestant"], Path(job["directory"]) / "updated.zarr"
    _prepare(path, job["layout"], contestant, job["n_rows"])
    rng = np.random.default_rng(job["seed"])
    rows = rng.permutation(job["n_rows"])[: job["n_updates"]]
    values = rng.standard_normal((len(rows), _ROW_ITEMS), "f4")
    if job["way"] == _AT_ONCE:  # h5py takes rows in order alone
        order = np.argsort(rows)
        rows, values = rows[order], values[order]
    x, flush = _OPEN[contestant][1](path)
    begin = time.perf_counter()
    if job["way"] == _AT_ONCE:
        if contestant == "zarr-python":
            x.oindex[rows] = values
        else:
            x[rows] = values
    else:
        for row, new in zip(rows.tolist(), values, strict=True):
            x[row] = new
    flush()
    seconds = time.perf_counter() - begin
    del x, flush
    return {"seconds": seconds, "checksum": _checksum(path, contestant)}


# --- a fill ---------------------------------------------------------------------------


def _fill(job: dict[str, Any]) -> dict[str, float]:
    """Fill an array by assignment, and save the same rows; in turns."""
    import lazyarr

    directory, nbytes = Path(job["directory"]), job["filled_nbytes"]
    block_nbytes = 8 << 20
    values = _values(nbytes // (4 * _ROW_ITEMS))
    n_block = max(_CHUNK_ROWS, block_nbytes // (4 * _ROW_ITEMS))
    chunks = (_CHUNK_ROWS, _ROW_ITEMS)
    seconds = {}
    for number in range(2):
        for way in in_turn(("fill", "save"), job["seed"]):
            path = directory / f"{way}.zarr"
            rows = values if number else values[: 2 * n_block]  # the first imports
            begin = time.perf_counter()
            if way == "save":
                lazyarr.save(path, rows, chunks=chunks)
            else:
                with lazyarr.create(path) as store:
                    store.create_array("x", shape=rows.shape, dtype="f4", chunks=chunks)
                with lazyarr.open(path, "r+") as ds:
                    x = ds["x"]
                    for start in range(0, len(rows), n_block):
                        x[start : start + n_block] = rows[start : start + n_block]
                    del x
            seconds[way] = time.perf_counter() - begin
            if number:
                stored = lazyarr.open(path) if way == "save" else lazyarr.open(path)["x"]
                if not np.array_equal(stored[-n_block:], rows[-n_block:]):
                    raise ValueError(f"{way} has written something else")
                del stored
            shutil.rmtree(path)
    return seconds


# --- all of them ------------------------------------------------------------------------


def measure_writing(
    directory: Path, plan: WritingPlan
) -> tuple[list[Touch], list[Update], list[Fill]]:
    """Return what everybody takes; contestants take turns, each in a process of its own."""
    job = {**asdict(plan), "directory": str(directory)}
    return (
        list(_touches(job, plan)),
        list(_updates(job, plan)),
        list(_fills(job, plan)),
    )


def _touches(job: dict[str, Any], plan: WritingPlan) -> Iterator[Touch]:
    names = (LAZY, MEMMAP)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for number in range(plan.repeats):
        for name in in_turn(names, number):
            runs[name].append(run_job("writing", {**job, "what": "touch", "contestant": name}))
    for name, each in runs.items():
        medians = {what: statistics.median(run[what] for run in each) for what in each[0]}
        touch = Touch(name, **medians)
        tell(*touch)
        yield touch


def _updates(job: dict[str, Any], plan: WritingPlan) -> Iterator[Update]:
    names = [name for name, (needs, _) in _OPEN.items() if find_spec(needs)]
    for layout, n_updates in (("chunks", plan.n_updates), ("shards", plan.n_sharded_updates)):
        for way in (SINGLE, _AT_ONCE):
            # HDF5 has no shards; zarr-python 3.1.6 raises where rows go to several of them.
            without = {"chunks": ()}.get(layout, _WITHOUT_SHARDS[way])
            who = [name for name in names if name not in without]
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in who}
            for number in range(plan.repeats):
                for name in in_turn(who, number):
                    task = {"what": "update", "contestant": name, "layout": layout, "way": way}
                    given = {**job, **task, "n_updates": n_updates, "seed": 1}
                    runs[name].append(run_job("writing", given))
            if len({run["checksum"] for each in runs.values() for run in each}) != 1:
                raise ValueError("not everybody has written the same")
            for name, each in runs.items():
                seconds = statistics.median(run["seconds"] for run in each)
                update = Update(name, layout, way, n_updates, seconds, each[0]["checksum"])
                tell(*update)
                yield update


def _fills(job: dict[str, Any], plan: WritingPlan) -> Iterator[Fill]:
    limit = {"memory_limit": plan.filled_nbytes // 8}
    runs = [
        run_job("writing", {**job, **limit, "what": "fill", "contestant": LAZY, "seed": number})
        for number in range(plan.repeats)
    ]
    fill, save = (statistics.median(run[way] for run in runs) for way in ("fill", "save"))
    ratio = statistics.median(run["save"] / run["fill"] for run in runs)
    found = Fill("lazyarr, fill", fill, save, ratio)
    tell(*found)
    yield found


def measure(data: Path, run: Run) -> Section:
    """Measure arrays in mode ``"r+"``."""
    plan = run.plan(_FULL, _QUICK)
    with tempfile.TemporaryDirectory(dir=data) as directory:
        touches, updates, fills = measure_writing(Path(directory), plan)
    head = ("ns a page", "not loaded", "after a flush", "written before")
    rows = [(t.contestant, *(f"{value:,.0f}" for value in t[1:])) for t in touches]
    body = [_TOUCH_LEGEND, *table(head, rows), "### Scattered updates", "", _UPDATE_LEGEND]
    body += table(*_update_table(updates))
    body += ["### A fill of eight times the memory limit", "", _FILL_LEGEND]
    cells = [(f"{f.seconds:.2f}", f"{f.save_seconds:.2f}", f"{f.ratio:.2f}") for f in fills]
    body += table(("fill", "save", "ratio"), cells)
    figures = [found._asdict() for found in (*touches, *updates, *fills)]
    return Section("Writing", figures, body)


def _update_table(updates: list[Update]) -> tuple[list[str], list[list[str]]]:
    """Return head and rows: contestants, and each layout and way."""
    columns = list(dict.fromkeys((u.layout, u.way, u.n_updates) for u in updates))
    head = ["", *(f"{n:,} rows, {layout}, {way}" for layout, way, n in columns)]
    seconds = {(u.contestant, u.layout, u.way, u.n_updates): u.seconds for u in updates}
    rows = []
    for name in dict.fromkeys(u.contestant for u in updates):
        cells = (
            seconds_and_ratio(seconds.get((name, *column)), seconds[LAZY, *column])
            for column in columns
        )
        rows.append([name, *cells])
    return head, rows


def main() -> None:
    """Do what the driver says."""
    job = json.loads(sys.argv[1])
    if "memory_limit" in job:
        import lazyarr

        lazyarr.configure(memory_limit=job["memory_limit"])
    act = {"touch": _touch, "update": _update, "fill": _fill}[job["what"]]
    print(json.dumps(act(job)))


if __name__ == "__main__":
    main()
