"""Both engines, for tests of what they have in common.

They are meant to behave alike, but for what follows from memory that fills on touch and
that a `CopyArray` does not have:

- ``isinstance(x, numpy.ndarray)``, and pointers into memory that nobody has read yet;
- ``numpy.asarray(x)`` is a read-only copy of all of it, so it must fit into memory, is no
  lazy array's to prefetch or evict, and does not show what is written later;
- in mode ``"c"``, ``x[i]`` is a view through which can be written, and no ndarray.

Tests of these are marked `memory_only`, or ask which engine it is.
"""

from __future__ import annotations

import pytest

import lazyarr

__all__ = ["ARRAYS", "engine", "memory_only"]

ARRAYS = {"userfaultfd": lazyarr.LazyArray, "copy": lazyarr.CopyArray}


@pytest.fixture(params=ARRAYS)
def engine(request):
    """Open arrays with each engine in turn; its name."""
    with lazyarr.configure(engine=request.param):
        yield request.param


memory_only = pytest.mark.parametrize("engine", ["userfaultfd"], indirect=True)
