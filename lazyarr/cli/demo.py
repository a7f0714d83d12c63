"""``lazyarr demo``: what is touched, faulted and read, on a small store made for it."""

from __future__ import annotations

import tempfile
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lazyarr.cli.output import print_text
from lazyarr.client.arrays.describe import describe_residency
from lazyarr.client.arrays.text import count, format_nbytes

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy

    from lazyarr.client.arrays.lazyarray import LazyArray

__all__ = ["demo"]

_N_IMAGES, _SIDE = 480, 256
_FIRST, _PICKED, _TOUCHED, _START, _STOP = 20, 123, 300, 400, 440


@click.command()
def demo() -> None:
    """Show in a few seconds what lazyarr does, on a store in a temporary directory."""
    _require_kernel()
    with tempfile.TemporaryDirectory(prefix="lazyarr-demo-") as directory:
        path = Path(directory) / "demo.zarr"
        stored_nbytes = _make(path)
        _show(path, stored_nbytes)


def _require_kernel() -> None:
    """Fail before anything is made, and say what to do."""
    from lazyarr.kernel.diagnosis import unopenable
    from lazyarr.memory import doctor

    support = doctor()
    if not support.usable:
        raise unopenable(support.attempts, support.surroundings)


def _images() -> numpy.ndarray[Any, Any]:
    """Return images as a camera gives them: something smooth that moves, and some noise."""
    import numpy

    side = numpy.linspace(-1, 1, _SIDE, dtype=numpy.float32)
    places = numpy.linspace(-0.5, 0.5, _N_IMAGES, dtype=numpy.float32)
    across = 400 * numpy.exp(-8 * (side - places[:, None]) ** 2)
    moving = across[:, :, None] * numpy.exp(-8 * side**2)
    images: numpy.ndarray[Any, Any] = moving.astype(numpy.uint16)
    noise = numpy.random.default_rng(0).integers(0, 4, images.shape[1:], numpy.uint16)
    images += noise
    return images


def _make(path: Path) -> int:
    """Write the store; return how many bytes it has on disk."""
    from lazyarr.writer import save

    images = _images()
    seconds, _ = _timed(lambda: save(path, {"images": images}))
    stored_nbytes = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print_text(
        f"made     {images.shape[0]} images of {_SIDE} x {_SIDE} x 16 bit, in {seconds:.2f} s: "
        f"{format_nbytes(images.nbytes)} as an array, {format_nbytes(stored_nbytes)} on disk\n"
        f"         {path}\n"
        "         below, a mark for every few chunks: # in memory, + some of them, . none"
    )
    return stored_nbytes


def _show(path: Path, stored_nbytes: int) -> None:
    """Open the store, touch some of it in three ways, and show what that loads."""
    import numpy

    from lazyarr.dataset import open as open_dataset
    from lazyarr.memory import stats

    seconds, x = _timed(lambda: open_dataset(path)["images"])
    _step("open", "x = lazyarr.open(path)['images']", seconds, "an ndarray; nothing is read", x)
    seconds, _ = _timed(lambda: x[_FIRST])
    _step("pick", f"x[{_FIRST}]", seconds, "reads one chunk, once the pager is up", x)
    seconds, _ = _timed(lambda: x[_PICKED])
    again, _ = _timed(lambda: x[_PICKED])
    _step("pick", f"x[{_PICKED}]", seconds, f"reads one chunk; again: {_shown(again)}", x)
    plain = numpy.asarray(x)
    before = stats().get("faults", 0)
    seconds, _ = _timed(lambda: zlib.crc32(plain[_TOUCHED]))
    faults = count(stats().get("faults", 0) - before, "page fault")
    # What is resident is noted just after the toucher goes on; what asks for the
    # same by message is answered after that.
    x[_TOUCHED : _TOUCHED + 1].prefetch()
    _step("touch", f"zlib.crc32(numpy.asarray(x)[{_TOUCHED}])", seconds, f"C code: {faults}", x)
    seconds, mean = _timed(lambda: x[_START:_STOP].mean())
    note = f"= {mean:.2f}; decodes on all processors"
    _step("compute", f"x[{_START}:{_STOP}].mean()", seconds, note, x)
    _summarize(x, stored_nbytes, stats())


def _summarize(x: LazyArray, stored_nbytes: int, counts: dict[str, Any]) -> None:
    """Say how little was read."""
    here = x.residency()
    share = here.resident_nbytes / here.total_nbytes
    read_nbytes = int(share * stored_nbytes)
    faults = count(counts.get("faults", 0), "fault")
    requests = count(counts.get("requests", 0), "request")
    print_text(
        f"read     {format_nbytes(here.resident_nbytes)} of the array's "
        f"{format_nbytes(here.total_nbytes)}, from about {format_nbytes(read_nbytes)} on disk; "
        "the rest was never touched\n"
        f"pager    answered {faults} and {requests}, loaded "
        f"{count(counts.get('units_loaded', 0), 'unit')}; keeps up to "
        f"{format_nbytes(counts['memory_limit'])} resident (memory_limit)\n"
        "next     lazyarr info URL; lazyarr convert SRC DST; in Python: import lazyarr"
    )


def _step(name: str, code: str, seconds: float, note: str, x: LazyArray) -> None:
    print_text(
        f"{name:<8} {code:<34} {_shown(seconds):>8}  {note}\n"
        f"         {describe_residency(x.residency())}"
    )


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return how many seconds a call took, and what it gave."""
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result


def _shown(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"
