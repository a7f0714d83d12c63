"""``python -m benchmarks``: measure, and write down what was found."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import faults, others, peers
from benchmarks.report import render_faults, render_header, render_peers

_HERE = Path(__file__).parent
_T = TypeVar("_T", faults.Latency, peers.PeerResult)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=("faults", "peers", *others.PARTS), help="one part alone")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works")
    parser.add_argument("--data", type=Path, help="where the data is kept; benchmarks/data")
    parser.add_argument("--repeats", type=int, help="how often each figure is measured")
    parser.add_argument("--output", type=Path, help="Markdown file; RESULTS.md, nothing with quick")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser.parse_args()


def main() -> None:
    """Run what the command line asks for."""
    options = _parse()
    if options.output is None and not options.quick:
        options.output = _HERE / "RESULTS.md"
    text = render_header(shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]))
    if options.data is not None or not options.quick:
        data = options.data or _HERE / "data"
        sections, document = _measure(options, data.resolve())
    else:
        with tempfile.TemporaryDirectory() as directory:
            sections, document = _measure(options, Path(directory))
    text = "\n".join([text, *sections])
    print(text)
    if options.output is not None:
        options.output.write_text(text)
    if options.json is not None:
        options.json.write_text(json.dumps(document, indent=1))


def _measure(options: argparse.Namespace, data: Path) -> tuple[list[str], dict[str, Any]]:
    data.mkdir(parents=True, exist_ok=True)
    sections = []
    document: dict[str, Any] = {}
    if options.only in (None, "faults"):
        plan = faults.QUICK if options.quick else faults.FULL
        plan = dataclasses.replace(plan, repeats=options.repeats or plan.repeats)
        latencies = list(_shown(faults.measure_faults(data, plan), 5))
        sections.append(render_faults(latencies))
        document["faults"] = [latency._asdict() for latency in latencies]
    if options.only in (None, "peers"):
        peer_plan = peers.QUICK if options.quick else peers.FULL
        peer_plan = dataclasses.replace(peer_plan, repeats=options.repeats or peer_plan.repeats)
        results = list(_shown(peers.measure_peers(data, peer_plan), 2))
        sections.append(render_peers(results, peer_plan))
        document["peers"] = [result._asdict() for result in results]
    other_plan = others.QUICK if options.quick else others.FULL
    other_plan = dataclasses.replace(other_plan, repeats=options.repeats or other_plan.repeats)
    names = [name for name in others.PARTS if options.only in (None, name)]
    for name, found, text in others.measure(names, data, other_plan):
        sections.append(text)
        document[name] = [item._asdict() for item in found]
    return sections, document


def _shown(results: Iterable[_T], n_fields: int) -> Iterator[_T]:
    """Give what is given, and show the first fields of it: a full run takes a while."""
    for result in results:
        print(*result[:n_fields], file=sys.stderr, flush=True)
        yield result


if __name__ == "__main__":
    main()
