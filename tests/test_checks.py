from __future__ import annotations

import json

import pytest

from lazyarr.checks import (
    as_configuration,
    as_integer,
    as_list,
    as_object,
    as_shape,
    as_string,
    bounded_product,
    parse_json,
    refuse_unknown,
)
from lazyarr.errors import FormatError


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"\xff\xfe",
        b"null",
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": ' + b"[" * 100_000,
        b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        b'{"a": ' + b'{"b": ' * 65 + b"1" + b"}" * 65 + b"}",
    ],
    ids=lambda document: f"{document[:12]!r}",
)
def test_parse_json_refuses(document):
    """What is no JSON object, or nests too deeply, is a FormatError and nothing else."""
    with pytest.raises(FormatError, match=r"zarr\.json"):
        parse_json(document, "zarr.json")


@pytest.mark.parametrize("depth", [65, 300])
@pytest.mark.parametrize(
    ("what", "document"),
    [
        ("zarr.json", '{"attributes": {"a": %s}}'),
        ("zarr.json", '{"consolidated_metadata": {"metadata": {"x": {"attributes": [%s]}}}}'),
        (".zmetadata", '{"metadata": {"x/.zattrs": {"a": %s}}}'),
        (".zattrs", '{"a": %s}'),
    ],
)
def test_attributes_nest_as_they_like(what, document, depth):
    """Nothing in them is looked at; what lies beside them still has its bound."""
    deep = "[" * depth + "]" * depth
    text = document % deep
    assert parse_json(text.encode(), what) == json.loads(text)
    if what != ".zattrs":
        with pytest.raises(FormatError, match="nests deeper"):
            parse_json(text.replace("{", '{"codecs": ' + deep + ", ", 1).encode(), what)


def test_parse_json_takes_wide_documents():
    """Many containers side by side are not deep."""
    members = {str(i): [{"a": []}] for i in range(100)}
    assert parse_json(json.dumps(members).encode(), "zarr.json") == members


@pytest.mark.parametrize("value", [True, 1.0, "1", None, [], -1, 2**62 + 1])
def test_as_integer_refuses(value):
    """Booleans, floats, strings and numbers out of range are no lengths."""
    with pytest.raises(FormatError, match="the length"):
        as_integer(value, "the length")


def test_as_integer_takes_its_bounds():
    """Both bounds belong to the range."""
    assert [as_integer(n, "n", minimum=-2, maximum=5) for n in (-2, 5)] == [-2, 5]


@pytest.mark.parametrize(
    ("value", "ndim"), [((1, 2), 2), ([1, -1], 2), ([1], 2), ([0] * 65, None), ([True], 1)]
)
def test_as_shape_refuses(value, ndim):
    """Shapes are lists of lengths, as many as there are axes, at most 64."""
    with pytest.raises(FormatError, match="shape"):
        as_shape(value, "shape", ndim=ndim)


def test_as_shape_refuses_chunks_of_no_length():
    """A minimum holds for every axis."""
    assert as_shape([0, 3], "shape") == (0, 3)
    with pytest.raises(FormatError, match="between 1 and"):
        as_shape([0, 3], "chunk_shape", minimum=1)


@pytest.mark.parametrize(("check", "value"), [(as_object, []), (as_list, {}), (as_string, 1)])
def test_other_types_are_refused(check, value):
    """Objects, lists and strings are told apart."""
    with pytest.raises(FormatError, match="attributes is"):
        check(value, "attributes")


@pytest.mark.parametrize("values", [(2**31, 2**32), (0, 2**63), (2**63,)])
def test_bounded_product_refuses_what_numpy_would(values):
    """A product beyond 2**62 is refused also where an axis has no length."""
    with pytest.raises(FormatError, match="2\\*\\*62"):
        bounded_product(values, "the array")


def test_bounded_product_of_small_lengths():
    """Up to 2**62 the product comes back; no lengths at all make one element."""
    assert bounded_product((2**31, 2**31), "x") == 2**62
    assert bounded_product((), "x") == 1
    assert bounded_product((5, 0), "x") == 0


def test_configurations_have_two_spellings():
    """A name alone is a name without configuration."""
    assert as_configuration("bytes", "a codec") == ("bytes", {})
    assert as_configuration({"name": "a", "configuration": {"b": 1}}, "a codec") == ("a", {"b": 1})


@pytest.mark.parametrize(
    "value", [None, {}, {"name": 1}, {"name": "a", "configuration": 1}, {"name": "a", "other": 1}]
)
def test_bad_configurations_are_refused(value):
    """Without a name, or with anything unknown, there is no configuration."""
    with pytest.raises(FormatError, match=r"codec|configuration"):
        as_configuration(value, "a codec")


def test_unknown_members_may_say_that_they_do_not_matter():
    """`must_understand: false` lets a member pass, anything else does not."""
    refuse_unknown({"a": 1, "b": {"must_understand": False}}, ("a",), "zarr.json")
    for value in (1, None, {}, {"must_understand": True}, {"must_understand": 0}):
        with pytest.raises(FormatError, match="unknown member 'b'"):
            refuse_unknown({"a": 1, "b": value}, ("a",), "zarr.json")
