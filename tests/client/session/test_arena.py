"""Pieces of a memory object."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from lazyarr.client.session.arena import Arena
from lazyarr.errors import KernelError, PagerError
from lazyarr.kernel import PAGE_NBYTES, map_shared, memory_view, unmap


def refuse(*_: int) -> None:
    """Refuse as the kernel does where a file may not be as large ('ulimit -f')."""
    raise KernelError("File too large", errno=errno.EFBIG)


@pytest.fixture
def arena() -> Iterator[Arena]:
    """An arena of which nothing was handed out."""
    made = Arena("example")
    yield made
    made.close()


def test_pieces_are_whole_pages_and_lie_one_after_the_other(arena):
    """A byte more than a page is two of them."""
    sizes = (1, PAGE_NBYTES, PAGE_NBYTES + 1, 3)
    assert [arena.hand_out(nbytes) // PAGE_NBYTES for nbytes in sizes] == [0, 1, 2, 4]
    assert os.fstat(arena.memfd).st_size == 5 * PAGE_NBYTES


def test_pieces_take_no_memory(arena):
    """They are holes, until somebody fills them."""
    arena.hand_out(1 << 40)
    status = os.fstat(arena.memfd)
    assert (status.st_size, status.st_blocks) == (1 << 40, 0)


def test_what_was_handed_out_keeps_its_bytes(arena):
    """The object grows in place."""
    first = arena.hand_out(PAGE_NBYTES)
    os.pwrite(arena.memfd, b"first", first)
    arena.hand_out(PAGE_NBYTES)
    assert os.pread(arena.memfd, 5, first) == b"first"


def test_a_piece_that_cannot_be_had_uses_no_offsets_up(arena, monkeypatch):
    """The next one lies where it would have lain."""
    arena.hand_out(PAGE_NBYTES)
    with monkeypatch.context() as full:
        full.setattr("lazyarr.client.session.arena.resize_memfd", refuse)
        with pytest.raises(KernelError, match="File too large"):
            arena.hand_out(PAGE_NBYTES)
    assert arena.hand_out(1) == PAGE_NBYTES


def test_a_file_that_has_the_number_by_now_is_left_alone(arena, tmp_path):
    """A program that becomes a daemon closes everything, and opens files of its own."""
    with open(tmp_path / "log", "w+b") as file:
        file.write(b"a line of the user's")
        file.flush()
        descriptor = arena.memfd
        os.dup2(file.fileno(), descriptor)
        assert not arena.is_own()
        with pytest.raises(PagerError, match="closed lazyarr's descriptors"):
            arena.hand_out(1)
        assert (tmp_path / "log").read_bytes() == b"a line of the user's"
        arena.close()
        os.close(descriptor)  # it was left open


def test_what_is_mapped_outlives_the_descriptor(arena):
    """Arrays are read after their session has ended."""
    offset = arena.hand_out(PAGE_NBYTES)
    os.pwrite(arena.memfd, b"kept", offset)
    address = map_shared(arena.memfd, offset, PAGE_NBYTES, writable=False)
    arena.close()
    assert (arena.memfd, arena.is_own()) == (-1, False)
    view = memory_view(address, 4, writable=False)
    assert bytes(view) == b"kept"
    view.release()
    unmap(address, PAGE_NBYTES)
