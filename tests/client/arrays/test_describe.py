"""Arrays and groups as text."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import numpy as np
import pytest
import zarr

import lazyarr
from lazyarr.client.arrays.describe import (
    describe_array,
    describe_group,
    describe_metadata,
    describe_residency,
    describe_tree,
    tree_html,
)
from lazyarr.client.arrays.residency import Residency
from lazyarr.errors import FormatError
from lazyarr.formats.zarr import parse_node, parse_v2_array
from tests.stores import images, write_zarr

EVIL = "<script>\x1b[31m"


def group(path="", **attributes):
    members = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return parse_node(json.dumps(members).encode(), path=path)


def array(path="", shape=(100, 64), chunks=(8, 64), **members):
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": "uint16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
        "chunk_key_encoding": {"name": "default"},
        "fill_value": 0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
    }
    return parse_node(json.dumps({**document, **members}).encode(), path=path)


def value_of(text, label):
    """Return what stands beside a label."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(f"{label} ")]
    return line.strip().removeprefix(label).strip()


NODES = [
    ("a", array("a")),
    ("g", group("g")),
    ("g/h", group("g/h")),
    ("g/h/deep", array("g/h/deep", shape=(), chunks=())),
    ("g/last", array("g/last", shape=(0, 3), chunks=(1, 3))),
    ("z", FormatError("cannot read the metadata of '/z': no good", path="z")),
]


def test_an_array_says_how_it_is_stored():
    """Shape, type, sizes, chunks, codecs and names are there, each on its line."""
    codecs = [
        {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [8, 64],
                "codecs": [
                    {"name": "bytes", "configuration": {"endian": "big"}},
                    {"name": "zstd", "configuration": {"level": 5, "checksum": False}},
                    {"name": "crc32c"},
                ],
            },
        }
    ]
    names = {"dimension_names": ["n", None], "attributes": {"unit": "m"}, "fill_value": 7}
    text = describe_metadata("file:///x", array("i", chunks=(40, 64), codecs=codecs, **names))
    assert text.splitlines()[0] == "Array i"
    assert value_of(text, "store") == "file:///x"
    assert value_of(text, "shape") == "(100, 64)"
    assert value_of(text, "data type") == "uint16, big endian"
    assert value_of(text, "size") == "12.5 KiB in memory"
    assert value_of(text, "chunks") == "(8, 64), 1 KiB each, 13 in all"
    assert value_of(text, "shards") == "(40, 64), 5 KiB each, 3 in all"
    assert value_of(text, "codecs") == "sharding_indexed(bytes, zstd level 5, crc32c)"
    assert value_of(text, "fill value") == "7"
    assert value_of(text, "dimensions") == "n, -"
    assert value_of(text, "attributes") == '{"unit": "m"}'
    assert "hint" not in text


def test_an_array_of_version_2_says_how_it_is_stored():
    """Filters and compressor are its codecs."""
    document = {
        "zarr_format": 2, "shape": [10], "chunks": [5], "dtype": "<i4", "order": "C",
        "fill_value": None, "filters": [{"id": "delta", "dtype": "<i4"}],
        "compressor": {"id": "zlib", "level": 1},
    }  # fmt: skip
    text = describe_metadata("u", parse_v2_array(json.dumps(document).encode(), None, path="v"))
    assert value_of(text, "codecs") == "delta, zlib"
    assert value_of(text, "shards") == "none: every chunk is an object"
    assert value_of(text, "zarr format") == "2"
    document.update(filters=None, compressor=None)
    text = describe_metadata("u", parse_v2_array(json.dumps(document).encode(), None, path="v"))
    assert value_of(text, "codecs") == "none"


