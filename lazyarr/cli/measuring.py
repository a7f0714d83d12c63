"""What an array costs to read, measured on samples of it, and what would cost less."""

from __future__ import annotations

import functools
import math
import shlex
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from lazyarr.client.arrays.chunk_objects import count_objects
from lazyarr.client.arrays.text import columns, count, format_nbytes, printable
from lazyarr.codecs.checksum import Crc32c
from lazyarr.errors import ChunkError
from lazyarr.formats.base import ArrayDescription, GroupDescription
from lazyarr.formats.zarr import default_chunks, default_shards
from lazyarr.kernel.mapping import PAGE_NBYTES
from lazyarr.layout.geometry import Geometry
from lazyarr.layout.pipeline import Pipeline
from lazyarr.layout.placement import KeyPerChunk
from lazyarr.reading.units import geometry_of
from lazyarr.reading.workspace import Workspace
from lazyarr.store.remote import FsspecStore
from lazyarr.verification.checker import Checker
from lazyarr.writer.choosing import candidate_codecs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from lazyarr.opening.survey import Found
    from lazyarr.store import RetryingStore, Store

__all__ = ["Advice", "Measured", "Measurements", "Speed", "advise", "measure", "measure_all"]

# A sample is so much, or what can be read in that time, and evenly spread chunks of it.
_SAMPLE_NBYTES = 4 << 20
_SAMPLE_SECONDS = 0.5
_MAX_SAMPLES = 64
_LARGEST_CHUNK_NBYTES = 64 << 20
# With less there is nothing to judge by.
_TELLING_NBYTES = 64 << 10
# The ways to decode are tried so long in turn, and the quickest pass of each counts.
_TRIAL_SECONDS = 0.3
_MIN_ROUNDS = 5
# What `convert` makes chunks of.
_BLOCK_NBYTES = 512 << 10
_MAX_ARRAYS = 16

# Less than this is a question of taste, or of the moment.
_WORTH = 1.3
_WORTH_TOUCH = 4
_WORTH_SMALL = 8
_WORTH_OBJECTS = 16
_MANY_OBJECTS = 1000


class Speed(NamedTuple):
    """How bytes of a sample are stored, in one way.

    Attributes
    ----------
    stored_nbytes : int
        What they take.
    seconds : float
        What one thread takes to decode them, when they have been read.
    """

    stored_nbytes: int
    seconds: float


class Measured(NamedTuple):
    """What was found on a sample of an array.

    Attributes
    ----------
    n_chunks, nbytes : int
        How many chunks, and how much that is in memory.
    fetch_seconds : float
        What it took to read them from the store, one after the other.
    now : Speed
        As they are stored.
    others : dict
        The same elements by other compressors, in blocks of 512 KiB.
    """

    n_chunks: int
    nbytes: int
    fetch_seconds: float
    now: Speed
    others: dict[str, Speed]

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        ways = {"now": self.now, **self.others}
        return {
            "chunks": self.n_chunks,
            "nbytes": self.nbytes,
            "fetch_seconds": self.fetch_seconds,
            "ways": {
                name: {
                    "ratio": way.stored_nbytes / self.nbytes,
                    "decoded_bytes_per_second": self.nbytes / way.seconds,
                }
                for name, way in ways.items()
            },
        }

    def __str__(self) -> str:
        ways = {"now": self.now, **self.others}
        found = ", ".join(
            f"{name} {way.stored_nbytes / self.nbytes:.2f} of the size, "
            f"{_per_second(self.nbytes / way.seconds)}"
            for name, way in ways.items()
        )
        sample = f"{count(self.n_chunks, 'chunk')}, {format_nbytes(self.nbytes)}"
        return f"{sample}, fetched in {_seconds(self.fetch_seconds)}; decoded: {found}"


class Advice(NamedTuple):
    """What would be faster, or smaller, and by how much.

    Attributes
    ----------
    kind : str
        What it is about.
    text : str
        A sentence.
    factor : float
        By how much.
    """

    kind: str
    text: str
    factor: float


