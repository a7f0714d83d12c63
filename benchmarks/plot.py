"""The main table as a picture: how many times the limit everybody takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["write_plot"]

_PANELS = (
    ("scan by 4 rows", "limit: decompress"),
    ("scan by 64 rows", "limit: decompress"),
    ("a row of a new chunk", "limit: decompress"),
    ("64 scattered rows", "limit: decompress"),
    ("a row read before", "numpy.memmap, uncompressed"),
    ("open and first row", "zarr-python"),
)
"""Each figure, and whose is 1 in it."""

_OURS, _BLOSC, _OTHERS = "#0b6e4f", "#6fb98f", "#9aa0a6"


def write_plot(figures: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Draw the figures of scans and rows; return whether that was done.

    Parameters
    ----------
    figures : sequence of dict
        Of the part "peers".
    path : Path
        An SVG file; the same for the same figures.
    """
    if not figures or not find_spec("matplotlib"):
        return False
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Text stays text, and names are made from a fixed salt: a small file, the same every time.
    style = {"svg.fonttype": "none", "svg.hashsalt": "lazyarr", "font.size": 8}
    with mpl.rc_context(style):
        picture = Figure(figsize=(11, 6.5), layout="constrained")
        names = [figure["contestant"] for figure in figures if "limit" not in figure["contestant"]]
        by_name = {figure["contestant"]: figure["seconds"] for figure in figures}
        for axes, (what, unit) in zip(
            picture.subplots(2, 3, sharey=True).flat, _PANELS, strict=True
        ):
            if unit in by_name:
                _draw(axes, [by_name[name].get(what) for name in names], by_name[unit][what], names)
            axes.set_title(f"{what}\n(1 is {unit})")
        picture.suptitle("Times as long, logarithmic: further left is faster")
        picture.savefig(path, metadata={"Date": None})
    return True


def _draw(axes: Any, seconds: Sequence[float | None], unit: float, names: Sequence[str]) -> None:
    ratios = [1.0 if value is None else value / unit for value in seconds]
    places = range(len(names))
    # From 1: who is faster than that points to the left.
    bars = axes.barh(places, [r - 1 for r in ratios], left=1, color=[_color(n) for n in names])
    axes.bar_label(
        bars, [f" {ratio:.2g} " if ratio < 0.1 else f" {ratio:.2f} " for ratio in ratios]
    )
    axes.set_xscale("log")
    low, high = min(1.0, *ratios), max(1.0, *ratios)
    axes.set_xlim(low / 3, high * 3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(places, names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.spines[["top", "right"]].set_visible(False)


def _color(name: str) -> str:
    if not name.startswith("lazyarr"):
        return _OTHERS
    return _BLOSC if "blosc" in name else _OURS
