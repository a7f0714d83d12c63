"""Stores that are damaged: right bytes or an error, never anything else."""

from __future__ import annotations

import os
import shutil
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lazyarr.codecs.checksum import crc32c
from lazyarr.errors import ChunkError
from lazyarr.reading.workspace import Workspace
from tests.reading.arrays import CHECKED, KINDS, Stored, fetch, load, store_array

DAMAGE = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def loaded(stored: Stored, *, is_remote: bool = False) -> list[bytes | None]:
    """Return every unit; None for one that cannot be had."""
    workspace, source = Workspace(), stored.source()
    found: list[bytes | None] = []
    for unit in range(stored.geometry.n_units):
        try:
            fetched = fetch(source, unit) if is_remote else None
            found.append(load(source, stored, unit, workspace, fetched=fetched))
        except ChunkError:
            found.append(None)
    source.close()
    workspace.close()
    return found


def units(stored: Stored) -> list[bytes]:
    """Return every unit as it should be."""
    return [stored.unit(unit) for unit in range(stored.geometry.n_units)]


@pytest.fixture(params=["shards", "shards of tiles", "shards of shards", "index at the start"])
def checked(request, tmp_path_factory):
    """Arrays whose every stored byte is guarded by a checksum."""
    return store_array(tmp_path_factory.mktemp("store"), **KINDS[request.param])


@pytest.mark.parametrize("is_remote", [False, True])
@given(data=st.data())
@DAMAGE
def test_no_changed_byte_goes_unnoticed(checked, is_remote, data):
    """Wherever it lies: in a chunk, in an index, in an index of an index."""
    path = data.draw(st.sampled_from(checked.objects()))
    good = path.read_bytes()
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        bad[data.draw(st.integers(0, len(bad) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bad)
    try:
        found = loaded(checked, is_remote=is_remote)
    finally:
        path.write_bytes(good)
    assert all(a in (b, None) for a, b in zip(found, units(checked), strict=True))
    if bytes(bad) != good:
        assert None in found
    assert loaded(checked) == units(checked)


@pytest.mark.parametrize("is_remote", [False, True])
@given(data=st.data())
@DAMAGE
def test_no_missing_byte_goes_unnoticed(checked, is_remote, data):
    """An upload that was broken off gives errors, not fill values."""
    path = data.draw(st.sampled_from(checked.objects()))
    good = path.read_bytes()
    path.write_bytes(good[: data.draw(st.integers(0, len(good) - 1))])
    try:
        found = loaded(checked, is_remote=is_remote)
    finally:
        path.write_bytes(good)
    assert all(a in (b, None) for a, b in zip(found, units(checked), strict=True))
    assert None in found


@pytest.mark.parametrize("kind", ["rows", "tiles", "not compressed", "version 2"])
@pytest.mark.parametrize("nbytes", [0, 1, -1])
def test_object_that_is_cut_short_is_an_error(tmp_path, kind, nbytes):
    """Also an empty one, which is not a missing one."""
    stored = store_array(tmp_path, **KINDS[kind])
    first = stored.objects()[0]
    first.write_bytes(first.read_bytes()[:nbytes])
    found = loaded(stored)
    assert found[0] is None
    assert found[1:] == units(stored)[1:]


@pytest.mark.parametrize("kind", ["rows", "not compressed", "version 2"])
def test_object_with_something_behind_it_is_an_error(tmp_path, kind):
    """It is not what a codec has written."""
    stored = store_array(tmp_path, **KINDS[kind])
    first = stored.objects()[0]
    first.write_bytes(first.read_bytes() + b"more")
    assert loaded(stored)[0] is None


@pytest.mark.parametrize("kind", KINDS)
def test_missing_objects_are_the_fill_value(tmp_path, kind):
    """All of them, or one."""
    stored = store_array(tmp_path, **KINDS[kind])
    stored.objects()[0].unlink()
    found = loaded(stored)
    assert None not in found
    for path in stored.objects():
        path.unlink()
    assert b"".join(unit or b"x" for unit in loaded(stored)) == bytes(stored.geometry.nbytes)


@pytest.mark.parametrize("kind", ["rows", "shards", "shards of tiles", "index at the start"])
@pytest.mark.parametrize("cut", [True, False])
def test_object_that_is_mended_is_read_at_once(tmp_path, kind, cut):
    """By another file that takes its place, while the damaged one is still open here."""
    stored = store_array(tmp_path, **{**KINDS[kind], **CHECKED} if kind == "rows" else KINDS[kind])
    first = stored.objects()[0]
    good = first.read_bytes()
    workspace, source = Workspace(), stored.source()
    assert load(source, stored, 0, workspace) == stored.unit(0)
    place = len(good) // 3
    bad = good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
    first.write_bytes(good[:place] if cut else bad)
    damaged = []
    for unit in range(stored.geometry.n_units):
        try:
            assert load(source, stored, unit, workspace) == stored.unit(unit)
        except ChunkError:
            damaged.append(unit)
    assert damaged
    (tmp_path / "new").write_bytes(good)
    (tmp_path / "new").replace(first)
    for unit in damaged:
        assert load(source, stored, unit, workspace) == stored.unit(unit)
    source.close()
    workspace.close()


def test_store_that_is_gone_is_an_error_or_nothing_but_fill_values(tmp_path):
    """A directory that was removed holds no chunks; what a reader cannot see is not read."""
    stored = store_array(tmp_path / "store", **KINDS["rows"])
    shutil.rmtree(tmp_path / "store")
    assert set(loaded(stored)) <= {None, *(bytes(len(unit)) for unit in units(stored))}


def test_object_that_is_much_too_long_is_not_read(tmp_path):
    """A sparse file of a quarter of a terabyte does not fill the memory."""
    stored = store_array(tmp_path, **KINDS["rows"])
    os.truncate(stored.objects()[0], 1 << 38)
    assert loaded(stored)[0] is None


@pytest.mark.parametrize(
    "entry",
    [
        (0, 1 << 40),
        (1 << 62, 10),
        ((1 << 64) - 1, 10),
        (10, (1 << 64) - 1),
        ((1 << 64) - 8, 16),
        (0, 0),
        (1 << 20, 0),
    ],
    ids=str,
)
def test_index_that_points_elsewhere_is_an_error(tmp_path, entry):
    """With a checksum that is right: whoever wrote it meant harm, or had a bug."""
    stored = store_array(tmp_path, shape=(40,), chunks=(10,), shards=(40,), **CHECKED)
    (shard,) = stored.objects()
    data = shard.read_bytes()
    index = bytearray(data[-68:-4])
    struct.pack_into("<QQ", index, 16, *entry)
    shard.write_bytes(data[:-68] + index + struct.pack("<I", crc32c(index)))
    found = loaded(stored)
    assert found[1] is None
    assert all(a in (b, None) for a, b in zip(found, units(stored), strict=True))
