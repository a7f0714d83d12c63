"""Any index of any view gives what NumPy gives, or its error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import lazyarr
from lazyarr import CopyArray
from tests.stores import write_zarr

STRUCT = np.dtype([("a", "<u2"), ("b", ">f4", (2,)), ("c", "S3")])
# Units of one chunk, of many, of less than a page, of an odd size; rows of several units.
KINDS = {
    "rows": ((13, 5, 6), (3, 5, 6), "<i4"),
    "tiles": ((9, 10, 4), (4, 3, 3), "<u2"),
    "rows of several units": ((4, 40, 3), (1, 7, 3), "<f8"),
    "one element": ((1,), (1,), "u1"),
    "scalar": ((), (), "<f4"),
    "empty": ((0, 3), (2, 3), "<f4"),
    "one chunk": ((6, 1, 7, 2), (6, 1, 7, 2), ">i2"),
    "struct": ((11, 3), (2, 3), STRUCT),
    # A scalar of these is as long as its content; here all are shorter than an element.
    "text": ((13, 4), (3, 4), "<U7"),
    "bytes": ((4, 40, 3), (1, 7, 3), "S9"),
    "one text": ((), (), "<U7"),
}


class Stored(dict):
    """Stores and what is in them, by kind; says little in the reports of failures."""

    def __repr__(self):
        return "<stored>"


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Return, by kind, a store and what is in it."""
    found = Stored()
    for number, (kind, (shape, chunks, dtype)) in enumerate(KINDS.items()):
        size = int(np.prod(shape))
        if kind == "struct":
            data = np.zeros(shape, STRUCT)
            data["a"], data["c"] = np.arange(size).reshape(shape), b"xyz"
            data["b"] = np.arange(2 * size).reshape(*shape, 2)
        else:
            data = np.arange(size).astype(dtype).reshape(shape)
        path = tmp_path_factory.mktemp("indexing") / f"{number}.zarr"
        if kind == "struct":
            write_v2(path, data, chunks[0])
        else:
            # Version 2 alone keeps the order of bytes.
            write_zarr(path, data, chunks=chunks, zarr_format=2)
        found[kind] = (path, data.astype(data.dtype.newbyteorder("=")))
    return found


def write_v2(path: Path, data: np.ndarray, n_rows: int) -> None:
    """Write version 2 by hand: nothing else has structs with members that are arrays."""
    path.mkdir()
    members = [[name, *rest] for name, *rest in data.dtype.descr]
    document = {
        "zarr_format": 2, "shape": data.shape, "chunks": [n_rows, *data.shape[1:]],
        "dtype": members, "order": "C", "fill_value": None, "filters": None, "compressor": None,
    }  # fmt: skip
    (path / ".zarray").write_text(json.dumps(document))
    for number, start in enumerate(range(0, len(data), n_rows)):
        chunk = np.zeros((n_rows, *data.shape[1:]), data.dtype)
        chunk[: len(data) - start] = data[start : start + n_rows]
        (path / f"{number}.0").write_bytes(chunk.tobytes())


def items(draw: Any, length: int) -> Any:
    """Draw what may stand for one axis, wrong now and then."""
    edge = length + draw(st.integers(0, 12)) // 12  # beyond the end in one of twelve
    places = st.integers(-edge, max(edge - 1, -edge))
    kind = draw(st.sampled_from(["slice", "slice", "integer", "array", "list", "mask", "0-d"]))
    if kind == "slice":
        return draw(st.slices(length))
    if kind == "integer":
        return draw(places)
    if kind == "0-d":
        return np.array(draw(places))
    if kind == "mask":
        return draw(hnp.arrays(bool, (edge,)))
    shape = draw(st.sampled_from([(), (1,), (2,), (3,), (2, 1), (2, 3), (0,)]))
    array = draw(hnp.arrays(np.int64, shape, elements=places))
    return array.tolist() if kind == "list" else array


@st.composite
def keys(draw: Any, shape: tuple[int, ...]) -> Any:
    """Draw an index: basic, advanced or both, with new axes, an ellipsis, masks of any axes."""
    n_axes = draw(st.integers(0, len(shape)))
    n_left = n_axes if draw(st.booleans()) else draw(st.integers(0, n_axes))
    lengths = [*shape[:n_left], *shape[len(shape) - (n_axes - n_left) :]]
    found = [items(draw, length) for length in lengths]
    if n_left < n_axes or draw(st.integers(0, 3)) == 0:
        found.insert(n_left, Ellipsis)
    for extra in draw(
        st.lists(st.sampled_from([None, None, True, False, np.bool_(True)]), max_size=2)
    ):
        found.insert(draw(st.integers(0, len(found))), extra)
    if shape and draw(st.integers(0, 7)) == 0:
        n_masked = draw(st.integers(1, len(shape)))
        return draw(hnp.arrays(bool, shape[:n_masked]))
    if len(found) == 1 and draw(st.booleans()):
        return found[0]
    return tuple(found)


