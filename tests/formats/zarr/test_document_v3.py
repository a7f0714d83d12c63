from __future__ import annotations

import contextlib
import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lazyarr.errors import FormatError
from lazyarr.formats.zarr import ArrayMetadata, GroupMetadata, parse_node


def named(name, **configuration):
    return {"name": name, "configuration": configuration}


ARRAY = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [10, 12],
    "data_type": "int16",
    "chunk_grid": named("regular", chunk_shape=[4, 6]),
    "chunk_key_encoding": named("default", separator="/"),
    "fill_value": 0,
    "codecs": [
        named(
            "sharding_indexed",
            chunk_shape=[2, 6],
            codecs=[named("bytes", endian="little"), named("zstd", level=3), named("crc32c")],
            index_codecs=[named("bytes", endian="little"), named("crc32c")],
            index_location="end",
        )
    ],
    "attributes": {"a": [1, {"b": None}]},
    "dimension_names": ["x", None],
}
GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {"a": 1}}


def parse(members, path="a/x"):
    return parse_node(json.dumps(members).encode(), path=path)


def test_array():
    """All that a document says of an array is there."""
    array = parse(ARRAY)
    assert isinstance(array, ArrayMetadata)
    assert (array.path, array.zarr_format, array.shape) == ("a/x", 3, (10, 12))
    assert array.attributes == {"a": [1, {"b": None}]}
    assert array.dimension_names == ("x", None)
    assert array.dtype.name == "int16"


def test_group():
    """All that a document says of a group is there."""
    group = parse(GROUP, "")
    assert group == GroupMetadata("", 3, {"a": 1}, None)
    assert parse({"zarr_format": 3, "node_type": "group"}).attributes == {}
    assert parse({**GROUP, "attributes": None}).attributes == {}


@pytest.mark.parametrize(
    ("member", "value"),
    [
        *[("zarr_format", value) for value in (2, 4, "3", 3.0, None, True)],
        *[("node_type", value) for value in ("table", None, 3)],
        *[("shape", value) for value in ([10], [10, -1], [10, True], [10.0, 12], "10", None)],
        *[("shape", [2**40, 2**40]), ("shape", [0, 2**63]), ("shape", [1] * 65)],
        *[("fill_value", value) for value in (None, "x", 2**20, [])],
        *[("data_type", value) for value in (None, "string", {"name": "x"})],
        ("chunk_grid", named("regular", chunk_shape=[2**40, 2**40])),
        ("chunk_grid", named("rectilinear")),
        *[("attributes", value) for value in ("", [], 1)],
        *[("dimension_names", value) for value in (["x"], "xy", [1, 2], {})],
        *[("codecs", value) for value in (None, [], {})],
        *[("storage_transformers", [named("x")]), ("something new", 1)],
    ],
    ids=str,
)
def test_what_is_refused(member, value):
    """A member of the wrong kind is an error that says which array, and what is wrong."""
    with pytest.raises(FormatError, match="cannot read the metadata of '/a/x': ") as caught:
        parse({**ARRAY, member: value})
    assert caught.value.path == "a/x"


@pytest.mark.parametrize(
    "member", [key for key in ARRAY if key not in ("attributes", "dimension_names")]
)
def test_members_that_must_be_there(member):
    """All others are mandatory."""
    with pytest.raises(FormatError):
        parse({key: value for key, value in ARRAY.items() if key != member})


@pytest.mark.parametrize("extra", [{"x": {"must_understand": False}}, {"storage_transformers": []}])
def test_members_that_may_be_there(extra):
    """What need not be understood, and what is empty, changes nothing."""
    assert parse({**ARRAY, **extra}) == parse(ARRAY)


def test_unknown_members_of_groups():
    """For groups the same holds."""
    with pytest.raises(FormatError, match="unknown member 'x'"):
        parse({**GROUP, "x": 1})


def consolidated(metadata, **changes):
    value = {"kind": "inline", "must_understand": False, "metadata": metadata, **changes}
    return {**GROUP, "consolidated_metadata": value}


def test_consolidated():
    """Nodes below a group are parsed with it, each with its own path."""
    inner = {**GROUP, "consolidated_metadata": {"kind": "inline", "metadata": {}}}
    group = parse(consolidated({"g": inner, "g/x": ARRAY}), "top")
    assert group.consolidated["g"] == GroupMetadata("top/g", 3, {"a": 1})
    assert group.consolidated["g/x"] == parse(ARRAY, "top/g/x")


def test_consolidated_with_damage():
    """A node that cannot be mapped is its error, and the others are there."""
    nodes = {"bad": {**ARRAY, "data_type": "string"}, "worse": 3, "x": ARRAY}
    group = parse(consolidated(nodes), "")
    assert isinstance(group.consolidated["x"], ArrayMetadata)
    for name in ("bad", "worse"):
        assert isinstance(group.consolidated[name], FormatError)
        assert group.consolidated[name].path == name


@pytest.mark.parametrize("value", [None, 1, {}, {"kind": "other"}])
def test_other_kinds_of_consolidation(value):
    """Consolidated metadata of another kind is left aside: the nodes have documents."""
    assert parse({**GROUP, "consolidated_metadata": value}).consolidated is None


def paths_of(value, path=()):
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from paths_of(value[key], (*path, key))
    elif isinstance(value, list):
        for i in range(len(value)):
            yield from paths_of(value[i], (*path, i))


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 20)
    | st.integers()
    | st.floats()
    | st.sampled_from(
        ["little", "big", "start", "zstd", "blosc", "bytes", "float32", "struct", "NaN"]
    )
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "configuration", "level", "order", "fields", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=5,
)


@settings(max_examples=500)
@given(st.data())
def test_changed_documents_raise_nothing_else(data):
    """A document with anything anywhere is an array, a group or a FormatError."""
    members = copy.deepcopy(data.draw(st.sampled_from([ARRAY, consolidated({"x": ARRAY})])))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(sorted(paths_of(members), key=str)))
        target = members
        for step in path[:-1]:
            target = target[step]
        if path:
            target[path[-1]] = data.draw(anything)
    with contextlib.suppress(FormatError):
        node = parse(members)
        if isinstance(node, ArrayMetadata):
            layout = node.layout()
            assert layout.chunk_nbytes > 0
            assert len(layout.fill) == node.dtype.to_numpy().itemsize
            assert len(node.chunks) == len(node.shape)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_else(document):
    """Arbitrary bytes are a FormatError."""
    with pytest.raises(FormatError, match=r"zarr\.json"):
        parse_node(document, path="x")
