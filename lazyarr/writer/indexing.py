"""Which box an index means.  Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from lazyarr.units import Span
from lazyarr.writer.boxes import Box

__all__ = ["Selection", "parse_index"]


class Selection(NamedTuple):
    """A box of elements, and how NumPy would show it.

    Attributes
    ----------
    box : Box
        The elements.
    dropped : tuple of int
        Axes that an integer picked one place of: the result does not have them.
    """

    box: Box
    dropped: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the selected elements, as NumPy would give it."""
        return tuple(s.size for axis, s in enumerate(self.box) if axis not in self.dropped)


def parse_index(index: Any, shape: tuple[int, ...]) -> Selection:
    """Return what an index selects from an array of some shape.

    Parameters
    ----------
    index : object
        Integers, slices without a step, one Ellipsis, or a tuple of them.
    shape : tuple of int
        The array's.

    Raises
    ------
    IndexError
        It is something else, selects along more axes than there are, or lies outside.

    Examples
    --------
    >>> parse_index((slice(2, 5), -1), (10, 4)).shape
    (3,)
    """
    parts = _expanded(index if isinstance(index, tuple) else (index,), shape)
    spans = []
    for axis, (part, length) in enumerate(zip(parts, shape, strict=True)):
        if isinstance(part, slice):
            spans.append(_parse_slice(part, length, axis))
        else:
            spans.append(_parse_integer(part, length, axis))
    dropped = tuple(axis for axis, part in enumerate(parts) if not isinstance(part, slice))
    return Selection(tuple(spans), dropped)


def _expanded(parts: tuple[Any, ...], shape: tuple[int, ...]) -> list[Any]:
    at = [i for i, part in enumerate(parts) if part is Ellipsis]
    n_given = len(parts) - len(at)
    if len(at) > 1 or n_given > len(shape):
        n_axes = "one axis" if len(shape) == 1 else f"{len(shape) or 'no'} axes"
        raise IndexError(
            f"index {parts!r:.80} is for more than the array has: {n_axes}; give at most one part "
            "for each"
        )
    missing = [slice(None)] * (len(shape) - n_given)
    position = at[0] if at else len(parts)
    return [*parts[:position], *missing, *parts[position + 1 :]]


def _parse_slice(part: slice, length: int, axis: int) -> Span:
    if part.step not in (None, 1):
        raise IndexError(
            f"cannot write with a step of {part.step} along axis {axis}; write contiguous ranges"
        )
    start, stop, _ = part.indices(length)
    return Span(start, max(start, stop))


def _parse_integer(part: Any, length: int, axis: int) -> Span:
    try:
        if isinstance(part, bool):
            raise TypeError
        place = part.__index__()
    except (AttributeError, TypeError):
        raise IndexError(
            f"cannot write with an index of type {type(part).__name__} along axis {axis}; "
            "write integers and contiguous ranges"
        ) from None
    if not -length <= place < length:
        raise IndexError(f"index {place} is out of bounds for axis {axis} of length {length}")
    place %= length
    return Span(place, place + 1)
