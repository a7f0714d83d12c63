"""Tables of references: packed ones against a dict, Parquet files against fsspec's own reader."""

from __future__ import annotations

import json
import os
import warnings

import pyarrow as pa
import pyarrow.parquet
import pytest
from fsspec.implementations.reference import LazyReferenceMapper
from hypothesis import given, settings
from hypothesis import strategies as st

from lazyarr.errors import FormatError, StoreError
from lazyarr.store import open_store
from lazyarr.store.references.entries import Target, Unread
from lazyarr.store.references.kept import KEPT, Kept
from lazyarr.store.references.packed_table import FewReferences, PackedTable, pack_table
from lazyarr.store.references.parquet_table import open_table
from tests.store.forked import succeeds_in_child

KEYS = st.lists(st.sampled_from(["a", "b", "0", ".z", "a0", "a.b", "ü"]), min_size=1, max_size=4)
TARGETS = st.builds(
    Target,
    st.sampled_from(["s3://a/b", "c", "/d"]),
    st.integers(0, 2**62 - 1),
    st.none() | st.integers(0, 2**62 - 1),
)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(KEYS.map("/".join), st.binary(max_size=9) | TARGETS), st.booleans())
def test_a_packed_table_is_a_dict(references, is_long):
    """Keys, what lies below a prefix, and the same again by the descriptor."""
    if is_long:  # more than a block
        references |= {f"a/{number}": b"" for number in range(300)}
    table = pack_table(references, "it")
    copies = [again(table), FewReferences(json.loads(json.dumps(table._few("") or {})))]
    for found in (table, *copies[: 1 if is_long else 2]):
        assert {key: found.find(key) for key in references} == references
        assert all(found.find(key) is None for key in ("", "zzz", "a/b/c/d/e") - references.keys())
        for prefix in ("", "a", "a/a", "a.b", "zzz"):
            start = prefix + "/" if prefix else ""
            rest = [key[len(start) :] for key in references if key.startswith(start)]
            names = {(key.partition("/")[0], "/" in key) for key in rest}
            assert set(found.names(prefix)) == names
            below = [v for k, v in references.items() if k.startswith(start) or k == prefix]
            urls = {each.url for each in below if isinstance(each, Target)}
            assert urls <= set(table.targets(prefix))
            few = FewReferences(table._few(prefix) or {})
            assert is_long or all(few.find(start + key) == references[start + key] for key in rest)
    for found in (table, *copies):
        found.close()
    closed = pack_table({"a": b""}, "it")
    closed.close()
    with pytest.raises(StoreError, match="closed"):
        closed.find("a")


def again(table):
    """Return a table on a copy of the descriptor."""
    held = table._pool.borrow("")
    place = table._index_place
    copied = PackedTable(os.dup(held.fd), *place, table._digest, "it")
    table._pool.give_back(held)
    return copied


def test_the_digest_differs_as_soon_as_a_reference_does():
    """And not before."""
    references = {f"x/{n}": Target("a", n, 8) for n in range(500)} | {"x/.zarray": b"{}"}
    digests = []
    for change in ({}, {}, {"x/7": Target("a", 7, 9)}, {"x/.zarray": b"{ }"}, {"y": b""}):
        table = pack_table(references | change, "it")
        digests.append(table.reference("").description["digest"])
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


def test_few_references_go_as_text_and_many_as_a_descriptor():
    """So that a thousand arrays need no thousand descriptors."""
    many = {f"many/{n}": Target("a", n, 8) for n in range(1000)}
    few = {f"few/{n}": Target("a", n, 8) for n in range(100)} | {"few/.zarray": b"{}"}
    table = pack_table(many | few | {"long/0": bytes(100_000)}, "it")
    found = table.reference("few")
    assert (found.description["kind"], found.descriptors) == ("few", ())
    read = FewReferences(json.loads(json.dumps(found.description["references"])))
    assert {key: read.find(key) for key in few} == few
    for prefix in ("many", "long", ""):
        description, descriptors = table.reference(prefix)
        assert (description["kind"], len(descriptors)) == ("packed", 1)
        os.close(descriptors[0])
    table.close()


