"""The JSON document of references: what fsspec makes of it, and what is refused."""

from __future__ import annotations

import base64
import json
import time

import pytest
from fsspec.implementations.reference import ReferenceFileSystem
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.errors import FormatError
from lazyarr.store.references.document import parse_references
from lazyarr.store.references.entries import Target

# The example of kerchunk's specification.
EXAMPLE = {
    "version": 1,
    "templates": {"u": "server.domain/path", "f": "{{c}}"},
    "gen": [
        {
            "key": "gen_key{{i}}",
            "url": "http://{{u}}_{{i}}",
            "offset": "{{(i + 1) * 1000}}",
            "length": "1000",
            "dimensions": {"i": {"stop": 5}},
        },
        {
            "key": "a/{{i}}.{{j}}",
            "url": "s3://{{u}}/{{j}}/{{f(c='x')}}",
            "dimensions": {"i": [3, 7], "j": {"start": 10, "stop": 3, "step": -2}},
        },
    ],
    "refs": {
        "key0": "data",
        "key1": ["http://target_url", 10000, 100],
        "key2": ["http://{{u}}", 10000, 100],
        "key3": ["http://{{f(c='text')}}", 10000, 100],
        "key4": ["http://target_url"],
        "key5": "base64:aGVsbG8=",
        "key6": {"zarr_format": 2},
        "key7": "Grüße",
    },
}


def parse(document):
    return parse_references(json.dumps(document).encode(), "the test's")


def flat(references):
    """Return references as a document of version 0 has them."""
    found = {}
    for key, value in references.items():
        if isinstance(value, Target):
            found[key] = [value.url] if value.nbytes is None else list(value)
        else:
            found[key] = value
    return found


def test_the_example_of_the_specification_is_what_fsspec_makes_of_it():
    """With Jinja2, which is not run here."""
    expected = ReferenceFileSystem(EXAMPLE, simple_templates=False, fs={}, skip_instance_cache=True)
    whole = {k: v for k, v in expected.references.items() if isinstance(v, list)}
    found = flat(parse(EXAMPLE))
    assert {k: v for k, v in found.items() if isinstance(v, list)} == whole
    assert found["gen_key3"] == ["http://server.domain/path_3", 4000, 1000]
    assert [found[f"key{n}"] for n in (0, 5, 7)] == [b"data", b"hello", "Grüße".encode()]
    assert json.loads(found["key6"]) == {"zarr_format": 2}


def test_a_document_of_version_0_is_references_alone():
    """It has no version, and braces in it are names'."""
    refs = {".zgroup": '{"zarr_format": 2}', "x/0": ["s3://b/{{u}}", 5, 6], "x/1": "text"}
    assert flat(parse(refs)) == {**refs, ".zgroup": refs[".zgroup"].encode(), "x/1": b"text"}


def test_the_only_chunk_of_an_array_without_axes():
    """VirtualiZarr gives it the key of a directory."""
    refs = {"x/.zarray": {}, "x/": "a", "y/.zarray": {}, "y/": "b", "y/0": "c"}
    found = parse({"version": 1, "refs": refs})
    assert (found["x/0"], found["y/0"], "x/" in found) == (b"a", b"c", False)


