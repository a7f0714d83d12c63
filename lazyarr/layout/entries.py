"""Tables of chunks: where each of them lies, in little memory, and as little text.

A table may have millions of chunks.  As tuples of Python's they would take 150 bytes each, here
16.  Only the standard library is used: the pager reads such a table, and may have no NumPy yet.
"""

from __future__ import annotations

import binascii
import operator
import zlib
from array import array
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from lazyarr.checks import as_object, as_string, shown
from lazyarr.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Entries", "Entry"]

Entry: TypeAlias = tuple[int, int, int] | tuple[int, int, int, int] | None
"""Where a chunk is, in a table; see `ChunkTable`."""

_MEMBERS = ("bounds", "numbers", "left_out", "stored")
# What an entry has of each: the type of the numbers, and how many.
_KINDS = {"bounds": ("q", 2), "numbers": ("I", 1), "left_out": ("Q", 1), "stored": ("B", 1)}


class Entries(Sequence[Entry]):
    """The entries of a table of chunks; equal to a tuple of the same ones.

    Parameters
    ----------
    bounds : array of int64
        Where each chunk begins and ends: two numbers for each.
    numbers : array of uint32, optional
        The number of each chunk's object; 0 for all without it.
    left_out : array of uint64, optional
        Which codecs each chunk did not go through; none for all without it.
    stored : array of uint8, optional
        0 for chunks that are not stored; all are without it.

    Examples
    --------
    >>> entries = Entries.of([(0, 100, 180), None])
    >>> entries[0], entries[1], len(entries)
    ((0, 100, 180), None, 2)
    >>> Entries.parse(entries.document(), 2) == ((0, 100, 180), None)
    True
    """

    __slots__ = ("_bounds", "_left_out", "_numbers", "_stored")

    def __init__(
        self,
        bounds: array[int],
        numbers: array[int] | None = None,
        left_out: array[int] | None = None,
        stored: array[int] | None = None,
    ) -> None:
        self._bounds = bounds
        # What says nothing is left out, so that equal entries are equal in all.
        self._numbers = numbers if numbers is not None and any(numbers) else None
        self._left_out = left_out if left_out is not None and any(left_out) else None
        self._stored = stored if stored is not None and not all(stored) else None

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Entries:
        """Return entries from what they are one by one."""
        if isinstance(entries, Entries):
            return entries
        bounds, numbers, left_out, stored = array("q"), array("I"), array("Q"), array("B")
        for entry in entries:
            number, start, stop, *rest = entry or (0, 0, 0)
            bounds.append(start)
            bounds.append(stop)
            numbers.append(number)
            left_out.append(rest[0] if rest else 0)
            stored.append(entry is not None)
        return cls(bounds, numbers, left_out, stored)

    @classmethod
    def none(cls, count: int) -> Entries:
        """Return the entries of so many chunks of which none is stored."""
        return cls(array("q", bytes(16 * count)), stored=array("B", bytes(count)))

    def __len__(self) -> int:
        return len(self._bounds) // 2

    @overload
    def __getitem__(self, index: int) -> Entry: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Entry, ...]: ...

    def __getitem__(self, index: int | slice) -> Entry | tuple[Entry, ...]:
        """Return an entry."""
        if isinstance(index, slice):
            return tuple(self[k] for k in range(*index.indices(len(self))))
        if not 0 <= index < len(self):
            if -len(self) <= index < 0:
                return self[index + len(self)]
            raise IndexError(f"entry {index} of {len(self)}")
        if self._stored is not None and not self._stored[index]:
            return None
        start, stop = self._bounds[2 * index : 2 * index + 2]
        number = 0 if self._numbers is None else self._numbers[index]
        if self._left_out is None or not self._left_out[index]:
            return number, start, stop
        return number, start, stop, self._left_out[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Entries):
            return self._columns() == other._columns()
        if isinstance(other, tuple):
            return len(self) == len(other) and all(map(operator.eq, self, other))
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self[:8]))  # enough to tell most tables apart

    def __repr__(self) -> str:
        return f"<Entries: {len(self)}>"

    def __reduce__(self) -> Any:
        """Pickle as little text as goes to the pager."""
        return Entries.parse, (self.document(), len(self))

    def _columns(self) -> tuple[array[int] | None, ...]:
        return self._bounds, self._numbers, self._left_out, self._stored

    @property
    def is_any_stored(self) -> bool:
        """Whether any chunk is stored."""
        return len(self) > 0 if self._stored is None else any(self._stored)

    def with_codec_before(self) -> Entries:
        """Return the entries for a pipeline that begins with one more codec, for all chunks."""
        if self._left_out is None:
            return self
        shifted = array("Q", (bits << 1 for bits in self._left_out))
        return Entries(self._bounds, self._numbers, shifted, self._stored)

    def check(self, n_objects: int, most_left_out: int) -> None:
        """Raise FormatError unless each entry can be one of a table.

        Parameters
        ----------
        n_objects : int
            How many objects the table has.
        most_left_out : int
            The bits of all codecs.
        """
        starts, stops = self._bounds[::2], self._bounds[1::2]
        if len(self) and (min(starts) < 0 or any(map(operator.gt, starts, stops))):
            raise FormatError("an entry of placement begins before its object, or behind its end")
        last = 0 if self._numbers is None else max(self._numbers)
        if self.is_any_stored and last >= n_objects:
            raise FormatError(f"an entry of placement has the object {last} of {n_objects}")
        if self._left_out is not None and max(self._left_out) > most_left_out:
            raise FormatError(
                f"an entry of placement has left out {max(self._left_out):#x}; it has the codecs"
                f" {most_left_out:#x}"
            )

    def document(self) -> dict[str, str | None]:
        """Return the entries as an object that JSON can hold; equal ones give equal objects."""
        # Chunks often follow one another, so where each begins is counted from the last one's end.
        steps = map(operator.sub, self._bounds, chain((0,), self._bounds))
        columns = (array("q", steps), *self._columns()[1:])
        return {
            name: None if column is None else _packed(column, len(self))
            for name, column in zip(_MEMBERS, columns, strict=True)
        }

    @classmethod
    def parse(cls, document: object, count: int) -> Entries:
        """Return the entries that `document` has described.

        Parameters
        ----------
        document : object
            It is untrusted.
        count : int
            How many there must be.

        Raises
        ------
        FormatError
            It describes no entries, or another number of them.
        """
        members = as_object(document, "entries of placement")
        if members.keys() != set(_MEMBERS):
            raise FormatError(
                f"entries of placement have the members {shown(sorted(members))}, expected"
                f" {_MEMBERS}"
            )
        columns = {
            name: _unpacked(members[name], name, count)
            for name in _MEMBERS
            if members[name] is not None or name == "bounds"
        }
        try:
            bounds = array("q", accumulate(columns.pop("bounds")))
        except OverflowError as error:
            raise FormatError("an entry of placement goes on behind byte 2**63") from error
        return cls(bounds, **columns)


