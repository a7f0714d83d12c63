"""Shuffled epochs of training: batches by torch's DataLoader, from whoever stores the samples."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.images import Images, ImageSize, prepare_images, warm
from benchmarks.loaders import (
    COMPRESSED,
    CONTESTANTS,
    LIMITED,
    READ_REMOTELY,
    SHUFFLED,
    SHUFFLED_MEMMAP,
    WINDOW,
    ZEROS,
)
from benchmarks.peak import MARK, resident_nbytes
from benchmarks.remote import Case, serve
from benchmarks.report import Section, table
from benchmarks.running import Run, in_turn, tell
from benchmarks.samples import LEVEL

__all__ = [
    "REMOTE_CASE",
    "Limited",
    "Training",
    "TrainingPlan",
    "measure",
    "measure_limited",
    "measure_training",
]

_LEGEND = """\
{size}; batches of {batch}, {workers} workers of torch's DataLoader, which stay from one epoch
to the next, its own collation.  *First
epoch* and *second* are samples a second, with the workers' start, in a fresh process.  *First
batch* is seconds from the start of the first epoch.  *Memory* is the most that all processes had
together, shared pages counted once; Python and torch in each are some of it.

Samples come in a random order.  With *ChunkShuffle* it is that of `lazyarr.torch.ChunkShuffle`.
*Windows* are the same shuffle for libraries that have none: an IterableDataset reads {window}
chunks here and there by slices, shuffles their samples and gives them out; each worker reads every
n-th window.  *shuffle=True* picks rows in any order.  WebDataset and *HF datasets, Parquet* shuffle
files, and samples in a buffer as large as a window; LitData shuffles its chunks, as large as a
window, and blocks of samples in each.  What is cut off after {cut:.0f} s is counted
as far as it came.  numpy.memmap, WebDataset and *HF datasets, Arrow* read uncompressed samples; all
others read zstd {level}, but for h5py, which reads gzip 4.  *HTTP, 50 ms*: from a
server on this machine that answers after that time.

*Resume*: seconds from `load_state_dict` to the first batch of what is left of an epoch, in a fresh
process with the store open; what is left was compared with what would have come.
"""
_LIMITED_LEGEND = """\
*ChunkShuffle* with a memory limit of {limit} MiB, by the number of workers.  *Waited* is the share
of batches of which a chunk was not in memory when they were picked, in the first epoch and in the
second.  *Zeros* is the memory of the same loader with batches of zeros, which reads nothing:
Python, torch and the batches.  *Of the limit* is what is more than that: chunks in memory, memory
to decode in, and the processes that fill pages.
"""
_PAUSE_SECONDS = 0.1
_TIMEOUT_SECONDS = 600


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How much is measured: samples, batches, workers, the limit of some, for how long, of whom."""

    size: ImageSize
    batch: int
    workers: int
    limit_nbytes: int
    limited_workers: tuple[int, ...]
    cut_seconds: float
    repeats: int
    only: tuple[str, ...] = ()


REMOTE_CASE = "HTTP, 50 ms"

_FULL = TrainingPlan(
    ImageSize(60_000, 64, 192, chunk_rows=42, shard_rows=42 * 128, kind="uint8 images"),
    batch=256,
    workers=2,
    limit_nbytes=256 << 20,
    limited_workers=(0, 2, 5),
    cut_seconds=30,
    repeats=3,
)
_QUICK = TrainingPlan(
    ImageSize(512, 16, 64, chunk_rows=8, shard_rows=64, kind="uint8 images"),
    batch=64,
    workers=1,
    limit_nbytes=64 << 20,
    limited_workers=(0, 2),
    cut_seconds=30,
    repeats=1,
    only=(SHUFFLED, SHUFFLED_MEMMAP, COMPRESSED[0]),
)


class Training(NamedTuple):
    """What one contestant needed.

    Attributes
    ----------
    contestant : str
        Who.
    first, second : float
        Samples a second in the first and in the second epoch; the median.
    first_batch_seconds : float
        From the start of the first epoch.
    nbytes : int
        The most memory of all processes.
    resume_seconds : float or None
        See the legend; of those alone who can resume.
    checksum : int or None
        Of the samples of the first epoch; None where it was cut off.
    """

    contestant: str
    first: float
    second: float
    first_batch_seconds: float
    nbytes: int
    resume_seconds: float | None
    checksum: int | None


