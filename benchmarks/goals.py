"""What is to be reached, in one place, and whether it was: ratios of figures of one part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.codecs import CHUNK_NBYTES
from benchmarks.feeding import MANY, WAYS
from benchmarks.loaders import COMPRESSED, SHUFFLED, SHUFFLED_MEMMAP
from benchmarks.remote_reading import DECOMPRESS, POOL, SCENARIOS
from benchmarks.report import table
from benchmarks.training import REMOTE_CASE
from benchmarks.writers import CODECS
from benchmarks.writing import SINGLE

__all__ = ["GOALS", "Goal", "render_goals"]

Figures = Sequence[Mapping[str, Any]]

_LAZY, _RAW = "lazyarr", "lazyarr, plain ndarray"
_BLOSC, _BLOSC_RAW = "lazyarr, blosc", "lazyarr, blosc, plain ndarray"
_TENSORSTORE = ("TensorStore", "TensorStore, 4 GiB cache")
_ZSTD_PEERS = ("zarr-python", "zarrs", *_TENSORSTORE)
_LIMIT, _LIMIT_READ = "limit: decompress", "limit: pread + decompress"
_MEMMAP, _BLOSC2 = "numpy.memmap, uncompressed", "blosc2, own format"

_LEGEND = """\
Every goal is a ratio of two figures below, of one run and one part.  *Fastest peer* is the fastest
of zarr-python, zarrs and TensorStore (with and without its cache), which read the same zstd chunks.
"""


class Goal(NamedTuple):
    """One goal.

    Attributes
    ----------
    work, measure : str
        What is done, and what is divided by what.
    part : str
        Whose figures it is about.
    bound : float
        What is to be reached.
    find : callable
        Gives the ratio; `LookupError` or `ValueError` where the figures are not there.
    at_least : bool
        Whether more is better.
    """

    work: str
    measure: str
    part: str
    bound: float
    find: Callable[[Figures], float]
    at_least: bool = False

    def row(self, figures: Figures) -> tuple[str, ...]:
        """Return a line of the table."""
        sign = ("at most", "at least")[self.at_least]
        start = (self.work, self.measure, f"{sign} {self.bound:g}")
        try:
            found = self.find(figures)
        except (LookupError, ValueError):
            return (*start, "-", "not measured")
        is_met = found >= self.bound if self.at_least else found <= self.bound
        return (*start, f"{found:.2f}", "met" if is_met else "**not met**")


def _one(figures: Figures, **wanted: Any) -> Mapping[str, Any]:
    """Return the figure whose fields are these."""
    for figure in figures:
        if all(figure.get(name) == value for name, value in wanted.items()):
            return figure
    raise LookupError(f"not measured: {wanted}")


# --- scans and rows ---------------------------------------------------------------


def _seconds(figures: Figures, what: str, names: Sequence[str]) -> float:
    """Return the fewest seconds of several contestants, without those who did not take part."""
    return min(f["seconds"][what] for f in figures if f["contestant"] in names)


def _ratio(what: str, name: str, *others: str) -> Callable[[Figures], float]:
    return lambda figures: _seconds(figures, what, [name]) / _seconds(figures, what, others)


def _peer_goals() -> list[Goal]:
    scan, scan_64 = "scan by 4 rows", "scan by 64 rows"
    new, again, scattered = "a row of a new chunk", "a row read before", "64 scattered rows"
    chunkwise = "scan, chunk by chunk, plain ndarray"
    given = [
        (chunkwise, "of the limit", 1.35, _ratio(scan, _RAW, _LIMIT)),
        (chunkwise, "of the fastest peer", 0.6, _ratio(scan, _RAW, *_ZSTD_PEERS)),
        ("scan by 64 rows", "of the limit", 1.25, _ratio(scan_64, _LAZY, _LIMIT)),
        ("scan by 64 rows", "of the fastest peer", 0.8, _ratio(scan_64, _LAZY, *_ZSTD_PEERS)),
        (new, "of pread + decompress", 1.3, _ratio(new, _LAZY, _LIMIT_READ)),
        (new, "of TensorStore", 1.0, _ratio(new, _LAZY, *_TENSORSTORE)),
        (f"{new}, plain ndarray", "of pread + decompress", 1.3, _ratio(new, _RAW, _LIMIT_READ)),
        (f"{new}, plain ndarray", "of TensorStore", 1.0, _ratio(new, _RAW, *_TENSORSTORE)),
        (scattered, "of the limit", 1.25, _ratio(scattered, _LAZY, _LIMIT)),
        # The same memory by the same code: what differs is chance.
        (f"{again}, plain ndarray", "of numpy.memmap", 1.05, _ratio(again, _RAW, _MEMMAP)),
        (again, "of numpy.memmap", 1.3, _ratio(again, _LAZY, _MEMMAP)),
    ]
    first = "open and first row"
    given.append((first, "of zarr-python", 0.6, _ratio(first, _LAZY, "zarr-python")))
    for what in (scan, scan_64, new, again, scattered):
        given.append((f"{what}, blosc", "of blosc2", 1.0, _ratio(what, _BLOSC, _BLOSC2)))
    for what in (scan, scan_64, new, again):
        name = f"{what}, blosc, plain ndarray"
        given.append((name, "of blosc2", 1.0, _ratio(what, _BLOSC_RAW, _BLOSC2)))
    return [Goal(work, measure, "peers", bound, find) for work, measure, bound, find in given]


# --- the others ---------------------------------------------------------------------


def _fault_ratio(codec: str, unit_nbytes: int, other: str) -> Callable[[Figures], float]:
    def find(figures: Figures) -> float:
        lazy, beside = (
            _one(figures, codec=codec, unit_nbytes=unit_nbytes, contestant=name)["median_seconds"]
            for name in (_LAZY, other)
        )
        return float(lazy / beside)

    return find


def _fault_goals() -> list[Goal]:
    goals = []
    for codec in CODECS:
        for size, nbytes, other, bound in (
            ("4 KiB", 4 << 10, "C handler", 2.0),
            ("1 MiB", 1 << 20, "sum", 1.25),
        ):
            work = f"touch of {size} units, compression {codec}"
            find = _fault_ratio(codec, nbytes, other)
            goals.append(Goal(work, f"of the {other}", "faults", bound, find))
    return goals


def _remote_seconds(figures: Figures, case: str, scenario: str, name: str) -> float:
    found = _one(figures, case=case, scenario=scenario, contestant=name)
    return float(found["seconds"])


def _trips(case: str) -> Callable[[Figures], float]:
    """Return the share of three round trips and decompression that scattered chunks take."""

    def find(figures: Figures) -> float:
        delay = _one(figures, case=case)["delay_seconds"]
        decompress = _remote_seconds(figures, case, SCENARIOS[0], DECOMPRESS)
        return _remote_seconds(figures, case, SCENARIOS[0], _LAZY) / (3 * delay + decompress)

    return find


def _remote_ratio(case: str, scenario: str, above: str, *below: str) -> Callable[[Figures], float]:
    def find(figures: Figures) -> float:
        names = {f["contestant"] for f in figures} & set(below)
        fastest = min(_remote_seconds(figures, case, scenario, name) for name in names)
        return _remote_seconds(figures, case, scenario, above) / fastest

    return find


def _remote_goals() -> list[Goal]:
    goals = []
    scattered, scan = SCENARIOS
    # On a link of its own speed a scan is bound by that; without a limit by the processors, which
    # server and client share.
    for case, scenarios in (
        ("HTTP, 50 ms", SCENARIOS),
        ("S3, 50 ms", SCENARIOS),
        ("HTTP, 50 ms, 125 MB/s", (scan,)),
    ):
        rows = [
            (scan, "of what the pool carries", 0.9, _remote_ratio(case, scan, POOL, _LAZY), True)
        ]
        if scattered in scenarios:
            rows.insert(
                0, (scattered, "of 3 round trips + decompression", 1.0, _trips(case), False)
            )
        for scenario in scenarios:
            for name in ("zarr-python", "zarrs", "TensorStore"):
                find = _remote_ratio(case, scenario, _LAZY, name)
                rows.append((scenario, f"of {name}", 1.0, find, False))
        goals += [
            Goal(f"{case}: {work}", measure, "remote", bound, find, more)
            for work, measure, bound, find, more in rows
        ]
    return goals


def _epoch_goals() -> list[Goal]:
    def decoded(name: str, n_workers: int) -> Callable[[Figures], float]:
        return lambda figures: float(
            _one(figures, contestant=name, n_workers=n_workers)["decoded_per_chunk"]
        )

    return [
        Goal(
            f"shuffled epoch, {n_workers} workers, {name}",
            "chunks decompressed, per chunk",
            "epochs",
            1.0,
            decoded(name, n_workers),
        )
        for n_workers in (2, 4)
        for name in (_LAZY, _RAW)
    ]


def _training_goals() -> list[Goal]:
    def ratio(epoch: str, name: str, others: Sequence[str]) -> Callable[[Figures], float]:
        def find(figures: Figures) -> float:
            best = max(f[epoch] for f in figures if f.get("contestant") in others)
            return float(_one(figures, contestant=name)[epoch] / best)

        return find

    def remote(name: str) -> str:
        return f"{name}, {REMOTE_CASE}"

    def resume(figures: Figures) -> float:
        return float(_one(figures, contestant=SHUFFLED)["resume_seconds"])

    def memory(n_workers: int) -> Callable[[Figures], float]:
        return lambda figures: float(_one(figures, n_workers=n_workers, place="files")["of_limit"])

    first = "samples a second of the fastest peer of compressed data"
    second = "samples a second of numpy.memmap in the same order"
    return [
        Goal(work, what, "training", bound, ratio(epoch, name, others), True)
        for work, what, bound, epoch, name, others in (
            ("training, first epoch", first, 1.0, "first", SHUFFLED, COMPRESSED),
            (
                f"training, first epoch, {REMOTE_CASE}",
                first,
                1.0,
                "first",
                remote(SHUFFLED),
                [remote(name) for name in COMPRESSED],
            ),
            ("training, second epoch", second, 0.91, "second", SHUFFLED, [SHUFFLED_MEMMAP]),
        )
    ] + [
        Goal("training, resume", "seconds", "training", 1.0, resume),
        *(
            Goal(f"training, memory, {n} workers", "of the limit", "training", 1.2, memory(n))
            for n in (0, 2, 5)
        ),
    ]


def _saving_goals() -> list[Goal]:
    def ratio(compressor: str) -> Callable[[Figures], float]:
        return lambda figures: float(_one(figures, compressor=compressor)["ratio"])

    return [
        Goal(f"save, {name}", "of compression alone on all cores", "save", 0.9, ratio(name), True)
        for name in ("zstd", "blosc")
    ]


def _writing_goals() -> list[Goal]:
    def update(name: str) -> Callable[[Figures], float]:
        def find(figures: Figures) -> float:
            wanted = {"layout": "chunks", "way": SINGLE}
            lazy, peer = (_one(figures, contestant=c, **wanted)["seconds"] for c in (_LAZY, name))
            return float(peer / lazy)

        return find

    def touch(figures: Figures) -> float:
        lazy, memmap = (
            _one([f for f in figures if "written_before" in f], contestant=name)["written_before"]
            for name in (_LAZY, _MEMMAP)
        )
        return float(lazy / memmap)

    def fill(figures: Figures) -> float:
        return float(_one(figures, contestant="lazyarr, fill")["ratio"])

    updates = "scattered updates of rows and a flush"
    return [
        Goal("a write to a page written before", "of numpy.memmap", "writing", 1.1, touch),
        Goal(updates, "times as fast as zarr-python", "writing", 5, update("zarr-python"), True),
        Goal(updates, "times as fast as TensorStore", "writing", 2, update("TensorStore"), True),
        Goal("a fill of 8 times the memory limit", "of save", "writing", 0.8, fill, True),
    ]


def _feeding_goals() -> list[Goal]:
    def cores(way: str) -> Callable[[Figures], float]:
        return lambda figures: float(
            _one(figures, way=way, codec="none", chunk_nbytes=CHUNK_NBYTES, threads=MANY)["cores"]
        )

    return [
        Goal(
            f"512 KiB chunks, {way}", "cores that one pager feeds", "feeding", 16, cores(way), True
        )
        for way in WAYS
    ]


GOALS = (
    *_peer_goals(),
    *_remote_goals(),
    *_epoch_goals(),
    *_training_goals(),
    *_saving_goals(),
    *_writing_goals(),
    *_feeding_goals(),
    *_fault_goals(),
)
"""All of them, in the order of the table."""


def render_goals(figures: Mapping[str, Figures]) -> list[str]:
    """Return the section on goals from the figures of each part."""
    rows = [goal.row(figures.get(goal.part, ())) for goal in GOALS]
    n_met = sum(row[-1] == "met" for row in rows)
    n_missing = sum(row[-1] == "not measured" for row in rows)
    counts = f"{n_met} of {len(rows)} met, {n_missing} not measured."
    head = ("work", "what", "goal", "found", "")
    return ["## Goals", "", _LEGEND, counts, "", *table(head, rows)]
