"""A reader made of layouts and plain files: the shortest way from a store to an array."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest

from lazyarr.formats.zarr import ArrayMetadata, parse_node, parse_v2_array
from lazyarr.layout import Layout


def load_metadata(root: Path) -> ArrayMetadata:
    document = root / "zarr.json"
    if document.exists():
        node = parse_node(document.read_bytes(), path=root.name)
        assert isinstance(node, ArrayMetadata)
        return node
    attributes = root / ".zattrs"
    return parse_v2_array(
        (root / ".zarray").read_bytes(),
        attributes.read_bytes() if attributes.exists() else None,
        path=root.name,
    )


def stored_chunk(root: Path, layout: Layout, chunk: tuple[int, ...]) -> memoryview | None:
    """Return the stored bytes of a smallest chunk, or None where there are none."""
    key, entries, *_ = layout.locate(chunk)
    if not (root / key).exists():
        return None
    data = memoryview((root / key).read_bytes())
    for level, i in zip(layout.levels, entries, strict=True):
        start, stop = level.index_range(len(data))
        entry = level.parse_index(data[start:stop], object_nbytes=len(data)).entry(i)
        if entry is None:
            return None
        data = data[entry[0] : entry[0] + entry[1]]
    return data


def read_array(root: Path) -> np.ndarray:
    """Return a whole array, along its logical axes."""
    metadata = load_metadata(root)
    layout = metadata.layout()
    dtype = metadata.dtype.to_numpy()
    whole = np.empty(
        [n * c for n, c in zip(layout.grid_shape, layout.chunk_shape, strict=True)], dtype
    )
    out = memoryview(bytearray(layout.chunk_nbytes))
    for chunk in itertools.product(*map(range, layout.grid_shape)):
        data = stored_chunk(root, layout, chunk)
        if data is None:
            out[:] = layout.fill * (layout.chunk_nbytes // layout.itemsize)
        else:
            layout.decode(data, out)
        place = tuple(
            slice(i * c, (i + 1) * c) for i, c in zip(chunk, layout.chunk_shape, strict=True)
        )
        whole[place] = np.frombuffer(out, dtype).reshape(layout.chunk_shape)
    in_memory = whole[tuple(slice(0, n) for n in layout.shape)]
    return in_memory.transpose(np.argsort(layout.axes).astype(int))


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays hold the same values, bit for bit in the same byte order."""
    return a.shape == b.shape and a.astype(b.dtype).tobytes() == b.tobytes()


@pytest.fixture
def quiet():
    """Let zarr-python warn about types and codecs that its specification does not have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def write_array(root: Path, array: np.ndarray, document: bytes) -> None:
    """Store an array as its document says, leaving out chunks that are all fill value."""
    root.mkdir(parents=True)
    (root / "zarr.json").write_bytes(document)
    layout = load_metadata(root).layout()
    objects: dict[str, dict[int, bytes]] = {}
    for chunk in itertools.product(*map(range, layout.grid_shape)):
        padded = np.frombuffer(layout.fill * (layout.chunk_nbytes // layout.itemsize), array.dtype)
        padded = padded.reshape(layout.chunk_shape).copy()
        place = tuple(
            slice(i * c, (i + 1) * c) for i, c in zip(chunk, layout.chunk_shape, strict=True)
        )
        padded[tuple(slice(0, n) for n in array[place].shape)] = array[place]
        if padded.tobytes() != layout.fill * padded.size:
            key, entries, *_ = layout.locate(chunk)
            objects.setdefault(key, {})[entries[0] if entries else 0] = layout.encode(
                padded.tobytes()
            )
    for key, chunks in objects.items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(assemble(layout, chunks))


def assemble(layout: Layout, chunks: dict[int, bytes]) -> bytes:
    """Return an object that holds some encoded chunks."""
    if not layout.levels:
        return chunks[0]
    (level,) = layout.levels
    entries: list[tuple[int, int] | None] = [None] * level.n_entries
    offset = 0
    for i, data in chunks.items():
        entries[i] = (offset, len(data))
        offset += len(data)
    return b"".join(chunks.values()) + level.build_index(entries)


@pytest.fixture(name="read_array")
def read_array_fixture():
    return read_array


@pytest.fixture(name="write_array")
def write_array_fixture():
    return write_array


@pytest.fixture(name="same")
def same_fixture():
    return same


@pytest.fixture
def sample():
    """Return a maker of arrays of any type whose elements differ."""

    def make(shape: tuple[int, ...], dtype: object) -> np.ndarray:
        dtype = np.dtype(dtype)
        rng = np.random.default_rng(7)
        if dtype.kind in "US":
            return rng.integers(0, 1000, shape).astype(dtype)
        if dtype.kind == "b":
            return rng.integers(0, 2, shape).astype(dtype)
        if dtype.kind in "fc":
            return rng.normal(0, 100, shape).astype("f4").astype(dtype)
        if dtype.kind in "iu":
            return rng.integers(0, 100, shape).astype(dtype)
        n_elements = int(np.prod(shape))
        return np.frombuffer(rng.bytes(n_elements * dtype.itemsize), dtype).reshape(shape)

    return make