@pytest.mark.parametrize(
    ("shape", "chunks", "hint"),
    [
        ((8192, 128, 128, 3), (2048, 32, 32, 1), "48 of them (192 MiB)"),
        ((256, 256), (32, 64), "4 of them (16 KiB)"),
        ((256, 256), (32, 128), None),
        ((64, 64), (8, 16), None),
        ((2**20,), (1,), "chunks are small: touching one element decodes 2,048 of them (4 KiB)"),
        ((64, 64), (64, 64), None),
        ((2**20, 64), (2**19, 64), "touching one element decodes 64 MiB"),
        ((0, 64), (8, 4), None),
    ],
)
def test_tiles_get_a_hint(shape, chunks, hint):
    """Where a touch decodes many tiles, or very much, there is a way out."""
    text = describe_metadata("file:///my store", array("i", shape, chunks))
    if hint is None:
        assert "hint" not in text
    else:
        assert hint in value_of(text, "hint")
        assert value_of(text, "hint").endswith("lazyarr convert 'file:///my store/i' NEW.zarr")


@pytest.mark.usefixtures("engine")
def test_a_lazy_array_says_what_is_resident(tmp_path):
    """`info` shows the part of the array, or of the view, that is in memory."""
    x = lazyarr.open(write_zarr(tmp_path / "x", images((64, 32, 128)), chunks=(4, 32, 128)))
    assert "0 of 16 units resident, 0 B of 512 KiB" in value_of(x.info, "memory")
    x.prefetch(slice(4, 12))
    assert x.info == describe_array(x)
    assert value_of(x.info, "memory").startswith("read-only; [.##.............] 2 of 16 units")
    view = x[6:10, :, 5]
    assert value_of(view.info, "this view") == "(4, 32) uint16"
    assert "[##] 2 of 2 units" in value_of(view.info, "memory")
    assert "this view" not in x.info


@pytest.mark.usefixtures("engine")
def test_private_memory_is_called_so(tmp_path):
    """In mode "c" the text says that the memory is the process's own."""
    x = lazyarr.open(write_zarr(tmp_path / "x", images((4, 8))), mode="c")
    assert value_of(x.info, "memory").startswith("private, writable")


@pytest.mark.usefixtures("engine")
def test_an_array_without_elements_can_be_described(tmp_path):
    """No bytes means no units and no division by zero."""
    x = lazyarr.open(write_zarr(tmp_path / "x", np.zeros((0, 3))))
    assert "0 of 0 units" in value_of(x.info, "memory")
    assert "unit  " not in x.info


def test_the_bar_shows_all_some_and_none():
    """Each mark stands for a stretch of units, never for a fraction of one."""

    def bar(resident):
        runs = [(unit, unit + 1) for unit, is_here in enumerate(resident) if is_here]
        pairs = np.array(runs, np.int64).reshape(-1, 2)
        here = Residency(0, 0, sum(resident), len(resident), pairs)
        return describe_residency(here).partition("]")[0][1:]

    assert bar([True, False, True]) == "#.#"
    assert bar([]) == "."
    assert bar([True] * 41) == "#" * 40
    assert bar([False] * 79 + [True]) == "." * 39 + "+"


def test_a_group_lists_what_it_holds():
    """Arrays stand below one another in columns; what cannot be mapped says why."""
    text = describe_group("file:///s", group(title="t"), NODES)
    assert text.splitlines()[0] == "Dataset /"
    assert value_of(text, "holds") == "3 arrays, 2 groups, 1 that cannot be mapped"
    assert value_of(text, "size") == "12.5 KiB in memory"
    assert value_of(text, "attributes") == '{"title": "t"}'
    assert text.partition("\n\n")[2].splitlines() == [
        "  a         (100, 64)  uint16  12.5 KiB  chunks (8, 64)  codecs bytes",
        "  g/",
        "  g/h/",
        "  g/h/deep  ()         uint16  2 B       chunks ()       codecs bytes",
        "  g/last    (0, 3)     uint16  0 B       chunks (1, 3)   codecs bytes",
        "  z         cannot be mapped: no good",
    ]


