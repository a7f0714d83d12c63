"""Arrays as data sets of torch, and a sampler that reads them chunk by chunk.

>>> import lazyarr.torch, numpy, tempfile, torch
>>> directory = tempfile.TemporaryDirectory()
>>> url = f"{directory.name}/train.zarr"
>>> lazyarr.save(url, {"x": numpy.zeros((100, 8), "f4"), "y": numpy.arange(100)})
>>> data = lazyarr.torch.Dataset(lazyarr.open(url))
>>> order = lazyarr.torch.ChunkShuffle(lazyarr.open(url), seed=0)
>>> loader = torch.utils.data.DataLoader(data, batch_size=25, sampler=order)
>>> batch = next(iter(loader))
>>> batch["x"].shape, batch["y"].shape
(torch.Size([25, 8]), torch.Size([25]))
>>> directory.cleanup()
"""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch.distributed
import torch.utils.data
from torch.utils.data._utils.collate import default_collate_fn_map

from lazyarr import sampling
from lazyarr.client.arrays.indexing import request
from lazyarr.client.arrays.lazyarray import LazyArray
from lazyarr.client.warning import warn_user
from lazyarr.errors import ChunkError, PerformanceWarning
from lazyarr.sampling.arrays import arrays_of, n_samples_of

__all__ = ["ChunkShuffle", "Dataset"]


class Dataset(torch.utils.data.Dataset[Any]):
    """The samples of arrays: one element of the leading axis of each.

    Parameters
    ----------
    arrays : array, tuple or mapping of arrays, or lazyarr.Dataset
        One array gives samples that are arrays; a tuple, tuples; a mapping, or the arrays of a
        group, dicts.  All have the same length.  Arrays of other libraries may be among them.
    transform : callable, optional
        What a sample goes through, as an array, tuple or dict, before it is given out.
    copy : bool
        Whether samples are copies, which can be written to.  Without, they are read-only views
        of memory that all processes share, of which torch warns when it makes tensors of them.

    Raises
    ------
    TypeError, ValueError
        When `arrays` are none, or have different lengths.

    Notes
    -----
    A `torch.utils.data.DataLoader` asks for a whole batch (``__getitems__``), and that is one
    request for each array: all chunks that it needs are loaded side by side.

    It pickles as references to the stored arrays, so workers may be forked or spawned.

    Examples
    --------
    >>> import numpy
    >>> data = Dataset((numpy.arange(12).reshape(4, 3), numpy.arange(4)))
    >>> len(data), data[2]
    (4, (array([6, 7, 8]), np.int64(2)))
    """

    def __init__(
        self, arrays: Any, *, transform: Callable[[Any], Any] | None = None, copy: bool = True
    ) -> None:
        self._arrays = arrays_of(arrays)
        self._n_samples = n_samples_of(self._arrays)
        kinds = (kind for kind in (tuple, Mapping) if isinstance(arrays, kind))
        self._kind: type | None = next(kinds, None)
        self.transform = transform
        self.copy = copy

    def __repr__(self) -> str:
        names = ", ".join(str(name) for name in self._arrays if name is not None)
        return f"lazyarr.torch.Dataset({self._n_samples} samples{': ' * bool(names)}{names})"

    def __len__(self) -> int:
        """Return how many samples there are."""
        return self._n_samples

    def __getitem__(self, index: int) -> Any:
        """Return a sample.

        Raises
        ------
        IndexError
            When there is no such sample.
        ChunkError
            When its chunk cannot be had.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return the samples of a batch, in order."""
        rows = np.asarray(indices, np.int64)
        _gathered.batches = []
        columns = [self._rows(array, rows) for array in self._arrays.values()]
        if self._kind is None:
            samples: list[Any] = list(columns[0])
        elif self._kind is tuple:
            samples = list(zip(*columns, strict=True))
        else:
            names = tuple(self._arrays)
            samples = [
                dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)
            ]
        return samples if self.transform is None else [self.transform(item) for item in samples]

    def _rows(self, array: Any, rows: Any) -> Any:
        if self.copy or not isinstance(array, np.ndarray):
            together = _gather(array, rows) if self.transform is None else None
            return array[rows] if together is None else together  # one request; a new array
        prefetch = getattr(array, "prefetch", None)
        if prefetch is not None:
            prefetch(rows)
        return [array[row] for row in rows]


# The rows of the latest batch of this thread, each with the tensor in which they lie.
_gathered = threading.local()


def _gather(array: Any, rows: Any) -> Sequence[Any] | None:
    """Return rows of a lazy array in the tensor that a worker gives out; None where that is not.

    torch's collation copies samples into shared memory.  Here they are there already, so that a
    batch is copied once, and `_collate` gives it out as it is.
    """
    fast = array._fast_rows() if isinstance(array, LazyArray) else None  # noqa: SLF001
    if fast is None or array.ndim < 2 or array.dtype not in _PLAIN:
        return None
    if torch.utils.data.get_worker_info() is None or not rows.size:
        return None
    if rows.min() < 0 or rows.max() >= len(array):
        return None
    try:
        if not request(fast.region, fast.units_of(rows)):
            return None
    except ChunkError:
        return None
    out = torch.empty(0, dtype=_PLAIN[array.dtype])
    n_elements = len(rows) * math.prod(array.shape[1:])
    storage = out._typed_storage()._new_shared(n_elements)  # type: ignore[no-untyped-call]  # noqa: SLF001
    tensor = out.new(storage).resize_(len(rows), *array.shape[1:])
    # With mode="raise" NumPy copies by way of a buffer.
    np.take(fast.plain, rows, axis=0, out=tensor.numpy(), mode="clip")
    samples = tuple(tensor.numpy())
    _gathered.batches.append((samples, tensor))
    return samples


def _collate(batch: Any, *, collate_fn_map: Any = None) -> Any:
    """Return a batch of arrays as torch does; one that is a tensor already, as it is."""
    for samples, tensor in getattr(_gathered, "batches", ()):
        # Who has put other samples into the batch, or these into another order, gets a new one.
        if len(batch) == len(samples) and all(map(operator.is_, batch, samples)):
            return tensor
    return _collate_arrays(batch, collate_fn_map=collate_fn_map)


_PLAIN = {
    np.dtype(name): getattr(torch, name)
    for name in ("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
}
_collate_arrays = default_collate_fn_map[np.ndarray]
default_collate_fn_map[np.ndarray] = _collate


class ChunkShuffle(sampling.ChunkShuffle, torch.utils.data.Sampler[int]):
    """`lazyarr.sampling.ChunkShuffle` as a sampler of torch's, which finds its rank by itself.

    `rank` and `world_size` are those of `torch.distributed`'s default group, if there is one.
    """

    def __init__(
        self, arrays: Any, *, rank: int | None = None, world_size: int | None = None, **options: Any
    ) -> None:
        is_group = torch.distributed.is_available() and torch.distributed.is_initialized()
        if world_size is None:
            world_size = torch.distributed.get_world_size() if is_group else 1
        if rank is None:
            rank = torch.distributed.get_rank() if is_group else 0
        super().__init__(arrays, rank=rank, world_size=world_size, **options)
        n_more = self._samples.blocks.n_samples % self.world_size
        if n_more and not self.drop_last:
            warn_user(
                f"{n_more} of {self.world_size} ranks have a sample more than the others: a rank "
                "with one more batch waits for the others, maybe for ever; give drop_last=True, "
                "or use torch.distributed.algorithms.Join",
                PerformanceWarning,
            )