class Measurements(NamedTuple):
    """What samples of a store's arrays have shown.

    Attributes
    ----------
    measured : dict
        What was found, by the arrays' paths.
    left_out : dict
        Why an array was not measured.
    advice : dict
        What would be better, by path; "" also for the whole store.
    command : str or None
        What does it; None where there is nothing to do.
    """

    measured: dict[str, Measured]
    left_out: dict[str, str]
    advice: dict[str, list[Advice]]
    command: str | None

    def document(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "measured": {path: found.document() for path, found in self.measured.items()},
            "not_measured": self.left_out,
            "advice": [
                {"path": path, **each._asdict()}
                for path, found in self.advice.items()
                for each in found
            ],
            "command": self.command,
        }

    def __str__(self) -> str:
        rows = [(f"  {printable(path) or '/'}", str(m)) for path, m in self.measured.items()]
        rows += [
            (f"  {printable(path) or '/'}", f"not measured: {why}")
            for path, why in self.left_out.items()
        ]
        rows = rows or [("  there is no array", "")]
        lines = ["", "Samples, decoded by one thread", *columns(rows)]
        if self.command is None:
            nothing = "Nothing in them would be much faster, or smaller"
            return "\n".join([*lines, "", nothing] if self.measured else lines)
        rows = [
            (f"  {printable(path) or '/'}", each.text)
            for path, found in self.advice.items()
            for each in found
        ]
        return "\n".join([*lines, "", "What would be better", *columns(rows), f"  {self.command}"])


def measure_all(store: RetryingStore, url: str, nodes: Sequence[Found]) -> Measurements:
    """Return measurements of and advice on the largest arrays of a store.

    Parameters
    ----------
    store : RetryingStore
        Where they are.
    url : str
        What the user calls it.
    nodes : sequence of (str, node)
        All nodes, the root first.
    """
    arrays = {path: node for path, node in nodes if isinstance(node, ArrayDescription)}
    largest = sorted(arrays, key=lambda path: -arrays[path].nbytes)[:_MAX_ARRAYS]
    measured: dict[str, Measured] = {}
    left_out = {path: "others are larger" for path in arrays if path not in largest}
    advice: dict[str, list[Advice]] = {}
    for path in largest:
        found = measure(store, arrays[path])
        if isinstance(found, Measured):
            measured[path] = found
        else:
            left_out[path] = found
        advice[path] = advise(arrays[path], measured.get(path))
    advice.setdefault("", []).extend(_of_documents(store, nodes))
    advice = {path: each for path, each in advice.items() if each}
    command = _command(url, arrays, advice) if advice else None
    return Measurements(measured, left_out, advice, command)


def _of_documents(store: RetryingStore, nodes: Sequence[Found]) -> Iterator[Advice]:
    root = nodes[0][1]
    if not isinstance(root, GroupDescription) or len(nodes) == 1:
        return
    # Not of repositories and references, which have all documents in one place.
    is_remote = isinstance(store.inner, FsspecStore) and not _is_local(store.url)
    if not is_remote:
        return
    if root.format_name[0] == "zarr" and root.consolidated is None:
        text = (
            f"there is no consolidated metadata: {len(nodes):,} documents are read one by one, "
            "with it one is"
        )
        yield Advice("consolidated metadata", text, float(len(nodes)))


def _is_local(url: str) -> bool:
    """Return whether a store, or the archive that it lies in, is on this machine."""
    return url.rpartition("::")[2].startswith("file://")


def measure(store: Store, metadata: ArrayDescription) -> Measured | str:
    """Return what a sample of an array costs, or why that cannot be said.

    Parameters
    ----------
    store : Store
        Where the array is.
    metadata : ArrayDescription
        What it says of itself.
    """
    checker = Checker(store, metadata)
    layout = checker.layout
    if layout.chunk_nbytes > _LARGEST_CHUNK_NBYTES:
        return f"one chunk takes {format_nbytes(layout.chunk_nbytes)}"
    workspace = Workspace()
    encoded: list[tuple[tuple[int, ...], bytes]] = []
    fetch_seconds = 0.0
    begin = time.perf_counter()
    try:
        for chunk in _spread(layout.grid_shape, layout.chunk_nbytes):
            before = time.perf_counter()
            if encoded and before - begin > _SAMPLE_SECONDS:
                break
            data = checker.heal(chunk, functools.partial(checker.read, chunk, workspace))
            if data is not None:
                fetch_seconds += time.perf_counter() - before
                encoded.append((chunk, bytes(data)))
        nbytes = len(encoded) * layout.chunk_nbytes
        if nbytes < _TELLING_NBYTES:
            return f"a sample of it has {format_nbytes(nbytes)}, too little to judge by"
        content = memoryview(bytearray(nbytes))
        parts = [
            content[at : at + layout.chunk_nbytes] for at in range(0, nbytes, layout.chunk_nbytes)
        ]

        def decode_all() -> None:
            for (chunk, data), part in zip(encoded, parts, strict=True):
                layout.decode_chunk(chunk, data, part)

        checker.heal(encoded[0][0], decode_all)
    except ChunkError as error:
        return f"a sample of it cannot be read: {error.reason}"
    finally:
        workspace.close()
    others = _other_ways(content, metadata.dtype.itemsize)
    seconds = _quickest({"": decode_all, **{name: run for name, (_, run) in others.items()}})
    return Measured(
        n_chunks=len(encoded),
        nbytes=nbytes,
        fetch_seconds=fetch_seconds,
        now=Speed(sum(len(data) for _, data in encoded), seconds[""]),
        others={name: Speed(size, seconds[name]) for name, (size, _) in others.items()},
    )


