"""``python -m benchmarks``: measure, and write down what was found."""

from __future__ import annotations

import argparse
import compileall
import json
import sys
import tempfile
from pathlib import Path

import lazyarr
from benchmarks.parts import PARTS, Results
from benchmarks.plot import write_plot
from benchmarks.report import render_header
from benchmarks.running import Run

_HERE = Path(__file__).parent


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    return names


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        type=_names,
        metavar="NAME,...",
        help=f"measure these parts anew, of {', '.join(PARTS)}; keep what there is of the others",
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it works")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with a run that was broken off",
    )
    parser.add_argument("--data", type=Path, help="where the data is kept; benchmarks/data")
    parser.add_argument("--repeats", type=int, help="how often each figure is measured")
    parser.add_argument(
        "--output", type=Path, help="Markdown file; RESULTS.md when all parts are there"
    )
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser.parse_args()


def _command(options: argparse.Namespace) -> str:
    """Return how to measure the same: not where data and results were kept."""
    only = f" --only {','.join(options.only)}" if options.only else ""
    repeats = f" --repeats {options.repeats}" if options.repeats else ""
    flags = "".join(f" --{name}" for name in ("quick", "resume") if getattr(options, name))
    return f"python -m benchmarks{only}{repeats}{flags}"


def main() -> None:
    """Run what the command line asks for; exit with 1 if a part failed."""
    options = _parse()
    header = render_header(_command(options))
    if options.data is not None or not options.quick:
        succeeded = _measure(options, (options.data or _HERE / "data").resolve(), header)
    else:
        with tempfile.TemporaryDirectory() as directory:
            succeeded = _measure(options, Path(directory), header)
    sys.exit(0 if succeeded else 1)


def _measure(options: argparse.Namespace, data: Path, header: list[str]) -> bool:
    data.mkdir(parents=True, exist_ok=True)
    # As installers do: the contestants that were installed have been compiled, and
    # PYTHONDONTWRITEBYTECODE would have lazyarr compiled anew by every process.
    compileall.compile_dir(Path(lazyarr.__file__).parent, quiet=1)
    run = Run(options.quick, options.repeats)
    keep = options.resume or options.only is not None
    results = Results(data / "figures.json", run, keep=keep)
    names = options.only or results.missing()
    succeeded = [results.measure(name, data) for name in names]
    if options.output is None and not options.quick and results.is_complete():
        options.output = _HERE / "RESULTS.md"
    text = "\n".join([*header, "", *_picture(options, results), *results.render()])
    print(text)
    if options.output is not None:
        options.output.write_text(text)
    if options.json is not None:
        options.json.write_text(json.dumps(results.document(), indent=1))
    return all(succeeded)


def _picture(options: argparse.Namespace, results: Results) -> list[str]:
    """Draw beside the output; return the lines that show it."""
    if options.output is None:
        return []
    path = options.output.with_suffix(".svg").with_name(options.output.stem.lower() + ".svg")
    if not write_plot(results.figures().get("peers", ()), path):
        return []
    return [f"![Scans and rows, beside the limit]({path.name})", ""]


if __name__ == "__main__":
    main()
