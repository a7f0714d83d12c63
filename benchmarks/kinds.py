"""Other data than 16-bit images: what each contestant makes of it, and how fast it is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.images import Images, ImageSize, prepare_images, stored_nbytes
from benchmarks.peers import PeerPlan, measure_peers
from benchmarks.readers import MANY, READERS
from benchmarks.report import Section, seconds_and_ratio, table
from benchmarks.running import Run

__all__ = ["measure"]

_FIGURES = ("scan by 64 rows", "a row of a new chunk", "64 scattered rows")
_SCENARIOS = ("scan by 64 rows", "single rows", "64 scattered rows")
_WITHOUT = ("limit: pread + decompress", "TensorStore, 4 GiB cache")
_LEGEND = """\
Rows of 128 KiB in chunks of four.  *Size* is what is stored, where the data has 1; the rest is in
seconds, and in brackets how many times the limit, which decompresses the zstd chunks and does
nothing else.  Everybody has read one row before the clock runs.  The same contestants and rules as
above; the limit says nothing of blosc, whose chunks are others.
"""


@dataclass(frozen=True, slots=True)
class _KindPlan:
    """How much is measured: `sizes`, one for each kind of data, how often, and without whom."""

    sizes: tuple[ImageSize, ...]
    repeats: int
    is_fresh: bool = True
    without: tuple[str, ...] = _WITHOUT

    def peers(self, size: ImageSize) -> PeerPlan:
        return PeerPlan(size, self.repeats, self.is_fresh, _SCENARIOS, self.without)


_FULL = _KindPlan(
    (
        ImageSize(2048, 256, 512, kind="uint8 images"),
        ImageSize(2048, 256, 256, kind="uint16 images"),
        ImageSize(2048, 128, 256, kind="float32 fields"),
        ImageSize(2048, 128, 256, kind="float32, 1 % not zero"),
    ),
    repeats=3,
)
_QUICK = _KindPlan(
    tuple(
        dataclasses.replace(size, n_images=128, height=32, width=32, shard_rows=64)
        for size in (_FULL.sizes[0], _FULL.sizes[3])
    ),
    repeats=1,
    is_fresh=False,
    without=(*_WITHOUT, *MANY),
)


class KindResult(NamedTuple):
    """What one contestant needed for one kind of data.

    Attributes
    ----------
    kind, contestant : str
        Of what, and who.
    stored : float or None
        Stored size, where the data has 1.
    seconds : dict
        The median of each figure, by its name.
    spread : dict
        The smallest and the largest that the median was taken of.
    """

    kind: str
    contestant: str
    stored: float | None
    seconds: dict[str, float]
    spread: dict[str, tuple[float, float]]


def _measure_kind(images: Images, plan: PeerPlan) -> Iterator[KindResult]:
    for result in measure_peers(images, plan):
        reader = READERS.get(result.contestant)
        stored = stored_nbytes(images.path(reader.form)) / images.size.nbytes if reader else None
        yield KindResult(images.size.kind, result.contestant, stored, result.seconds, result.spread)


def measure(data: Path, run: Run) -> Section:
    """Measure all contestants on each kind of data."""
    plan = run.plan(_FULL, _QUICK)
    figures: list[dict[str, Any]] = []
    body = [_LEGEND]
    for size in plan.sizes:
        found = list(_measure_kind(prepare_images(data, size), plan.peers(size)))
        limit = found[0].seconds
        rows = [
            (
                f.contestant,
                "-" if f.stored is None else f"{f.stored:.3f}",
                *(seconds_and_ratio(f.seconds.get(name), limit.get(name)) for name in _FIGURES),
            )
            for f in found
        ]
        body += [f"### {size.kind}", "", f"{size}; medians of {plan.repeats}.", ""]
        body += table(("", "size", *_FIGURES), rows)
        figures += [f._asdict() for f in found]
    return Section("Other kinds of data", figures, body)
