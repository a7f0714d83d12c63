"""The results as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.faults import Latency
from benchmarks.machine import describe_machine, describe_versions
from benchmarks.peers import FIGURES, PeerPlan, PeerResult

__all__ = ["Goal", "fault_goals", "render_faults", "render_header", "render_peers", "table"]

_FAULT_LEGEND = """\
Medians and, in brackets, 90th percentiles in microseconds, from before one element is read to after
it has been; the median over the repetitions.  *sum* is `pread` + decompress + copy of the same
chunk in one thread of Python, into memory that is there already; *sum, new pages* copies it into a
memory object that has to find its pages first, as every install has to.  *lazyarr / sum* and
*lazyarr / C* are ratios of medians.  The C handler reads uncompressed chunks only where libzstd's
header was not there to compile against.  crc32c is checked by lazyarr alone.
"""

_PEER_LEGEND = """\
Seconds, and in brackets how many times the limit (the first row).  Every contestant gives the rows
as an array, and all of their bytes are added up, which is in the figures but for the limits'; the
checksums of all contestants were the same.  *lazyarr* asks for rows through the array's own
indexing and methods; *plain ndarray* is `numpy.asarray` of it: everything comes by page faults.
*Open and first row* begins with NumPy imported and the library not; *process start* is everything.
"""


_NOTES = """\
What these figures do not say:

- Page cache warm, local files: no disk and no network.  All contestants take turns in one run, so
  what else the machine does meets all of them, but not evenly: look at the 90th percentiles, and at
  the smallest and largest of each figure in the file that --json writes.
- The data is synthetic.  Smooth images with noise, of which zstd 3 makes half.
- Everyone runs with the defaults of their library but for what the name of the row says.
- h5py reads gzip 4, since HDF5 has no zstd without a plug-in; Blosc2 shuffles bytes before zstd and
  counts its levels differently; numpy.memmap reads twice the bytes and decompresses none.
- zarr-python, zarrs, TensorStore and lazyarr read the same files and check the same crc32c; the
  limit does not check it.
- The memory that lazyarr and the caches of others fill is not given back within a process.
"""


class Goal(NamedTuple):
    """What is to be reached, and what was."""

    text: str
    bound: float
    found: float

    def __str__(self) -> str:
        verdict = "met" if self.found <= self.bound else "not met"
        return f"{self.text}: at most {self.bound:.2f}, found {self.found:.2f}: {verdict}"


def render_header(command: str) -> str:
    """Return what was measured where, with what, when and how."""
    lines = ["# Results", "", f"`{command}`", ""]
    lines += [f"- {name}: {value}" for name, value in describe_machine().items()]
    lines += [f"- versions: {describe_versions()}", ""]
    lines += [_NOTES]
    return "\n".join(lines)


# --- faults -------------------------------------------------------------------


def _by_contestant(latencies: Sequence[Latency]) -> dict[tuple[str, int], dict[str, Latency]]:
    table: dict[tuple[str, int], dict[str, Latency]] = {}
    for latency in latencies:
        table.setdefault((latency.codec, latency.unit_nbytes), {})[latency.contestant] = latency
    return table


def fault_goals(latencies: Sequence[Latency]) -> list[Goal]:
    """Return the goals that these latencies can be held against."""
    goals = []
    for (codec, unit_nbytes), row in _by_contestant(latencies).items():
        if unit_nbytes == 1 << 20:
            text = f"1 MiB chunks, compression {codec}, lazyarr / sum"
            goals.append(Goal(text, 1.25, _ratio(row, "sum")))
        if unit_nbytes == 4 << 10 and "C handler" in row:
            text = f"4 KiB chunks, compression {codec}, lazyarr / C handler"
            goals.append(Goal(text, 2.0, _ratio(row, "C handler")))
    return goals


def _ratio(row: dict[str, Latency], other: str) -> float:
    return row["lazyarr"].median_seconds / row[other].median_seconds


def render_faults(latencies: Sequence[Latency]) -> str:
    """Return the section on faults: a table for each compression, and the goals."""
    lines = ["## From touch to data", "", _FAULT_LEGEND]
    names = ("lazyarr", "C handler", "sum", "sum, new pages")
    table = _by_contestant(latencies)
    for codec in dict.fromkeys(codec for codec, _ in table):
        lines += [f"### Compression: {codec}", ""]
        lines += _table_head(("unit", *names, "lazyarr / C", "lazyarr / sum"))
        for (of_codec, unit_nbytes), row in table.items():
            if of_codec == codec:
                ratios = [
                    f"{_ratio(row, other):.2f}" if other in row else "-" for other in names[1:3]
                ]
                cells = [_microseconds(row.get(name)) for name in names]
                lines.append(_line([f"{unit_nbytes >> 10} KiB", *cells, *ratios]))
        lines.append("")
    lines += ["### Goals", "", *(f"- {goal}" for goal in fault_goals(latencies)), ""]
    return "\n".join(lines)


def _microseconds(latency: Latency | None) -> str:
    if latency is None:
        return "-"
    return f"{latency.median_seconds * 1e6:.1f} ({latency.p90_seconds * 1e6:.1f})"


# --- peers ----------------------------------------------------------------------


def render_peers(results: Sequence[PeerResult], plan: PeerPlan) -> str:
    """Return the section on scans and rows."""
    size = plan.size
    shape = " x ".join(map(str, size.shape))
    lines = ["## Scans and rows", ""]
    lines += [
        f"{shape} uint16, {size.nbytes / 2**20:.0f} MiB, chunks of {size.chunk_rows} rows, shards "
        f"of {size.shards[0]}, zstd 3 with crc32c; medians of {plan.repeats}, page cache warm.",
        "",
        _PEER_LEGEND,
    ]
    lines += _table_head(("", *FIGURES))
    limit = results[0].seconds
    for result in results:
        cells = [_seconds(result.seconds.get(f), limit.get(f)) for f in FIGURES]
        lines.append(_line([result.contestant, *cells]))
    return "\n".join([*lines, ""])


def _seconds(value: float | None, limit: float | None) -> str:
    if value is None:
        return "-"
    text = f"{value:.2g}" if value < 0.1 else f"{value:.3f}"
    return text if limit is None else f"{text} ({value / limit:.2f})"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return the lines of a table."""
    return [*_table_head(head), *(_line([str(cell) for cell in row]) for row in rows)]


def _table_head(names: Sequence[str]) -> list[str]:
    return [_line(names), _line(["---"] * len(names))]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
