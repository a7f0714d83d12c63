"""Groups as mappings."""

from __future__ import annotations

import json

import numpy as np
import pytest

import lazyarr


@pytest.fixture
def group(tmp_path):
    """A group with an array, a group with one, and an array of variable length."""
    lazyarr.save(tmp_path / "g.zarr", {"a": np.arange(5), "s/b": np.ones((3, 4))})
    document = json.loads((tmp_path / "g.zarr/a/zarr.json").read_text())
    (tmp_path / "g.zarr/text").mkdir()
    document = {**document, "data_type": "string", "fill_value": ""}
    (tmp_path / "g.zarr/text/zarr.json").write_text(json.dumps(document))
    return lazyarr.open(tmp_path / "g.zarr", consolidated=False)


def test_a_name_is_in_a_group_without_being_opened(group):
    """What can not be mapped is there too; what is no str is not, as in any mapping."""
    assert [name in group for name in ("a", "s", "s/b", "text", "/a/")] == [True] * 5
    assert [name in group for name in ("b", "s/a", "a/b", 3, None, ("a", "s"))] == [False] * 6
    assert not group._opened


@pytest.mark.parametrize("name", [3, None, ("a", "s"), b"a"])
def test_a_name_is_a_str(group, name):
    """The error says so, for groups and for the path to open."""
    with pytest.raises(TypeError, match="named by str; found"):
        group[name]
    with pytest.raises(TypeError, match="named by str; found"):
        lazyarr.open(group.url, path=name or 3)


def test_options_are_a_mapping(group):
    """A str would be taken apart into letters."""
    with pytest.raises(TypeError, match="storage_options are a mapping"):
        lazyarr.open(group.url, storage_options="anon")


@pytest.mark.parametrize("kind", ["str", "bytes", "path"])
def test_a_path_of_any_kind_is_opened(group, tmp_path, kind):
    """As builtins.open takes them."""
    path = tmp_path / "g.zarr"
    url = {"str": str(path), "bytes": bytes(path), "path": path}[kind]
    assert sorted(lazyarr.open(url, consolidated=False)) == ["a", "s", "text"]
    with pytest.raises(TypeError, match="expected str, bytes"):
        lazyarr.open(3)