def _spread(grid_shape: tuple[int, ...], chunk_nbytes: int) -> list[tuple[int, ...]]:
    """Return the places of chunks that lie evenly in a grid, first and last among them."""
    n_chunks = math.prod(grid_shape)
    wanted = min(n_chunks, _MAX_SAMPLES, max(8, _SAMPLE_NBYTES // max(1, chunk_nbytes)))
    wanted = max(1, min(wanted, _LARGEST_CHUNK_NBYTES // max(1, chunk_nbytes))) if n_chunks else 0
    places = []
    for sample in range(wanted):
        rest = sample * (n_chunks - 1) // max(1, wanted - 1)
        place: list[int] = []
        for length in reversed(grid_shape):
            rest, coordinate = divmod(rest, length)
            place.append(coordinate)
        places.append(tuple(reversed(place)))
    return places


def _other_ways(content: memoryview, itemsize: int) -> dict[str, tuple[int, Callable[[], None]]]:
    """Return, for each compressor that `convert` has, the size and what decodes some elements."""
    nbytes = max(itemsize, _BLOCK_NBYTES // itemsize * itemsize)
    blocks = [content[at : at + nbytes] for at in range(0, len(content), nbytes)]
    out = memoryview(bytearray(nbytes))
    found: dict[str, tuple[int, Callable[[], None]]] = {}
    for name, codec in candidate_codecs(None, itemsize).items():
        pipelines = [Pipeline(len(block), (codec, Crc32c())) for block in blocks]
        encoded = [way.encode(block) for way, block in zip(pipelines, blocks, strict=True)]
        run = functools.partial(_decode, pipelines, encoded, out)
        found[str(name)] = (sum(map(len, encoded)), run)
    return found


def _decode(pipelines: list[Pipeline], encoded: list[bytes], out: memoryview) -> None:
    for pipeline, data in zip(pipelines, encoded, strict=True):
        pipeline.decode(data, out[: pipeline.chunk_nbytes])


def _quickest(runs: Mapping[str, Callable[[], None]]) -> dict[str, float]:
    """Return the processor time that each of several things takes at best.

    What else the machine does is not in it, and as they take turns, it slows them down alike.
    """
    best = dict.fromkeys(runs, math.inf)
    for run in runs.values():
        run()  # imports, and memory that was never touched
    begin, n_rounds = time.perf_counter(), 0
    while n_rounds < _MIN_ROUNDS or time.perf_counter() - begin < _TRIAL_SECONDS:
        for name, run in runs.items():
            before = time.thread_time()
            run()
            best[name] = min(best[name], max(time.thread_time() - before, 1e-9))
        n_rounds += 1
    return best


def advise(metadata: ArrayDescription, measured: Measured | None) -> list[Advice]:
    """Return what `lazyarr convert` would make better about an array, the most first.

    Parameters
    ----------
    metadata : ArrayDescription
        What the array says of itself.
    measured : Measured or None
        What was found on a sample of it; None where there is none.
    """
    if not metadata.nbytes:
        return []
    found = [*_of_chunks(metadata, measured), *_of_objects(metadata), *_of_order(metadata)]
    if measured is not None:
        found += _of_compressor(measured)
    return sorted(found, key=lambda advice: -advice.factor)


def _of_compressor(measured: Measured) -> list[Advice]:
    now = measured.now
    ways = sorted(measured.others.items(), key=lambda item: item[1].seconds)
    for name, way in ways:
        faster, size = now.seconds / way.seconds, way.stored_nbytes / now.stored_nbytes
        if faster >= _WORTH and size <= _WORTH:
            text = f"as {name} it is decoded {faster:.1f} times as fast, in {size:.2f} of the space"
            return [Advice(f"compressor {name}", text, faster)]
    name, way = min(measured.others.items(), key=lambda item: item[1].stored_nbytes)
    smaller, slower = now.stored_nbytes / way.stored_nbytes, way.seconds / now.seconds
    if smaller < _WORTH:
        return []
    speed = _per_second(measured.nbytes / way.seconds)
    before = _per_second(measured.nbytes / now.seconds)
    how = f"decoded at {speed} in place of {before}" if slower > _WORTH else "no slower to decode"
    text = f"as {name} it takes {1 / smaller:.2f} of the space, {how}"
    return [Advice(f"compressor {name}", text, smaller)]


def _of_chunks(metadata: ArrayDescription, measured: Measured | None) -> list[Advice]:
    layout = metadata.layout()
    geometry = geometry_of(layout)
    shape, itemsize = metadata.shape, metadata.dtype.itemsize
    chunks = default_chunks(shape, itemsize)
    after = Geometry(shape, chunks, itemsize, PAGE_NBYTES)
    found = []
    touched = max(geometry.unit_nbytes, layout.chunk_nbytes)
    fewer = touched / max(1, min(after.unit_nbytes, metadata.nbytes))
    if fewer >= _WORTH_TOUCH and touched > _BLOCK_NBYTES:
        takes = ""
        if measured is not None:
            takes = f", {_seconds(measured.now.seconds * touched / measured.nbytes)} of one thread"
        text = (
            f"one touch decodes {format_nbytes(touched)} in "
            f"{count(geometry.unit_chunks, 'chunk')}{takes}; in chunks of {chunks} it is "
            f"{fewer:.0f} times less"
        )
        found.append(Advice("touch", text, fewer))
    n_chunks, n_after = math.prod(layout.grid_shape), math.prod(_grid(shape, chunks))
    if n_chunks >= _WORTH_SMALL * max(1, n_after) and layout.chunk_nbytes < _TELLING_NBYTES:
        takes = ""
        if measured is not None:
            takes = f", each fetched in {_seconds(measured.fetch_seconds / measured.n_chunks)} here"
        text = (
            f"it has {n_chunks:,} chunks of {format_nbytes(layout.chunk_nbytes)}{takes}; "
            f"{n_after:,} would do"
        )
        found.append(Advice("small chunks", text, n_chunks / max(1, n_after)))
    elif not geometry.unit_pages and after.unit_pages and geometry.n_units > 1:
        text = (
            f"a chunk is {layout.chunk_nbytes / PAGE_NBYTES:.2f} pages: a touch of one at its edge "
            f"decodes two chunks; {chunks} would be whole pages"
        )
        found.append(Advice("pages", text, 1.0))
    return found


def _of_objects(metadata: ArrayDescription) -> list[Advice]:
    if metadata.shards is not None or not isinstance(metadata.layout().placement, KeyPerChunk):
        return []
    n_objects = count_objects(metadata)
    shape, itemsize = metadata.shape, metadata.dtype.itemsize
    chunks = default_chunks(shape, itemsize)
    n_after = math.prod(_grid(shape, default_shards(shape, chunks, itemsize) or chunks))
    if n_objects < max(_MANY_OBJECTS, _WORTH_OBJECTS * n_after):
        return []
    text = f"every chunk is an object, up to {n_objects:,}; in shards there are {n_after:,}"
    return [Advice("objects", text, n_objects / n_after)]


def _of_order(metadata: ArrayDescription) -> list[Advice]:
    axes = metadata.layout().axes
    shape = metadata.shape
    if axes == tuple(range(len(shape))) or sum(length > 1 for length in shape) < 2:
        return []
    row_nbytes = metadata.nbytes // shape[0]
    pages = min(row_nbytes // metadata.dtype.itemsize, -(-metadata.nbytes // PAGE_NBYTES))
    at_best = -(-row_nbytes // PAGE_NBYTES)
    if pages < _WORTH_TOUCH * at_best:
        return []
    text = (
        f"its first axis varies fastest: a row of {format_nbytes(row_nbytes)} lies in up to "
        f"{pages:,} pages, in C order in {at_best:,}"
    )
    return [Advice("order", text, pages / at_best)]


def _grid(shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-length // chunk) for length, chunk in zip(shape, chunks, strict=True))


def _command(url: str, arrays: dict[str, ArrayDescription], advice: dict[str, list[Advice]]) -> str:
    """Return the command that does what is advised."""
    asked = {
        each.kind.removeprefix("compressor ")
        for found in advice.values()
        for each in found
        if each.kind.startswith("compressor ")
    }
    is_one = len(asked) == 1 and len(arrays) == 1
    options = f" --compressor {asked.pop()}" if is_one else " --compressor auto" if asked else ""
    return f"lazyarr convert {shlex.quote(printable(url))} NEW.zarr{options}"


def _per_second(nbytes: float) -> str:
    return f"{nbytes / 1e9:.1f} GB/s" if nbytes >= 1e9 else f"{nbytes / 1e6:.0f} MB/s"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.2f} ms"
