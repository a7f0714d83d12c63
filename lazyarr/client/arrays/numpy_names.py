"""Which of NumPy's functions and methods read elements, and which do not."""

from __future__ import annotations

import numpy as np

__all__ = [
    "CHANGING_FUNCTIONS",
    "CHANGING_METHODS",
    "FREE_FUNCTIONS",
    "IMITATING_FUNCTIONS",
    "PRINTING_FUNCTIONS",
    "READING_METHODS",
    "SCALAR_METHODS",
]

# NumPy functions that look at an array's shape or make a view of it, and read no
# element: they keep the array lazy.
FREE_FUNCTIONS = frozenset(
    {
        np.shape, np.ndim, np.size, np.transpose, np.swapaxes, np.moveaxis, np.rollaxis,
        np.expand_dims, np.squeeze, np.broadcast_to, np.broadcast_arrays, np.atleast_1d,
        np.atleast_2d, np.atleast_3d, np.split, np.array_split, np.hsplit, np.vsplit, np.dsplit,
        np.flip, np.fliplr, np.flipud, np.rot90, np.diagonal, np.shares_memory,
        np.may_share_memory, np.result_type, np.can_cast, np.min_scalar_type, np.iscomplexobj,
        np.isrealobj, np.matrix_transpose, np.linalg.matrix_transpose, np.linalg.diagonal, np.real,
        np.imag, np.ravel, np.reshape, np.common_type,
    }
)  # fmt: skip

# Those that make an array of the shape and type of their first argument, of which they read
# no element.
IMITATING_FUNCTIONS = frozenset({np.empty_like, np.zeros_like, np.ones_like, np.full_like})

# Methods of ndarray that read elements.
READING_METHODS = (
    "all", "any", "argmax", "argmin", "argpartition", "argsort", "astype", "byteswap", "choose",
    "clip", "compress", "conj", "conjugate", "copy", "cumprod", "cumsum", "dot", "dump", "dumps",
    "flatten", "max", "mean", "min", "nonzero", "prod", "repeat",
    "round", "searchsorted", "std", "sum", "tobytes", "tofile", "tolist", "trace", "var",
    "__contains__", "__copy__",
)  # fmt: skip

# Methods that read the one element of an array, and refuse an array of more.
SCALAR_METHODS = ("__bool__", "__complex__", "__float__", "__index__", "__int__")

# Methods, and functions of their first argument, that change the array itself.
CHANGING_METHODS = ("fill", "partition", "put", "setfield", "sort")
CHANGING_FUNCTIONS = frozenset(
    {np.copyto, np.fill_diagonal, np.place, np.put, np.put_along_axis, np.putmask}
)

# Functions that read the corners of an array alone, where it is large.
PRINTING_FUNCTIONS = frozenset({np.array2string, np.array_repr, np.array_str})
