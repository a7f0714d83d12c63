"""What every codec from bytes to bytes does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from lazyarr.format.buffers import Buffer, as_view
from lazyarr.format.errors import DamagedChunkError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BytesCodec", "check_length", "copy_into"]


class BytesCodec(ABC):
    """A codec from bytes to bytes.  All are safe to use from several threads at once."""

    __slots__ = ()

    @abstractmethod
    def decode(self, data: Buffer, limit_nbytes: int) -> Buffer:
        """Return what `encode` was given.

        Parameters
        ----------
        data : bytes-like
            What `encode` returned.
        limit_nbytes : int
            How long the result may be.

        Raises
        ------
        DamagedChunkError
            The data is damaged, or decodes to more than the limit.
        """

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill `out` with what `encode` was given, which must be just as long."""
        copy_into(self.decode(data, len(out)), out)

    def decode_in_parts(self, data: Buffer, out: memoryview, first: int) -> Iterator[int]:  # noqa: ARG002
        """Fill `out` as `decode_into` does; those that can, yield now and then how far it is.

        Parameters
        ----------
        data, out
            As for `decode_into`.
        first : int
            From which byte on it is wanted: what lies before may come last.

        Yields
        ------
        int
            All bytes from `first` up to this one are there, as far as the data can be believed.
        """
        self.decode_into(data, out)
        return iter(())

    @abstractmethod
    def encode(self, data: Buffer) -> Buffer:
        """Return what is stored of some bytes."""


def copy_into(data: Buffer, out: memoryview) -> None:
    """Copy bytes into memory that they must fill.

    Raises
    ------
    DamagedChunkError
        They are more or less than fit.
    """
    view = as_view(data)
    if len(view) != len(out):
        raise DamagedChunkError(f"chunk expected to have {len(out)} bytes, found {len(view)}")
    out[:] = view


def check_length(name: str, found_nbytes: int, limit_nbytes: int) -> None:
    """Refuse content that is longer than it may be.

    Raises
    ------
    DamagedChunkError
        It is longer.
    """
    if found_nbytes > limit_nbytes:
        raise DamagedChunkError(
            f"{name} content expected to have up to {limit_nbytes} bytes, found {found_nbytes}"
            " or more"
        )