def draw_view(draw: Any, ours: Any, plain: np.ndarray) -> tuple[Any, np.ndarray]:
    """Return the same random view of both."""
    for _ in range(draw(st.integers(0, 3))):
        way = draw(st.sampled_from(["slice", "transpose", "new axis", "reshape", "squeeze"]))
        if way == "slice":
            key = draw(hnp.basic_indices(plain.shape, allow_newaxis=True, allow_ellipsis=True))
            if not isinstance(plain[key], np.ndarray) or not isinstance(ours[key], CopyArray):
                continue
            ours, plain = ours[key], plain[key]
        elif way == "transpose":
            axes = draw(st.permutations(range(plain.ndim)))
            ours, plain = ours.transpose(axes), plain.transpose(axes)
        elif way == "new axis":
            ours, plain = np.expand_dims(ours, 0), np.expand_dims(plain, 0)
        elif way == "reshape":
            reshaped = ours.reshape(-1)
            if isinstance(reshaped, CopyArray):
                ours, plain = reshaped, plain.reshape(-1)
        else:
            ours, plain = ours.squeeze(), plain.squeeze()
    return ours, plain


def assert_same(found: Any, expected: Any) -> None:
    """Compare values, shape, type of elements, and whether it is a scalar."""
    is_scalar = not isinstance(expected, np.ndarray)
    assert isinstance(found, np.ndarray | CopyArray) != is_scalar
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(np.asarray(found), expected, strict=True)


def outcome(call: Any) -> Any:
    """Return what a call gives, or the error that it raises."""
    try:
        return call()
    except (IndexError, KeyError, ValueError, TypeError) as error:
        return error


GIVEN = settings(max_examples=60, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["r", "c"])
@given(data=st.data())
@GIVEN
def test_any_index_gives_what_numpy_gives(stored, kind, mode, data):
    """Values, shapes, scalars and errors are those of a plain array."""
    path, plain = stored[kind]
    with lazyarr.configure(engine="copy"):
        ours, plain = draw_view(data.draw, lazyarr.open(path, mode=mode), plain)
    assert_same(ours[...], plain[...])
    key = data.draw(keys(plain.shape))
    found, expected = outcome(lambda: ours[key]), outcome(lambda: plain[key])
    if isinstance(expected, Exception):
        assert (type(found), str(found)) == (type(expected), str(expected))
    else:
        assert_same(found, expected)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@GIVEN
def test_any_assignment_does_what_numpy_does(stored, kind, data):
    """In mode c, through any index of any view, with any value that goes there."""
    path, plain = stored[kind]
    whole = plain.copy()
    with lazyarr.configure(engine="copy"):
        opened = lazyarr.open(path, mode="c")
    ours, view = draw_view(data.draw, opened, whole)
    if view.size and not np.shares_memory(view, whole):
        return  # a copy of NumPy's has nothing to show
    key = data.draw(keys(view.shape))
    target = outcome(lambda: view[key])
    shape = np.shape(target) if not isinstance(target, Exception) else (2,)
    value = np.empty(shape, plain.dtype)
    value[...] = plain.reshape(-1)[:1] if plain.size else np.zeros((), plain.dtype)
    if plain.dtype.fields is None:
        value[...] = np.arange(200, 200 + value.size).reshape(shape) % 251
    if isinstance(target, Exception):
        assert type(outcome(lambda: ours.__setitem__(key, value))) is type(target)
        return
    view[key] = value
    ours[key] = value
    assert_same(ours[...], view)
    assert_same(opened[...], whole)
    opened.evict()
    assert_same(opened[...], whole)


@pytest.mark.parametrize("key", ["a", "b", "c", ["a"], ["c", "a"], "nothing", ["a", "nothing"]])
def test_members_of_structs_are_views(stored, key):
    """Their elements are as NumPy gives them, also of slices, and nothing is read for it."""
    path, plain = stored["struct"]
    with lazyarr.configure(engine="copy"):
        x = lazyarr.open(path)
    expected = outcome(lambda: plain[key])
    found = outcome(lambda: x[key])
    if isinstance(expected, Exception):
        assert (type(found), str(found)) == (type(expected), str(expected))
        return
    assert isinstance(found, CopyArray)
    assert x.residency().resident_units == 0
    assert_same(found, expected)
    assert_same(x[3:9, ::-1][key], plain[3:9, ::-1][key])
    assert_same(found[[1, 8, 1]], expected[[1, 8, 1]])
    assert_same(found[7], expected[7])


def test_structs_are_compared(stored):
    """With themselves and with plain ones: a ufunc could not."""
    path, plain = stored["struct"]
    other = plain.copy()
    other["a"][3] += 1
    with lazyarr.configure(engine="copy"):
        x = lazyarr.open(path)
    for found, expected in (
        (x == x, plain == plain),
        (x == other, plain == other),
        (other == x, other == plain),
        (x != other, plain != other),
        (x[4] == other[4], plain[4] == other[4]),
    ):
        np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("key", [1.5, (0.5,), "x", np.zeros(2), [[1, 2], [3]], ({},), object()])
def test_what_is_no_index_is_refused_as_numpy_refuses_it(stored, key):
    """The same error, for all that is neither an integer nor a boolean."""
    path, plain = stored["rows"]
    with lazyarr.configure(engine="copy"):
        x = lazyarr.open(path)
    expected = outcome(lambda: plain[key])
    assert isinstance(expected, Exception)
    found = outcome(lambda: x[key])
    assert (type(found), str(found)) == (type(expected), str(expected))
