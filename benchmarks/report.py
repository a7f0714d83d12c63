"""What parts hand in, and how it is written in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.machine import describe_machine, describe_versions

__all__ = ["Section", "render_header", "seconds_and_ratio", "table"]

_NOTES = """\
What these figures do not say:

- Page cache warm, local files: no disk, and no network but loopback.  All contestants take turns in
  one run, so what else the machine does meets all of them, but not evenly: look at the 90th
  percentiles, and at the smallest and largest of each figure in the file that --json writes.
- The data is synthetic.  Smooth images with noise, of which zstd 3 makes half.
- Everyone runs with the defaults of their library but for what the name of the row says.
- What a process does once (starting threads, or the pager, which is a process of its own; looking
  up codecs; connecting) is in *open and first row* and *process start to first row* alone: where
  scans, rows and slabs are timed, local or remote, everybody has read one row of something else
  before.  An epoch is timed from open arrays, and saving from when everybody has saved a few rows.
- h5py reads gzip 4, since HDF5 has no zstd without a plug-in; Blosc2 shuffles bytes before zstd and
  counts its levels differently; numpy.memmap reads twice the bytes and decompresses none.
- zarr-python, zarrs, TensorStore and lazyarr read the same files and check the same crc32c; the
  limit does not check it.  *lazyarr, blosc* reads what `save(..., compressor="blosc")` has written
  of the same data: zstd behind a shuffle, in Zarr's own blosc codec, and crc32c.
- The memory that lazyarr and the caches of others fill is not given back within a process.
"""


class Section(NamedTuple):
    """What a part has found.

    Attributes
    ----------
    title : str
        Of its section in the results.
    figures : list of dict
        All that was measured: numbers, strings, and lists and dicts of them.
    body : list of str
        The section's lines, below its title.
    """

    title: str
    figures: list[dict[str, Any]]
    body: list[str]


def render_header(command: str) -> list[str]:
    """Return what was measured where, with what, when and how."""
    lines = ["# Results", "", f"`{command}`", ""]
    lines += [f"- {name}: {value}" for name, value in describe_machine().items()]
    return [*lines, f"- versions: {describe_versions()}", "", *_NOTES.splitlines()]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return the lines of a table, and an empty one after it."""
    lines = [head, ["---"] * len(head), *rows]
    return [*(f"| {' | '.join(map(str, cells))} |" for cells in lines), ""]


def seconds_and_ratio(value: float | None, limit: float | None) -> str:
    """Return seconds and, in brackets, how many times the limit, where there are such."""
    if value is None:
        return "-"
    text = f"{value:.2g}" if value < 0.1 else f"{value:.3f}"
    return text if limit is None else f"{text} ({value / limit:.2f})"