def test_templates_that_the_user_gives_replace_those_of_the_document():
    """As fsspec's `template_overrides`."""
    document = {"version": 1, "templates": {"u": "a"}, "refs": {"x": ["{{u}}/{{v}}"]}}
    found = parse_references(json.dumps(document).encode(), "", overrides={"u": "b", "v": "c"})
    assert found["x"].url == "b/c"


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ([], "no JSON object"),
        ({}, "no kerchunk references: it is empty"),
        ({"zarr_format": 3, "node_type": "group"}, "no kerchunk references: it has 'zarr_format'"),
        ({"version": 2, "refs": {}}, "version 2"),
        ({"version": 1, "refs": []}, "refs"),
        ({"version": 1, "refs": {"x": 5}}, "must be text"),
        ({"version": 1, "refs": {"x": ["a", 1]}}, "must be text"),
        ({"version": 1, "refs": {"x": [None, 1, 2]}}, "must be a URL"),
        ({"version": 1, "refs": {"x": ["a", -1, 2]}}, "offset of reference 'x' is -1"),
        ({"version": 1, "refs": {"x": ["a", 1, -2]}}, "length"),
        ({"version": 1, "refs": {"x": ["a", 10**30, 2]}}, "offset"),
        ({"version": 1, "refs": {"x": ["a", True, 2]}}, "offset"),
        ({"version": 1, "refs": {"x": ["a", 1.5, 2]}}, "offset"),
        ({"version": 1, "refs": {"x": "base64:ab"}}, "no base64"),
        ({"version": 1, "refs": {"../x": "a"}}, "leaves the store"),
        ({"version": 1, "refs": {"x//y": "a"}}, "leaves the store"),
        ({"version": 1, "refs": {"x/": "a"}}, "leaves the store"),
        ({"version": 1, "templates": {"u": 5}, "refs": {}}, "must be text"),
        ({"version": 1, "templates": {"u": "a"}, "refs": {"x": ["{{v}}"]}}, "names 'v'"),
        ({"version": 1, "templates": {"u": "a"}, "refs": {"x": ["{% if u %}"]}}, "not run Jinja2"),
        ({"version": 1, "templates": {"u": "a"}, "refs": {"x": ["{{u|e}}"]}}, "not run Jinja2"),
        ({"version": 1, "templates": {"u": "a"}, "refs": {"x": ["{{u.x()}}"]}}, "not run Jinja2"),
        ({"version": 1, "templates": {"u": "a"}, "refs": {"x": ["{{9**9}}"]}}, "not run Jinja2"),
        ({"version": 1, "templates": {"u": "a"}, "refs": {"x": ["{{1//0}}"]}}, "not run Jinja2"),
        ({"version": 1, "templates": {"u": "{{c}}"}, "refs": {"x": ["{{u}}"]}}, "arguments"),
    ],
)
def test_what_is_wrong_is_said(document, text):
    """Whatever it is, by its name."""
    with pytest.raises(FormatError, match=f"cannot open the test's: .*{text}"):
        parse(document)


@pytest.mark.parametrize("stop", [10**12, 1 << 60, 1 << 70])
def test_references_that_would_be_too_many_take_no_time(stop):
    """Nor do those of which there are none in the end."""
    gen = {"key": "{{i}}", "url": "u", "dimensions": {"i": {"stop": stop}}}
    began = time.monotonic()
    with pytest.raises(FormatError, match=r"too many references|must be a list"):
        parse({"version": 1, "gen": [gen], "refs": {}})
    if stop < 1 << 60:
        gen["dimensions"]["j"] = []
        assert parse({"version": 1, "gen": [gen], "refs": {}}) == {}
    assert time.monotonic() - began < 2


def test_templates_that_double_a_text_again_and_again():
    """They are refused while the text is short."""
    call = "'abcdefgh'"
    for _ in range(40):
        call = f"f(c={call})"
    document = {"version": 1, "templates": {"f": "{{c}}{{c}}"}, "refs": {"x": ["{{" + call + "}}"]}}
    with pytest.raises(FormatError, match="characters"):
        parse(document)


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b"\x93NUMPY", b"{", b""])
def test_no_document_at_all(text):
    """Nor one that is nested so deeply that it is none."""
    with pytest.raises(FormatError, match="JSON"):
        parse_references(text, "it")


@given(st.lists(st.binary(max_size=20), max_size=9))
def test_inlined_bytes_come_back(contents):
    """By way of base64."""
    texts = (f"base64:{base64.b64encode(data).decode()}" for data in contents)
    refs = {f"x/{number}": text for number, text in enumerate(texts)}
    assert [*parse({"version": 1, "refs": refs}).values()] == contents
