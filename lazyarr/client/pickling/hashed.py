"""What is in a pickle that is made to be hashed, by joblib: content in place of a reference.

``joblib.hash`` and ``joblib.Memory`` tell arguments apart by their pickles, and hash the elements
of each `numpy.ndarray`.  A reference stays the same when other elements are stored in the same
place, and then joblib would give results of what was there before.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Any

__all__ = ["is_hashed", "reduce_to_content"]

_PART_NBYTES = 2**26


def is_hashed() -> bool:
    """Return whether joblib's hasher asks the caller of this for its pickle."""
    # joblib has no hook.  Its hasher is a pickler in Python, so it is the object of whose method
    # the frame above is one.
    hasher = getattr(sys.modules.get("joblib.hashing"), "Hasher", None)
    frame = sys._getframe(2)  # noqa: SLF001 - of the code that pickles
    if hasher is None or frame.f_globals.get("__name__") != "pickle":
        return False
    return isinstance(frame.f_locals.get("self"), hasher)


def reduce_to_content(array: Any) -> tuple[Any, ...]:
    """Return an array as joblib takes plain ones: class, data type, shape, a hash of the elements.

    Raises
    ------
    ChunkError
        When a chunk cannot be had.
    """
    hashed = hashlib.sha256()
    if array.ndim:
        n_rows = max(1, _PART_NBYTES * len(array) // max(1, array.nbytes))
        for start in range(0, len(array), n_rows):
            hashed.update(array[start : start + n_rows].tobytes())
    else:
        hashed.update(array.tobytes())
    return type(array), ("hashed", array.dtype, array.shape, hashed.hexdigest())