def _packed(column: array[int], count: int) -> str:
    """Return what entries have of something as text, compressed."""
    # The first bytes of all, then the second ones.  Most of these are zeros, and the others can
    # hardly be compressed: so zlib is told to look for runs alone, which takes half the time.
    data = column.tobytes()
    size = len(data) // max(1, count)
    stream = zlib.compressobj(1, strategy=zlib.Z_RLE)
    planes = [stream.compress(data[k::size]) for k in range(size)]
    return binascii.b2a_base64(b"".join((*planes, stream.flush())), newline=False).decode()


def _unpacked(value: object, name: str, count: int) -> array[int]:
    """Return what so many entries have of something; take no more memory than that needs."""
    what = f"{name} of entries of placement"
    typecode, per_entry = _KINDS[name]
    column = array(typecode)
    size = per_entry * column.itemsize
    nbytes = count * size
    stream = zlib.decompressobj()
    try:
        data = binascii.a2b_base64(as_string(value, what), strict_mode=True)
        planes = stream.decompress(data, nbytes + 1)
    except (ValueError, zlib.error) as error:
        raise FormatError(f"{what} cannot be unpacked: {error}") from error
    if len(planes) != nbytes or not stream.eof:
        raise FormatError(f"{what} have {len(planes)} bytes, expected {nbytes}")
    found = bytearray(nbytes)
    for k in range(size):
        found[k::size] = planes[k * count : (k + 1) * count]
    column.frombytes(found)
    return column
