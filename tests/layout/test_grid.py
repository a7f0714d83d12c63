from __future__ import annotations

import pytest

from lazyarr.errors import FormatError
from lazyarr.layout import KeyEncoding
from lazyarr.layout.grid import parse_chunk_grid, parse_key_encoding


def named(name, **configuration):
    return {"name": name, "configuration": configuration}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("default", KeyEncoding("default", "/")),
        (named("default"), KeyEncoding("default", "/")),
        (named("default", separator="."), KeyEncoding("default", ".")),
        ("v2", KeyEncoding("v2", ".")),
        (named("v2", separator="/"), KeyEncoding("v2", "/")),
    ],
    ids=str,
)
def test_key_encodings(value, expected):
    """Each encoding has a separator of its own that holds when there is none."""
    assert parse_key_encoding(value) == expected


@pytest.mark.parametrize(
    ("encoding", "keys"),
    [
        (KeyEncoding("default", "/"), ["c", "c/5", "c/1/23/0"]),
        (KeyEncoding("default", "."), ["c", "c.5", "c.1.23.0"]),
        (KeyEncoding("v2", "."), ["0", "5", "1.23.0"]),
        (KeyEncoding("v2", "/"), ["0", "5", "1/23/0"]),
    ],
    ids=str,
)
def test_keys(encoding, keys):
    """Keys are as the specification has them, for no axes too."""
    assert [encoding.key(chunk) for chunk in ((), (5,), (1, 23, 0))] == keys


@pytest.mark.parametrize(
    "value",
    [
        *[None, 1, "fanout", named("default", separator="-"), named("v2", separator=None)],
        *[named("default", separator="../"), named("default", other=1)],
    ],
    ids=str,
)
def test_other_key_encodings_are_refused(value):
    """Keys that could lead elsewhere do not come from metadata."""
    with pytest.raises(FormatError, match="chunk_key_encoding"):
        parse_key_encoding(value)


def test_regular_grid():
    """The shape of the chunks is what the grid says."""
    assert parse_chunk_grid(named("regular", chunk_shape=[2, 3]), shape=(9, 9)) == (2, 3)
    assert parse_chunk_grid(named("regular", chunk_shape=[]), shape=()) == ()
    assert parse_chunk_grid(named("regular", chunk_shape=3), shape=(9,)) == (3,)
    assert parse_chunk_grid(named("regular", chunk_shape=[0, 3]), shape=(0, 9)) == (1, 3)


@pytest.mark.parametrize(
    "value",
    [
        *["regular", named("regular", chunk_shape=[0, 1]), named("regular", chunk_shape=[1])],
        *[named("regular", chunk_shape=[1, True]), named("regular", chunk_shape=[1, 1], other=1)],
    ],
    ids=str,
)
def test_bad_grids_are_refused(value):
    """Chunks have the array's axes and at least one element."""
    with pytest.raises(FormatError, match=r"chunk_shape|chunk_grid"):
        parse_chunk_grid(value, shape=(9, 9))


def test_other_grids_are_explained():
    """A rectilinear grid is a limit of mapping, and there is a way out."""
    with pytest.raises(FormatError, match=r"'rectilinear' cannot be mapped; .*lazyarr convert"):
        parse_chunk_grid(named("rectilinear", chunk_shapes=[[1, 2]]), shape=(3,))