class Limited(NamedTuple):
    """What an order of lazyarr's needed under a memory limit.

    Attributes
    ----------
    n_workers : int
        How many processes pick the batches; with 0 the process itself does.
    place : str
        Where the samples come from.
    first, second : float
        Samples a second in the first and in the second epoch; the median.
    first_waited, second_waited : float
        The share of batches of which a chunk was not in memory when they were picked; the median.
    nbytes : int
        The most memory of all processes.
    zeros_nbytes : int
        The same of a loader that reads nothing.
    of_limit : float
        What is more than that, as a part of the limit.
    checksum : int
        Of the samples of the first epoch.
    """

    n_workers: int
    place: str
    first: float
    second: float
    first_waited: float
    second_waited: float
    nbytes: int
    zeros_nbytes: int
    of_limit: float
    checksum: int


def _run(
    images: Images,
    plan: TrainingPlan,
    contestant: str,
    *,
    endpoint: str = "",
    what: str = "epochs",
    workers: int | None = None,
    is_watched: bool = False,
) -> tuple[Any, int]:
    """Return what a process prints, and the most memory that it and its workers had."""
    job = {
        "what": what,
        "images": images.job(),
        "contestant": contestant,
        "endpoint": endpoint,
        "batch": plan.batch,
        "workers": plan.workers if workers is None else workers,
        "limit_nbytes": plan.limit_nbytes,
        "cut_seconds": plan.cut_seconds,
        "is_watched": is_watched,
    }
    mark = f"{MARK}={os.getpid()}-{time.monotonic_ns()}"
    key, value = mark.split("=")
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.loaders", json.dumps(job)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", key: value},
    )
    most, until = 0, time.monotonic() + _TIMEOUT_SECONDS
    while process.poll() is None:
        most = max(most, resident_nbytes(mark))
        time.sleep(_PAUSE_SECONDS)
        if time.monotonic() > until:
            process.kill()
    assert process.stdout is not None
    with process.stdout as output:
        text = output.read()
    if process.returncode:
        raise RuntimeError(f"training of {contestant} ended with {process.returncode}")
    # Libraries of others print, too.
    return json.loads(text.splitlines()[-1]), most


def _prepare(images: Images, plan: TrainingPlan, names: list[str]) -> None:
    """Write what contestants read that have a form of their own, where it is not there yet."""
    for name in names:
        form = CONTESTANTS[name].form
        if form and not (images.directory / form).exists():
            tell("writing", form)
            _run(images, plan, name, what="prepare")


def measure_training(images: Images, plan: TrainingPlan, endpoint: str) -> Iterator[Training]:
    """Give the results of all contestants that are installed."""
    names = [
        name
        for name, found in CONTESTANTS.items()
        if find_spec(found.needs) and name in (plan.only or CONTESTANTS) and name != ZEROS
    ]
    _prepare(images, plan, names)
    warm(images.directory)
    where = {name: (name, "") for name in names}
    where |= {f"{name}, {REMOTE_CASE}": (name, endpoint) for name in names if name in READ_REMOTELY}
    runs: dict[str, list[tuple[Any, int]]] = {name: [] for name in where}
    resumes = []
    for number in range(plan.repeats):
        for name in in_turn([*where], number):
            contestant, place = where[name]
            runs[name].append(_run(images, plan, contestant, endpoint=place))
            tell(name, runs[name][-1])
        resumes.append(_run(images, plan, SHUFFLED, what="resume")[0])
    checksums = {run[0][0]["checksum"] for each in runs.values() for run in each} - {None}
    if len(checksums) != 1:
        raise ValueError("not everybody has read the same samples")
    for name, each in runs.items():
        first, second = ([run[0][k] for run in each] for k in range(2))
        yield Training(
            name,
            statistics.median(epoch["rate"] for epoch in first),
            statistics.median(epoch["rate"] for epoch in second),
            statistics.median(epoch["first"] for epoch in first),
            max(run[1] for run in each),
            statistics.median(resumes) if name == SHUFFLED else None,
            first[0]["checksum"],
        )


