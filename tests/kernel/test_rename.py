"""Names exchanged in one step."""

from __future__ import annotations

import os

import pytest

from lazyarr.kernel import exchange_paths


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


def test_names_are_relative_to_open_directories(tmp_path):
    """Wherever those have gone meanwhile."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    (tmp_path / "first/a").write_text("one")
    (tmp_path / "second/b").write_text("two")
    fds = [os.open(tmp_path / name, os.O_RDONLY) for name in ("first", "second")]
    (tmp_path / "second").rename(tmp_path / "moved")
    exchange_paths("a", "b", src_dir_fd=fds[0], dst_dir_fd=fds[1])
    for fd in fds:
        os.close(fd)
    assert (tmp_path / "moved/b").read_text() == "one"
    assert (tmp_path / "first/a").read_text() == "two"
