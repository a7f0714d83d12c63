"""What every codec from bytes to bytes does, and the bytes that go through it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

from lazyarr.codecs.errors import DamagedChunkError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Buffer", "BytesCodec", "as_view", "check_length", "copy_into"]

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Contiguous bytes; a memoryview may be over anything, mapped memory included."""


def as_view(data: Buffer) -> memoryview:
    """Return contiguous bytes as a memoryview whose length is in bytes, without a copy.

    Raises
    ------
    TypeError
        The memory is not contiguous.

    Examples
    --------
    >>> len(as_view(b"abcd"))
    4
    """
    view = memoryview(data)
    if view.format != "B" or view.ndim != 1:
        view = view.cast("B")
    return view


class BytesCodec(ABC):
    """A codec from bytes to bytes.  All are safe to use from several threads at once.

    Each class is a `Value` too, by ``class C(Value, BytesCodec)`` in this order; its fields are
    the parameters of the codec.

    Attributes
    ----------
    name : str
        What `lazyarr.codecs.registry` calls the codec.

    Notes
    -----
    What is decoded comes from a store, so it is untrusted:

    - Whatever the bytes are, decoding ends in content or in `DamagedChunkError`.  An error of the
      codec's library is turned into one.
    - No more memory is taken than the limit allows, whatever length the bytes claim.  Only
      `Numcodec`, which runs the code of others, finds most lengths out afterwards.

    The library is imported inside of the methods: most processes meet two codecs, and a
    library costs start-up time.
    """

    __slots__ = ()

    name: ClassVar[str]
    _fields: ClassVar[tuple[str, ...]]

    @classmethod
    def parameter_names(cls) -> tuple[str, ...]:
        """Return the names of the parameters of the codec."""
        return cls._fields

    def parameters(self) -> dict[str, Any]:
        """Return the parameters as values that JSON can hold; `from_parameters` takes them."""
        return {name: getattr(self, name) for name in self._fields}

    @classmethod
    @abstractmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Self:
        """Return the codec with some parameters, each of them checked.

        Parameters
        ----------
        parameters : dict
            All parameters, by name.  They come from a document, so they are untrusted.

        Raises
        ------
        FormatError
            One of them is of the wrong type or out of its range.
        """

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

        Called only where a checksum of the same chunk has been checked (`Pipeline.checks_first`):
        what is yielded may be used at once, and damage that shows at the end comes too late.

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