def test_a_group_below_the_root_lists_relative_names():
    """Names are as they are used: below the group."""
    text = describe_group("u", group("g"), [("g/last", NODES[4][1])])
    assert text.splitlines()[0] == "Dataset g"
    assert text.splitlines()[-1].startswith("  last  (0, 3)")


def test_an_empty_group_is_described_without_a_list():
    """There is no blank end."""
    assert describe_group("u", group(), []).splitlines()[-1].strip() == "zarr format  3"


def test_a_large_group_is_cut():
    """Of thousands of arrays the first are listed, and the rest is counted."""
    text = describe_group("u", group(), [(f"a{i}", array(f"a{i}")) for i in range(1000)])
    assert len(text.splitlines()) < 60
    assert text.endswith("and 960 more: see 'lazyarr tree'")


def test_a_tree_is_drawn():
    """Branches go on where siblings follow, and end where none does."""
    assert describe_tree("", NODES).splitlines() == [
        "/",
        "├── a             (100, 64) uint16, 12.5 KiB",
        "├── g",
        "│   ├── h",
        "│   │   └── deep  () uint16, 2 B",
        "│   └── last      (0, 3) uint16, 0 B",
        "└── z             cannot be mapped: no good",
    ]


def test_a_tree_below_the_root_begins_at_its_group():
    """Paths are taken relative to the group at the top."""
    assert describe_tree("g/h", [NODES[3]]).splitlines() == ["g/h", "└── deep  () uint16, 2 B"]
    assert describe_tree("", []) == "/"


def test_a_deep_tree_is_drawn():
    """However deep groups lie in one another, nothing recurses."""
    nodes = [("/".join("g" * depth), group()) for depth in range(1, 1200)]
    assert len(describe_tree("", nodes).splitlines()) == 1200
    assert tree_html("t", "", nodes).count("<summary>") == 1199


class Balance(HTMLParser):
    """Checks that every tag is closed in its turn, and keeps the text."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.tags = [], [], set()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_html_is_well_formed_and_escaped():
    """Every tag is closed, and names from the store are text."""
    nodes = [*NODES, (EVIL, array(EVIL)), ("y", FormatError(EVIL, path="y"))]
    parser = Balance()
    parser.feed(tree_html(f"<Dataset {EVIL}>", "", nodes))
    parser.close()
    assert parser.open == []
    assert "script" not in parser.tags
    assert "".join(parser.text).count("<script>\\x1b[31m") == 3


def test_names_and_attributes_do_not_reach_the_terminal():
    """Escape sequences in what the store says are spelled out everywhere."""
    evil = array(EVIL, attributes={EVIL: EVIL}, dimension_names=[EVIL, None], fill_value=1)
    nodes = [(EVIL, evil), ("y", FormatError(EVIL, path="y"))]
    for text in (
        describe_metadata(EVIL, evil),
        describe_group(EVIL, group(**{EVIL: EVIL}), nodes),
        describe_tree(EVIL, nodes),
    ):
        assert all(line.isprintable() for line in text.splitlines())
        assert "\\x1b[31m" in text


@pytest.mark.usefixtures("engine")
def test_a_dataset_describes_itself(tmp_path):
    """`info`, `tree` and the notebook view of a store that zarr-python wrote."""
    root = zarr.open_group(str(tmp_path / "d"), mode="w", attributes={"title": "t"})
    root.create_array("g/x", shape=(10, 4), chunks=(5, 4), dtype="f4")
    (tmp_path / "d" / "bad").mkdir()
    (tmp_path / "d" / "bad" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "odd"}')
    with lazyarr.open(tmp_path / "d") as ds:
        assert value_of(ds.info, "holds") == "1 array, 1 group, 1 that cannot be mapped"
        assert ds.tree().splitlines()[-1] == "    └── x  (10, 4) float32, 160 B"
        assert "node_type is" in ds.tree()
        assert "<code>x</code> (10, 4) float32, 160 B" in ds._repr_html_()
        assert ds["g"].tree().splitlines() == ["g", "└── x  (10, 4) float32, 160 B"]
