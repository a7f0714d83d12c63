"""lazyarr and its peers over HTTP and S3, on loopback, with the answers held back."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.images import Images, ImageSize, warm
from benchmarks.remote_reading import CONTESTANTS, DECOMPRESS, POOL, SCENARIOS, can_read
from benchmarks.report import Section, table
from benchmarks.running import Run, in_turn, run_job, tell
from benchmarks.samples import make_images

__all__ = ["Case", "RemoteFigure", "RemotePlan", "measure", "measure_remote", "serve"]

_MB = 10**6
_LEGEND = """\
Seconds: the median, and in brackets the smallest and the largest.  The server is a process of its
own on loopback, a thread for each connection, sendfile, every answer held back for the latency; the
last case has a link of 125 MB/s for all connections together.  The clock runs when the array is
open and one row has been read.  *Connection pool* is aiohttp with 32 requests in flight that
fetches the same bytes and makes nothing of them: chunk by chunk for scattered chunks, 4 MiB at once
for a scan.  *Decompress* is python-zstandard on all processors with everything in memory.  The
checksums of all contestants were the same.  The machine is the client and the server at once: with
no limit to the link everybody is bound by its processors.

zarrs reads HTTP through zarr-python's own store for fsspec; S3 it does not read through that, but
through `zarr.storage.ObjectStore`, so there obstore takes the place of s3fs.  Scattered chunks it
leaves to zarr-python's pipeline, on both.
"""
_SUMMARY_LEGEND = """\
What the goals are about.  *Scattered*: seconds of lazyarr, in brackets how many times three
latencies + decompression of the same chunks; *pool* is the same ratio for the connection pool, that
is, of 64 requests on 32 connections and nothing else.  *Scan*: how much of what the connection pool
carries lazyarr does.  *Beside peers*: how many times the fastest of them (less than 1: lazyarr is
faster).
"""


class Case(NamedTuple):
    """How the server is reached, and how slow it is."""

    protocol: str
    delay_seconds: float
    rate: float

    def __str__(self) -> str:
        rate = f", {self.rate / _MB:.0f} MB/s" if self.rate else ""
        return f"{self.protocol.upper()}, {1000 * self.delay_seconds:.0f} ms{rate}"


@dataclass(frozen=True, slots=True)
class RemotePlan:
    """How much is measured: the images, in which cases, how often; in how many processes."""

    size: ImageSize
    cases: tuple[Case, ...]
    repeats: int
    is_fresh: bool = True


_FULL = RemotePlan(
    ImageSize(1024, 384, 384),
    (
        *(Case(name, delay, 0) for name in ("http", "s3") for delay in (0, 0.01, 0.05)),
        Case("http", 0.05, 125 * _MB),
    ),
    repeats=3,
)
_QUICK = RemotePlan(
    ImageSize(256, 32, 32, shard_rows=64),
    (Case("http", 0.001, 0), Case("s3", 0.001, 0)),
    repeats=1,
    is_fresh=False,
)


class RemoteFigure(NamedTuple):
    """What one contestant needed for one scenario.

    Attributes
    ----------
    case : str
        Of the server.
    delay_seconds : float
        How long each answer was held back.
    scenario, contestant : str
        What, and who.
    seconds : float
        The median.
    spread : tuple of float
        The smallest and the largest.
    """

    case: str
    delay_seconds: float
    scenario: str
    contestant: str
    seconds: float
    spread: tuple[float, float]


def _prepare(data: Path, size: ImageSize) -> Images:
    """Return the images as lazyarr itself stores them, made now if they are not there."""
    import lazyarr

    images = Images(data / f"remote-{size.name()}", size)
    path = images.path("zarr")
    if not path.exists():
        pixels = make_images(*size.shape, seed=1)
        lazyarr.save(path, pixels, chunks=size.chunks, shards=size.shards)
    warm(images.directory)
    return images


@contextmanager
def serve(directory: Path, case: Case) -> Iterator[str]:
    arguments = [str(directory), str(case.delay_seconds), str(case.rate)]
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.remote_server", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.kill()


def measure_remote(images: Images, case: Case, plan: RemotePlan) -> Iterator[RemoteFigure]:
    """Give the figures of all contestants in one case; they take turns."""
    names = [name for name in CONTESTANTS if can_read(name, case.protocol)]
    seconds: dict[tuple[str, str], list[float]] = {(s, n): [] for s in SCENARIOS for n in names}
    checksums: dict[tuple[str, int], set[int | None]] = {}
    groups = [(scenario,) for scenario in SCENARIOS] if plan.is_fresh else [SCENARIOS]
    with serve(images.directory.parent, case) as endpoint:
        server = {"protocol": case.protocol, "endpoint": endpoint}
        for seed in range(plan.repeats):
            for scenarios in groups:
                for name in in_turn(names, seed):
                    job = {**images.job(), **server, "contestant": name}
                    job |= {"scenarios": scenarios, "seed": seed}
                    for scenario, reading in run_job("remote_reading", job).items():
                        seconds[scenario, name].append(reading["seconds"])
                        checksums.setdefault((scenario, seed), set()).add(reading["checksum"])
    for key, found in checksums.items():
        if len(found - {None}) != 1:
            raise ValueError(f"the contestants have read different things: {key}")
    for (scenario, name), each in seconds.items():
        median, spread = statistics.median(each), (min(each), max(each))
        yield RemoteFigure(str(case), case.delay_seconds, scenario, name, median, spread)


def measure(data: Path, run: Run) -> Section:
    """Measure all contestants in all cases."""
    plan = run.plan(_FULL, _QUICK)
    images = _prepare(data, plan.size)
    body = [f"{plan.size}, zstd 3 with crc32c; medians of {plan.repeats}.", "", _LEGEND]
    figures: list[RemoteFigure] = []
    summary = []
    for case in plan.cases:
        found = list(measure_remote(images, case, plan))
        tell(*found)
        figures += found
        summary.append(_summary(case, found))
        body += [f"### {case}", "", *_table(found)]
    head = ("", "scattered", "pool", "beside peers", "scan", "beside peers")
    body += ["### Round trips, and what the pool carries", "", _SUMMARY_LEGEND]
    body += table(head, summary)
    return Section("Remote", [figure._asdict() for figure in figures], body)


def _table(found: Sequence[RemoteFigure]) -> list[str]:
    cells = {
        (f.contestant, f.scenario): f"{f.seconds:.3f} ({f.spread[0]:.3f}-{f.spread[1]:.3f})"
        for f in found
    }
    names = dict.fromkeys(f.contestant for f in found)
    return table(("", *SCENARIOS), [(n, *(cells[n, s] for s in SCENARIOS)) for n in names])


def _summary(case: Case, found: Sequence[RemoteFigure]) -> tuple[str, ...]:
    seconds = {(f.scenario, f.contestant): f.seconds for f in found}
    scattered, scan = SCENARIOS
    bound = 3 * case.delay_seconds + seconds[scattered, DECOMPRESS]
    peers = {f.contestant for f in found} - {POOL, DECOMPRESS, "lazyarr"}

    def beside(scenario: str) -> str:
        fastest = min(seconds[scenario, peer] for peer in peers)
        return f"{seconds[scenario, 'lazyarr'] / fastest:.2f}"

    took = seconds[scattered, "lazyarr"]
    return (
        str(case),
        f"{took:.3f} ({took / bound:.2f})",
        f"{seconds[scattered, POOL] / bound:.2f}",
        beside(scattered),
        f"{seconds[scan, POOL] / seconds[scan, 'lazyarr']:.2f}",
        beside(scan),
    )
