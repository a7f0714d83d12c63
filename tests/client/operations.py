"""What users do with arrays of numbers of three axes, as functions of the array.

The shape is ``(n, 8, 256)`` for any n.
"""

from __future__ import annotations

import copy
import io
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EVERYWHERE", "INDEXES", "METHODS_ELSEWHERE", "differs"]

_EXPRESSIONS = """
a.sum() | a.sum(0) | a.sum(axis=(0, 2)) | a.sum(-1) | a.sum(1, keepdims=True) | a.sum(dtype='i2')
a.sum(initial=4) | a.sum(where=a > 3) | a.sum(axis=0, out=np.empty(a.shape[1:], 'f8')) | a.max()
a.min(axis=0) | a.max(axis=()) | a.max(where=a > 3, initial=5) | np.minimum.reduce(a, axis=2)
a.prod(axis=0) | a.mean() | a.mean(axis=0) | a.mean(axis=(1, 2)) | a.mean(where=a > 3, axis=0)
a.std() | a.var(axis=0) | a.std(axis=2, ddof=1) | a.var(dtype='f8') | np.sum(a, axis=1) | np.max(a)
np.mean(a, 0) | np.std(a, axis=(0, 1)) | np.ptp(a) | a.any() | a.all(axis=0) | np.any(a, axis=1)
np.count_nonzero(a) | np.count_nonzero(a, axis=0) | np.logical_or.reduce(a, axis=None)
a.argmax() | a.argmin() | a.argmax(axis=0) | a.argmin(axis=2) | a.argmax(1, keepdims=True)
np.argmax(a) | a.T.argmax() | a.cumsum() | a.cumsum(0) | a.cumsum(axis=1) | a.cumprod(2)
np.add.accumulate(a) | np.maximum.accumulate(a, axis=1) | np.add.reduceat(a, [0]) | a.nonzero()[1]
a.T.nonzero()[0] | np.flatnonzero(a) | np.argwhere(a) | a.copy() | a.copy('F') | a.T.copy()
copy.copy(a) | copy.deepcopy(a) | np.copy(a) | a.flatten() | a.flatten('F') | a.ravel('F')
a.T.reshape(-1) | a.astype('f8') | a.astype(bool) | a.astype('c16', order='F') | a.tobytes()
a.tobytes('F') | a.T.tobytes() | a.tolist() | a.clip(2, 9) | np.clip(a, 2, None) | a.round(1)
a.byteswap() | -a | abs(a) | a == a | a < a.T.T | a * a[::-1] | a.T + 1 | np.sin(a) | np.isnan(a)
divmod(a, 7)[1] | np.modf(a)[0] | a + np.arange(256) | a + np.ones((2, *a.shape), 'i1')
np.add(a, 1, dtype='f8') | np.add(a, a, where=a > 2, out=np.zeros(a.shape)) | a + a.T.T
a.dot(np.ones((256, 2))) | a @ np.ones((256, 3)) | a @ np.ones(256) | np.dot(a, np.ones(256))
a.reshape(len(a), -1) @ np.ones(2048) | a.reshape(len(a), -1).T @ np.ones(len(a))
np.ones((5, len(a))) @ a.reshape(len(a), -1) | np.dot(np.ones(len(a)), a.reshape(len(a), -1))
a.ravel() @ np.ones(a.size) | np.where(a > 9, a, 0) | np.concatenate([a, a]) | np.stack([a, a], 1)
np.vstack([a, np.ones((1, 8, 256))]) | np.hstack([a, a]) | np.append(a, a) | np.diff(a, axis=1)
np.average(a, axis=0) | np.array_equal(a, a) | np.allclose(a, a) | np.isclose(a, a)
np.sort(a, axis=0) | a.argsort(axis=0) | a.argpartition(3) | np.median(a) | np.percentile(a, 30)
np.unique(a) | np.einsum('ijk->i', a) | np.histogram(a, bins=9, range=(0, 99))[0] | -5 in a
np.linalg.norm(a) | np.fft.fft(a, axis=0) | np.tile(a, 2) | a.repeat(2, axis=0)
np.nansum(a) | np.nanmax(a) | np.isin(a, [3]) | a.real + 0 | a[::-1].sum(0) | a[:, ::2].copy()
a[::2, :, ::-1].mean(axis=1) | np.rot90(a).copy() | a[None].sum(axis=1) | a.squeeze().max()
np.broadcast_to(a, (2, *a.shape)).sum() | np.swapaxes(a, 0, 2).argmax(axis=0) | a.conj() + 0
saved(a) | saved(a, to_file=True) | written(a) | np.bincount(a.ravel().astype('u1')) | a.choose([a])
"""  # each of them reads every element

