"""``python -m benchmarks.remote``: lazyarr and its peers over HTTP and S3, Markdown on stdout.

Every figure is of a fresh process; the contestants take turns; medians.  The server is
`benchmarks.remote_server`, a process of its own on loopback.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.images import Images, ImageSize, make_images, warm
from benchmarks.machine import describe_machine, describe_versions
from benchmarks.remote_reading import CONTESTANTS, LIMIT, SCENARIOS

_HERE = Path(__file__).parent
_MB = 10**6
_NEEDS = {"lazyarr": "lazyarr", "zarr-python": "zarr", "TensorStore": "tensorstore"}
_LEGEND = """\
Seconds: the median, and in brackets the smallest and the largest.  The clock runs when the array
is open and one row has been read.  *Connection pool* is aiohttp with 32 requests in flight that
fetches the same bytes and makes nothing of them: chunk by chunk for scattered chunks, 4 MiB at once
for a scan.  *Decompress* is python-zstandard on all processors with everything in memory.  The
checksums of all contestants were the same.  The machine is the client and the server at once.
"""


class Case(NamedTuple):
    """How the server is reached, and how slow it is."""

    kind: str
    delay_seconds: float
    rate: float

    def __str__(self) -> str:
        rate = f", {self.rate / _MB:.0f} MB/s" if self.rate else ""
        return f"{self.kind.upper()}, {1000 * self.delay_seconds:.0f} ms{rate}"


FULL = (
    *(Case(kind, delay, 0) for kind in ("http", "s3") for delay in (0, 0.01, 0.05)),
    Case("http", 0.05, 125 * _MB),
)
QUICK = (Case("http", 0.001, 0), Case("s3", 0.001, 0))


def _prepare(data: Path, size: ImageSize) -> Images:
    """Return the images as lazyarr itself stores them, made now if they are not there."""
    import lazyarr

    name = "x".join(map(str, (*size.shape, size.chunk_rows, size.shard_rows)))
    images = Images(data / f"remote-{name}", size)
    if not images.zarr.exists():
        pixels = make_images(*size.shape, seed=1)
        lazyarr.save(images.zarr, pixels, chunks=size.chunks, shards=size.shards)
    warm(images.directory)
    return images


@contextmanager
def _serve(directory: Path, case: Case) -> Iterator[str]:
    arguments = [str(directory), str(case.delay_seconds), str(case.rate)]
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.remote_server", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.kill()


def _read(images: Images, case: Case, endpoint: str, name: str, scenario: str, seed: int) -> Any:
    job = {
        "kind": case.kind,
        "endpoint": endpoint,
        "path": f"{images.directory.name}/{images.zarr.name}",
        "directory": str(images.zarr),
        "contestant": name,
        "scenario": scenario,
        "shape": images.size.shape,
        "chunk_rows": images.size.chunk_rows,
        "seed": seed,
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.remote_reading", json.dumps(job)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=600,
    )
    return json.loads(done.stdout)


def measure(images: Images, case: Case, repeats: int) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of each contestant, by scenario."""
    names = [name for name in CONTESTANTS if find_spec(_NEEDS.get(name, "aiohttp"))]
    seconds: dict[str, dict[str, list[float]]] = {s: {n: [] for n in names} for s in SCENARIOS}
    with _serve(images.directory.parent, case) as endpoint:
        for seed in range(repeats):
            turn = seed % len(names)
            for scenario in SCENARIOS:
                checksums = set()
                for name in names[turn:] + names[:turn]:
                    found = _read(images, case, endpoint, name, scenario, seed)
                    seconds[scenario][name].append(found["seconds"])
                    checksums.add(found["checksum"])
                if len(checksums - {None}) != 1:
                    raise ValueError(f"the contestants have read different things: {scenario}")
    return seconds


def _render(case: Case, seconds: dict[str, dict[str, list[float]]]) -> str:
    lines = [f"### {case}", "", "| | " + " | ".join(SCENARIOS) + " |"]
    lines.append("|---" * (len(SCENARIOS) + 1) + "|")
    for name in seconds[SCENARIOS[0]]:
        cells = [_cell(seconds[scenario][name]) for scenario in SCENARIOS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    scan = seconds["scan"]
    share = statistics.median(scan[LIMIT]) / statistics.median(scan["lazyarr"])
    lines += ["", f"lazyarr's scan carries {share:.2f} of what the connection pool does.", ""]
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.remote", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works")
    parser.add_argument("--data", type=Path, help="where the data is kept; benchmarks/data")
    parser.add_argument("--repeats", type=int, default=5, help="how often each is measured")
    return parser.parse_args()


def main() -> None:
    """Run what the command line asks for."""
    options = _parse()
    size = ImageSize(256, 32, 32, shard_rows=64) if options.quick else ImageSize(1024, 384, 384)
    repeats = 1 if options.quick else options.repeats
    print("## Remote", "", f"`{shlex.join(['python', '-m', 'benchmarks.remote', *sys.argv[1:]])}`")
    print("", *(f"- {name}: {value}" for name, value in describe_machine().items()), sep="\n")
    print(f"- versions: {describe_versions()}", "", _LEGEND, sep="\n")
    with tempfile.TemporaryDirectory() as scratch:
        data = options.data or (Path(scratch) if options.quick else _HERE / "data")
        images = _prepare(data.resolve(), size)
        for case in QUICK if options.quick else FULL:
            print(_render(case, measure(images, case, repeats)), flush=True)


if __name__ == "__main__":
    main()