def measure_limited(images: Images, plan: TrainingPlan, endpoint: str) -> Iterator[Limited]:
    """Give what each number of workers takes under a memory limit, from files and from a server."""
    places = {"files": "", REMOTE_CASE: endpoint}
    cases = [f"{n} {place}" for n in plan.limited_workers for place in places]
    runs: dict[str, list[tuple[Any, int]]] = {case: [] for case in cases}
    for number in range(plan.repeats):
        for case in in_turn(cases, number):
            n_workers, _, place = case.partition(" ")
            where = {"endpoint": places[place], "workers": int(n_workers), "is_watched": True}
            runs[case].append(_run(images, plan, LIMITED, **where))
            tell(case, runs[case][-1])
    for n_workers in plan.limited_workers:
        zeros_nbytes = _run(images, plan, ZEROS, workers=n_workers)[1]
        for place in places:
            each = runs[f"{n_workers} {place}"]
            first, second = ([run[0][k] for run in each] for k in range(2))
            nbytes = max(run[1] for run in each)
            yield Limited(
                n_workers,
                place,
                *(
                    statistics.median(epoch["rate"] for epoch in epochs)
                    for epochs in (first, second)
                ),
                *(
                    statistics.median(epoch["waited"] for epoch in epochs)
                    for epochs in (first, second)
                ),
                nbytes,
                zeros_nbytes,
                (nbytes - zeros_nbytes) / plan.limit_nbytes,
                first[0]["checksum"],
            )


def measure(data: Path, run: Run) -> Section:
    """Measure all contestants; nothing where torch is not installed."""
    title = "Training"
    if find_spec("torch") is None:
        return Section(title, [], ["torch is not installed: nothing was measured.", ""])
    plan = run.plan(_FULL, _QUICK)
    images = prepare_images(data, plan.size, ("npy", "zarr", "hdf5"))
    trainings, limits = [], []
    with serve(images.directory.parent, Case("http", 0.05, 0)) as endpoint:
        for training in measure_training(images, plan, endpoint):
            tell(*training)
            trainings.append(training)
        for limited in measure_limited(images, plan, endpoint):
            tell(*limited)
            limits.append(limited)
    figures = [figure._asdict() for figure in (*trainings, *limits)]
    return Section(title, figures, [*_render(trainings, plan), *_render_limited(limits, plan)])


def _render(found: list[Training], plan: TrainingPlan) -> list[str]:
    rows = [
        (
            t.contestant,
            f"{t.first:,.0f}",
            f"{t.second:,.0f}",
            f"{t.first_batch_seconds:.2f}",
            f"{t.nbytes >> 20}",
            "-" if t.resume_seconds is None else f"{t.resume_seconds:.2f}",
        )
        for t in found
    ]
    head = ("", "first epoch", "second", "first batch, s", "memory, MiB", "resume, s")
    legend = _LEGEND.format(
        size=plan.size,
        batch=plan.batch,
        workers=plan.workers,
        window=WINDOW,
        cut=plan.cut_seconds,
        level=LEVEL,
    )
    return [legend, *table(head, rows)]


def _render_limited(found: list[Limited], plan: TrainingPlan) -> list[str]:
    rows = [
        (
            x.n_workers,
            x.place,
            f"{x.first:,.0f}",
            f"{x.second:,.0f}",
            f"{x.first_waited:.0%}, {x.second_waited:.0%}",
            f"{x.nbytes >> 20}",
            f"{x.zeros_nbytes >> 20}",
            f"{x.of_limit:.2f}",
        )
        for x in found
    ]
    head = (
        *("workers", "from", "first epoch", "second", "waited", "memory, MiB", "zeros, MiB"),
        "of the limit",
    )
    legend = _LIMITED_LEGEND.format(limit=plan.limit_nbytes >> 20)
    return ["### Workers under a memory limit", "", legend, *table(head, rows)]
