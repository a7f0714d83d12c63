"""How lazy arrays are made, of a stored array or of a place in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lazyarr.client.lazyarray import LazyArray

if TYPE_CHECKING:
    from lazyarr.client.hierarchy import Hierarchy
    from lazyarr.client.node import ArrayNode
    from lazyarr.client.origin import Origin, Place
    from lazyarr.client.region import Memory

__all__ = ["attach_array", "make_array", "restride"]


def make_array(node: ArrayNode, hierarchy: Hierarchy) -> LazyArray:
    """Return the array of a node: mapped and registered, with nothing read."""
    geometry = node.geometry()
    layout = node.metadata.layout()
    dtype = node.metadata.dtype.to_numpy()
    memory = node.map(geometry, hierarchy.store) if geometry.nbytes else None
    flat = np.empty(0, dtype) if memory is None else np.asarray(memory).view(dtype)
    if memory is None and node.mode == "r":
        flat.flags.writeable = False
    inverse = sorted(range(len(layout.axes)), key=layout.axes.__getitem__)
    return _tie(flat.reshape(layout.shape).transpose(inverse), node, memory)


def attach_array(place: Place, origin: Origin) -> LazyArray | None:
    """Return an array, flat, on the pages that another process has; None when it can not be."""
    # Imported here: few arrays come out of a pickle.
    from lazyarr.client.origin import attach

    found = attach(place, origin)
    return None if found is None else _tie(np.asarray(found[1]), *found)


def _tie(plain: np.ndarray[Any, Any], node: ArrayNode | None, memory: Memory | None) -> LazyArray:
    """Return a plain array as a lazy one."""
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
    """Return a view of a whole array by its place in the memory."""
    memory = array._memory
    flat = np.empty(0, np.uint8) if memory is None else np.asarray(memory)
    return _tie(np.ndarray(shape, dtype, flat, start, strides), array._node, memory)
