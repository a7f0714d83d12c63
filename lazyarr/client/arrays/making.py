"""Makes lazy arrays, of a stored array or of a view into one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lazyarr.client.arrays.lazyarray import LazyArray
from lazyarr.client.session.process import session
from lazyarr.layout.document import layout_text
from lazyarr.store import store_reference

if TYPE_CHECKING:
    from lazyarr.client.array_ref import ArrayRef, StoreHolder
    from lazyarr.client.pickling.shared_reference import OpeningArguments, SharedReference
    from lazyarr.client.session.region import Memory
    from lazyarr.layout.geometry import Geometry
    from lazyarr.store import Store

__all__ = ["attach_array", "make_array", "restride"]

# Stores whose chunks are a system call away.  The thread that decodes a chunk reads it too; from
# other stores the pager's fetcher reads.
_LOCAL_KINDS = ("local", "packed")


def make_array(node: ArrayRef, holder: StoreHolder) -> LazyArray:
    """Return the array of a node: mapped and registered, with nothing read."""
    geometry = node.geometry()
    layout = node.metadata.layout()
    dtype = node.metadata.dtype.to_numpy()
    memory = _map(node, geometry, holder.store) if geometry.nbytes else None
    flat = _bytes_of(node, memory).view(dtype)
    inverse = sorted(range(len(layout.axes)), key=layout.axes.__getitem__)
    return _tie(flat.reshape(layout.shape).transpose(inverse), node, memory)


def _map(node: ArrayRef, geometry: Geometry, store: Store) -> Memory:
    """Map and register memory that fills with an array's bytes when it is touched."""
    layout, path = node.metadata.layout(), node.metadata.path
    reference = store_reference(store, prefix=path if layout.place is None else layout.place)
    array = {
        "url": node.store_url,
        "path": path,
        "layout": layout_text(layout),
        "store": reference.description,
        "is_remote": reference.description["kind"] not in _LOCAL_KINDS,
    }
    memory = session().open_region(
        geometry, wants_private=node.wants_private, array=array, descriptors=reference.descriptors
    )
    memory.region.node = memory.region.node or node
    return memory


def _bytes_of(node: ArrayRef | None, memory: Memory | None) -> np.ndarray[Any, Any]:
    """Return all of an array's memory as bytes, writable in mode "c" alone."""
    # Not by the kind of memory: mode "r" may have private memory too.
    flat: np.ndarray[Any, Any] = np.empty(0, np.uint8) if memory is None else np.asarray(memory)
    if node is None or node.mode == "r":
        flat.flags.writeable = False
    return flat


def attach_array(place: OpeningArguments, origin: SharedReference) -> LazyArray | None:
    """Return a flat array on pages that another process has; None when they cannot be shared."""
    # Imported here: few arrays come out of a pickle.
    from lazyarr.client.pickling.shared_reference import attach

    found = attach(place, origin)
    return None if found is None else _tie(np.asarray(found[1]), *found)


def _tie(plain: np.ndarray[Any, Any], node: ArrayRef | None, memory: Memory | None) -> LazyArray:
    """Return a plain array as a lazy one, with its stored array and its memory."""
    array = plain.view(LazyArray)
    array._node = node
    array._memory = memory
    return array


def restride(
    array: LazyArray,
    start: int,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
) -> LazyArray:
    """Return a view of a whole array, given where its elements lie in the memory."""
    node, memory = array._node, array._memory
    flat = _bytes_of(node, memory)
    return _tie(np.ndarray(shape, dtype, flat, start, strides), node, memory)
