"""Makes lazy arrays, of a stored array or of a view into one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from lazyarr.client.arrays.lazyarray import LazyArray
from lazyarr.client.session.process import session
from lazyarr.errors import StoreError
from lazyarr.layout.document import layout_text
from lazyarr.store import store_reference

if TYPE_CHECKING:
    from lazyarr.client.array_ref import ArrayRef, StoreHolder
    from lazyarr.client.pickling.shared_reference import OpeningArguments, SharedReference
    from lazyarr.client.session.region import Memory
    from lazyarr.client.session.session import Session
    from lazyarr.flush_report import FlushReport
    from lazyarr.layout.geometry import Geometry
    from lazyarr.store import Store
    from lazyarr.store.claim import Claim

__all__ = [
    "anchor_of",
    "attach_array",
    "flush",
    "leave_behind",
    "make_array",
    "restride",
    "retire",
]

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
        "is_remote": _is_remote(reference.description),
        "about": node.about(),
        "origin": node.origin,
    }
    live, writes_back = session(), node.mode == "r+"
    descriptors = list(reference.descriptors)
    if writes_back and node.writing.claim is not None:
        # The pager holds the claim too: it has something to write when this process has ended.
        descriptors.append(_claim_of(node, live))
    memory = live.open_region(
        geometry,
        wants_private=node.wants_private,
        array=array,
        descriptors=descriptors,
        writes_back=writes_back,
    )
    memory.region.node = memory.region.node or node
    return memory


def _claim_of(node: ArrayRef, live: Session) -> int:
    """Return a descriptor of the claim on the store of an array."""
    claim: Claim = node.writing.claim
    # A forked child has left the claim to its parent, and gets it of the pager.
    found = os.dup(claim.fileno()) if claim.is_held() else live.find_claim(claim.identity)
    if found is None:
        raise StoreError(
            f"cannot open array {node.metadata.path!r} of {node.store_url} in this process: it "
            "was forked from the one that writes to the store; open the array before that",
            url=node.store_url,
            key=None,
            transient=False,
        )
    return found


def _is_remote(description: dict[str, Any]) -> bool:
    is_remote = description.get("is_remote", description["kind"] not in _LOCAL_KINDS)
    return bool(is_remote)


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


def anchor_of(array: LazyArray) -> Memory | LazyArray:
    """Return what lives for as long as a view of an array does, and what its values are in."""
    return array if array._memory is None else array._memory


def flush(anchor: Memory | LazyArray) -> FlushReport | None:
    """Have what was written to an array be in the store, durably."""
    from lazyarr.client.session.flushing import flush_regions, whole

    return None if isinstance(anchor, LazyArray) else flush_regions([whole(anchor.region)])


def leave_behind(anchor: Memory | LazyArray) -> bool:
    """Write an array back without its pager, if that is gone, and let nobody write any more.

    Returns whether it is gone.
    """
    from lazyarr.client.session.flushing import rescue_regions

    if isinstance(anchor, LazyArray) or anchor.region.owner.has_pager():
        return False
    rescue_regions([anchor.region])
    anchor.region.owner.forbid_writes(anchor.region)
    return True


def retire(anchor: Memory | LazyArray) -> None:
    """Have what was written to an array be in the store, and let nobody write to it any more."""
    if isinstance(anchor, LazyArray):
        anchor.flags.writeable = False
    else:
        anchor.region.owner.retire_region(anchor.region)
