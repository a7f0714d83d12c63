"""``python -m benchmarks.trace``: the calls and modules of lazyarr that one read passes through.

A pager is started under a profiler that counts while one read lasts (`sys.setprofile`, in every
thread of the worker).  The counts say how much of the code a maintainer has to follow to understand
a read; they do not say how long it takes.
"""

from __future__ import annotations

import collections
import mmap
import operator
import stat
import sys
import tempfile
import textwrap
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import lazyarr
from benchmarks.report import table

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["trace_reads"]

_N_ROWS = 64
_WARM_ROWS = 24

# Started as the pager, with the interpreter's options and the pager's file as arguments.  The
# first byte of the switch says whether to count; each call of a function of lazyarr's is a line.
_WRAPPER = """
    #!{python} -IS
    import mmap, os, runpy, sys, threading
    SWITCH = mmap.mmap(os.open({switch!r}, os.O_RDWR), 1)
    def note(frame, event, argument):
        if event == "call" and SWITCH[0] and "/lazyarr/" in frame.f_code.co_filename:
            name = frame.f_code.co_filename.rpartition("/lazyarr/")[2]
            line = name + " " + frame.f_code.co_qualname + chr(10)
            with open({out!r}, "a") as out:  # the pager closes what it has not opened
                out.write(line)
    sys.argv = sys.argv[sys.argv.index(next(a for a in sys.argv if a.endswith("__main__.py"))):]
    threading.setprofile(note)
    sys.setprofile(note)
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def trace_reads() -> dict[str, collections.Counter[str]]:
    """Return, by the kind of read, how often each function of the pager was called for it.

    Each function is named as ``module.py qualified_name``.
    """
    with tempfile.TemporaryDirectory() as directory:
        return _trace(Path(directory))


def _trace(directory: Path) -> dict[str, collections.Counter[str]]:
    switch, out, wrapper = (directory / name for name in ("switch", "calls", "python3"))
    switch.write_bytes(b"\0")
    out.touch()
    program = textwrap.dedent(_WRAPPER).strip()
    wrapper.write_text(program.format(python=sys.executable, switch=str(switch), out=str(out)))
    wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR)
    lazyarr.configure(python=str(wrapper), readahead=0, on_error="sigbus")
    generator = np.random.default_rng(1)
    rows = {
        "small": generator.integers(0, 50, (_N_ROWS, 16 << 10), dtype=np.uint8),
        "large": generator.integers(0, 50, (_N_ROWS, 1 << 20), dtype=np.uint8),
    }
    chunks = {name: (1, *array.shape[1:]) for name, array in rows.items()}
    lazyarr.save(directory / "s.zarr", rows, chunks=chunks)
    store = lazyarr.open(directory / "s.zarr")
    counted = {}
    with switch.open("r+b") as file, mmap.mmap(file.fileno(), 1) as is_counting:

        def count(read: Callable[[], object]) -> collections.Counter[str]:
            out.write_bytes(b"")
            is_counting[0] = 1
            read()
            _settle(out)
            is_counting[0] = 0
            return collections.Counter(out.read_text().splitlines())

        for size in rows:
            x = store[size]
            raw = np.asarray(x)
            for row in range(_WARM_ROWS):
                x[row].sum(), raw[_WARM_ROWS + row].sum()
            idle = count(lambda: None)
            label = f"{rows[size].shape[1] >> 10} KiB"
            counted[f"fault, {label}"] = count(partial(_touch, raw, 50)) - idle
            counted[f"request, {label}"] = count(partial(operator.getitem, x, 57)) - idle
    return counted


def _touch(raw: np.ndarray, row: int) -> None:
    raw[row, 5].sum()


def _settle(out: Path) -> None:
    """Wait until no call has been written down for a while: to ask the pager would be counted."""
    n_bytes = -1
    while n_bytes != (n_bytes := out.stat().st_size):
        time.sleep(0.05)


def main() -> None:
    """Print the numbers, and with ``-v`` the functions."""
    found = trace_reads()
    lines = [
        [kind, str(calls.total()), str(len({name.split()[0] for name in calls}))]
        for kind, calls in found.items()
    ]
    print(*table(["read", "calls in the pager", "modules"], lines), sep="\n")
    if "-v" in sys.argv:
        for kind, calls in found.items():
            print(f"\n{kind}", *(f"{n:4} {name}" for name, n in calls.items()), sep="\n")


if __name__ == "__main__":
    main()
