"""Which parts of an array are looked at, and what is made of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazyarr.errors import FormatError
from lazyarr.writer.boxes import box_shape
from lazyarr.writer.choosing import choose_compressor, plan_samples
from lazyarr.writer.source import as_source


@given(st.data(), st.integers(1, 4), st.integers(1, 2**21))
def test_samples_are_parts_of_different_chunks(data, ndim, itemsize):
    """Up to eight, all in the array, each in one chunk and of about a MiB at most."""
    shape = tuple(data.draw(st.integers(0, 50)) for _ in range(ndim))
    chunks = tuple(data.draw(st.integers(1, 60)) for _ in range(ndim))
    boxes = list(plan_samples(shape, chunks, itemsize))
    n_chunks = math.prod(-(-n // c) for n, c in zip(shape, chunks, strict=True))
    assert len(boxes) == min(n_chunks, 8)
    places = set()
    for box in boxes:
        assert math.prod(box_shape(box)) * itemsize <= max(2**20, itemsize)
        assert all(0 <= s.start < s.stop <= n for s, n in zip(box, shape, strict=True))
        places.add(tuple(s.start // c for s, c in zip(box, chunks, strict=True)))
        assert all(s.stop <= (s.start // c + 1) * c for s, c in zip(box, chunks, strict=True))
    assert len(places) == len(boxes)


def test_first_and_last_chunk_are_looked_at():
    """Data that changes along the way shows."""
    boxes = list(plan_samples((1000, 7), (10, 7), 4))
    assert (boxes[0][0].start, boxes[-1][0].stop) == (0, 1000)


def choose(array, level=None):
    return choose_compressor(as_source(array), array.shape, array.dtype, level=level)


def test_single_bytes_have_to_become_smaller():
    """Blosc has to gain a tenth on elements of one byte, and may lose a fifth on others."""
    rng = np.random.default_rng(0)
    smooth = np.sin(np.arange(2**18) / 90) * 60 + 128 + rng.normal(0, 3, 2**18)
    assert choose(smooth.astype("u1")) == "blosc"
    words = rng.integers(32, 64, (500, 9), "u1")[rng.integers(0, 500, 2**15)].reshape(-1)
    assert choose(words) == "zstd"
    assert choose(np.cumsum(rng.integers(0, 5, 2**16))) == "blosc"


def test_level_is_that_of_both():
    """A level that one of them has not is an error, whichever would be picked."""
    zeros = np.zeros(10)
    assert choose(zeros, 9) == "zstd"
    with pytest.raises(FormatError, match="'blosc' is 12"):
        choose(zeros, 12)
    with pytest.raises(FormatError, match="'blosc' is 12"):
        choose_compressor(None, (1,), zeros.dtype, level=12)
