"""How files are written."""

from __future__ import annotations

import itertools
import os

from hypothesis import given
from hypothesis import strategies as st

from lazyarr.store import files

SIZES = st.one_of(st.integers(0, 9), st.sampled_from([1 << 18, (1 << 18) + 1, 600_000]))


@given(sizes=st.lists(SIZES, max_size=8))
def test_parts_are_written_one_after_the_other(tmp_path_factory, sizes):
    """In pieces that are neither long nor, where there are many small parts, as many."""
    parts = [bytes([number]) * size for number, size in enumerate(sizes)]
    path = tmp_path_factory.mktemp("parts") / "file"
    written, write = [], os.write
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        os.write = lambda fd, data: written.append(len(data)) or write(fd, data)
        files.write_parts(fd, parts)
    finally:
        os.write = write
        os.close(fd)
    assert path.read_bytes() == b"".join(parts)
    assert all(nbytes <= 1 << 18 for nbytes in written)
    assert all(a + b > 1 << 18 for a, b in itertools.pairwise(written))


def test_what_write_2_leaves_is_written_after_it(tmp_path, monkeypatch):
    """A signal, or a quota, may end it early."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:1000]))
    with open(tmp_path / "file", "wb") as file:
        files.write_parts(file.fileno(), [b"a" * 2500, bytearray(b"b" * 700)])
    assert (tmp_path / "file").read_bytes() == b"a" * 2500 + b"b" * 700