def test_a_system_without_files_in_memory(monkeypatch):
    """There the table is in the process's own memory, and goes to no other."""
    monkeypatch.delattr(os, "memfd_create")
    table = pack_table({f"x/{n}": Target("a", n, 8) for n in range(1000)}, "it")
    assert table.find("x/500") == Target("a", 500, 8)
    assert len(list(table.names("x"))) == 1000
    with pytest.raises(StoreError, match="closed"):
        table.reference("")
    table.close()


def test_what_is_kept_is_within_one_bound():
    """Of all tables together; what was used last stays."""
    kept = Kept(100)
    for number in range(10):
        kept.put(number, str(number), 30)
        assert kept.get(0) == "0"
    assert [number for number in range(10) if kept.get(number)] == [0, 8, 9]
    kept.put("large", "x", 1000)
    assert (kept.get("large"), kept.get(9)) == ("x", None)


def test_a_copy_that_is_damaged_is_an_error():
    """A descriptor of another file, or one that was cut short."""
    fd = os.memfd_create("other")
    table = PackedTable(fd, 100, 200, "", "it")
    with pytest.raises(StoreError, match="damaged"):
        table.find("x")
    table.close()


def write(directory, references, record_size):
    """Write references by fsspec's own writer; return the directory's path."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas
        writer = LazyReferenceMapper.create(str(directory), record_size=record_size)
        for key, value in references.items():
            writer[key] = value
        writer.flush()
    return str(directory)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_parquet_files_are_what_fsspec_reads(tmp_path_factory, data):
    """Any chunk grid and size of files, with chunks that have no reference."""
    shape = data.draw(st.lists(st.integers(0, 9), max_size=3).map(tuple))
    chunks = data.draw(st.tuples(*(st.integers(1, 4) for _ in shape)))
    array = data.draw(st.sampled_from(["x", "g/x"]))
    lengths = [-(-n // c) for n, c in zip(shape, chunks, strict=True)] or [1]
    keys = [""]
    for length in lengths:
        keys = [f"{key}.{index}" for key in keys for index in range(length)]
    keys = [f"{array}/{key[1:]}" for key in keys]
    entry = st.one_of(
        st.none(),
        st.binary(min_size=1, max_size=9),
        st.tuples(st.sampled_from(["s3://a/b", "c"]), st.integers(0, 99), st.integers(1, 99)),
        st.tuples(st.sampled_from(["whole"])),
    )
    references = {key: data.draw(entry) for key in keys}
    given_ = {k: list(v) if isinstance(v, tuple) else v for k, v in references.items() if v}
    zarray = {"zarr_format": 2, "shape": list(shape), "chunks": list(chunks)}
    documents = {".zgroup": '{"zarr_format": 2}', f"{array}/.zarray": json.dumps(zarray)}
    url = write(
        tmp_path_factory.mktemp("parquet") / "refs.parq",
        documents | given_,
        data.draw(st.integers(1, 12)),
    )
    table = open_table(open_store(url), url)
    for key, value in references.items():
        expected = value if not isinstance(value, tuple) else Target(value[0], 0, None)
        if isinstance(value, tuple) and len(value) == 3:
            expected = Target(*value)
        assert table.find(key) == expected
        assert value is None or table.find_now(key) == expected
    for beside in ("y/0", f"{array}/c/0", f"{array}/00", f"{array}/-1", f"{array}/99.99.99", "0"):
        assert table.find(beside) is None
    assert json.loads(table.find(f"{array}/.zarray")) == zarray
    stored = {key.rpartition("/")[2] for key, value in references.items() if value}
    assert {name for name, _ in table.names(array)} - {".zarray"} == stored
    assert (array.partition("/")[0], True) in set(table.names(""))
    table.close()


@pytest.fixture
def directory(tmp_path):
    """Parquet files of one array, with ten references in each of ten."""
    zarray = {"zarr_format": 2, "shape": [100], "chunks": [1]}
    references = {f"x/{n}": ["file", n, 5] for n in range(100)}
    documents = {".zgroup": '{"zarr_format": 2}', "x/.zarray": json.dumps(zarray)}
    write(tmp_path / "refs.parq", documents | references, 10)
    return tmp_path / "refs.parq"


def test_a_file_is_read_once_and_only_when_it_is_needed(directory, monkeypatch):
    """And again when others have taken its place in memory."""
    store = open_store(str(directory))
    read = store.read
    keys = []
    store.read = lambda key, **options: (keys.append(key), read(key, **options))[1]
    table = open_table(store, "it")
    assert keys == [".zmetadata"]
    assert [table.find(f"x/{n}").start for n in (35, 36, 99, 37)] == [35, 36, 99, 37]
    assert keys == [".zmetadata", "x/refs.3.parq", "x/refs.9.parq"]
    monkeypatch.setattr(KEPT, "limit_nbytes", 1)
    assert table.find("x/0").start == 0
    assert table.find_now("x/35") is Unread.UNREAD
    assert succeeds_in_child(lambda: table.find("x/36").start == 36)
    assert table.find("x/35").start == 35
    table.close()


def test_files_that_are_gone_are_no_proof_that_nothing_was_stored(directory):
    """One alone was never written; where the metadata is gone too, they were moved."""
    table = open_table(open_store(str(directory)), "it")
    (directory / "x/refs.2.parq").unlink()
    assert table.find("x/25") is None
    (directory / ".zmetadata").unlink()
    with pytest.raises(StoreError, match="moved or deleted"):
        table.find("x/26")
    table.close()


BAD = {
    "no Parquet": b"PAR1 and nothing else PAR1",
    "11 references": pa.table({"path": ["a"] * 11, "offset": [0] * 11, "size": [0] * 11}),
    "must be bytes": pa.table({"path": ["a"], "offset": [-1], "size": [3]}),
    "a path": pa.table({"path": [5], "offset": [1], "size": [3]}),
    "offset": pa.table({"path": ["a"], "offset": [1.5], "size": [3]}),
}


def test_a_long_text_that_many_rows_have_is_kept_once(directory):
    """However long it would be, written out for each."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 10, "i4"), ["x" * (8 << 20)])
    columns = {"path": texts, "offset": [0] * 10, "size": [5] * 10, "raw": pa.nulls(10)}
    pyarrow.parquet.write_table(pa.table(columns), directory / "x/refs.0.parq")
    table = open_table(open_store(str(directory)), "it")
    assert len(table.find("x/3").url) == 8 << 20
    assert KEPT.get((table._number, "x", 0)).nbytes < 17 << 20
    table.close()


@pytest.mark.parametrize("text", BAD)
def test_files_of_something_else_are_refused(directory, text):
    """By name, and whoever asks again is told again."""
    path = directory / "x/refs.0.parq"
    if isinstance(BAD[text], bytes):
        path.write_bytes(BAD[text])
    else:
        pyarrow.parquet.write_table(BAD[text], path)
    table = open_table(open_store(str(directory)), "it")
    for _ in range(2):
        with pytest.raises(FormatError, match=text):
            table.find("x/0")
    assert table.find("x/10").start == 10
    table.close()


@pytest.mark.parametrize(
    "document", [b"{", b"[]", b'{"record_size": 0}', b'{"record_size": 5, "metadata": 3}']
)
def test_a_directory_of_something_else_is_refused(tmp_path, document):
    """When it is opened."""
    (tmp_path / ".zmetadata").write_bytes(document)
    with pytest.raises(FormatError, match="Parquet"):
        open_table(open_store(str(tmp_path)), str(tmp_path))
