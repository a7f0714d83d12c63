"""Objects on their way to the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lazyarr.committing.objects import assemble

if TYPE_CHECKING:
    from lazyarr.codecs import Buffer
    from lazyarr.layout import ShardLevel
    from lazyarr.writer.place import Place
    from lazyarr.writer.pump import Pump

__all__ = ["Outbox"]

_PUT_NBYTES = 1 << 12
"""What an object costs beside its content, so that not too many wait that have none."""


class Outbox:
    """Puts objects on several threads, and those of one key one after another.

    Parameters
    ----------
    place : Place
        Where they go.
    putting : Pump
        Threads that put them.

    Notes
    -----
    Belongs to one thread at a time.
    """

    def __init__(self, place: Place, putting: Pump) -> None:
        self._place = place
        self._putting = putting
        self._keys: set[str] = set()

    def __repr__(self) -> str:
        return f"<Outbox of {len(self._keys)} objects>"

    def put(
        self,
        key: str,
        chunks: Mapping[int, Buffer | None],
        level: ShardLevel | None,
        *,
        alignment_nbytes: int,
    ) -> None:
        """Have an object put; without any chunk, have it deleted.

        Parameters
        ----------
        key : str
            Its key, relative to the store.
        chunks : mapping of int to (bytes-like or None)
            Encoded chunks by their place in the index; None for all fill value.
        level : ShardLevel or None
            How the index is written; None where the object is a chunk.
        alignment_nbytes : int
            Where in the object chunks begin: at multiples of this.
        """
        self.wait_for(key)
        self._keys.add(key)
        stored = {entry: chunk for entry, chunk in chunks.items() if chunk is not None}
        nbytes = _PUT_NBYTES + sum(len(chunk) for chunk in stored.values())

        def job() -> None:
            if stored:
                self._place.put(key, assemble(stored, level, alignment_nbytes=alignment_nbytes))
            else:
                self._place.delete(key)

        self._putting.submit(job, lambda _: self._keys.discard(key), nbytes=nbytes)

    def wait_for(self, key: str) -> None:
        """Wait until an object is there that is on its way."""
        # Two changes of an object on two threads: the older one could come last.
        if key in self._keys:
            self.drain()

    def drain(self) -> None:
        """Wait until all objects are there."""
        self._putting.drain()
