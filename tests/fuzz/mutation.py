"""Changes to JSON documents that keep most of their structure.

Random bytes end in the JSON parser.  What comes behind it is reached by documents that
are right in all but a few places.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from random import Random
from typing import Any

__all__ = ["mutate", "mutate_input"]

_DEEP: Any = []
for _ in range(70):
    _DEEP = [_DEEP]

_ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    *(-1, 0, 1, 2, 3, 7, 16, 255, 4096),
    *(2**31 - 1, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), 10**30),
    *(0.0, -0.0, 0.5, 1.0, 1e308, -1e308, float("nan"), float("inf"), float("-inf")),
    *("", "a", "\0", "\ud800", "\udcff", "é", "日本", "a" * 300, "../..", "/", ".", "c/0"),
    *("NaN", "Infinity", "-Infinity", "NaT", "0x", "0x7fc00001", "AAAA"),
    *([], {}, [[]], [{}], [None], [0], [1], [0, 1], [1, 0], [1, 1], [-1], [2**40, 2**40]),
    *(_DEEP, [1] * 65, [0] * 300, [1, [2, [3]]]),
    *({"must_understand": False}, {"name": "bytes"}, {"name": "crc32c"}, {"name": "zstd"}),
    *({"id": "zlib", "level": 1}, {"id": "shuffle", "elementsize": 0}, {"id": "pickle"}),
    {"id": "lzma", "format": 3, "filters": [{"id": 33, "dict_size": 2**32 - 1}]},
    {"name": "numcodecs.astype", "configuration": {"encode_dtype": "<f4", "decode_dtype": "O"}},
    {"name": "transpose", "configuration": {"order": [0]}},
    {"name": "sharding_indexed", "configuration": {"chunk_shape": [1], "codecs": ["bytes"]}},
    {"kind": "inline", "must_understand": False, "metadata": {"a\0": None, "..": {}}},
    *("bool", "uint8", "float64", "complex128", "bfloat16", "float8_e4m3fn", "r8", "r17179869176"),
    *("string", "little", "big", "start", "end", "regular", "default", "v2", "<f4", ">M8[ns]"),
    *("<M8[0ns]", "|S0", "<U536870911", "|V2147483647", "|O", "|b1", "C", "F", "numpy.datetime64"),
    {"name": "numpy.datetime64", "configuration": {"unit": "ns", "scale_factor": 2**31 - 1}},
    {"name": "struct", "configuration": {"fields": [["a", "int8"], ["b", "r8"]]}},
    [["a", "<i4", [1] * 64], ["b", "|S1"]],
    [["a", [["b", "<f8"]]]],
)
_NAMES = (
    *("zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding"),
    *("fill_value", "codecs", "attributes", "dimension_names", "storage_transformers"),
    *("consolidated_metadata", "configuration", "name", "chunk_shape", "order", "endian"),
    *("index_codecs", "index_location", "must_understand", "id", "filters", "compressor", "dtype"),
    *("chunks", "metadata", "level", "cname", "typesize", "elementsize", "kind", "extra", "", "\0"),
    *("is", "ticket", "region", "units", "settings", "client", "body", "a/.zarray", "\ud800"),
)


def mutate_input(data: bytes, random: Random) -> bytes:
    """Return an input of a target with a few changes, in its structure where it has some."""
    if data[:1] == b"{":
        first, found, attributes = data.partition(b"\0")
        if found and random.random() < 0.5:
            return first + found + _mutate_json(attributes, random)
        return _mutate_json(first, random) + found + attributes
    if b'{"is"' in data:
        return _mutate_lines(data, random)
    return _splice(data, random)


def _mutate_lines(data: bytes, random: Random) -> bytes:
    """Change one of several lines, each a byte and a JSON document; or their order."""
    lines = data.split(b"\n")
    at = random.randrange(len(lines))
    kind = random.randrange(6)
    if kind == 0:
        lines.insert(random.randrange(len(lines)), lines[at])
    elif kind == 1:
        lines[at] = random.randbytes(1) + lines[at][1:]
    else:
        lines[at] = lines[at][:1] + _mutate_json(lines[at][1:], random)
    return b"\n".join(lines)


def _mutate_json(data: bytes, random: Random) -> bytes:
    """Return a JSON document with a few changes; any bytes with a few changes if it is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _splice(data, random)
    for _ in range(random.randint(1, 3)):
        value = mutate(value, random)
    text = json.dumps(value, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    return _splice(text, random) if random.random() < 0.1 else text


def mutate(value: Any, random: Random) -> Any:
    """Return a JSON value with one change somewhere in it."""
    root = [copy.deepcopy(value)]
    places = list(_places(root))
    parent, key = random.choice(places)
    kind = random.randrange(8)
    if kind <= 2:
        parent[key] = copy.deepcopy(random.choice(_ODD))
    elif kind == 3 and parent is not root:
        del parent[key]
    elif kind == 4:
        other, name = random.choice(places)
        parent[key] = copy.deepcopy(other[name])
    elif kind == 5:
        _insert(parent, key, random)
    elif kind == 6:
        parent[key] = [parent[key]] if random.random() < 0.5 else {"name": parent[key]}
    else:
        parent[key] = _altered(parent[key], random)
    return root[0]


def _places(root: list[Any]) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    waiting: list[Any] = [root]
    while waiting:
        node = waiting.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, child in items:
            found.append((node, key))
            if isinstance(child, dict | list):
                waiting.append(child)
    return found


def _insert(parent: Any, key: Any, random: Random) -> None:
    """Put one more value beside another: a copy, or something odd."""
    target = parent[key] if isinstance(parent[key], dict | list) else parent
    if isinstance(target, dict):
        target[random.choice(_NAMES)] = copy.deepcopy(random.choice(_ODD))
    elif isinstance(target, list) and target:
        at = random.randrange(len(target))
        target[at:at] = [copy.deepcopy(target[at])] * random.choice((1, 1, 2, 70))


def _altered(value: Any, random: Random) -> Any:
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return random.choice((value + 1, value - 1, -value, 2 * value, value * 2**31, float(value)))
    if isinstance(value, float):
        return random.choice((-value, value * 2, value / 3, str(value)))
    if isinstance(value, str):
        at = random.randrange(len(value) + 1)
        return (
            value[:at] + random.choice(("", "\0", "0", "9", "/", "é", "[", "|")) + value[at + 1 :]
        )
    return _shuffled(value, random)


def _shuffled(value: Sequence[Any] | dict[str, Any], random: Random) -> Any:
    if isinstance(value, dict):
        return dict(random.sample(list(value.items()), len(value)))
    return random.sample(value, len(value))


def _splice(data: bytes, random: Random) -> bytes:
    """Return bytes with a stretch replaced by other bytes, out of themselves or at random."""
    at = random.randrange(len(data) + 1)
    stop = min(len(data), at + random.choice((0, 1, 1, 2, 4, 8, 64)))
    other = random.randrange(len(data) + 1)
    count = random.choice((0, 1, 1, 2, 4, 8, 64))
    fresh = random.choice((data[other : other + count], random.randbytes(count), b"\xff" * count))
    return data[:at] + fresh + data[stop:]
