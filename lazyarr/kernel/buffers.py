"""Addresses of Python's buffers, and buffers at addresses."""

from __future__ import annotations

import errno
import functools
import mmap
from typing import TYPE_CHECKING, Self

from lazyarr.kernel.mapping import PAGE_NBYTES
from lazyarr.kernel.refusal import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer

__all__ = ["ScratchBuffer", "buffer_address", "memory_view"]

# object.h: flags of PyMemoryView_FromMemory.
_PYBUF_READ, _PYBUF_WRITE = 0x100, 0x200

# Windows has no such flags: a map of no file is anonymous there.
_HAS_FLAGS = hasattr(mmap, "MAP_ANONYMOUS")
_ANONYMOUS = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if _HAS_FLAGS else {}


# Without a function of CPython's no address of a read-only buffer can be had:
# `ctypes.from_buffer` refuses those, and NumPy, which could tell, is not imported by a
# pager whose chunks are whole units.  The class is made on first use, for ctypes takes
# milliseconds to import.
@functools.cache
def _address_reader() -> Callable[[ReadableBuffer], int]:
    import ctypes

    class PyBuffer(ctypes.Structure):
        """Py_buffer, part of the stable ABI since CPython 3.11."""

        _fields_ = (
            ("buf", ctypes.c_void_p),
            ("obj", ctypes.c_void_p),
            ("len", ctypes.c_ssize_t),
            ("itemsize", ctypes.c_ssize_t),
            ("readonly", ctypes.c_int),
            ("ndim", ctypes.c_int),
            ("format", ctypes.c_char_p),
            ("shape", ctypes.c_void_p),
            ("strides", ctypes.c_void_p),
            ("suboffsets", ctypes.c_void_p),
            ("internal", ctypes.c_void_p),
        )

    api = ctypes.pythonapi

    def read(buffer: ReadableBuffer) -> int:
        view = PyBuffer()
        api.PyObject_GetBuffer(ctypes.py_object(buffer), ctypes.byref(view), 0)
        address = view.buf or 0
        # Released at once: a buffer that is held could not be resized, nor its memory
        # map closed.  That the address stays right is for the caller, who keeps the
        # buffer.
        api.PyBuffer_Release(ctypes.byref(view))
        return address

    return read


def buffer_address(buffer: ReadableBuffer) -> int:
    """Return where the first byte of a contiguous buffer lies, writable or not.

    It holds for as long as the caller keeps the buffer and does not resize it.

    Raises
    ------
    TypeError
        It is no buffer.
    BufferError
        It is not C-contiguous.

    Examples
    --------
    >>> data = bytearray(100)
    >>> buffer_address(memoryview(data)[40:]) - buffer_address(data)
    40
    """
    return _address_reader()(buffer)


def memory_view(address: int, nbytes: int, *, writable: bool) -> memoryview:
    """Return a view of memory at an address; the caller keeps it mapped meanwhile.

    Examples
    --------
    >>> data = bytearray(b"lazy")
    >>> bytes(memory_view(buffer_address(data), 4, writable=False))
    b'lazy'
    """
    import ctypes

    make = ctypes.pythonapi.PyMemoryView_FromMemory
    # A memoryview keeps nothing alive that lies at a bare address.  So one on a region
    # must not outlive the mapping: `Region.residency` is emptied before it is unmapped.
    make.restype = ctypes.py_object
    view = make(
        ctypes.c_void_p(address),
        ctypes.c_ssize_t(nbytes),
        _PYBUF_WRITE if writable else _PYBUF_READ,
    )
    assert isinstance(view, memoryview)
    return view


class ScratchBuffer:
    """Page-aligned memory to decode into, reused from chunk to chunk.

    Fresh memory for each chunk would cost a page fault for each of its pages.

    Parameters
    ----------
    nbytes : int
        How much at first; rounded up to whole pages.

    Attributes
    ----------
    view : memoryview
        The memory.
    address, nbytes : int
        Where it is, and how much, in bytes.
    asked_nbytes : int
        The most that `grow` was asked for since `shrink`.

    Notes
    -----
    For one thread at a time.  A view taken before `grow` keeps the old memory
    alive, and is not the new.

    Examples
    --------
    >>> with ScratchBuffer(10) as scratch:
    ...     scratch.view[:4] = b"lazy"
    ...     scratch.address % PAGE_NBYTES, len(scratch.view) == PAGE_NBYTES
    (0, True)
    """

    def __init__(self, nbytes: int) -> None:
        self.asked_nbytes = 0
        self._allocate(nbytes)

    def _allocate(self, nbytes: int) -> None:
        size = max(1, -(-nbytes // PAGE_NBYTES)) * PAGE_NBYTES
        # No reference to the map itself: the views keep it, and the last one ends it.
        try:
            self.view = memoryview(mmap.mmap(-1, size, **_ANONYMOUS))
        except (OSError, ValueError, OverflowError) as error:
            purpose = f"cannot have {size} bytes to decode into"
            raise refusal(f"{purpose}: {error}; store smaller chunks", errno.ENOMEM) from error
        self.address = buffer_address(self.view)
        self.nbytes = size

    def __repr__(self) -> str:
        return f"<ScratchBuffer {self.nbytes} bytes at {self.address:#x}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def grow(self, nbytes: int) -> None:
        """Have at least so many bytes; what was written is lost when it grows.

        Raises
        ------
        KernelError
            ENOMEM: there are not so many.
        """
        if nbytes > self.asked_nbytes:
            self.asked_nbytes = nbytes
            if nbytes > self.nbytes:
                self._allocate(nbytes)

    def shrink(self, least_nbytes: int) -> None:
        """Give back what was not asked for since the last call, if that is most of the memory.

        Parameters
        ----------
        least_nbytes : int
            So much is kept in any case.

        Examples
        --------
        >>> scratch = ScratchBuffer(64 * PAGE_NBYTES)
        >>> scratch.grow(PAGE_NBYTES)
        >>> scratch.shrink(2 * PAGE_NBYTES)
        >>> scratch.nbytes == 2 * PAGE_NBYTES
        True
        """
        needed_nbytes = max(self.asked_nbytes, least_nbytes)
        self.asked_nbytes = 0
        # Less would not be worth the page faults of fresh memory.
        if self.nbytes > 4 * needed_nbytes:
            self._allocate(needed_nbytes)

    def close(self) -> None:
        """Let go of the memory; it ends with the last view of it."""
        self.view = memoryview(b"")
        self.address = self.nbytes = 0
