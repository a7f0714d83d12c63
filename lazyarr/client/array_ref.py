"""Which array of which store an array in memory is, and how it is opened once more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazyarr import settings
from lazyarr.errors import FormatError
from lazyarr.reading.units import geometry_of
from lazyarr.values import Value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol, TypeAlias

    import numpy as np

    from lazyarr.formats.base import ArrayDescription
    from lazyarr.layout.geometry import Geometry
    from lazyarr.store import RetryingStore

    # For types alone: opening must not wait for protocols to be made.
    class StoreHolder(Protocol):
        """Keeps a store open for as long as it lives: what has the nodes of the store."""

        @property
        def store(self) -> RetryingStore:
            """The store."""
            ...

    class CopyingView(Protocol):
        """A view of an array as the engine that copies has it."""

        def __getitem__(self, key: Any) -> Any:
            """Return what an index picks, read chunk by chunk."""
            ...

        def read_once(self) -> np.ndarray[Any, Any]:
            """Return all of it as a new array, and keep nothing of what was loaded for that."""
            ...

    CopyingViews: TypeAlias = Callable[
        [int, np.dtype[Any], tuple[int, ...], tuple[int, ...]], CopyingView
    ]
    """Makes views of an array: from its first byte, data type, shape and strides in memory."""

__all__ = ["ArrayRef", "Reopening", "enter_reopening", "reopening"]


class ArrayRef(Value):
    """Which array of which store, and how it was opened.

    Attributes
    ----------
    store_url : str
        The store, or the file of other formats, without credentials.
    url : str
        What another process opens to reach the same store.
    storage_options : mapping or None
        As the user gave them.
    metadata : ArrayDescription
        What the array says of itself.
    mode : str
        ``"r"``, ``"c"`` or ``"r+"``.
    memory : str or None
        The kind of memory that the user asked for.
    byteorder : str
        ``"native"`` or ``"stored"``; the metadata is in that order already.
    format : str or None
        What the URL means, where its name does not tell.
    origin : str
        Which pages of another pager a reference meant for which it was opened, if any.
    writing : object
        The right to write to the store, in mode ``"r+"`` (`opening.writing.Writing`): it is held
        for as long as this lives.
    """

    store_url: str
    url: str
    storage_options: Mapping[str, Any] | None
    metadata: ArrayDescription
    mode: str
    memory: str | None
    byteorder: str
    format: str | None
    origin: str = ""
    writing: Any = None

    def __deepcopy__(self, _: Any) -> ArrayRef:
        """Return itself: it is frozen, and storage options may hold what cannot be copied."""
        return self

    @property
    def wants_private(self) -> bool:
        """Whether memory of this process alone is asked for; mapping it chooses the kind."""
        return self.mode == "c" or self.memory == "private"

    def about(self) -> dict[str, Any]:
        """Return shape and data type, as text and without its byte order, for traces of accesses.

        Two arrays of which these are the same have the same elements at the same places.
        """
        metadata = self.metadata
        dtype = metadata.dtype.to_numpy().newbyteorder("=")
        return {"shape": list(metadata.shape), "dtype": str(dtype)}

    def geometry(self) -> Geometry:
        """Return the arithmetic of the array.

        Raises
        ------
        FormatError
            When one unit would not fit the memory limit.
        """
        layout = self.metadata.layout()
        geometry = geometry_of(layout)
        limit_nbytes = settings.current().memory_limit
        # A chunk is decoded whole, also where it reaches far beyond the array.
        unit_nbytes = max(geometry.unit_nbytes, layout.chunk_nbytes)
        if geometry.nbytes and unit_nbytes > limit_nbytes:
            raise FormatError(
                f"cannot map array {self.metadata.path!r} of {self.store_url}: one unit of its "
                f"chunks takes {unit_nbytes} bytes, the memory limit is {limit_nbytes} "
                "bytes; raise it with lazyarr.configure(memory_limit=...), or store smaller "
                "chunks with 'lazyarr convert'",
                path=self.metadata.path,
            )
        return geometry


class Reopening(Value):
    """How an array that is open is opened once more.

    Attributes
    ----------
    view : callable
        What a process calls that unpickles a view.
    copying : callable
        Opens an array by the engine that copies.
    """

    view: Callable[..., Any]
    copying: Callable[[ArrayRef], CopyingViews]


_reopening: Reopening | None = None


def enter_reopening(ways: Reopening) -> None:
    """Say how arrays are opened once more; called by what opens them, before it opens any."""
    global _reopening
    _reopening = ways


def reopening() -> Reopening:
    """Return how arrays are opened once more."""
    assert _reopening is not None, "there is an array that nobody has opened"
    return _reopening
