"""Strings of fixed size that end otherwise than NumPy's: at the first zero, or with spaces."""

from __future__ import annotations

from typing import Any

from lazyarr.checks import MAX_NBYTES, as_integer, as_list, shown
from lazyarr.codecs.base import Buffer, BytesCodec, as_view, check_length
from lazyarr.codecs.errors import DamagedChunkError
from lazyarr.errors import FormatError
from lazyarr.values import Value

__all__ = ["Strings"]

_MAX_FIELDS = 2**14


class Strings(Value, BytesCodec):
    """Strings in elements, as NumPy has them where they are decoded: filled up with zeros.

    HDF5 has strings that end at the first zero, behind which its writers may leave anything, and
    such that are filled up with spaces.  NumPy would take both for content.

    Parameters
    ----------
    elementsize : int
        Size of an element in bytes.
    fields : tuple of (int, int, bool)
        For each string in it: where it begins, how many bytes it has, and whether it is filled up
        with spaces; else it ends at its first zero.
    """

    name = "strings"

    elementsize: int
    fields: tuple[tuple[int, int, bool], ...]

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Strings:
        """Return the codec with some parameters, each of them checked."""
        what = "elementsize of codec 'strings'"
        size = as_integer(parameters["elementsize"], what, minimum=1, maximum=MAX_NBYTES)
        fields = as_list(parameters["fields"], "fields of codec 'strings'")
        if len(fields) > _MAX_FIELDS:
            raise FormatError(
                f"fields of codec 'strings' are {len(fields)}; it has up to {_MAX_FIELDS}"
            )
        return cls(size, tuple(_checked_field(field, size) for field in fields))

    def parameters(self) -> dict[str, Any]:
        """Return the parameters as values that JSON can hold."""
        return super().parameters() | {"fields": [list(field) for field in self.fields]}

    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return the elements with zeros behind each string."""
        check_length(self.name, len(as_view(data)), limit_nbytes)
        out = bytearray(len(as_view(data)))
        self.decode_into(data, memoryview(out))
        return out

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill `out` with the elements, with zeros behind each string."""
        import numpy as np

        view = as_view(data)
        if len(view) != len(out) or len(view) % self.elementsize:
            raise DamagedChunkError(
                f"chunk expected to have {len(out)} bytes, of elements of {self.elementsize},"
                f" found {len(view)}"
            )
        out[:] = view
        rows = np.frombuffer(out, "u1").reshape(-1, self.elementsize)
        for start, nbytes, is_spaces in self.fields:
            text = rows[:, start : start + nbytes]
            if is_spaces:
                # What is before the last character that is no space, seen from the end.
                is_text = np.logical_or.accumulate(text[:, ::-1] != ord(" "), axis=1)[:, ::-1]
            else:
                is_text = np.logical_and.accumulate(text != 0, axis=1)
            text *= is_text

    def encode(self, data: Buffer) -> Buffer:
        """Return the elements with spaces behind strings that end with them."""
        import numpy as np

        out = bytearray(data)
        rows = np.frombuffer(out, "u1").reshape(-1, self.elementsize)
        for start, nbytes, is_spaces in self.fields:
            text = rows[:, start : start + nbytes]
            if is_spaces:
                is_text = np.logical_or.accumulate(text[:, ::-1] != 0, axis=1)[:, ::-1]
                text[~is_text] = ord(" ")
        return out


def _checked_field(value: object, size: int) -> tuple[int, int, bool]:
    field = as_list(value, "a field of codec 'strings'")
    if len(field) != 3 or not isinstance(field[2], bool):
        raise FormatError(
            f"a field of codec 'strings' is {shown(field)}; it must be [start, nbytes, is_spaces]"
        )
    start = as_integer(field[0], "the start of a field of codec 'strings'", maximum=size - 1)
    what = "the size of a field of codec 'strings'"
    return start, as_integer(field[1], what, minimum=1, maximum=size - start), field[2]
