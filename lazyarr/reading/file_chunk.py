"""From a place in an open file to a decoded chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from lazyarr.layout.pipeline import Pipeline
    from lazyarr.reading.workspace import Workspace
    from lazyarr.store import OpenFile

__all__ = ["FileChunkReader", "Progress"]


class Progress(Protocol):
    """Whoever uses a chunk while it is decoded."""

    @property
    def first(self) -> int:
        """From which byte on it is wanted."""
        ...

    def advance(self, nbytes: int, /) -> None:
        """Hear that all is decoded from `first` up to a byte, and certainly right."""
        ...


class FileChunkReader:
    """Reads and decodes the chunks of one array that need nothing but that.

    Parameters
    ----------
    pipeline : Pipeline
        How they are decoded.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._chunk_nbytes = pipeline.chunk_nbytes
        self._limit_nbytes = pipeline.limit_nbytes
        self._is_plain = pipeline.is_plain
        self._checks_first = pipeline.checks_first

    def __repr__(self) -> str:
        return f"<FileChunkReader: {self._chunk_nbytes} bytes>"

    def load(
        self,
        file: OpenFile,
        start: int,
        nbytes: int,
        workspace: Workspace,
        *,
        may_wait: bool,
        progress: Progress | None = None,
    ) -> bool:
        """Decode a chunk into ``workspace.unit``; return whether that was done.

        `progress` is told how much is decoded, where that is right before all of it is.
        """
        # Asked before they are grown, which they seldom are: each fault comes this way.
        if workspace.unit.nbytes < self._chunk_nbytes:
            workspace.unit.grow(self._chunk_nbytes)
        out = workspace.unit.view[: self._chunk_nbytes]
        if self._is_plain:
            return nbytes == len(out) and file.read(out, start, may_wait=may_wait)
        if nbytes > self._limit_nbytes:
            return False
        if workspace.encoded.nbytes < nbytes:
            workspace.encoded.grow(nbytes)
        encoded = workspace.encoded.view[:nbytes]
        if not file.read(encoded, start, may_wait=may_wait):
            return False
        try:
            if progress is None or not self._checks_first:
                self._pipeline.decode(encoded, out)
            else:
                parts = self._pipeline.decode_in_parts(encoded, out, progress.first)
                for decoded_nbytes in parts:
                    progress.advance(decoded_nbytes)
        except Exception:  # noqa: BLE001 - the long way comes upon it again, and tells
            return False
        return True
