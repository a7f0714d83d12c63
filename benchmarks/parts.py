"""The parts of a run, and what was found by them: kept on disk as soon as it is there."""

from __future__ import annotations

import datetime
import json
import os
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import (
    clusters,
    codecs,
    copies,
    epoch,
    faults,
    feeding,
    kinds,
    peak,
    peers,
    remote,
    saving,
    scale,
    slabs,
    tracking,
    training,
    writing,
)
from benchmarks.goals import render_goals
from benchmarks.report import Section
from benchmarks.running import Run, tell

__all__ = ["PARTS", "Results"]

PARTS: dict[str, Callable[[Path, Run], Section]] = {
    "peers": peers.measure,
    "kinds": kinds.measure,
    "remote": remote.measure,
    "epochs": epoch.measure,
    "distributed": clusters.measure,
    "training": training.measure,
    "slabs": slabs.measure,
    "memory": peak.measure,
    "save": saving.measure,
    "writing": writing.measure,
    "codecs": codecs.measure,
    "faults": faults.measure,
    "copies": copies.measure,
    "tracking": tracking.measure,
    "feeding": feeding.measure,
    "scale": scale.measure,
}
"""By name, in the order of the results."""


class Results:
    """What the parts have found, in a file that is written after each of them.

    Parameters
    ----------
    path : Path
        The file, JSON: for each part its title, figures and lines, or why it failed.
    run : Run
        How much is measured.
    keep : bool
        Whether what the file holds is taken over, if it is of as much.
    """

    def __init__(self, path: Path, run: Run, *, keep: bool) -> None:
        self._path = path
        self._run = run
        self.parts: dict[str, dict[str, Any]] = {}
        if keep and path.exists():
            found = json.loads(path.read_text())
            if found["quick"] == run.is_quick:
                self.parts = found["parts"]

    def __repr__(self) -> str:
        return f"<Results: {', '.join(self.parts)}>"

    def missing(self) -> list[str]:
        """Return the names of parts that have not been measured, or failed."""
        return [name for name in PARTS if "title" not in self.parts.get(name, {})]

    def is_complete(self) -> bool:
        """Return whether every part was measured, or failed."""
        return self.parts.keys() >= PARTS.keys()

    def measure(self, name: str, data: Path) -> bool:
        """Run a part; return whether it succeeded; one that fails raises nothing."""
        tell(f"--- {name}")
        date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
        load, begin = os.getloadavg()[0], time.monotonic()
        try:
            part: dict[str, Any] = PARTS[name](data, self._run)._asdict()
        except Exception as error:  # noqa: BLE001 - the other parts go on
            traceback.print_exc()
            part = {"failed": f"{type(error).__name__}: {error}"}
        part["when"] = f"{date}, {time.monotonic() - begin:.0f} s, load before {load:.2f}"
        self.parts[name] = part
        text = json.dumps(self.document(), indent=1)
        self._path.write_text(text)
        return "failed" not in part

    def document(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return {"quick": self._run.is_quick, "parts": self.parts}

    def figures(self) -> dict[str, list[dict[str, Any]]]:
        """Return the figures of each part that has some."""
        return {name: part["figures"] for name, part in self.parts.items() if "figures" in part}

    def render(self) -> list[str]:
        """Return the lines of the goals and of every part."""
        lines = render_goals(self.figures())
        for name in PARTS:
            if name in self.parts:
                lines += _render_part(name, self.parts[name])
        return lines


def _render_part(name: str, part: dict[str, Any]) -> Sequence[str]:
    when = f"Part `{name}`: {part['when']}."
    if "failed" in part:
        return [f"## Part {name}", "", when, "", f"Failed: `{part['failed']}`", ""]
    return [f"## {part['title']}", "", when, "", *part["body"]]
