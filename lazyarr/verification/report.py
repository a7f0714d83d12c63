"""The report of a verification."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from lazyarr.client.arrays.text import count, format_nbytes, printable
from lazyarr.store.base import METADATA_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lazyarr.errors import ChunkError

__all__ = ["Report", "Skipped", "Strays"]


_MEND_NAMES = "mend the separator or the encoding of chunk keys in its metadata, or remove them"
_CONSOLIDATE = "bring it up to date with zarr.consolidate_metadata"


class Skipped(NamedTuple):
    """An array that was not checked.

    Attributes
    ----------
    array : str
        Its path in the store.
    reason : str
        Why lazyarr cannot map it.
    """

    array: str
    reason: str


class Strays(NamedTuple):
    """Objects below an array whose keys are not those of any of its chunks.

    Attributes
    ----------
    array : str
        The array's path in the store.
    keys : tuple of str
        Some of the keys: those that look like chunks, or any where no chunk is stored.
    """

    array: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """What `verify` has found.

    Attributes
    ----------
    url : str
        The store, without credentials.
    arrays : int
        How many arrays were checked.
    chunks_checked : int
        How many stored chunks were read and decoded, the damaged ones included.
    chunks_missing : int
        How many chunks the store does not have: they hold the fill value, as Zarr
        says.
    stored_nbytes, decoded_nbytes : int
        Bytes of the intact chunks, as they are stored, and what they have of their arrays in
        memory: without what a chunk at the edge has beyond it.
    damaged : tuple of ChunkError
        One for each chunk that cannot be had, in the order of arrays and chunks.  One, of chunk
        ``()``, for each document of metadata that is no JSON, and for each array of which all
        chunks have one checksum together, and that is not right.
    skipped : tuple of Skipped
        The arrays that lazyarr cannot map, and so did not check.
    unguarded : tuple of str
        Paths of the checked arrays that carry no checksums: of their chunks nothing more
        is known than that they decode to the right length.
    strays : tuple of Strays
        Arrays below which there are objects whose keys are not those of chunks.  Where keys
        are encoded in another way than the metadata says, chunks look as if they were missing.
    stale : tuple of str
        Paths of nodes whose own documents differ from the consolidated metadata.  They were
        checked by their own documents.
    """

    url: str
    arrays: int
    chunks_checked: int
    chunks_missing: int
    stored_nbytes: int
    decoded_nbytes: int
    damaged: tuple[ChunkError, ...]
    skipped: tuple[Skipped, ...]
    unguarded: tuple[str, ...]
    strays: tuple[Strays, ...] = ()
    stale: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether chunks were checked, nothing is damaged, and no object has a wrong name.

        See `skipped` for what was not checked.
        """
        return bool(self.chunks_checked) and not self.damaged and not self.strays

    @property
    def _verdict(self) -> str:
        if self.damaged:
            return "DAMAGED"
        if self.strays:
            return "WRONG NAMES"
        return "ok" if self.ok else "NOTHING CHECKED"

    def __repr__(self) -> str:
        return (
            f"<Report: {len(self.damaged)} damaged of {count(self.chunks_checked, 'chunk')} in "
            f"{count(self.arrays, 'array')}, {len(self.skipped)} skipped, {self.url}>"
        )

    def __str__(self) -> str:
        """Return everything, a line for each damaged chunk and each skipped array."""
        lines = [
            f"{self._verdict}: {self.url}",
            f"  checked  {count(self.chunks_checked, 'chunk')} of {count(self.arrays, 'array')}, "
            f"{format_nbytes(self.stored_nbytes)} stored, "
            f"{format_nbytes(self.decoded_nbytes)} decoded",
            f"  missing  {count(self.chunks_missing, 'chunk')}, which hold the fill value",
            f"  damaged  {_count_damaged(self.damaged)}",
            *(f"    {printable(line)}" for line in _list_damaged(self.damaged)),
        ]
        for array, keys in self.strays:
            found = ", ".join(map(repr, keys[:3])) + (", ..." if len(keys) > 3 else "")
            line = f"  no chunk of {array or '/'!r} is named {found}; {_MEND_NAMES}"
            lines.append(printable(line))
        if self.stale:
            nodes = count(len(self.stale), "node")
            lines.append(f"  consolidated metadata is stale for {nodes}; {_CONSOLIDATE}")
            lines.extend(f"    {printable(path or '/')}" for path in self.stale)
        if self.skipped:
            lines.append(f"  skipped  {count(len(self.skipped), 'array')}, not checked")
        lines.extend(f"    {printable(f'{array!r}: {why}')}" for array, why in self.skipped)
        if self.unguarded:
            arrays = count(len(self.unguarded), "array")
            lines.append(f"  no checksums in {arrays}: damage that decodes is not noticed there")
            lines.extend(f"    {printable(array or '/')}" for array in self.unguarded)
        return "\n".join(lines)


def _count_damaged(damaged: Sequence[ChunkError]) -> str:
    n_documents = sum(map(_is_document, damaged))
    n_arrays = sum(not error.chunk for error in damaged) - n_documents
    counts = {"array": n_arrays, "document": n_documents}
    chunks = count(len(damaged) - n_arrays - n_documents, "chunk")
    return ", ".join([chunks, *(count(n, what) for what, n in counts.items() if n)])


def _is_document(error: ChunkError) -> bool:
    """Return whether an error is about metadata; the chunk of a 0-d array is ``()`` too."""
    return error.key.rpartition("/")[2] in METADATA_NAMES


def _list_damaged(damaged: Sequence[ChunkError]) -> Iterator[str]:
    """Yield a line for each damaged chunk, or for a run of them with the same cause."""
    for _, run in itertools.groupby(damaged, lambda e: (e.array, e.key, e.reason, e.byte_range)):
        errors = list(run)
        first, last = errors[0], errors[-1]
        what = f"chunk {first.chunk}" if first.chunk else "all"
        if _is_document(first):
            what = "metadata"
        if len(errors) > 1:
            what = f"{len(errors):,} chunks, {first.chunk} to {last.chunk},"
        place = first.key
        if first.byte_range is not None:
            place = f"bytes [{first.byte_range[0]}, {first.byte_range[1]}) of {place}"
        yield f"{what} of {first.array or '/'!r}, {place}: {first.reason}"
