"""``.safetensors`` files: what its library reads is what lazyarr maps, and damage is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors import deserialize as library_reads
from safetensors.numpy import save

import lazyarr
from lazyarr.formats.safetensors import parse_header
from tests.cli.running import run
from tests.engines import ARRAYS, engine  # noqa: F401 - a fixture
from tests.servers import http_server  # noqa: F401 - a fixture

WEIGHTS = np.random.default_rng(1).normal(size=(700, 500)).astype("f4")
TENSORS = {
    "layers.0.weight": WEIGHTS,
    "layers.0.bias": np.arange(500, dtype="f2"),
    "step": np.array(7, dtype="i8"),
    "nothing": np.zeros((0, 3), "u1"),
    "mask": np.array([True, False, True]),
    "half": np.arange(9).astype(ml_dtypes.bfloat16),
    "block/deep/x": np.arange(6, dtype="u4").reshape(2, 3),
}
ABOUT = {"format": "pt", "note": "é"}


def raw(tensors: object, data: bytes = b"", length: int | None = None) -> bytes:
    header = tensors if isinstance(tensors, bytes) else json.dumps(tensors).encode()
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def tensor(dtype="U8", shape=(4,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_a_file_is_what_its_library_loads(tmp_path, engine):  # noqa: F811
    """Values, types and shapes; what the file says of itself; groups by slashes."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(save(TENSORS, ABOUT))
    with lazyarr.open(path) as ds:
        for name, entry in library_reads(path.read_bytes()):
            x, expected = ds[name], TENSORS[name]
            assert np.asarray(x).tobytes() == entry["data"], name
            assert type(x) is ARRAYS[engine]
            assert (x.shape, x.dtype) == (expected.shape, expected.dtype)
            np.testing.assert_array_equal(np.asarray(x), expected)
        assert ds.attrs == ABOUT
        assert sorted(ds) == sorted({name.partition("/")[0] for name in TENSORS})
        assert ds["block"]["deep/x"].tolist() == [[0, 1, 2], [3, 4, 5]]
        again = pickle.loads(pickle.dumps(ds["layers.0.weight"][3:5]))
        np.testing.assert_array_equal(again, WEIGHTS[3:5])
    assert lazyarr.verify(path, progress=False).ok


def test_a_file_elsewhere(http_server, engine):  # noqa: F811
    """Over the network, with a header that is longer than the first read."""
    tensors = {f"x{n:05}" + "y" * 90: np.array([n, n + 1], "i4") for n in range(600)}
    (Path(http_server.directory) / "m.safetensors").write_bytes(save(tensors))
    with lazyarr.open(f"{http_server.url}/m.safetensors") as ds:
        for name in (*list(tensors)[:2], *list(tensors)[-2:]):
            assert ds[name].tolist() == tensors[name].tolist()


def test_a_type_that_numpy_lacks_is_told_of_alone(tmp_path):
    """The other tensors of the file are there."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw({"a": tensor("F4", (8,)), "b": tensor(offsets=(4, 8))}, bytes(8)))
    with lazyarr.open(path) as ds:
        assert ds["b"].tolist() == [0] * 4
        with pytest.raises(lazyarr.FormatError, match=r"tensor 'a': dtype 'F4' is not one"):
            ds["a"]


DAMAGED = {
    "nothing": b"",
    "a header that is cut off": raw({"a": tensor()}, bytes(4))[:20],
    "an endless header": raw({}, length=1 << 40),
    "a header that is no JSON": raw(b"{x}"),
    "a header of another kind": raw(b"[]"),
    "deep": raw(b'{"a":' * 100_000),
    "a file that is cut off": raw({"a": tensor()}, bytes(3)),
    "more than the tensors": raw({"a": tensor()}, bytes(5)),
    "a hole": raw({"a": tensor(offsets=(1, 5))}, bytes(5)),
    "an overlap": raw({"a": tensor(), "b": tensor(offsets=(2, 6))}, bytes(6)),
    "a name twice": raw(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":1}'),
    "no name": raw({"": tensor()}, bytes(4)),
    "a way out": raw({"../a": tensor()}, bytes(4)),
    "no tensor": raw({"a": 3}),
    "no offsets": raw({"a": {"dtype": "U8", "shape": [0]}}),
    "backwards": raw({"a": tensor(offsets=(4, 0))}, bytes(4)),
    "text about numbers": raw({"__metadata__": {"a": 1}}),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused(tmp_path, name):
    """With an error that names the file."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(DAMAGED[name])
    with pytest.raises(lazyarr.FormatError, match=r"cannot map 'm\.safetensors'"):
        lazyarr.open(path)


@pytest.mark.parametrize(
    "described",
    [tensor(shape=(5,)), tensor(shape=(2**40, 2**40)), tensor(shape=(-1,)), tensor(dtype=3)],
)
def test_a_tensor_that_is_not_as_long_as_it_says_is_refused(tmp_path, described):
    """When it is asked for."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw({"a": described}, bytes(4)))
    with lazyarr.open(path) as ds, pytest.raises(lazyarr.FormatError, match="tensor 'a'"):
        ds["a"]


@settings(max_examples=200)
@given(st.binary(max_size=20), st.integers(0, 200))
def test_changed_headers_are_what_the_library_says_or_refused(change, at):
    """Whatever stands in them: lazyarr takes no file that the library does not."""
    data = bytearray(save({"a": np.arange(6, dtype="<i2"), "b": np.zeros(3, "f4")}))
    data[at : at + len(change)] = change[: max(0, len(data) - at)]
    start = 8 + int.from_bytes(data[:8], "little")
    try:
        nodes = parse_header(bytes(data[8:start]), file="m", start=start, nbytes=len(data))
    except lazyarr.FormatError:
        return
    found = {n: x for n, x in nodes.items() if n and not isinstance(x, lazyarr.FormatError)}
    try:
        expected = dict(library_reads(bytes(data)))
    except SafetensorError:
        # It checks types and lengths when it reads the header, and lazyarr for each tensor.
        assert len(found) < len(nodes) - 1
        return
    for name, x in found.items():
        assert x.shape == tuple(expected[name]["shape"])
        assert bytes(data[x.start : x.start + x.nbytes]) == bytes(expected[name]["data"])


def test_a_file_is_converted_and_listed(tmp_path):
    """By the commands that take Zarr stores."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(save({"a": WEIGHTS, "g/b": np.arange(4)}, ABOUT))
    assert run("convert", path, tmp_path / "out.zarr", "--quiet").exit_code == 0
    with lazyarr.open(tmp_path / "out.zarr") as ds:
        np.testing.assert_array_equal(np.asarray(ds["a"]), WEIGHTS)
        assert ds["g/b"].tolist() == [0, 1, 2, 3]
        assert ds.attrs == ABOUT
    listed = run("tree", path)
    assert listed.exit_code == 0
    assert "g" in listed.stdout
    assert "(700, 500)" in listed.stdout
