"""Names exchanged in one step, and names that are not replaced."""

from __future__ import annotations

import pytest

from lazyarr.kernel import exchange_paths, rename_noreplace


def test_exchange_swaps_two_directories(tmp_path):
    """Each name has the other's content, and none was ever without."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which").write_text(name)
    exchange_paths(tmp_path / "old", str(tmp_path / "new"))
    assert (tmp_path / "old" / "which").read_text() == "new"
    assert (tmp_path / "new" / "which").read_text() == "old"


def test_exchange_needs_both(tmp_path):
    """FileNotFoundError, with both names."""
    (tmp_path / "old").mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        exchange_paths(tmp_path / "old", tmp_path / "new")
    assert caught.value.filename == str(tmp_path / "old")
    assert caught.value.filename2 == str(tmp_path / "new")


def test_rename_moves_where_the_name_is_free(tmp_path):
    """As os.rename does."""
    (tmp_path / "here").write_text("content")
    rename_noreplace(tmp_path / "here", tmp_path / "there")
    assert (tmp_path / "there").read_text() == "content"
    assert not (tmp_path / "here").exists()


def test_rename_does_not_replace(tmp_path):
    """FileExistsError, and both files are as they were."""
    (tmp_path / "here").write_text("mine")
    (tmp_path / "there").write_text("theirs")
    with pytest.raises(FileExistsError):
        rename_noreplace(tmp_path / "here", tmp_path / "there")
    assert (tmp_path / "here").read_text() == "mine"
    assert (tmp_path / "there").read_text() == "theirs"


def test_rename_does_not_replace_an_empty_directory(tmp_path):
    """Which os.rename would, without a word."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError):
        rename_noreplace(tmp_path / "here", tmp_path / "there")
