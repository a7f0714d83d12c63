"""Addresses of buffers, and buffers at addresses."""

from __future__ import annotations

import ctypes
import mmap

import pytest

from lazyarr.kernel import PAGE_NBYTES, ScratchBuffer, buffer_address, memory_view


@pytest.mark.parametrize(
    "buffer",
    [b"lazy", bytearray(b"lazy"), memoryview(b"lazy"), memoryview(b"..lazy")[2:]],
    ids=["bytes", "bytearray", "memoryview", "slice"],
)
def test_address_is_where_the_bytes_are(buffer):
    """Read-only or not."""
    assert ctypes.string_at(buffer_address(buffer), 4) == b"lazy"


def test_address_of_a_map_and_of_an_array():
    """Buffers that are no Python bytes have one too."""
    with mmap.mmap(-1, PAGE_NBYTES) as pages:
        pages[:4] = b"lazy"
        assert ctypes.string_at(buffer_address(pages), 4) == b"lazy"
        assert buffer_address(pages) % PAGE_NBYTES == 0
    array = (ctypes.c_int * 3)()
    assert buffer_address(array) == ctypes.addressof(array)


def test_address_does_not_pin_its_buffer():
    """The buffer can be resized afterwards."""
    data = bytearray(b"lazy")
    buffer_address(data)
    data.extend(b"arr")
    assert data == b"lazyarr"


def test_what_is_no_contiguous_buffer_has_no_address():
    """Neither a number nor every other byte."""
    with pytest.raises(TypeError):
        buffer_address(5)
    with pytest.raises(BufferError):
        buffer_address(memoryview(b"l.a.z.y.")[::2])


def test_view_reads_and_writes_in_place():
    """No copy is made."""
    data = bytearray(b"lazy")
    view = memory_view(buffer_address(data), 4, writable=True)
    view[0] = ord("h")
    assert data == b"hazy"
    assert (view.format, view.nbytes, view.readonly) == ("B", 4, False)


def test_read_only_view_refuses_writing():
    """Python refuses, before the kernel must."""
    data = bytearray(b"lazy")
    view = memory_view(buffer_address(data), 4, writable=False)
    with pytest.raises(TypeError):
        view[0] = 0
    assert data == b"lazy"


def test_scratch_grows_and_old_views_stay_valid():
    """It never shrinks, and a view from before is another memory."""
    with ScratchBuffer(1) as scratch:
        old = scratch.view
        old[:4] = b"lazy"
        address = scratch.address
        scratch.grow(PAGE_NBYTES)
        assert scratch.address == address
        scratch.grow(3 * PAGE_NBYTES + 1)
        assert scratch.nbytes == 4 * PAGE_NBYTES
        assert scratch.address % PAGE_NBYTES == 0
        scratch.view[-1] = 1
        assert bytes(old[:4]) == b"lazy"
        assert f"{scratch.address:#x}" in repr(scratch)


def test_closed_scratch_lets_go_of_its_memory():
    """Nothing is left to write into."""
    scratch = ScratchBuffer(PAGE_NBYTES)
    scratch.close()
    assert (scratch.nbytes, scratch.address) == (0, 0)
