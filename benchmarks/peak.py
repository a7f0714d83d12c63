"""How much memory a scan takes, in all processes that serve it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.images import Images, ImageSize, prepare_images, warm
from benchmarks.readers import MANY, READERS, checksum, installed_readers
from benchmarks.report import Section, table
from benchmarks.running import Run, tell

__all__ = ["MARK", "Peak", "measure", "measure_peaks", "resident_nbytes"]

MARK = "LAZYARR_BENCHMARK"
"""An environment variable by whose value a process and its children are known."""
_LIMIT = "128 MiB"
_LIMITED = f"lazyarr, memory_limit={_LIMIT}"
_PAUSE_SECONDS = 0.02
_FULL = ImageSize(2048, 384, 384)
_QUICK = ImageSize(256, 32, 32, shard_rows=128)
_LEGEND = """\
The most memory that all processes of a contestant had together during a scan by 64 rows, shared
pages counted once (MiB), and what they had with the array open.
"""


class Peak(NamedTuple):
    """How much memory one contestant took for a scan.

    Attributes
    ----------
    contestant : str
        Who.
    nbytes : int
        The most that was seen of all its processes together, shared pages counted once.
    before_nbytes : int
        The same with the array open and nothing read.
    """

    contestant: str
    nbytes: int
    before_nbytes: int


def measure(data: Path, run: Run) -> Section:
    """Measure all contestants once: how much memory is taken differs little from run to run."""
    found = []
    size, without = (_QUICK, MANY) if run.is_quick else (_FULL, ())
    for peak in measure_peaks(prepare_images(data, size), without):
        tell(*peak)
        found.append(peak)
    rows = [(p.contestant, p.nbytes >> 20, p.before_nbytes >> 20) for p in found]
    lines = table(("", "peak", "before"), rows)
    return Section("Memory", [p._asdict() for p in found], [_LEGEND, *lines])


def measure_peaks(images: Images, without: Sequence[str]) -> Iterator[Peak]:
    """Give the memory of all contestants but some, in a scan by 64 rows."""
    warm(images.directory)
    for name in (*installed_readers(without), _LIMITED):
        yield _watch(images, name)


def _watch(images: Images, name: str) -> Peak:
    job = images.job()
    mark = f"{MARK}={os.getpid()}-{time.monotonic_ns()}"
    key, value = mark.split("=")
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.peak", json.dumps({**job, "contestant": name})],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, key: value},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    before = most = resident_nbytes(mark)
    process.stdin.write("\n")
    process.stdin.flush()
    while process.poll() is None:
        most = max(most, resident_nbytes(mark))
        time.sleep(_PAUSE_SECONDS)
    assert process.returncode == 0, name
    return Peak(name, most, before)


def resident_nbytes(mark: str) -> int:
    """Return the proportional set size of all processes that carry a mark (proc_pid_smaps(5))."""
    total = 0
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark.encode() in (entry / "environ").read_bytes():
                lines = (entry / "smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) << 10 for line in lines if line[:4] == "Pss:")
        except OSError:
            continue  # it has ended
    return total


def main() -> None:
    """Scan when the driver says so."""
    job = json.loads(sys.argv[1])
    images = Images.of_job(job)
    name = job["contestant"]
    if name == _LIMITED:
        import lazyarr

        lazyarr.configure(memory_limit=_LIMIT)
        name = "lazyarr"
    reader = READERS[name](images)
    print("open", flush=True)
    sys.stdin.readline()
    for start in range(0, images.size.n_images, 64):
        checksum(reader.rows(start, min(start + 64, images.size.n_images)))


if __name__ == "__main__":
    main()
