"""Objects that are still being put together: shards, or chunks that are objects of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy

if TYPE_CHECKING:
    from lazyarr.committing.objects import StoredObject

__all__ = ["OpenObject"]


class OpenObject:
    """An object of which some chunks are known and others still to come.

    Attributes
    ----------
    key : str
        Its key, relative to the store.
    n_chunks : int
        How many of its chunks lie in the array, and so will come.
    encoded : dict
        By their place in the index, chunks that are done; None for all fill value.
    dense : dict
        Chunks of which only some elements have come.
    n_encoding : dict
        How many jobs are encoding each chunk now.
    stored : StoredObject or None
        What the store has, once it was asked.
    """

    __slots__ = ("dense", "encoded", "is_stored_known", "key", "n_chunks", "n_encoding", "stored")

    def __init__(self, key: str) -> None:
        self.key = key
        self.n_chunks = 0
        self.encoded: dict[int, bytes | None] = {}
        self.dense: dict[int, numpy.ndarray[Any, Any]] = {}
        self.n_encoding: dict[int, int] = {}
        self.stored: StoredObject | None = None
        self.is_stored_known = False

    def __repr__(self) -> str:
        return (
            f"<OpenObject {self.key!r}: {len(self.encoded)} of {self.n_chunks} chunks encoded, "
            f"{len(self.dense)} in part>"
        )

    @property
    def is_complete(self) -> bool:
        """Whether every chunk has come, so that what the store has does not matter."""
        return not self.n_encoding and not self.dense and len(self.encoded) == self.n_chunks

    @property
    def nbytes(self) -> int:
        """How much memory it holds, in bytes."""
        encoded = sum(len(chunk) for chunk in self.encoded.values() if chunk is not None)
        stored = 0 if self.stored is None else self.stored.nbytes
        return encoded + stored + sum(chunk.nbytes for chunk in self.dense.values())

    def begin_encoding(self, entry: int) -> None:
        """Take note that a chunk is being encoded, which ends what was known of it."""
        self.dense.pop(entry, None)
        self.n_encoding[entry] = self.n_encoding.get(entry, 0) + 1

    def begin_patching(self, entry: int, chunk: numpy.ndarray[Any, Any]) -> None:
        """Take a decoded chunk, of which elements are about to be replaced."""
        self.encoded.pop(entry, None)
        self.dense[entry] = chunk

    def finish_encoding(self, entry: int, chunk: bytes | None) -> None:
        """Take a chunk that was encoded."""
        self.encoded[entry] = chunk
        self.n_encoding[entry] -= 1
        if not self.n_encoding[entry]:
            del self.n_encoding[entry]
