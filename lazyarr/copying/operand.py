"""A large `CopyArray` as an operand that is read in parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lazyarr.client.arrays import indexing
from lazyarr.client.arrays.passes import Operand
from lazyarr.copying.phantom import is_phantom

if TYPE_CHECKING:
    import numpy as np

    from lazyarr.copying.phantom import Phantom
    from lazyarr.copying.stored import StoredArray
    from lazyarr.layout.geometry import Geometry
    from lazyarr.plan.passes import Box

__all__ = ["CopyingOperand"]


class CopyingOperand(Operand):
    """A view of a stored array; each part that is read is a copy.

    Parameters
    ----------
    stored : StoredArray
        The stored array.
    view : Phantom
        The view's shape and strides, and where it begins in the stored array.
    dtype : dtype
        The data type of the view's elements.
    """

    def __init__(self, stored: StoredArray, view: Phantom, dtype: np.dtype[Any]) -> None:
        super().__init__(view, dtype)
        self._stored = stored

    @property
    def geometry(self) -> Geometry:
        """Where the units of the stored array lie."""
        return self._stored.geometry

    def begin_request(self, _: Box) -> None:
        """Request nothing ahead: all decoding threads are busy with the part that is read."""

    def read(self, box: Box) -> np.ndarray[Any, Any]:
        """Return a copy of one of the boxes that `passes` yields."""
        return self.gather(box)

    def gather(self, box: Box) -> np.ndarray[Any, Any]:
        """Return a copy of any box."""
        part = indexing.basic_view(self.view, box)
        return self._stored.read_view(part, self.dtype, is_kept=False)

    def flat(self) -> Operand | None:
        """Return the operand in one dimension; None where that would need a copy."""
        view = self.view.reshape(-1)
        return CopyingOperand(self._stored, view, self.dtype) if is_phantom(view) else None

    def whole(self) -> np.ndarray[Any, Any]:
        """Return the whole operand as a plain array, which the caller must not write to."""
        plain = self._stored.read_view(self.view, self.dtype)
        plain.flags.writeable = False
        return plain
