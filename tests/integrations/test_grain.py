"""Grain reads in the order of a sampler, a batch at a time."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import lazyarr
from lazyarr.sampling import ChunkShuffle
from tests.engines import memory_only
from tests.stores import images, write_zarr

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it imports
    grain = pytest.importorskip("grain.python", reason="it is installed for one version of Python")

X = images((100, 32, 128), np.uint8)


@memory_only
@pytest.mark.usefixtures("engine")
def test_a_batch_is_one_request(tmp_path):
    """Every sample once, in the sampler's order."""
    x = lazyarr.open(write_zarr(tmp_path / "g.zarr", X, chunks=(4, 32, 128)))
    order = list(ChunkShuffle(x, seed=3, window=10))
    before = lazyarr.stats()["requests"]
    batches = grain.MapDataset.source(order).batch(20).map(lambda rows: (rows, x[rows]))
    seen = []
    for rows, samples in batches:
        np.testing.assert_array_equal(samples, X[rows])
        seen += rows.tolist()
    assert seen == order
    assert lazyarr.stats()["requests"] - before <= 5
