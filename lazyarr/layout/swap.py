"""Swapping the bytes of elements from the stored byte order to the machine's, in place."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lazyarr.values import Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lazyarr.layout.datatype import DataType

__all__ = ["Swap", "find_swap"]

_NATIVE = "<" if sys.byteorder == "little" else ">"
# Kinds of elements that consist of several numbers: two, and one for each character.
_COMPLEX = "c"
_TEXT = "U"


class Swap(Value):
    """Swaps the bytes of elements.

    Attributes
    ----------
    stored, native : DataType
        The data type as stored, and with the machine's byte order.
    """

    stored: DataType
    native: DataType

    @property
    def _number_nbytes(self) -> int:
        """Size in bytes of the numbers of which an element consists; 0 for structs."""
        if self.stored.fields:
            return 0
        if self.stored.kind == _TEXT:
            return 4
        return self.stored.itemsize // (2 if self.stored.kind == _COMPLEX else 1)

    def apply(self, data: memoryview) -> None:
        """Swap the bytes of whole elements, in place.

        Examples
        --------
        >>> from lazyarr.layout import DataType
        >>> data = bytearray(b"lazy")
        >>> Swap(DataType("int16", 2, ">i2"), DataType("int16", 2, "<i2")).apply(memoryview(data))
        >>> data
        bytearray(b'alyz')
        """
        if not data:
            return
        # Imported here: a process that opens no such array does not need NumPy for this.
        import numpy

        nbytes = self._number_nbytes
        if nbytes:
            numpy.frombuffer(data, f"u{nbytes}").byteswap(inplace=True)
        else:
            # Both arrays are the same memory: NumPy notices that, and assigns from a copy.
            native = numpy.frombuffer(data, self.native.to_numpy())
            native[...] = numpy.frombuffer(data, self.stored.to_numpy())

    def apply_to(self, element: bytes) -> bytes:
        """Return one element with its bytes swapped."""
        turned = bytearray(element)
        self.apply(memoryview(turned))
        return bytes(turned)

    def follow(self, parts: Iterator[int], out: memoryview, first: int) -> Iterator[int]:
        """Swap the bytes of a chunk while it is decoded in parts; yield how far that has come.

        Parameters
        ----------
        parts : iterator of int
            Decodes one part at each step, and yields up to which byte of `out` all bytes from
            `first` on are decoded.
        out : memoryview
            The buffer to which the chunk is decoded.
        first : int
            The byte of `out` at which the first part begins.  The bytes before it are decoded
            when the iterator ends.
        """
        itemsize = self.stored.itemsize
        if first % itemsize:
            # An element lies across `first`: it is complete only at the end.
            for _ in parts:
                pass
            self.apply(out)
            return
        done = first
        for nbytes in parts:
            whole = nbytes - nbytes % itemsize
            self.apply(out[done:whole])
            done = whole
            yield done
        self.apply(out[done:])
        self.apply(out[:first])


def find_swap(stored: DataType) -> Swap | None:
    """Return the swap from a stored data type to the machine's byte order; None if none is due."""
    native = stored.with_byte_order(_NATIVE) if stored.byte_order != "|" else stored
    return None if native == stored else Swap(stored, native)
