from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.codecs.standard_library import Deflate
from lazyarr.errors import FormatError
from lazyarr.formats.zarr import parse_v2_array, parse_v2_consolidated, parse_v2_group
from lazyarr.layout import KeyEncoding

ZARRAY = {
    "zarr_format": 2,
    "shape": [10, 12],
    "chunks": [4, 6],
    "dtype": "<i4",
    "compressor": {"id": "zlib", "level": 1},
    "fill_value": 7,
    "order": "C",
    "filters": None,
}


def dump(members):
    return json.dumps(members).encode()


def parse(**changes):
    return parse_v2_array(dump({**ZARRAY, **changes}), None, path="x")


def test_array():
    """All that a document says of an array is there."""
    array = parse_v2_array(dump(ZARRAY), b'{"a": 1}', path="x")
    assert (array.zarr_format, array.shape, array.chunks) == (2, (10, 12), (4, 6))
    assert array.attributes == {"a": 1}
    assert array.shards is None
    assert array.fill_value == 7
    assert array.codecs.codecs == (Deflate("zlib", 1),)
    assert array.layout().locate((2, 1)).key == "2.1"


def test_optional_members():
    """Unknown members are left aside, and what may be missing may."""
    assert parse(something={"new": 1}) == parse()
    assert parse(filters=[]) == parse()
    assert parse(dimension_separator="/").key_encoding == KeyEncoding("v2", "/")
    assert parse(compressor=None).codecs.codecs == ()


def test_order_f():
    """Chunks in Fortran order are transposed in memory."""
    layout = parse(order="F").layout()
    assert (layout.axes, layout.chunk_shape) == ((1, 0), (6, 4))
    assert layout.locate((1, 2)).key == "2.1"


def test_dimension_names():
    """Xarray's names are taken where they fit."""
    for names, expected in ((["x", "y"], ("x", "y")), (["x"], None), ("xy", None), ([1, 2], None)):
        attributes = dump({"_ARRAY_DIMENSIONS": names})
        assert parse_v2_array(dump(ZARRAY), attributes, path="x").dimension_names == expected


def test_dimension_names_of_nczarr():
    """Those of netCDF-C too: the last parts of the paths of dimensions."""
    noted = [(["/x", "/g/y"], ("x", "y")), (["/x"], None), ("/x/y", None), ([1, 2], None)]
    for paths, expected in noted:
        assert parse(_NCZARR_ARRAY={"dimrefs": paths}).dimension_names == expected
    assert parse(_NCZARR_ARRAY=["/x", "/y"]).dimension_names is None


@pytest.mark.parametrize(
    ("member", "value"),
    [
        *[("zarr_format", value) for value in (3, "2", None, 2.0)],
        *[("shape", value) for value in (None, [10], [-1, 1], [2**40, 2**40])],
        *[("chunks", value) for value in (None, [4], [0, 6], True, [2**40, 2**40])],
        *[("dtype", value) for value in (None, "|O", "x")],
        *[("compressor", value) for value in ("zlib", {}, {"id": "nothing"}, {"id": "pickle"})],
        *[("filters", value) for value in ({"id": "delta"}, [{"id": "vlen-utf8"}], [3])],
        *[("order", value) for value in ("A", None, 1)],
        *[("dimension_separator", value) for value in ("-", None, "../")],
        ("fill_value", "x"),
    ],
    ids=str,
)
def test_what_is_refused(member, value):
    """A member of the wrong kind is an error that says which array."""
    with pytest.raises(FormatError, match="cannot read the metadata of '/x': ") as caught:
        parse(**{member: value})
    assert caught.value.path == "x"


def test_bad_documents_are_refused():
    """What is no JSON object is an error in each of the documents."""
    for wrong in (b"", b"[]", b"{"):
        with pytest.raises(FormatError, match="zarray"):
            parse_v2_array(wrong, None, path="x")
        with pytest.raises(FormatError, match="zattrs"):
            parse_v2_array(dump(ZARRAY), wrong, path="x")
        with pytest.raises(FormatError, match="zgroup"):
            parse_v2_group(wrong, None, path="x")
        with pytest.raises(FormatError, match="zmetadata"):
            parse_v2_consolidated(wrong, path="x")


def test_group():
    """A group has a format and attributes."""
    group = parse_v2_group(b'{"zarr_format": 2}', b'{"a": 1}', path="g")
    assert (group.path, group.zarr_format, group.attributes) == ("g", 2, {"a": 1})
    with pytest.raises(FormatError, match="it must be 2"):
        parse_v2_group(b'{"zarr_format": 3}', None, path="g")


def test_consolidated():
    """Nodes are parsed with their attributes; a bad one is its error."""
    metadata = {
        ".zgroup": {"zarr_format": 2},
        ".zattrs": {"a": 1},
        "g/.zgroup": {"zarr_format": 2},
        "g/x/.zarray": ZARRAY,
        "g/x/.zattrs": {"b": 2},
        "bad/.zarray": {**ZARRAY, "dtype": "|O"},
    }
    document = dump({"zarr_consolidated_format": 1, "metadata": metadata})
    group = parse_v2_consolidated(document, path="top")
    assert group.attributes == {"a": 1}
    assert set(group.consolidated) == {"g", "g/x", "bad"}
    expected = parse_v2_array(dump(ZARRAY), b'{"b": 2}', path="top/g/x")
    assert group.consolidated["g/x"] == expected
    assert isinstance(group.consolidated["bad"], FormatError)


@pytest.mark.parametrize(
    "changes", [{"zarr_consolidated_format": 2}, {"metadata": {}}, {"metadata": 1}]
)
def test_bad_consolidated_documents(changes):
    """Another version, or no group at the root, is an error."""
    members = {
        "zarr_consolidated_format": 1,
        "metadata": {".zgroup": {"zarr_format": 2}},
        **changes,
    }
    with pytest.raises(FormatError, match="cannot read"):
        parse_v2_consolidated(dump(members), path="")


@given(
    st.sampled_from(sorted(ZARRAY)),
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.lists(st.integers(-1, 5) | st.text(max_size=3) | st.lists(st.text(max_size=3)), max_size=3)
    | st.dictionaries(st.sampled_from(["id", "level", "x"]), st.text(max_size=3) | st.integers()),
)
def test_changed_documents_raise_nothing_else(member, value):
    """A document with anything in a member is an array or a FormatError."""
    with contextlib.suppress(FormatError):
        assert parse(**{member: value}).layout().chunk_nbytes > 0
