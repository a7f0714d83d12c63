"""Which of NumPy's functions and methods read elements, and which do not."""

from __future__ import annotations

import numpy as np

__all__ = ["FREE_FUNCTIONS", "READING_METHODS"]

# NumPy functions that look at an array's shape or make a view of it, and read no
# element: they keep the array lazy.
FREE_FUNCTIONS = frozenset(
    {
        np.shape, np.ndim, np.size, np.transpose, np.swapaxes, np.moveaxis, np.rollaxis,
        np.expand_dims, np.squeeze, np.broadcast_to, np.broadcast_arrays, np.atleast_1d,
        np.atleast_2d, np.atleast_3d, np.split, np.array_split, np.hsplit, np.vsplit, np.dsplit,
        np.flip, np.fliplr, np.flipud, np.rot90, np.diagonal, np.shares_memory,
        np.may_share_memory, np.result_type, np.can_cast, np.min_scalar_type, np.iscomplexobj,
        np.isrealobj, np.empty_like, np.zeros_like, np.ones_like, np.matrix_transpose,
    }
)  # fmt: skip

# Methods of ndarray that read elements, or write to memory of their own.
READING_METHODS = (
    "all", "any", "argmax", "argmin", "argpartition", "argsort", "astype", "byteswap", "choose",
    "clip", "compress", "conj", "conjugate", "copy", "cumprod", "cumsum", "dot", "dump", "dumps",
    "flatten", "item", "max", "mean", "min", "nonzero", "partition", "prod", "put", "repeat",
    "round", "searchsorted", "sort", "std", "sum", "tobytes", "tofile", "tolist", "trace", "var",
    "__bool__", "__complex__", "__contains__", "__copy__", "__float__", "__index__",
    "__int__",
)  # fmt: skip