_PICKS = """
a[a > 9] | a[(a > 9).any(axis=2)] | a[np.arange(len(a))[::-1]] | a[:, [3, 4]] | a[..., [1, 2]]
a[np.arange(len(a)) >= 0] | a[np.arange(len(a)), 3] | a[np.arange(len(a))[:, None], [[1, 2]]]
a.take(np.arange(len(a)), axis=0) | np.take(a, [1, 2], axis=2) | a.take([1, 3], axis=1)
a.take([99, -99], axis=1, mode='wrap') | a.compress(np.ones(len(a), bool), axis=0)
a.take(np.arange(a.size)) | a[np.arange(len(a)), :, 5] | [row.sum() for row in a]
"""

# Methods of ndarray of which none of the above is one, and why.
METHODS_ELSEWHERE = {
    "diagonal": "a view", "getfield": "a view", "reshape": "a view", "squeeze": "a view",
    "swapaxes": "a view", "transpose": "a view", "view": "a view", "ravel": "a view",
    "to_device": "a view", "setflags": "reads nothing", "resize": "refuses",
    "dump": "as dumps", "dumps": "as copy", "searchsorted": "reads a few elements",
    "item": "reads one element", "trace": "reads the diagonal", "tofile": "as written",
    "conjugate": "as conj",
    "fill": "changes the array", "partition": "changes the array", "put": "changes the array",
    "setfield": "changes the array", "sort": "changes the array", "compress": "a pick",
    "take": "a pick",
}  # fmt: skip


def saved(a: Any, *, to_file: bool = False) -> bytes:
    """Return what `numpy.save` writes."""
    if not to_file:
        stream = io.BytesIO()
        np.save(stream, a)
        return stream.getvalue()
    with tempfile.TemporaryFile() as file:
        np.save(file, a)
        file.seek(0)
        return file.read()


def written(a: Any) -> bytes:
    """Return what ``tofile`` writes."""
    with tempfile.TemporaryFile() as file:
        a.tofile(file)
        file.seek(0)
        return file.read()


def _compiled(text: str) -> dict[str, Callable[[Any], Any]]:
    names = {"np": np, "copy": copy, "saved": saved, "written": written}
    expressions = [part.strip() for line in text.splitlines() for part in line.split(" | ")]
    return {e: eval(f"lambda a: {e}", names) for e in expressions if e}


EVERYWHERE = _compiled(_EXPRESSIONS)
EVERYWHERE.update(
    {
        f"np.{name}(a)": ufunc
        for name, ufunc in sorted(vars(np).items())
        if isinstance(ufunc, np.ufunc) and ufunc.nin == 1
    }
)
"""Operations that read every element, by what they are in Python."""

INDEXES = _compiled(_PICKS)
"""Picks that need every unit, by what they are in Python."""


def differs(ours: Any, theirs: Any) -> str:
    """Return what differs between two results, nothing when they are alike.

    Results in floating point may be rounded differently, as sums are added up in another order.
    """
    if type(ours) is not type(theirs) and not isinstance(theirs, np.ndarray):
        return f"{type(ours)} for {type(theirs)}"
    if isinstance(theirs, tuple):
        return next(filter(None, map(differs, ours, theirs)), "")
    if not isinstance(theirs, np.ndarray | np.generic):
        return "" if ours == theirs or repr(ours) == repr(theirs) else "another value"
    one, other = np.asarray(ours), np.asarray(theirs)
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return f"{one.dtype} {one.shape} for {other.dtype} {other.shape}"
    if other.dtype.kind not in "fc":
        return "" if np.array_equal(one, other) else "other values"
    tolerance = float(np.finfo(other.dtype).eps) * 2000
    one, other = one.astype("c16"), other.astype("c16")
    scale = np.abs(other[np.isfinite(other)]).max(initial=1)
    is_close = np.allclose(one, other, tolerance, tolerance * scale, equal_nan=True)
    return "" if is_close else "other values"
